"""Intervals, comparisons of two runs, correlations and summaries, each against a recomputation or a known value."""

from __future__ import annotations

import itertools
import math
import random
import statistics as stdlib
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.bench.statistics import (
    N_RESAMPLES,
    compare_runs,
    histograms,
    interval,
    mcnemar,
    paired_bootstrap,
    pearson,
    resampled_means,
    spearman,
    summary,
)


def test_resampled_means_spread_as_the_standard_error_says() -> None:
    values = np.random.default_rng(1).normal(size=400)
    means = resampled_means(values)
    assert means.shape == (N_RESAMPLES,)
    # The error of a standard deviation estimated from 2,000 draws is about 1.6 %.
    assert means.std() == pytest.approx(values.std() / math.sqrt(400), rel=0.06)
    assert means.mean() == pytest.approx(values.mean(), abs=5 * values.std() / math.sqrt(400 * N_RESAMPLES))


def test_the_interval_of_an_accuracy_is_near_the_binomial_one() -> None:
    low, high = interval(resampled_means([1.0] * 140 + [0.0] * 60))
    half = 1.96 * math.sqrt(0.7 * 0.3 / 200)
    assert (low, high) == (pytest.approx(0.7 - half, abs=0.011), pytest.approx(0.7 + half, abs=0.011))


def test_columns_of_one_item_are_drawn_together() -> None:
    table = np.random.default_rng(2).normal(size=(50, 2))
    table[:, 1] = 3 * table[:, 0]
    means = resampled_means(table)
    assert means[:, 1] == pytest.approx(3 * means[:, 0])


def test_resamples_depend_on_seed_and_key_and_on_nothing_else() -> None:
    values = [0.0, 1.0, 1.0, 0.5]
    first = resampled_means(values, key="a")
    assert (first == resampled_means(values[::-1], key="a")).all()
    assert (first != resampled_means(values, key="b")).any()
    assert (first != resampled_means(values, key="a", seed=1)).any()


def test_many_items_are_drawn_in_parts() -> None:
    # 30,000 items take more than one part; the spread is that of the standard error all the same.
    means = resampled_means([0.0, 1.0] * 15_000, n_resamples=400)
    assert means.std() == pytest.approx(0.5 / math.sqrt(30_000), rel=0.15)


@pytest.mark.parametrize(
    ("first_only", "second_only", "expected"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 5, 1.0), (0, 5, 2 / 32), (2, 8, 2 * (1 + 10 + 45) / 1024)],
)
def test_mcnemar_is_the_exact_binomial_test(first_only: int, second_only: int, expected: float) -> None:
    first = [1] * 3 + [1] * first_only + [0] * second_only + [0] * 2
    second = [1] * 3 + [0] * first_only + [1] * second_only + [0] * 2
    found = mcnemar(first, second)
    assert (found.both, found.first_only, found.second_only, found.neither) == (3, first_only, second_only, 2)
    assert found.p_value == pytest.approx(expected)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_agrees_with_exact_fractions(a: int, b: int) -> None:
    total = sum(math.comb(a + b, k) for k in range(min(a, b) + 1))
    expected = min(1.0, float(Fraction(2 * total, 2 ** (a + b))))
    assert mcnemar([1] * a + [0] * b + [1], [0] * a + [1] * b + [1]).p_value == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_very_many_items_neither_overflows_nor_vanishes() -> None:
    # The normal approximation with continuity correction, good to a few percent here.
    a, b = 20_300, 19_700
    z = (a - b - 1) / math.sqrt(a + b)
    expected = math.erfc(z / math.sqrt(2))
    assert mcnemar([1] * a + [0] * b, [0] * a + [1] * b).p_value == pytest.approx(expected, rel=0.05)


def test_mcnemar_refuses_fractions() -> None:
    with pytest.raises(ValueError, match="right \\(1\\) or wrong \\(0\\)"):
        mcnemar([0.5], [1.0])


def test_a_paired_difference_has_the_interval_of_its_standard_error() -> None:
    rng = random.Random(3)
    first = [rng.random() < 0.6 for _ in range(500)]
    second = [a if rng.random() < 0.8 else rng.random() < 0.8 for a in first]
    found = paired_bootstrap(first, second)
    differences = [b - a for a, b in zip(first, second, strict=True)]
    assert found.difference == pytest.approx(stdlib.fmean(differences))
    half = 1.96 * stdlib.pstdev(differences) / math.sqrt(500)
    low, high = found.ci95
    assert (low, high) == (
        pytest.approx(found.difference - half, abs=0.005),
        pytest.approx(found.difference + half, abs=0.005),
    )


def test_a_run_against_itself_does_not_differ() -> None:
    found = paired_bootstrap([1, 0, 1, 1], [1, 0, 1, 1])
    assert (found.difference, found.ci95, found.p_value) == (0.0, [0.0, 0.0], 1.0)


def test_a_clear_difference_has_the_smallest_p_value_there_is() -> None:
    found = paired_bootstrap([0] * 50, [1] * 50)
    assert found.p_value == pytest.approx(2 / (N_RESAMPLES + 1))


