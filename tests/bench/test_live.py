"""The whole path with every kind of model, on real data; each figure is computed again from items.jsonl by other code.

A small part of each set runs by default, the whole sets as slow tests.
"""

from __future__ import annotations

import itertools
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from bench_examples import DATA, text
from golden_sets import GoldenModels, GoldenSet
from judge_server import Answer, Asked, JudgeServer, completion, judge_server

from reward_hub import AutoRM, EnsembleRM, LLMJudge
from reward_hub.bench import evaluate

LLMBAR, GSM8K, PRMBENCH = "llmbar/llmbar.jsonl", "gsm8k_solutions/solutions.jsonl", "prmbench/prmbench_sample.jsonl"
SLOW = [pytest.mark.slow, pytest.mark.timeout(3600)]
RunBench = Callable[..., Any]


@dataclass
class Live:
    """One run: what was printed, and what stands in its items.jsonl."""

    results: dict[str, Any]
    rows: list[dict[str, Any]]
    subsets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            self.subsets.setdefault(row["subset"], []).append(row)

    @property
    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = self.results["metrics"]
        return metrics


@pytest.fixture
def live(tmp_path: Path, reward_hub: RunBench) -> Callable[..., Live]:
    def run(*arguments: str, code: int = 0) -> Live:
        ended = reward_hub("bench", *arguments, "--out", str(tmp_path / "run"), "--json")
        assert ended.code == code, ended.err
        lines = (tmp_path / "run" / "items.jsonl").read_text().splitlines()
        return Live(json.loads(ended.out), [json.loads(line) for line in lines])

    return run


