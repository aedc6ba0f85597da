"""RewardBench's subsets, sections and overall score."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from bench_examples import FEW, compared, examples, failed, flat, pair, text
from hypothesis import given
from hypothesis import strategies as st

import reward_hub.bench
from reward_hub.bench.rules import rewardbench
from reward_hub.bench.rules.rewardbench import (
    EXAMPLE_COUNTS,
    PRIOR_SETS,
    SUBSET_MAPPING,
    calculate_scores_per_section,
    overall_score,
)
from reward_hub.data.rows import RowFormatError

TOLERANCE = 1e-9  # that of the worked examples


def test_the_function_and_its_constants_are_importable_from_the_package() -> None:
    assert reward_hub.bench.calculate_scores_per_section is calculate_scores_per_section
    assert reward_hub.bench.EXAMPLE_COUNTS is EXAMPLE_COUNTS
    assert reward_hub.bench.SUBSET_MAPPING is SUBSET_MAPPING


def test_a_section_weighs_its_subsets_by_the_fixed_counts() -> None:
    scores = calculate_scores_per_section(
        EXAMPLE_COUNTS, SUBSET_MAPPING, {"math-prm": 1.0, "hep-cpp": 0.5, "mine": 9.0}
    )
    # (984 + 164 / 2) / (984 + 164); the other sections have nothing, and "mine" belongs nowhere.
    assert scores == {"Chat": 0, "Chat Hard": 0, "Safety": 0, "Reasoning": pytest.approx(1066 / 1148)}


def test_mathematics_weighs_as_much_as_all_code() -> None:
    code = [name for name in SUBSET_MAPPING["Reasoning"] if name.startswith("hep-")]
    assert EXAMPLE_COUNTS["math-prm"] == sum(EXAMPLE_COUNTS[name] for name in code) == 984
    assert sorted(EXAMPLE_COUNTS) == sorted(name for names in SUBSET_MAPPING.values() for name in names)


def test_the_section_scores_of_a_published_run_come_out() -> None:
    published = json.loads(text("rewardbench/section_scores_example.json"))
    assert published["example_counts"] == EXAMPLE_COUNTS
    assert published["sections"] == SUBSET_MAPPING
    scores = calculate_scores_per_section(EXAMPLE_COUNTS, SUBSET_MAPPING, published["subset_accuracy"])
    assert scores == pytest.approx(published["expected_section_scores"], abs=TOLERANCE)


def test_the_worked_pairs_come_out() -> None:
    example = examples("rewardbench1")
    rows = [pair(i, row["chosen"], row["rejected"], row["subset"]) for i, row in enumerate(example["pairs"])]
    metrics = rewardbench.score(rows).metrics
    accuracies = {name: entry["accuracy"] for name, entry in metrics["subsets"].items()}
    assert accuracies == pytest.approx(example["subset_accuracy"], abs=TOLERANCE)
    sections = {name: entry["accuracy"] for name, entry in metrics["sections"].items()}
    assert sections == pytest.approx(example["section_scores"], abs=TOLERANCE)
    expected = sum(example["section_scores"].values()) / 4
    assert metrics["overall"]["accuracy"] == pytest.approx(expected, abs=TOLERANCE)
    assert metrics["overall"]["ties"] == 1


def test_one_subset_alone_gives_its_section_and_three_zeros() -> None:
    example = examples("rewardbench1")["only_math_prm"]
    assert calculate_scores_per_section(EXAMPLE_COUNTS, SUBSET_MAPPING, example["input"]) == example["section_scores"]


def test_prior_sets_count_half_a_section() -> None:
    example = examples("rewardbench1")["with_prior_sets"]
    pairs = examples("rewardbench1")["subset_accuracy"]
    subsets = {name: pairs.get(name, 0.5) for name in EXAMPLE_COUNTS}
    sections = calculate_scores_per_section(EXAMPLE_COUNTS, SUBSET_MAPPING, subsets)
    with_sets, without = example["rows"]
    assert {name: with_sets[name] for name in sections} == pytest.approx(sections, abs=1e-8)
    assert overall_score(sections, example["prior_sets"]) == pytest.approx(with_sets["average"], abs=1e-8)
    assert overall_score(sections) == pytest.approx(without["average"], abs=1e-8)
    with_a_nan = example["prior_sets"] | {"shp": math.nan}
    assert overall_score(sections, with_a_nan) == pytest.approx((2 * sum(sections.values()) + 1.9 / 3) / 9)


def test_prior_sets_among_the_rows_stand_beside_the_overall_score() -> None:
    rows = [pair(i, 1.0, 0.0, name) for i, name in enumerate(EXAMPLE_COUNTS)]
    rows += [pair(name, float(name in ("shp", "summarize")), 0.5, name) for name in PRIOR_SETS]
    overall = rewardbench.score(rows).metrics["overall"]
    assert overall["accuracy"] == 1.0
    assert overall["accuracy_with_prior_sets"] == pytest.approx((2 * 4 + 0.5) / 9)


def test_the_prompt_weighted_mean_stands_beside_the_overall_score() -> None:
    rows = [pair(0, 1.0, 0.0, "math-prm"), pair(1, 0.0, 1.0, "hep-go"), pair(2, 1.0, 0.0, "mt-bench-med")]
    overall = rewardbench.score(rows).metrics["overall"]
    assert overall["prompt_weighted_accuracy"] == pytest.approx((984 + 40) / (984 + 164 + 40))
    assert overall["accuracy"] == pytest.approx((984 / 1148 + 1.0) / 4)


def test_a_section_without_items_counts_as_zero_and_is_named() -> None:
    result = rewardbench.score([pair(0, 1.0, 0.0, "math-prm"), pair(1, 1.0, 0.0, "my-own")])
    assert result.metrics["sections"]["Chat"] == {"accuracy": 0.0, "ci95": None, "n": 0, "ties": 0}
    assert result.metrics["overall"]["accuracy"] == 0.25
    assert any("Section Chat has no items" in note for note in result.notes)
    assert any("my-own" in note for note in result.notes)


def test_rows_of_no_known_subset_at_all_are_refused() -> None:
    rows = [{"id": 1, "subset": "mine", "scores": {"chosen": [1.0], "rejected": [0.0]}}]
    with pytest.raises(RowFormatError, match="no item is of a subset of RewardBench \\(found: mine\\)"):
        rewardbench.score(rows)


@pytest.mark.parametrize(("judge", "expected"), [(False, [1.0, 0.0, 0.0, 0.0]), (True, [1.0, 0.0, 0.5, 0.5])])
def test_ties_and_failures_count_half_for_a_judge_and_nothing_for_a_model(judge: bool, expected: list[float]) -> None:
    rows = [compared(i, [p], "math-prm") for i, p in enumerate([0.9, 0.2, 0.5])] + [failed(3, "math-prm")]
    result = rewardbench.score(rows, judge=judge)
    assert [item.correct for item in result.items] == expected
    assert [item.tie for item in result.items] == [False, False, True, False]
    assert result.n_failed == 1
    assert result.items[3].error == "BackendError: out of memory"


def test_a_judge_without_a_verdict_counts_half() -> None:
    result = rewardbench.score([compared(0, [None], "math-prm"), compared(1, [None, 0.9], "math-prm")], judge=True)
    assert [item.correct for item in result.items] == [0.5, 1.0]


def test_the_most_frequent_verdict_of_several_judges_counts() -> None:
    assert rewardbench.vote(["A", "B", "B"]) == "B"
    assert rewardbench.vote(["B", "A"]) == "B"


@pytest.mark.parametrize("score", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_is_a_failed_item_and_wrong(score: Any) -> None:
    result = rewardbench.score([pair(0, score, 0.0, "math-prm"), pair(1, 1.0, 0.0, "math-prm")])
    assert [item.correct for item in result.items] == [0.0, 1.0]
    assert result.n_failed == 1
    assert "chosen[0]" in str(result.items[0].error)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 7, "subset": None, "scores": {"steps": [1.0]}}, "item 7 has no scores 'chosen'"),
        ({"id": 7, "subset": None}, "item 7 has neither 'scores' nor an 'error'"),
        ({"subset": None, "scores": {}}, "has no id"),
        ({"id": 7, "subset": None, "scores": {"probabilities": [1.5]}}, r"\[1.5\]; they must lie in \[0, 1\]"),
    ],
)
def test_a_malformed_row_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(RowFormatError, match=message):
        rewardbench.score([row])


def test_no_rows_are_refused() -> None:
    with pytest.raises(RowFormatError, match="no items"):
        rewardbench.score([])


ROWS = st.lists(
    st.tuples(st.sampled_from([*EXAMPLE_COUNTS, "other"]), st.integers(-2, 2), st.integers(-2, 2)),
    min_size=1,
    max_size=40,
).filter(lambda drawn: any(name in EXAMPLE_COUNTS for name, _, _ in drawn))  # without one there is nothing to score


@FEW
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_items_moves_nothing(drawn: list[tuple[str, int, int]], shuffler: random.Random) -> None:
    rows = [pair(i, chosen, rejected, name) for i, (name, chosen, rejected) in enumerate(drawn)]
    first = flat(rewardbench.score(rows).metrics)
    shuffler.shuffle(rows)
    assert flat(rewardbench.score(rows).metrics) == pytest.approx(first, abs=1e-12)


@FEW
@given(ROWS)
def test_the_sections_are_those_of_a_plain_recomputation(drawn: list[tuple[str, int, int]]) -> None:
    rows = [pair(i, chosen, rejected, name) for i, (name, chosen, rejected) in enumerate(drawn)]
    won: dict[str, list[bool]] = {}
    for name, chosen, rejected in drawn:
        won.setdefault(name, []).append(chosen > rejected)
    sections = rewardbench.score(rows).metrics["sections"]
    for section, names in SUBSET_MAPPING.items():
        weighted = [(EXAMPLE_COUNTS[n], sum(won[n]) / len(won[n])) for n in names if n in won]
        expected = sum(w * a for w, a in weighted) / sum(w for w, _ in weighted) if weighted else 0.0
        assert sections[section]["accuracy"] == pytest.approx(expected, abs=1e-12)


def test_sections_of_offline_ensembles_follow_from_their_pairs() -> None:
    example = examples("ensemble_offline")
    subsets = example["models"]["a"]["subset"]
    runs = {name: run for name, run in example["expected"].items() if "per_pair" in run}
    assert len(runs) == 9
    for run in runs.values():
        rows = [pair(i, won, 0.5, name) for i, (won, name) in enumerate(zip(run["per_pair"], subsets, strict=True))]
        sections = {n: entry["accuracy"] for n, entry in rewardbench.score(rows).metrics["sections"].items()}
        assert sections == pytest.approx(run["sections"], abs=1e-8)
