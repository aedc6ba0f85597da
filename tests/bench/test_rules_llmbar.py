"""LLMBar: both orders, ratings, and the averages over its sets."""

from __future__ import annotations

from typing import Any

import pytest
from bench_examples import compared, examples, failed, pair

from reward_hub.bench.rules import llmbar


def chosen_probability(verdict: str, label: int, *, swapped: bool) -> float | None:
    """A verdict for output (a) or (b) as the probability of the better output; in the second order (a) is output 2."""
    if verdict not in ("a", "b"):
        return None
    output = (verdict == "a") != swapped
    return float(output == (label == 1))


def percent(text: str) -> float:
    return float(text.rpartition("=")[2].strip(" %")) / 100


def test_the_worked_comparisons_come_out() -> None:
    example = examples("llmbar")["comparison"]
    rows = [
        compared(
            i,
            [
                chosen_probability(item["order"], item["label"], swapped=False),
                chosen_probability(item["swap"], item["label"], swapped=True),
            ],
            "Natural",
        )
        for i, item in enumerate(example["items"])
    ]
    overall, statistics = llmbar.score(rows).metrics["overall"], example["statistics"]
    assert overall["accuracy"] == pytest.approx(percent(statistics["correct_average"]), abs=1e-9)
    assert overall["both_orders_correct"] == pytest.approx(percent(statistics["correct_both"]), abs=1e-9)
    assert overall["agreement"] == pytest.approx(percent(statistics["equal"]), abs=1e-9)


def test_the_worked_ratings_come_out() -> None:
    example = examples("llmbar")["rating"]
    rows = []
    for i, item in enumerate(example["items"]):
        ratings = [llmbar.parse_rating(item["s1"]), llmbar.parse_rating(item["s2"])]
        rows.append(pair(i, *(ratings if item["label"] == 1 else ratings[::-1]), "Natural"))
    result = llmbar.score(rows, judge="rating")
    expected = percent(example["statistics"]["correct_average"])
    assert result.metrics["overall"]["accuracy"] == pytest.approx(expected, abs=1e-9)
    assert result.n_failed == 0


def test_a_reward_model_gets_half_for_equal_scores() -> None:
    rows = [pair(0, 1.0, 0.0, "Natural"), pair(1, 1.0, 1.0, "Natural"), pair(2, 0.0, 1.0, "Natural")]
    result = llmbar.score([*rows, failed(3, "Natural")])
    assert [item.correct for item in result.items] == [1.0, 0.5, 0.0, 0.0]
    assert result.metrics["overall"]["ties"] == 1
    assert "agreement" not in result.metrics["overall"]


@pytest.mark.parametrize(("judge", "expected"), [(None, 0.0), ("comparison", 0.0), ("rating", 0.5)])
def test_a_failed_pair_counts_as_published(judge: Any, expected: float) -> None:
    result = llmbar.score([failed(0, "Natural")], judge=judge)
    assert (result.items[0].correct, result.n_failed) == (expected, 1)


def test_the_averages_are_plain_means_of_the_sets() -> None:
    shares = {"llmbar-natural": 4, "llmbar-adver-neighbor": 3, "GPTInst": 2, "GPTOut": 1, "llmbar-adver-manual": 0}
    rows = [
        pair(f"{name}-{i}", float(i < right), 0.5, name) for name, right in shares.items() for i in range(4 + right)
    ]
    accuracy = {name: right / (4 + right) for name, right in shares.items()}
    metrics = llmbar.score(rows).metrics
    assert metrics["overall"]["accuracy"] == pytest.approx(sum(accuracy.values()) / 5)
    assert metrics["sections"]["natural"]["accuracy"] == pytest.approx(0.5)
    adversarial = sum(value for name, value in accuracy.items() if name != "llmbar-natural") / 4
    assert metrics["sections"]["adversarial"]["accuracy"] == pytest.approx(adversarial)
    assert metrics["overall"]["micro_accuracy"] == pytest.approx(10 / 30)


def test_sets_of_the_case_study_stand_beside_the_overall_score() -> None:
    rows = [pair(0, 1.0, 0.0, "Natural"), pair(1, 0.0, 1.0, "Negation")]
    result = llmbar.score(rows)
    assert result.metrics["overall"]["accuracy"] == 1.0
    assert result.metrics["subsets"]["Negation"]["accuracy"] == 0.0
    assert any("Not in the overall score: Negation" in note for note in result.notes)
    assert llmbar.score(rows[1:]).metrics["overall"]["accuracy"] == 0.0


def test_a_comparison_that_failed_has_no_verdict_in_either_order() -> None:
    overall = llmbar.score([compared(0, [0.9, 0.9], "Natural"), failed(1, "Natural")]).metrics["overall"]
    assert (overall["both_orders_correct"], overall["agreement"]) == (0.5, 1.0)


@pytest.mark.parametrize(("text", "rating"), [("7", 7), (" 10\n", 10), ("7.5", None), ("seven", None), ("", None)])
def test_a_rating_is_an_integer_and_nothing_else(text: str, rating: int | None) -> None:
    assert llmbar.parse_rating(text) == rating
