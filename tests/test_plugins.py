"""A family, a backend, a judge, a benchmark and a command: added by another package or in this process, and used."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Outcome
from cli.conftest import reward_hub as reward_hub
from judge_server import judge_server, says

from reward_hub import AutoRM, RegistryError, builtin, register_backend, register_benchmark, register_judge, registry
from reward_hub.bench import benchmark, evaluate
from reward_hub.judge import parse_verdict, published
from reward_hub.plugins import Entry, Registry, load_point, source_of

PACKAGE = Path(__file__).parent / "another_package" / "my_rewards"
ORM = "builtin/arithmetic-orm"
CONVERSATION = {"prompt": "What is 2+2?", "response": "2 + 2 = 4"}
ROWS = [
    {"id": "a", "question": "What is 2+2?", "right": "2 + 2 = 4", "wrong": "2 + 2 = 5"},
    {"id": "b", "question": "What is 3+5?", "right": "3 + 5 = 8", "wrong": "3 + 5 = 8"},
]
ENTRY_POINTS = """
[reward_hub.families]
my-family = my_rewards.family:FAMILY
[reward_hub.backends]
my-backend = my_rewards.backend:Backend
[reward_hub.judges]
my-judge = my_rewards.judge:my_judge
[reward_hub.benchmarks]
my-benchmark = my_rewards.benchmark:BENCHMARK
[reward_hub.commands]
greet = my_rewards.command:run
"""


def install(folder: Path, name: str, points: str) -> Path:
    """What pip leaves of a package that has entry points."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(points))
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site-packages")
    shutil.copytree(PACKAGE, folder / PACKAGE.name)
    return install(folder, "my-rewards", ENTRY_POINTS)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


@pytest.fixture(scope="module")
def score() -> float:
    """What the built-in model gives the conversation."""
    with AutoRM.load(ORM) as rm:
        return float(rm.score(**CONVERSATION))


def python(folder: Path, *arguments: str) -> str:
    """What a process prints that has the packages of the folder too."""
    path = os.pathsep.join([str(folder), *sys.path])
    ended = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


# Another package


def test_a_package_brings_a_family_and_a_backend(installed: Path, tmp_path: Path, score: float) -> None:
    import safetensors.numpy

    renamed = tmp_path / "renamed-head"
    shutil.copytree(builtin.path("arithmetic-orm"), renamed)
    tensors = safetensors.numpy.load_file(renamed / "model.safetensors")
    tensors["reward_vector.weight"] = tensors.pop("score.weight")
    safetensors.numpy.save_file(tensors, renamed / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((renamed / "config.json").read_text())
    (renamed / "config.json").write_text(json.dumps(config | {"architectures": ["MyRewardModel"]}))
    code = f"""
        from reward_hub import AutoRM
        found = AutoRM.load({str(renamed)!r})
        twice = AutoRM.load({ORM!r}, load_method="my-backend")
        named = AutoRM.load({str(renamed)!r}, family="my-family", load_method="my-backend")
        print(found.family, twice.family, named.family)
        print(*[rm.score(**{CONVERSATION!r}) for rm in (found, twice, named)])
    """
    families, scores = python(installed, "-c", textwrap.dedent(code)).splitlines()
    assert families == "my-family sequence-classifier my-family"
    # The same weights and arithmetic on the same machine; doubling is exact.
    assert list(map(float, scores.split())) == [score, 2 * score, 2 * score]


def test_a_package_brings_a_judge(installed: Path) -> None:
    code = """
        import sys
        from reward_hub import AutoRM
        from reward_hub.judge import LLMJudge, parse_verdict
        api_base = sys.argv[1]
        rm = AutoRM.load("me/my-judge-7b", load_method="api", api_base=api_base, options={"strict": True})
        print(rm.family, rm.score(prompt="What is 2+2?", response="4"))
        judge = LLMJudge("anything", form="my-judge", api_base=api_base)
        print(judge.score(prompt="What is 2+2?", response="4"), parse_verdict("my-judge", "MARK 1"))
    """
    with judge_server(says("Well done. MARK 2")) as server:
        printed = python(installed, "-c", textwrap.dedent(code), server.api_base)
        sent = [asked.text for asked in server.asked]
    assert printed == "my-judge 5.0\n5.0 6\n"
    asked = "Question: What is 2+2?\nResponse: 4\nGive a mark from 1 (best) to 6."
    assert sent == [f"Be strict. {asked}", asked]


def test_a_package_brings_a_benchmark(installed: Path, answers: Path) -> None:
    bench = ("bench", "--suite", "my-benchmark", "--data", str(answers.parent), "--model", ORM, "--json")
    results = json.loads(python(installed, "-m", "reward_hub", *bench))
    assert (results["suite"], results["rule"], results["n"]) == ("my-benchmark", "my-benchmark", 2)
    # The second pair is a tie.
    assert results["metrics"]["overall"]["accuracy"] == 0.5


def test_a_package_brings_a_command(installed: Path) -> None:
    assert python(installed, "-m", "reward_hub", "greet", "you", "--times", "2") == "hello you hello you\n"
    assert "Greet somebody." in python(installed, "-m", "reward_hub", "greet", "--help")
    last = python(installed, "-m", "reward_hub", "--help").partition("│ cache ")[2]
    assert "│ greet       Greet somebody." in last


def test_the_page_about_extending_shows_that_package() -> None:
    page = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    shown = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names = ("family", "backend", "judge", "benchmark", "command")
    assert shown == [(PACKAGE / f"{name}.py").read_text(encoding="utf-8") for name in names]
    points = tomllib.loads("\n".join(re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)))
    ours = configparser.ConfigParser()
    ours.read_string(ENTRY_POINTS)
    assert points["project"]["entry-points"] == {group: dict(ours[group]) for group in ours.sections()}


