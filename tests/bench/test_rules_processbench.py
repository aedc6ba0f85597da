"""ProcessBench: predictions, F1, thresholds and critics."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from bench_examples import FEW, examples, failed, records, text
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.bench.rules import processbench
from reward_hub.bench.rules.processbench import best_threshold, parse_critic, prediction, vote
from reward_hub.data.rows import RowFormatError


def steps(name: Any, scores: list[float], label: int, subset: str | None = None) -> dict[str, Any]:
    return {"id": name, "subset": subset, "scores": {"steps": scores}, "label": label}


def test_the_worked_solutions_come_out() -> None:
    example = examples("processbench")
    rows = []
    for name, subset in example["subsets"].items():
        for i, row in enumerate(subset["rows"]):
            assert prediction(row["step_scores"], threshold=example["threshold"]) == row["prediction"]
            rows.append(steps(f"{name}-{i}", row["step_scores"], row["label"], name))
    metrics = processbench.score(rows).metrics
    for name, subset in example["subsets"].items():
        found = [100 * metrics["subsets"][name][key] for key in ("error_accuracy", "correct_accuracy", "f1")]
        assert found == pytest.approx([subset["error_acc"], subset["correct_acc"], subset["f1"]], abs=1e-9)
    assert 100 * metrics["overall"]["f1"] == pytest.approx(example["average_f1"], abs=1e-9)


def test_the_f1_of_a_recorded_run_comes_out() -> None:
    expected = json.loads(text("mr_math/expected_processbench_f1.json"))["math-shepherd_mistral-7b"]
    labels = {row["id"]: row["label"] for row in records("mr_math/mr_math.jsonl")}
    recorded = records("mr_math/step_scores_math-shepherd_mistral-7b.jsonl")
    overall = processbench.score([steps(r["id"], r["step_scores"], labels[r["id"]]) for r in recorded]).metrics[
        "overall"
    ]
    assert (overall["n_error"], overall["n_correct"]) == (expected["n_error"], expected["n_correct"])
    assert round(100 * overall["f1"], 2) == expected["f1"]
    assert round(100 * overall["error_accuracy"], 2) == expected["error_acc"]
    assert round(100 * overall["correct_accuracy"], 2) == expected["correct_acc"]
    low, high = overall["ci95"]
    assert low < overall["f1"] < high


def test_the_worked_replies_of_critics_come_out() -> None:
    for case in examples("processbench")["critic_parsing"]:
        found = vote(case["texts"]) if case["voting"] else parse_critic(case["texts"][0])
        assert found == case["prediction"], case


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (r"\boxed{3}, no: \boxed{\text{-1}}", -1),
        (r"$\boxed{\mathbf{ 2 }}$", 2),
        (r"\boxed{{5}}", 5),
        (r"\boxed{$7$}", 7),
        (r"\boxed{\textbf{\text{4}}}.", 4),
        (r"The set { holds \boxed {6}", 6),
        (r"\boxed{2} and then \boxed{1", 2),
        (r"\boxed{3} \boxed{\frac{1}{2}}", None),
        (r"\boxed{3} \boxed{\{1\}}", None),
        (r"\boxed{\text{paragraph 3}}", None),
    ],
)
def test_the_last_box_may_have_braces_inside(reply: str, found: int | None) -> None:
    assert parse_critic(reply) == found
    assert vote([reply, reply, r"\boxed{9}"]) == found


@given(
    st.integers(-1, 99), st.lists(st.sampled_from([r"\text{%s}", "{%s}", " %s ", "$%s$", r"\mathrm {%s}"]), max_size=4)
)
def test_an_integer_is_read_whatever_letters_it_is_set_in(number: int, forms: list[str]) -> None:
    box = str(number)
    for form in forms:
        box = form % box
    assert parse_critic(r"\boxed{0} x { { \boxed{" + box + "} and so on") == number


def test_a_step_at_the_threshold_passes() -> None:
    assert prediction([0.5, 0.4999]) == 1
    assert prediction([0.5, 0.5]) == -1
    assert prediction([-3.0, -4.0], threshold=-3.5) == 1


def test_two_accuracies_of_zero_give_an_f1_of_zero() -> None:
    rows = [steps(0, [0.9], 0), steps(1, [0.1], -1)]
    assert processbench.score(rows).metrics["overall"]["f1"] == 0.0
    assert examples("processbench")["both_zero"]["f1"] == "nan"


def test_solutions_of_one_kind_are_refused_by_name() -> None:
    with pytest.raises(RowFormatError, match="of subset 'gsm8k' have 1 and 0"):
        processbench.score([steps(0, [0.1], 0, "gsm8k")])


def test_solutions_of_one_kind_give_what_is_defined_where_allowed() -> None:
    metrics = processbench.score([steps(0, [0.1], 0, "gsm8k")], allow_one_sided=True).metrics
    entry = metrics["subsets"]["gsm8k"]
    assert (entry["error_accuracy"], entry["correct_accuracy"], entry["f1"]) == (1.0, None, None)
    assert metrics["overall"]["f1"] is None


def test_a_failed_solution_is_wrong_and_one_without_a_label_has_no_part() -> None:
    rows = [steps(0, [0.1], 0), steps(1, [0.9], -1), failed(2, label=0), failed(3)]
    result = processbench.score(rows)
    assert [item.correct for item in result.items] == [1.0, 1.0, 0.0, None]
    assert result.metrics["overall"]["error_accuracy"] == 0.5
    assert result.n_failed == 2
    assert result.notes == ("1 failed items have no label and no part in the accuracies.",)


def test_error_steps_say_the_first_wrong_step_too() -> None:
    rows = [
        {"id": 0, "subset": None, "scores": {"steps": [0.9, 0.9, 0.2]}, "error_steps": [4, 3]},
        {"id": 1, "subset": None, "scores": {"steps": [0.9]}, "error_steps": []},
    ]
    assert processbench.score(rows).metrics["overall"]["f1"] == 1.0


def test_a_critic_without_a_prediction_is_wrong() -> None:
    rows = [
        {"id": i, "subset": None, "scores": {"prediction": [p]}, "label": label}
        for i, (p, label) in enumerate([(2, 2), (None, 1), (-1, -1), (None, -1)])
    ]
    result = processbench.score(rows)
    assert [item.correct for item in result.items] == [1.0, 0.0, 1.0, 0.0]
    assert result.n_failed == 0


def test_a_row_without_a_label_is_refused() -> None:
    with pytest.raises(RowFormatError, match="item 4 has neither 'label' nor 'error_steps'"):
        processbench.score([{"id": 4, "subset": None, "scores": {"steps": [0.5]}}])


SOLUTIONS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=5), min_size=2, max_size=15)


@FEW
@given(SOLUTIONS, st.randoms(use_true_random=False))
def test_the_best_threshold_is_that_of_a_search(solutions: list[list[int]], chance: random.Random) -> None:
    rows = [steps(i, scores, chance.randrange(-1, len(scores))) for i, scores in enumerate(solutions)]
    rows[0]["label"], rows[1]["label"] = 0, -1
    candidates = sorted({score for scores in solutions for score in scores} | {float("inf")})
    best = [processbench.score(rows, threshold=t).metrics["overall"]["f1"] for t in candidates]
    assert best_threshold(rows) == candidates[best.index(max(best))]


@FEW
@given(SOLUTIONS, st.randoms(use_true_random=False))
def test_f1_agrees_with_a_plain_recomputation(solutions: list[list[int]], chance: random.Random) -> None:
    rows = [steps(i, scores, chance.randrange(-1, len(scores)), "ab"[i % 2]) for i, scores in enumerate(solutions)]
    for name in "ab":
        rows += [steps(f"{name}0", [chance.randrange(7)], 0, name), steps(f"{name}1", [chance.randrange(7)], -1, name)]
    expected = []
    for name in "ab":
        accuracies = []
        for erroneous in (True, False):
            members = [row for row in rows if row["subset"] == name and (row["label"] >= 0) == erroneous]
            found = 0
            for row in members:
                below = [i for i, score in enumerate(row["scores"]["steps"]) if score < 3]
                found += (below[0] if below else -1) == row["label"]
            accuracies.append(found / len(members))
        both = sum(accuracies)
        expected.append(2 * accuracies[0] * accuracies[1] / both if both else 0.0)
    assert processbench.score(rows, threshold=3).metrics["overall"]["f1"] == pytest.approx(sum(expected) / 2)


def test_a_label_beyond_the_scores_is_right_for_no_threshold() -> None:
    rows = [steps(0, [0.9, 0.8], 5), steps(1, [0.3], 0), steps(2, [0.6], -1)]
    assert best_threshold(rows) == 0.6
    assert processbench.score(rows, threshold=0.6).metrics["overall"]["error_accuracy"] == 0.5