@pytest.fixture
def sample(tmp_path: Path) -> Callable[..., str]:
    """`sample(path, n)`: a file with n rows of a set, of those with little text, from every subset."""

    def write(path: str, n: int | None) -> str:
        if n is None:
            text(path)
            return str(DATA / path)
        rows = [json.loads(line) for line in text(path).splitlines()]
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(rows, key=lambda row: len(json.dumps(row))):
            groups.setdefault(row.get("subset", row.get("classification", "")), []).append(row)
        picked = [row for group in groups.values() for row in group[: n // len(groups)]]
        file = tmp_path / Path(path).name
        file.write_text("".join(json.dumps(row) + "\n" for row in picked))
        return str(file)

    return write


# -- preference pairs: LLMBar --------------------------------------------------------------------------------------

SETS = ("llmbar-natural", "llmbar-adver-neighbor", "llmbar-adver-GPTInst", "llmbar-adver-GPTOut", "llmbar-adver-manual")


def check_llmbar(run: Live, *, kind: str, n: int | None) -> None:
    """Accuracy per set, of the adversarial sets and overall; a tie is half right, a failure wrong."""
    assert run.results["kind"] == kind
    assert len(run.rows) == run.metrics["overall"]["n"] == (n or 419)
    shares = {name: [_right(row) for row in rows] for name, rows in run.subsets.items()}
    assert tuple(sorted(shares)) == tuple(sorted(SETS))
    means = {name: sum(right) / len(right) for name, right in shares.items()}
    for name, mean in means.items():
        assert run.metrics["subsets"][name]["accuracy"] == pytest.approx(float(mean))
        low, high = run.metrics["subsets"][name]["ci95"]
        assert low <= float(mean) <= high
    assert run.metrics["overall"]["accuracy"] == pytest.approx(float(sum(means.values()) / 5))
    adversarial = [means[name] for name in SETS[1:]]
    assert run.metrics["sections"]["adversarial"]["accuracy"] == pytest.approx(float(sum(adversarial) / 4))
    assert [Fraction(row["correct"]) for row in run.rows] == [_right(row) for row in run.rows]


def _right(row: dict[str, Any]) -> Fraction:
    if "error" in row:
        return Fraction(0)
    if "probabilities" in row["scores"]:
        return Fraction(sum(p is not None and p > 0.5 for p in row["scores"]["probabilities"]), 2)
    (chosen,), (rejected,) = row["scores"]["chosen"], row["scores"]["rejected"]
    return Fraction(1, 2) if chosen == rejected else Fraction(int(chosen > rejected))


def conversation(row: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [*row["prompt"], {"role": "assistant", "content": row["responses"][name][0]["text"]}]


PARTS = [pytest.param(10, id="part"), pytest.param(None, id="whole", marks=SLOW)]


@pytest.mark.parametrize("n", PARTS)
def test_an_outcome_model_on_llmbar(n: int | None, live: RunBench, sample: Callable[..., str]) -> None:
    data = sample(LLMBAR, n)
    run = live("--suite", "llmbar", "--data", data, "--model", "builtin/arithmetic-orm", "--truncation", "left")
    check_llmbar(run, kind="outcome", n=n)
    with AutoRM.load("builtin/arithmetic-orm", truncation="left") as rm:
        for row in random.Random(0).sample(run.rows, 4):
            for name in ("chosen", "rejected"):
                # The bound that is set on batch mates.
                assert row["scores"][name][0] == pytest.approx(rm.score(conversation(row, name)), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("n", PARTS)
def test_a_policy_and_its_reference_on_llmbar(
    n: int | None, live: RunBench, sample: Callable[..., str], golden_models: GoldenModels
) -> None:
    folder = golden_models.checkpoint(GoldenSet("dpo-implicit", "own"))
    pair = ("--model", str(folder / "policy"), "--ref-model", str(folder / "reference"), "--beta", "0.1")
    run = live("--suite", "llmbar", "--data", sample(LLMBAR, n), *pair, "--truncation", "left", code=0)
    check_llmbar(run, kind="outcome", n=n)
    with AutoRM.load(str(folder / "policy"), reference=str(folder / "reference"), beta=0.1, truncation="left") as rm:
        row = run.rows[0]
        found = rm.score(conversation(row, "chosen"))
    # Sums of log-probabilities.
    assert row["scores"]["chosen"][0] == pytest.approx(found, abs=1e-4 * max(1, abs(found)))


@pytest.mark.parametrize("n", PARTS)
def test_a_model_that_compares_is_asked_in_both_orders(
    n: int | None, live: RunBench, sample: Callable[..., str], golden_models: GoldenModels
) -> None:
    folder = golden_models.checkpoint(GoldenSet("pairrm-hf", "own"))
    data = sample(LLMBAR, n)
    run = live(
        *("--suite", "llmbar", "--data", data, "--model", str(folder), "--family", "pairrm", "--truncation", "left")
    )
    check_llmbar(run, kind="pairwise", n=n)
    with AutoRM.load(str(folder), family="pairrm", truncation="left") as rm:
        row = run.rows[0]
        chosen, rejected = (row["responses"][name][0]["text"] for name in ("chosen", "rejected"))
        first = rm.compare(messages=row["prompt"], a=chosen, b=rejected)
        second = 1.0 - rm.compare(messages=row["prompt"], a=rejected, b=chosen)
    assert row["scores"]["probabilities"] == pytest.approx([first, second], abs=3e-5)
    told = [row["scores"]["probabilities"] for row in run.rows]
    assert run.metrics["bias"]["position"]["prefers_first"] == pytest.approx(
        sum((a > 0.5) + (b < 0.5) for a, b in told) / (2 * len(told))
    )


@pytest.mark.parametrize("n", PARTS)
def test_an_ensemble_from_a_file(n: int | None, live: RunBench, sample: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    file = tmp_path / "ensemble.yaml"
    file.write_text(
        "reduce: mean\nmembers:\n"
        "  - {model: builtin/arithmetic-orm, weight: 0.75, truncation: left}\n"
        "  - {model: builtin/arithmetic-orm, weight: 0.25, max_length: 128, truncation: left}\n"
    )
    run = live("--suite", "llmbar", "--data", sample(LLMBAR, n), "--ensemble", str(file))
    check_llmbar(run, kind="outcome", n=n)
    row = run.rows[-1]
    with (
        AutoRM.load("builtin/arithmetic-orm", truncation="left") as one,
        AutoRM.load("builtin/arithmetic-orm", truncation="left", max_length=128) as two,
    ):
        expected = 0.75 * one.score(conversation(row, "chosen")) + 0.25 * two.score(conversation(row, "chosen"))
    assert row["scores"]["chosen"][0] == pytest.approx(expected, rel=1e-5, abs=1e-5)


# -- judges on a local server ----------------------------------------------------------------------------------------


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    """A judge whose rating and choice follow from a checksum of what it reads; now and then it gives no verdict."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")

    def script(asked: Asked) -> Answer:
        size = zlib.crc32((asked.body["model"] + asked.text).encode())
        if '"winner"' not in asked.text:
            return completion(json.dumps({"reasoning": "r", "score": 1 + size % 5}))
        if size % 11 == 0:
            return completion("I cannot tell.")
        return completion(json.dumps({"reasoning": "r", "winner": "AB"[size % 2]}))

    with judge_server(script) as server:
        yield server


@pytest.mark.parametrize("n", PARTS)
def test_a_judge_that_rates(n: int | None, live: RunBench, sample: Callable[..., str], judge: JudgeServer) -> None:
    asked = ("--judge", "--model", "judge", "--api-base", judge.api_base, "--judge-option", "prices=[1.0, 2.0]")
    run = live("--suite", "llmbar", "--data", sample(LLMBAR, n), *asked, "--rubric", "Rate it from 1 to 5.")
    check_llmbar(run, kind="outcome", n=n)
    n_calls = 2 * (n or 419)
    used = {"calls": n_calls, "prompt_tokens": 100 * n_calls, "completion_tokens": 20 * n_calls}
    assert run.results["run"]["usage"] == used
    assert run.results["run"]["cost"] == pytest.approx(n_calls * (100 * 1.0 + 20 * 2.0) / 1e6)
    assert run.rows[0]["responses"]["chosen"][0]["reasoning"] == "r"
    assert len(judge.asked) == n_calls


@pytest.mark.parametrize("n", [20, pytest.param(None, marks=SLOW)], ids=["part", "whole"])
def test_a_judge_that_compares_is_asked_in_both_orders_and_may_have_no_verdict(
    n: int | None, live: RunBench, sample: Callable[..., str], judge: JudgeServer
) -> None:
    asked = ("--judge", "--model", "judge", "--api-base", judge.api_base, "--judge-option", "mode=pairwise")
    more = ("--judge-option", "parse_retries=0", "--rubric", "Which one follows the instruction?")
    run = live("--suite", "llmbar", "--data", sample(LLMBAR, n), *asked, *more)
    check_llmbar(run, kind="pairwise", n=n)
    assert len(judge.asked) == 2 * (n or 419)
    told = [p for row in run.rows for p in row["scores"]["probabilities"]]
    assert set(told) == {0.0, 1.0, None}
    assert sum(len(row.get("unreadable", ())) for row in run.rows) == told.count(None)
    assert all((_reasoning(row)[i] is None) == (p is None) for row in run.rows for i, p in enumerate(_told(row)))


def _reasoning(row: dict[str, Any]) -> list[str | None]:
    """One an order; none at all where neither order got a verdict."""
    return row.get("reasoning") or [None, None]


def _told(row: dict[str, Any]) -> list[float | None]:
    probabilities: list[float | None] = row["scores"]["probabilities"]
    return probabilities


def test_what_the_judges_of_an_ensemble_used_and_cost_is_summed(
    live: RunBench, sample: Callable[..., str], judge: JudgeServer, tmp_path: Path
) -> None:
    members = [
        {"judge": name, "api_base": judge.api_base, "rubric": "Rate it from 1 to 5.", "prices": [1.0, 2.0]}
        for name in ("j", "jj")
    ]
    file = tmp_path / "judges.json"
    file.write_text(json.dumps({"members": [*members, {"model": "builtin/arithmetic-orm", "truncation": "left"}]}))
    run = live("--suite", "llmbar", "--data", sample(LLMBAR, 10), "--ensemble", str(file))
    n_calls = 10 * 2 * 2
    used = {"calls": n_calls, "prompt_tokens": 100 * n_calls, "completion_tokens": 20 * n_calls}
    assert run.results["run"]["usage"] == used
    assert run.results["run"]["cost"] == pytest.approx(n_calls * (100 * 1.0 + 20 * 2.0) / 1e6)
    assert len(judge.asked) == n_calls


@pytest.mark.parametrize("mode", ["pointwise", "pairwise"])
def test_an_ensemble_of_judges_is_counted_as_one_judge_is(
    mode: str, live: RunBench, judge: JudgeServer, tmp_path: Path
) -> None:
    """In RewardBench a judge's tie is half right, that of a model wrong."""
    pairs = [{"subset": "hep-cpp", "prompt": f"{i}?", "chosen": "yes", "rejected": "no" * (i % 3)} for i in range(12)]
    data, file = tmp_path / "pairs.jsonl", tmp_path / "judges.json"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    rubric = "Rate it from 1 to 5."
    members = [{"judge": "j", "api_base": judge.api_base, "rubric": rubric, "mode": mode, "parse_retries": 0}]
    file.write_text(json.dumps({"members": members}))
    model = ("--judge", "--model", "j", "--api-base", judge.api_base, "--rubric", rubric)
    options = ("--judge-option", f"mode={mode}", "--judge-option", "parse_retries=0")
    run = ("--suite", "rewardbench", "--data", str(data), "--overwrite")
    one = live(*run, *model, *options)
    ensemble = live(*run, "--ensemble", str(file))
    assert [row["correct"] for row in ensemble.rows] == [row["correct"] for row in one.rows]
    assert 0.5 in [row["correct"] for row in one.rows]
    # As the command does, which shows pairs in both orders itself.
    arguments: dict[str, Any] = {"rubric": rubric, "mode": mode, "parse_retries": 0, "both_orders": False}
    with LLMJudge("j", api_base=judge.api_base, **arguments) as rm:
        for given in (rm, EnsembleRM([rm])):
            found = evaluate(given, str(data), suite="rewardbench")
            assert [row["correct"] for row in found.rows] == [row["correct"] for row in one.rows]


@pytest.mark.parametrize("n", PARTS)
def test_three_judges_decide_by_majority(
    n: int | None, live: RunBench, sample: Callable[..., str], judge: JudgeServer, tmp_path: Path, reward_hub: RunBench
) -> None:
    def member(name: str) -> dict[str, Any]:
        return {"judge": name, "api_base": judge.api_base, "rubric": "Which one?", "mode": "pairwise"}

    file = tmp_path / "judges.json"
    file.write_text(json.dumps({"members": [member("j"), member("jj"), member("jjj")]}))
    data = sample(LLMBAR, n)
    ended = reward_hub(
        "bench", "--suite", "llmbar", "--data", data, "--ensemble", str(file), "--out", str(tmp_path / "x")
    )
    rows = [json.loads(line) for line in (tmp_path / "x" / "items.jsonl").read_text().splitlines()]
    assert ended.code == int(any("error" in row for row in rows))
    shares = {round(3 * p, 6) for row in rows for p in row.get("scores", {}).get("probabilities", ()) if p is not None}
    assert shares <= {0.0, 1.0, 2.0, 3.0}
    assert [Fraction(row["correct"]) for row in rows] == [_right(row) for row in rows]
    file.write_text(json.dumps({"members": [member("j"), member("jj")]}))
    even = reward_hub("bench", "--suite", "llmbar", "--data", data, "--ensemble", str(file))
    assert even.code == 2
    assert "take an odd number" in even.err


# -- steps: PRMBench ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [18, pytest.param(None, marks=SLOW)], ids=["part", "whole"])
def test_a_process_model_on_prmbench(n: int | None, live: RunBench, sample: Callable[..., str]) -> None:
    data = sample(PRMBENCH, n)
    run = live("--suite", "prmbench", "--data", data, "--model", "builtin/arithmetic-prm", "--truncation", "left")
    assert run.results["kind"] == "process"
    assert len(run.rows) == (18 + 2 if n else 394 + 48)
    assert all(len(row["scores"]["steps"]) == len(row["steps"]) for row in run.rows)
    rated = [row for row in run.rows if row["subset"] != "correct"]
    assert run.metrics["overall"]["prm_score"] == pytest.approx(_prm_score(rated))
    for name, rows in run.subsets.items():
        if name not in ("multi_solutions", "correct"):
            assert run.metrics["subsets"][name]["prm_score"] == pytest.approx(_prm_score(rows)), name
    with AutoRM.load("builtin/arithmetic-prm", truncation="left") as rm:
        row = run.rows[0]
        found = rm.score_steps(messages=row["prompt"], steps=row["steps"])
    assert row["scores"]["steps"] == pytest.approx(found, abs=1e-5)


def _prm_score(rows: list[dict[str, Any]]) -> float:
    """0.5 F1 + 0.5 F1 of the negative class over all steps; -1 for what has no steps, and no less than 0."""
    counts = {key: 0 for key in itertools.product((True, False), repeat=2)}
    for row in rows:
        for place, score in enumerate(row["scores"]["steps"], start=1):
            counts[place not in row["error_steps"], score > 0.5] += 1

    def f1(right: bool) -> float:
        hits = counts[right, right]
        told, there = hits + counts[not right, right], hits + counts[right, not right]
        precision, recall = (hits / told if told else -1.0), (hits / there if there else -1.0)
        return 2 * precision * recall / (precision + recall) if precision + recall else -1.0

    return max(0.0, 0.5 * f1(True) + 0.5 * f1(False))


# -- best of n: GSM8K --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", PARTS)
@pytest.mark.parametrize("model", ["builtin/arithmetic-orm", "builtin/arithmetic-prm"])
def test_best_of_n_curves_on_gsm8k(model: str, n: int | None, live: RunBench, sample: Callable[..., str]) -> None:
    data = sample(GSM8K, n)
    run = (
        live("--data", data, "--model", model, "--step-delimiter", r"\n")
        if "prm" in model
        else live("--data", data, "--model", model)
    )
    assert len(run.rows) == (n or 1319)
    curve = {point["n"]: point for point in run.metrics["overall"]["curve"]}
    assert sorted(curve) == [1, 2, 4]
    for size, point in curve.items():
        picked, passed = zip(*(_by_hand(row, size) for row in run.rows), strict=True)
        assert point["model"] == pytest.approx(float(sum(picked) / len(run.rows)))
        assert point["pass"] == pytest.approx(float(sum(passed) / len(run.rows)))
    assert run.metrics["overall"]["accuracy"] == pytest.approx(curve[4]["model"])


def _by_hand(row: dict[str, Any], size: int) -> tuple[Fraction, Fraction]:
    """Over all subsets of so many candidates: how often the highest score is right, and how often any is."""
    grades, scores = row["grades"], row["scores"]["candidates"]
    groups = list(itertools.combinations(range(len(grades)), size))
    picked = sum(int(grades[max(group, key=lambda i: (scores[i], -i))]) for group in groups)
    passed = sum(any(grades[i] for i in group) for group in groups)
    return Fraction(picked, len(groups)), Fraction(passed, len(groups))


@pytest.mark.parametrize("n", [4, pytest.param(300, marks=SLOW)])
def test_several_responses_are_ranked_by_a_model_that_compares(
    n: int, live: RunBench, sample: Callable[..., str], golden_models: GoldenModels
) -> None:
    """A candidate's score is its mean probability of being better than another one, of both orders."""
    folder = golden_models.checkpoint(GoldenSet("pairrm-hf", "own"))
    run = live("--data", sample(GSM8K, n), "--model", str(folder), "--family", "pairrm", "--truncation", "left")
    row = next(row for row in run.rows if len({r["text"] for r in row["responses"]["candidates"]}) == 4)
    texts = [response["text"] for response in row["responses"]["candidates"]]
    with AutoRM.load(str(folder), family="pairrm", truncation="left") as rm:
        for i, score in enumerate(row["scores"]["candidates"]):
            wins = [
                rm.compare(messages=row["prompt"], a=texts[i], b=other, both_orders=True)
                for k, other in enumerate(texts)
                if k != i
            ]
            assert score == pytest.approx(sum(wins) / 3, abs=3e-5)
