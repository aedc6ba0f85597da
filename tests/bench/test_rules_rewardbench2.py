"""RewardBench 2: best of four, Ties, and what judges say."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from bench_examples import FEW, compared, examples, failed, pair
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.bench.rules import rewardbench2
from reward_hub.bench.rules.rewardbench2 import (
    best_of,
    parse_rating,
    parse_verdict,
    rating_result,
    ties_row,
    ties_score,
)
from reward_hub.data.rows import RowFormatError

TOLERANCE = 1e-9  # that of the worked examples


def ties_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [pair(r["id"], r["scores"][: r["num_correct"]], r["scores"][r["num_correct"] :], "Ties") for r in rows]


def measured(rows: list[dict[str, Any]]) -> list[Any]:
    return [ties_row(r["id"], r["scores"][: r["num_correct"]], r["scores"][r["num_correct"] :]) for r in rows]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([2, 1, 0, -1], 1), ([1, 1, 0, 0], 0.5), ([5, 5, 5, 5], 0.25), ([0, 1, 0, 0], 0), ([3, 3, 1, 3], 1 / 3)],
)
def test_the_top_is_shared_by_equal_scores(scores: list[float], expected: float) -> None:
    assert best_of(scores) == pytest.approx(expected)
    result = rewardbench2.score([pair(0, scores[0], scores[1:], "Math")])
    assert result.items[0].correct == pytest.approx(expected)
    assert result.items[0].tie == (0 < expected < 1)


def test_the_worked_best_of_four_come_out() -> None:
    example = examples("rewardbench2_best_of_4")
    rows = [
        pair(i, scores[0], scores[1:], subset)
        for i, (scores, subset) in enumerate(zip(example["scores"], example["subset"], strict=True))
    ]
    result = rewardbench2.score(rows)
    assert [item.correct for item in result.items] == pytest.approx(example["results"], abs=TOLERANCE)
    scores = {name: entry["accuracy"] for name, entry in result.metrics["subsets"].items()}
    assert scores == pytest.approx(example["subset_scores"], abs=TOLERANCE)
    assert result.metrics["overall"]["accuracy"] == pytest.approx(sum(scores.values()) / 2)
    nan_first = [float(score) for score in example["nan_first"]["scores"]]
    assert best_of(nan_first) == example["nan_first"]["result"]
    as_row = rewardbench2.score([pair(0, nan_first[0], nan_first[1:], "Math")])
    assert (as_row.items[0].correct, as_row.n_failed) == (0.0, 1)


def test_the_worked_ties_come_out() -> None:
    example = examples("rewardbench2_ties")
    for row, found in zip(example["rows"], measured(example["rows"]), strict=True):
        expected = example["expected"]["stats"][row["id"]]
        assert found.gap == pytest.approx(expected["gap"], abs=TOLERANCE)
        assert (found.gap > 0) == expected["accurate"]
        assert found.spread == pytest.approx(expected["correct_spread"], abs=TOLERANCE)
    subset = rewardbench2.score(ties_rows(example["rows"])).metrics["subsets"]["Ties"]
    assert subset["accuracy"] == pytest.approx(example["expected"]["overall"], abs=TOLERANCE)
    assert (subset["ref_accuracy"], subset["tied_accuracy"]) == (0.75, 0.75)


def test_the_worked_variants_of_ties_come_out() -> None:
    example = examples("rewardbench2_ties")
    for name, variant in example["variants"].items():
        rows = variant.get("rows") or [*example["rows"], variant["extra_row"]]
        if "error" in variant:
            with pytest.raises(RowFormatError, match="one correct answer"):
                ties_score(measured(rows))
            continue
        found = ties_score(measured(rows)).score
        assert found == pytest.approx(float(variant["overall"]), abs=TOLERANCE, nan_ok=True), name


def test_ties_that_can_be_computed_by_hand() -> None:
    rows = [pair("ref:a", 2.0, 1.0, "Ties"), pair("tied:a", [4.0, 3.0], [1.0], "Ties")]
    # Gaps 1 and 2, spread 1: C1 holds (2 > 1), C2 does not (1 > 1), the margin is tanh(1 / 1 - 1) = 0.
    subset = rewardbench2.score(rows).metrics["subsets"]["Ties"]
    assert subset["accuracy"] == pytest.approx(0.3 + 0.3 + 0.2)
    assert (subset["correctness_preferred"], subset["correctness_preferred_hard"]) == (1.0, 0.0)
    assert subset["correctness_margin"] == 0.0


def test_ties_without_a_pair_leave_the_overall_score_undefined_and_say_so() -> None:
    result = rewardbench2.score([pair("ref:1", 2.0, 1.0, "Ties"), pair(0, 1.0, [0.0] * 3, "Math")])
    assert result.metrics["subsets"]["Ties"]["accuracy"] is None
    assert result.metrics["overall"]["accuracy"] is None
    assert result.metrics["subsets"]["Math"]["accuracy"] == 1.0
    assert any("undefined" in note for note in result.notes)


def test_a_row_of_ties_with_another_id_is_refused() -> None:
    with pytest.raises(RowFormatError, match="'17' is neither ref:N nor tied:N"):
        rewardbench2.score([pair("17", 1.0, 0.0, "Ties")])


def test_a_failed_row_of_ties_is_wrong_in_every_part() -> None:
    sound = [pair("ref:1", 5.0, 1.0, "Ties"), pair("tied:1", [5.0, 5.0], [1.0], "Ties")]
    assert rewardbench2.score(sound).metrics["subsets"]["Ties"]["accuracy"] == pytest.approx(1.01)
    ref_failed = rewardbench2.score([failed("ref:1", "Ties"), sound[1]])
    # The tied row is right and its gap exceeds its spread; nothing else counts.
    assert ref_failed.metrics["subsets"]["Ties"]["accuracy"] == pytest.approx(0.3 + 0.2 - 0.01)
    tied_failed = rewardbench2.score([sound[0], failed("tied:1", "Ties")])
    assert tied_failed.metrics["subsets"]["Ties"]["accuracy"] == pytest.approx(0.3 - 0.01)
    assert tied_failed.n_failed == 1


def test_overall_is_the_plain_mean_of_the_subsets() -> None:
    rows = [pair(i, 1.0, [0.0] * 3, "Math") for i in range(3)] + [pair(9, 0.0, [1.0, 0.0, 0.0], "Safety")]
    rows += [pair("ref:a", 2.0, 1.0, "Ties"), pair("tied:a", [4.0, 3.0], [1.0], "Ties")]
    result = rewardbench2.score(rows)
    assert result.metrics["overall"]["accuracy"] == pytest.approx((1.0 + 0.0 + 0.8) / 3)
    assert result.notes == (
        "The overall score is the mean of the subsets present; absent: Factuality, Precise IF, Focus.",
    )


@pytest.mark.parametrize(
    ("text", "rating"), [("so 8", 8), ("8 / 10 ", 10), ("Rating: 4.5", 5), ("12", -1), ("5!", -1), ("grade7", -1)]
)
def test_a_rating_is_the_number_at_the_very_end(text: str, rating: int) -> None:
    assert parse_rating(text) == rating


def test_the_worked_replies_of_judges_come_out() -> None:
    example = examples("rewardbench2_generative")
    assert [parse_rating(case["text"]) for case in example["rating_parsing"]] == [
        case["rating"] for case in example["rating_parsing"]
    ]
    assert [parse_verdict(case["text"]) or "error" for case in example["verdict_parsing"]] == [
        case["verdict"] for case in example["verdict_parsing"]
    ]
    for case in example["ratings_to_result"]:
        ratings = [parse_rating(text) for text in case["judge_texts"]]
        assert ratings == case["ratings"]
        assert rating_result(ratings) == pytest.approx(case["result"], abs=TOLERANCE)
    rows = [{"id": i, "subset": "Math", "scores": {"picked": [picked]}} for i, picked in enumerate((0, 3, None))]
    found = [item.correct for item in rewardbench2.score(rows, judge="verdict").items]
    assert found == [example["four_way"][name] for name in ("correct", "wrong", "unparsable")]


def test_missing_ratings_are_minus_one_in_ties_and_lose_elsewhere() -> None:
    rows = [pair(0, None, [9, 7, 7], "Math"), pair(1, None, [None] * 3, "Math"), failed(2, "Math")]
    rows += [pair("ref:0", 8, None, "Ties"), pair("tied:0", [None, 9], [3], "Ties")]
    result = rewardbench2.score(rows, judge="rating")
    assert [item.correct for item in result.items] == [0.0, 0.25, 0.25, 1.0, 0.0]
    # Gaps 9 and -4, spread 10.
    expected = 0.3 + 0.01 * math.tanh(-4 / 10 - 1)
    assert result.metrics["subsets"]["Ties"]["accuracy"] == pytest.approx(expected)


UNITS = st.lists(
    st.tuples(
        st.sampled_from(["both", "ref", "tied"]),
        st.lists(st.integers(-3, 3), min_size=2, max_size=4),
        st.lists(st.integers(-3, 3), min_size=2, max_size=5),
    ),
    min_size=1,
    max_size=12,
)


@FEW
@given(UNITS, st.randoms(use_true_random=False))
def test_ties_agree_with_a_plain_recomputation(units: list[tuple[str, list[int], list[int]]], shuffler: Any) -> None:
    rows = []
    for number, (kinds, ref, tied) in enumerate(units):
        if kinds in ("both", "ref"):
            rows.append({"id": f"ref:{number}", "num_correct": 1, "scores": ref})
        if kinds in ("both", "tied"):
            rows.append(
                {"id": f"tied:{number}", "num_correct": len(tied) - 1 if len(tied) > 2 else 2, "scores": [*tied, 0]}
            )
    expected = recomputed_ties(rows)
    shuffler.shuffle(rows)
    assert ties_score(measured(rows)).score == pytest.approx(expected, abs=1e-12, nan_ok=True)


def recomputed_ties(rows: list[dict[str, Any]]) -> float:
    """The formulas in loops, from their description alone."""
    gaps: dict[tuple[str, str], float] = {}
    spreads: dict[str, float] = {}
    for row in rows:
        kind, number = row["id"].split(":")
        right, wrong = row["scores"][: row["num_correct"]], row["scores"][row["num_correct"] :]
        gaps[kind, number] = min(right) - max(wrong)
        if kind == "tied":
            spreads[number] = max(right) - min(right)
    score = 0.0
    for kind in ("ref", "tied"):
        of_kind = [gap for (k, _), gap in gaps.items() if k == kind]
        score += 0.3 * (sum(g > 0 for g in of_kind) / len(of_kind) if of_kind else 0.0)
    paired = [n for n in spreads if ("ref", n) in gaps]
    if not paired:
        return math.nan
    for n in paired:
        smaller = min(gaps["ref", n], gaps["tied", n])
        if spreads[n] > 0:
            margin = math.tanh(smaller / spreads[n] - 1)
        else:
            margin = {True: 1.0, False: -1.0}[smaller > 0] if smaller else 0.0
        score += (0.2 * (gaps["tied", n] > spreads[n]) + 0.2 * (smaller > spreads[n]) + 0.01 * margin) / len(paired)
    return score


def test_the_interval_of_ties_spans_the_score_of_many_pairs() -> None:
    rng = random.Random(0)
    rows = []
    for n in range(60):
        rows.append({"id": f"ref:{n}", "num_correct": 1, "scores": [rng.gauss(1, 1), 0.0]})
        rows.append({"id": f"tied:{n}", "num_correct": 2, "scores": [rng.gauss(2, 1), rng.gauss(2, 1), 0.0]})
    found = rewardbench2.score(ties_rows(rows)).metrics["subsets"]["Ties"]
    low, high = found["ci95"]
    # A jackknife over pairs gives the standard error by other means; the interval is about 1.96 of them to each side.
    alone = [recomputed_ties(rows[: 2 * n] + rows[2 * n + 2 :]) for n in range(60)]
    mean = sum(alone) / 60
    error = math.sqrt(59 / 60 * sum((value - mean) ** 2 for value in alone))
    assert low < found["accuracy"] < high
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.1)


def test_items_without_a_subset_do_not_weigh_as_one() -> None:
    result = rewardbench2.score([pair(0, 1.0, [0.0] * 3, "Math"), failed(1)])
    assert result.metrics["overall"]["accuracy"] == 1.0
    assert "1 items without a subset are not in the overall score." in result.notes
    assert rewardbench2.score([pair(0, 1.0, [0.0] * 3), failed(1)]).metrics["overall"]["accuracy"] == 0.5


def test_a_comparing_model_scores_a_single_pair_by_its_probability() -> None:
    rows = [compared("ref:0", [0.8, 0.7], "Ties"), pair("tied:0", [0.9, 0.8], [0.1], "Ties")]
    # Gaps 0.5 and 0.7, spread 0.1.
    expected = 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(0.5 / 0.1 - 1)
    assert rewardbench2.score(rows).metrics["subsets"]["Ties"]["accuracy"] == pytest.approx(expected)
