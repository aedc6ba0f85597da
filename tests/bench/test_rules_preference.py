"""Plain preference pairs."""

from __future__ import annotations

import pytest
from bench_examples import FEW, compared, failed, pair
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.bench.rules import preference


def test_a_pair_is_won_with_a_strictly_greater_score() -> None:
    rows = [pair(0, 1.0, 0.0, "a"), pair(1, 1.0, 1.0, "a"), pair(2, 0.0, 1.0, "b"), failed(3, "b")]
    result = preference.score(rows)
    assert [item.correct for item in result.items] == [1.0, 0.0, 0.0, 0.0]
    overall = result.metrics["overall"]
    assert (overall["accuracy"], overall["n"], overall["ties"]) == (0.25, 4, 1)
    assert result.metrics["subsets"]["a"]["accuracy"] == 0.5
    assert result.to_dict()["n_failed"] == 1


@pytest.mark.parametrize(
    ("number", "reason"), [(10**400, "too large"), (1e308, "1e+308"), (float("nan"), "nan"), (None, "missing")]
)
def test_a_score_that_is_no_finite_number_makes_a_failed_item(number: float | None, reason: str) -> None:
    (item,) = preference.score([pair(0, [1.0, number], 0.0)]).items
    assert (item.correct, item.error) == (0.0, f"score chosen[1] is {reason}")


def test_ties_may_count_half() -> None:
    rows = [pair(0, 1.0, 1.0), pair(1, [1.0, 2.0], [1.0, 0.0]), compared(2, [0.5]), compared(3, [None, None])]
    found = [item.correct for item in preference.score(rows, ties="half").items]
    # Of the second item's four pairs three are won and one is equal.
    assert found == [0.5, 0.875, 0.5, 0.0]


def test_both_orders_of_a_comparing_model_are_averaged() -> None:
    rows = [compared(0, [0.9, 0.2]), compared(1, [0.6, 0.3]), compared(2, [0.75, 0.25]), compared(3, [None, 0.6])]
    result = preference.score(rows)
    assert [item.correct for item in result.items] == [1.0, 0.0, 0.0, 1.0]
    assert [item.tie for item in result.items] == [False, False, True, False]


def test_items_without_a_subset_are_in_the_overall_score_alone() -> None:
    metrics = preference.score([pair(0, 1.0, 0.0)]).metrics
    assert metrics["overall"] == {"accuracy": 1.0, "ci95": [1.0, 1.0], "n": 1, "ties": 0}
    assert metrics["subsets"] == {}


SIDE = st.lists(st.integers(-2, 2), min_size=1, max_size=3)


@FEW
@given(st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=10))
def test_accuracy_is_the_mean_share_of_pairs_won(drawn: list[tuple[list[int], list[int]]]) -> None:
    rows = [pair(i, chosen, rejected) for i, (chosen, rejected) in enumerate(drawn)]
    shares = [
        sum(c > r for c in chosen for r in rejected) / (len(chosen) * len(rejected)) for chosen, rejected in drawn
    ]
    assert preference.score(rows).metrics["overall"]["accuracy"] == pytest.approx(sum(shares) / len(shares))


@FEW
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=10))
def test_exchanging_both_sides_turns_wins_into_losses(drawn: list[tuple[int, int]]) -> None:
    forth = preference.score([pair(i, a, b) for i, (a, b) in enumerate(drawn)], ties="half")
    back = preference.score([pair(i, b, a) for i, (a, b) in enumerate(drawn)], ties="half")
    assert forth.metrics["overall"]["accuracy"] == pytest.approx(1.0 - back.metrics["overall"]["accuracy"])