# In this process


def test_a_backend_registered_here_is_loaded_by_its_name(monkeypatch: pytest.MonkeyPatch, score: float) -> None:
    monkeypatch.setattr(registry.BACKENDS, "registered", {})
    monkeypatch.syspath_prepend(str(PACKAGE.parent))
    register_backend("twice", "my_rewards.backend:Backend")
    assert AutoRM.load(ORM, load_method="twice").score(**CONVERSATION) == 2 * score


@pytest.mark.parametrize("target", ["json:Nope", "json:dumps", "no_such_package:Backend"])
def test_a_broken_backend_is_an_error_where_it_is_asked_for_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    monkeypatch.setattr(registry.BACKENDS, "registered", {})
    register_backend("bad", target)
    assert AutoRM.inspect(ORM)["backends"] == ["transformers", "vllm", "api"]
    assert "The backend bad is left out" in caplog.text
    with pytest.raises(TypeError, match="Did you mean 'batch_size'"):
        AutoRM.load(ORM, batchsiz=3)
    with pytest.raises(RegistryError, match="The backend bad"):
        AutoRM.load(ORM, load_method="bad")


@pytest.mark.parametrize("target", ["json", "json:", ":Backend", "a b:C", 5])
def test_a_backend_is_registered_as_module_and_class(target: Any) -> None:
    with pytest.raises(RegistryError, match="write 'module:class'"):
        register_backend("bad", target)


def test_what_is_registered_has_a_name() -> None:
    with pytest.raises(RegistryError, match="needs a name"):
        register_backend("", "json:Nope")
    with pytest.raises(RegistryError, match="needs a name"):
        registry.register_family(replace(registry.family_named("armorm"), name=""))
    with pytest.raises(RegistryError, match="takes a Family, not int"):
        registry.register_family(5)  # type: ignore[arg-type]


def test_a_judge_registered_here_is_loaded_by_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published.JUDGES, "registered", {})
    monkeypatch.syspath_prepend(str(PACKAGE.parent))
    from my_rewards.judge import my_judge

    register_judge(my_judge)
    with (
        judge_server(says("MARK 3")) as server,
        AutoRM.load("me/my-judge-7b", load_method="api", api_base=server.api_base) as rm,
    ):
        assert rm.score(prompt="What is 2+2?", response="4") == 4.0
    assert parse_verdict("my-judge", "MARK 6") == 1


def test_a_benchmark_registered_here_is_run_by_its_name(
    monkeypatch: pytest.MonkeyPatch, answers: Path, reward_hub: Callable[..., Outcome]
) -> None:
    monkeypatch.setattr(benchmark.BENCHMARKS, "registered", {})
    monkeypatch.syspath_prepend(str(PACKAGE.parent))
    from my_rewards.benchmark import BENCHMARK

    register_benchmark(BENCHMARK)
    with AutoRM.load(ORM) as rm:
        assert evaluate(rm, str(answers), suite="my-benchmark").metrics["overall"]["accuracy"] == 0.5
    bench = ("bench", "--suite", "my-benchmark", "--data", str(answers), "--model", ORM, "--json")
    strict = json.loads(reward_hub(*bench, "--rule-option", "margin=1e9").out)
    assert strict["metrics"]["overall"]["accuracy"] == 0.0