def test_strata_that_do_not_vary_leave_no_interval() -> None:
    # Every item of "a" is won and every one of "b" lost, so drawing within them changes nothing.
    found = paired_bootstrap([0, 0, 1, 1], [1, 1, 0, 0], strata=["a", "a", "b", "b"])
    assert found.ci95 == [0.0, 0.0]
    low, high = paired_bootstrap([0, 0, 1, 1], [1, 1, 0, 0]).ci95
    assert low < 0 < high


@pytest.mark.parametrize(("first", "second", "strata"), [([1], [1, 0], None), ([], [], None), ([1, 0], [1, 0], ["a"])])
def test_lists_of_unlike_length_are_refused(first: list[int], second: list[int], strata: Any) -> None:
    with pytest.raises(ValueError, match=r"one length|one each"):
        paired_bootstrap(first, second, strata=strata)


def items(results: dict[str, float | None], subset: str = "s") -> list[dict[str, Any]]:
    return [{"id": name, "subset": subset, "correct": correct} for name, correct in results.items()]


def test_runs_are_compared_by_item_in_any_order() -> None:
    first, second = items({"a": 1, "b": 0, "c": 0, "d": 1}), items({"d": 1, "c": 1, "b": 1, "a": 1})
    found = compare_runs(first, second)
    assert (found.n, found.first_accuracy, found.second_accuracy) == (4, 0.5, 1.0)
    assert found.difference.difference == 0.5
    assert found.mcnemar is not None
    assert found.mcnemar.p_value == 0.5


def test_fractions_are_compared_by_the_bootstrap_alone() -> None:
    found = compare_runs(items({"a": 0.5, "b": 0.0}), items({"a": 1, "b": 0.25}))
    assert found.mcnemar is None
    assert found.difference.difference == pytest.approx(0.375)


def test_items_of_one_run_alone_are_refused_unless_asked_for() -> None:
    first, second = items({"a": 1, "b": 0}), items({"b": 1, "c": None})
    with pytest.raises(ValueError, match="1 items are in one run alone, for example 'a' of subset 's'"):
        compare_runs(first, second)
    assert compare_runs(first, second, shared_only=True).n == 1


def test_the_same_id_in_two_subsets_is_two_items_and_twice_in_one_is_refused() -> None:
    run = items({"a": 1}, "s") + items({"a": 0}, "t")
    assert compare_runs(run, run).n == 2
    with pytest.raises(ValueError, match="'a' of subset 's' stands twice"):
        compare_runs(items({"a": 1}) * 2, items({"a": 1}))


FLOATS = st.lists(st.integers(-50, 50).map(float), min_size=2, max_size=30)


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=30))
def test_correlations_agree_with_the_standard_library(points: list[tuple[int, int]]) -> None:
    x, y = [float(a) for a, _ in points], [float(b) for _, b in points]
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert (pearson(x, y), spearman(x, y)) == (None, None)
        return
    assert pearson(x, y) == pytest.approx(stdlib.correlation(x, y), abs=1e-9)
    assert spearman(x, y) == pytest.approx(stdlib.correlation(mean_ranks(x), mean_ranks(y)), abs=1e-9)


def mean_ranks(values: list[float]) -> list[float]:
    return [1 + sum(w < v for w in values) + (values.count(v) - 1) / 2 for v in values]


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_correlation_neither_overflows_nor_vanishes(scale: float) -> None:
    assert pearson([0.0, scale, 2 * scale], [1.0, 2.0, 3.0]) == pytest.approx(1.0)


def test_a_single_point_has_no_correlation_and_unlike_lengths_are_refused() -> None:
    assert pearson([1.0], [2.0]) is None
    with pytest.raises(ValueError, match="got 1 and 2"):
        pearson([1.0], [2.0, 3.0])


@given(FLOATS)
def test_summaries_agree_with_the_standard_library(values: list[float]) -> None:
    found = summary(values)
    assert found["n"] == len(values)
    expected = (stdlib.fmean(values), stdlib.pstdev(values), stdlib.median(values), min(values), max(values))
    assert [found[name] for name in ("mean", "std", "median", "min", "max")] == pytest.approx(expected)


def test_the_largest_scores_have_a_summary_and_a_correlation() -> None:
    huge = [4e307, -4e307, 4e307, -4e307]
    found = summary(huge)
    assert (found["mean"], found["std"]) == (0.0, 4e307)
    assert pearson(huge, huge) == pytest.approx(1.0)
    assert pearson([4e307, 4e307, 3e307, 4e307, 4e307], [1, 1, 0, 1, 1]) == pytest.approx(1.0)


def test_nothing_has_an_empty_summary() -> None:
    assert summary([]) == {"n": 0}


@pytest.mark.parametrize("values", [[0.5], [0.0], [1e17, 1e17 + 16], [0.1 + 0.2, 0.3], [-3.3e38, 3.3e38]])
def test_values_however_close_or_far_get_a_histogram(values: list[float]) -> None:
    found = histograms({"a": values})
    assert sum(found["a"]) == len(values)
    assert all(low < high for low, high in itertools.pairwise(found["edges"]))


def test_histograms_share_their_bins_and_lose_nothing() -> None:
    found = histograms({"a": [0.0, 1.0, 10.0], "b": [5.0]}, n_bins=10)
    assert found["edges"] == pytest.approx([float(i) for i in range(11)])
    assert found["a"] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert found["b"] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
