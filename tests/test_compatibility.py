"""What others write down stays: import paths, names, constructors, entry points and commands."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import reward_hub
from reward_hub import AggregationMethod, PRMResult, UnsupportedError
from reward_hub.cli import main

ROOT = Path(__file__).parents[1]

PROMISED = {
    "reward_hub": (
        *("AutoRM", "BaseRM", "EnsembleRM", "CachedRM", "CalibratedRM", "LLMJudge", "DrSow", "PRMResult"),
        *("AggregationMethod", "calibrate", "load_calibration", "__version__"),
        *("register_family", "register_backend", "register_benchmark", "register_judge"),
        *("RewardHubError", "InvalidConversationError", "InputTooLongError", "UnknownModelError", "UnsupportedError"),
        *("RemoteCodeRefusedError", "MissingDependencyError", "CheckpointError", "BackendError", "ServerError"),
        *("ServerTimeoutError", "BudgetExceededError", "JudgeParseError", "RegistryError", "CacheError"),
    ),
    "reward_hub.base": ("BaseRM", "AggregationMethod", "PRMResult"),
    "reward_hub.errors": ("RewardHubError", "InvalidConversationError", "CheckpointError"),
    "reward_hub.vllm.reward": ("VllmProcessRewardModel",),
    "reward_hub.llm_judge": (
        *("create_pointwise_judge", "create_groupwise_judge", "JudgeResult", "CriterionRegistry", "CRITERIA"),
    ),
    "reward_hub.llm_judge.prompts": ("Criterion", "CriterionRegistry"),
    "reward_hub.judge": ("LLMJudge", "Rubric", "JudgeForm", "parse_verdict"),
    "reward_hub.integrations.its_hub": ("RewardHubORM", "RewardHubPRM"),
    "reward_hub.testing": ("FakeBackend", "make_checkpoint", "make_tensors", "write_tensors"),
    "reward_hub.builtin": ("path",),
    "reward_hub.bench": ("evaluate", "calculate_scores_per_section", "EXAMPLE_COUNTS", "SUBSET_MAPPING"),
    "reward_hub.bench.rules": ("rewardbench", "rewardbench2", "rm_bench", "judgebench", "processbench", "prmbench"),
    "reward_hub.bench.rules.best_of_n": ("expected_grade", "expected_vote", "pass_at_n"),
    "reward_hub.bench.statistics": ("compare_runs",),
    "reward_hub.bench.bias": ("bias_of",),
    "reward_hub.calibration": ("calibrate_scores", "expected_calibration_error"),
    "reward_hub.preference_data": ("read_preferences",),
    "reward_hub.server.run": ("serve", "served_in_background"),
    "reward_hub.server.app": ("create_app",),
    # What the author of a family, a backend or a wrapper imports.
    "reward_hub.encoding": ("close_steps",),
    "reward_hub.family": ("Checkpoint", "Family"),
    "reward_hub.families.sequence_classifier": ("FAMILY",),
    "reward_hub.heads": ("Linear", "MLP"),
    "reward_hub.numerics": ("sigmoid", "softmax"),
    "reward_hub.reads": ("HeadOutputs", "TokenLogits", "TokenLogprobs"),
    "reward_hub.registry": ("register_family", "register_backend"),
    "reward_hub.tokenizer": ("Tokenizer",),
    "reward_hub.types": ("Conversation", "Message", "ScoreDetails", "TokenInput"),
}
COMMANDS = (
    *("score", "steps", "rank", "judge", "ensemble", "bench", "families", "inspect", "serve-args", "serve", "verify"),
    *("cache", "bench compare", "bench report"),
)


def holds(module: str, name: str) -> bool:
    """Whether `from module import name` works."""
    try:
        return hasattr(importlib.import_module(module), name) or bool(importlib.import_module(f"{module}.{name}"))
    except ImportError:
        return False


@pytest.mark.parametrize("module", PROMISED)
def test_promised_names_are_where_they_were_promised(module: str) -> None:
    pytest.importorskip("fastapi")  # for those of the server
    assert [name for name in PROMISED[module] if not holds(module, name)] == []


def test_every_public_name_of_the_package_is_promised() -> None:
    assert sorted(PROMISED["reward_hub"]) == sorted(reward_hub.__all__)


def documented_imports() -> set[tuple[str, str]]:
    """(module, name) of every import of this package that documentation and examples show."""
    pages = [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]
    codes = [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")]
    imports = {node for code in codes for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)}
    for page in pages:
        lines = re.findall(r"from reward_hub[\w.]* import [\w, ]+", page.read_text(encoding="utf-8"))
        imports |= {node for line in lines for node in ast.parse(line).body if isinstance(node, ast.ImportFrom)}
    return {
        (node.module, alias.name)
        for node in imports
        for alias in node.names
        if node.module and node.module.split(".")[0] == "reward_hub"
    }


def test_every_import_that_documentation_shows_works() -> None:
    imports = documented_imports()
    assert len(imports) > 20
    assert [f"from {module} import {name}" for module, name in sorted(imports) if not holds(module, name)] == []


def test_entry_points_lead_to_what_they_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"reward-hub": "reward_hub.cli:main"}
    assert project["entry-points"] == {
        "vllm.general_plugins": {"reward_hub": "reward_hub.backends.vllm_plugin:register"}
    }
    for target in (*project["scripts"].values(), *project["entry-points"]["vllm.general_plugins"].values()):
        assert callable(importlib.metadata.EntryPoint("any", target, "any").load())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_a_help_page(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code in (0, None)
    assert f"Usage: reward-hub {command} " in " ".join(capsys.readouterr().out.split())


STEPS = [0.5, 0.25, 0.75]


@pytest.mark.parametrize(
    ("method", "score"),
    [
        ("prod", 0.09375),
        ("min", 0.25),
        ("last", 0.75),
        (AggregationMethod.PRODUCT, 0.09375),
        (AggregationMethod.LAST, 0.75),
    ],
)
def test_a_prm_result_takes_an_aggregation_as_in_0_1(method: str | AggregationMethod, score: float) -> None:
    result = PRMResult(STEPS, method)
    assert (result.score, result.product, result.min, result.last) == (score, 0.09375, 0.25, 0.75)
    assert result == PRMResult(scores=STEPS, aggregation_method=method) == PRMResult(step_scores=STEPS, score=score)


def test_a_prm_result_without_an_aggregation_gives_the_last_step_as_in_0_1() -> None:
    assert PRMResult(STEPS) == PRMResult(STEPS, 0.75)
    assert PRMResult([0.5], "model") == PRMResult([0.5], 0.5)


def test_a_prm_result_takes_a_score_of_zero_and_numbers_of_numpy() -> None:
    assert PRMResult(STEPS, 0.0).score == 0.0
    result = PRMResult(np.array([0.5, 0.25], dtype=np.float32), np.float32(0.5))
    assert result == PRMResult([0.5, 0.25], 0.5)
    assert {type(score) for score in (*result.step_scores, result.score)} == {float}


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ((STEPS, "average"), UnsupportedError, "Unknown aggregation 'average'"),
        ((STEPS, "0.5"), UnsupportedError, "Unknown aggregation '0.5'"),
        ((STEPS, True), TypeError, "True is not a number"),
        ((STEPS, [0.5]), TypeError, r"\[0.5\] is not a number"),
        (([0.5, None], 0.5), TypeError, "None is not a number"),
        ((["0.5"], 0.5), TypeError, "'0.5' is not a number"),
        ((STEPS, float("nan")), ValueError, "nan is not finite"),
        (([float("inf")], 0.5), ValueError, "inf is not finite"),
        ((STEPS, "model"), ValueError, "cannot aggregate 3 step scores by 'model'"),
        (([],), ValueError, "cannot aggregate 0 step scores by 'last'"),
        ((), TypeError, "takes the step scores once"),
    ],
)
def test_a_prm_result_of_what_is_not_a_number_is_refused(arguments, error, complaint) -> None:
    with pytest.raises(error, match=complaint):
        PRMResult(*arguments)


def test_a_prm_result_takes_everything_once() -> None:
    with pytest.raises(TypeError, match="takes the step scores once"):
        PRMResult(STEPS, scores=STEPS)
    with pytest.raises(TypeError, match="not both"):
        PRMResult(STEPS, 0.5, aggregation_method="min")