# A name belongs to one thing


def plain_registry(**named: int) -> Registry[int]:
    """Numbers, of which some are built in; an entry point brings the number that it names."""
    return Registry(
        "number",
        lambda: (Entry(name, thing, f"{name}.py (built in)") for name, thing in named.items()),
        group="reward_hub.test_numbers",
        entry_of=lambda point: Entry(point.name, load_point(point), source_of(point)),
    )


def add_package(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, *lines: str) -> None:
    install(folder / name, name, "[reward_hub.test_numbers]\n" + "\n".join(lines))
    monkeypatch.syspath_prepend(str(folder / name))


def test_what_is_registered_may_be_registered_again_and_nothing_else_under_its_name() -> None:
    numbers = plain_registry(one=1)

    def register(name: str, thing: int) -> None:
        numbers.register(name, thing)

    register("two", 2)
    register("two", 2)
    with pytest.raises(RegistryError, match=r"name 'two' is taken by .*test_plugins.* \(registered\); .*test_plugins"):
        register("two", 22)
    with pytest.raises(RegistryError, match=r"name 'one' is taken by one\.py \(built in\); .*test_plugins"):
        register("one", 11)
    assert (numbers.find("one"), numbers.find("two"), numbers.names()) == (1, 2, ["one", "two"])


def test_entry_points_are_not_read_for_a_name_that_is_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_package(tmp_path, monkeypatch, "broken", "three = no_such_module:THREE")
    numbers = plain_registry(one=1)
    assert numbers.find("one") == 1
    with pytest.raises(RegistryError, match=r"three = no_such_module:THREE of the package broken cannot be loaded"):
        numbers.find("three")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("one = math:tau", r"'one' is taken by one\.py \(built in\); the entry point one = math:tau of the package a"),
        ("two = math:tau", r"'two' is taken by .*test_plugins.* \(registered\); the entry point two = math:tau"),
        ("pi = math:tau", r"'pi' is taken by the entry point pi = math:.* of the package [ab]; the entry point pi = "),
    ],
)
def test_a_package_that_takes_anothers_name_is_refused_and_both_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str
) -> None:
    add_package(tmp_path, monkeypatch, "a", line)
    add_package(tmp_path, monkeypatch, "b", "pi = math:pi")
    numbers = plain_registry(one=1)
    (lambda: numbers.register("two", 2))()
    with pytest.raises(RegistryError, match=words):
        numbers.find("pi")


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (registry.FAMILIES, "float; a Family is needed"),
        (benchmark.BENCHMARKS, "float; a Benchmark is needed"),
        (published.JUDGES, "float; a function that makes a JudgeForm is needed"),
    ],
    ids=["families", "benchmarks", "judges"],
)
def test_an_entry_point_that_brings_something_else_is_refused(known: Any, words: str) -> None:
    with pytest.raises(RegistryError, match=words):
        known.entry_of(EntryPoint("pi", "math:pi", "any"))


@pytest.mark.parametrize("name", ["hf", "openai", "api", "auto"])
def test_a_backend_cannot_be_named_as_a_load_method_that_there_is(name: str) -> None:
    with pytest.raises(RegistryError, match=f"{name!r} is taken by"):
        register_backend(name, "my_rewards.backend:Backend")


def test_two_built_in_things_of_one_name_are_refused() -> None:
    entries = [Entry("armorm", 1, "armorm.py (built in)"), Entry("armorm", 2, "copy.py (built in)")]
    numbers = Registry("family", lambda: entries, group=None, entry_of=lambda point: entries[0])
    with pytest.raises(RegistryError, match=r"'armorm' is taken by armorm\.py \(built in\); copy\.py"):
        numbers.find("armorm")


def test_a_family_of_a_taken_name_names_both_sources() -> None:
    stock = registry.family_named("sequence-classifier")
    with pytest.raises(RegistryError, match=r"by reward_hub\.families\.armorm \(built in\); .*test_plugins"):
        registry.register_family(replace(stock, name="armorm"))
