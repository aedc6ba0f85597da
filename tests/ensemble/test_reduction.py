"""Reductions and normalisations against other ways to the same numbers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_hub import BackendError, CheckpointError
from reward_hub.ensemble.normalization import NORMALIZATIONS, Statistics, load_statistics, normalized, save_statistics
from reward_hub.ensemble.reduction import REDUCTIONS, Reduction, ranks

some = settings(max_examples=25)
SCORES = st.floats(-50, 50, width=32)
PARAMETERS = {"uncertainty": 0.7, "mean_minus_std": 0.7, "softmin": 0.3}
# Sums in another order differ in their last bits; a variance of 2,500 in its twelfth digit.
CLOSE = {"rel": 1e-9, "abs": 1e-9}


@st.composite
def weighted_scores(draw):
    """[n_members, n] scores and whole weights: a member of weight 3 is as good as three members."""
    n_members, n = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(SCORES, min_size=n, max_size=n), min_size=n_members, max_size=n_members))
    weights = draw(st.lists(st.integers(1, 4), min_size=n_members, max_size=n_members))
    return np.array(rows, dtype=float), np.array(weights, dtype=float)


def expected(name: str, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Each member repeated as often as it weighs, and then numpy's unweighted functions."""
    repeated = np.repeat(values, weights.astype(int), axis=0)
    n = len(repeated)
    if name == "trimmed_mean":  # one of the repeated rows dropped at either end
        return np.sort(repeated, axis=0)[1 : n - 1].mean(axis=0)
    return {
        "mean": lambda: repeated.mean(axis=0),
        "vote": lambda: repeated.mean(axis=0),
        "median": lambda: np.median(repeated, axis=0),
        "min": lambda: repeated.min(axis=0),
        "max": lambda: repeated.max(axis=0),
        "uncertainty": lambda: repeated.mean(axis=0) - 0.7 * repeated.var(axis=0),
        "mean_minus_std": lambda: repeated.mean(axis=0) - 0.7 * repeated.std(axis=0),
        "softmin": lambda: -np.log(np.exp(-0.3 * repeated).mean(axis=0)) / 0.3,
    }[name]()


def reduction_of(name: str, weights: np.ndarray) -> Reduction:
    if name == "trimmed_mean":
        return Reduction.of(name, trim=1 / weights.sum())
    own = {"uncertainty": "uncertainty_penalty", "mean_minus_std": "uncertainty_penalty", "softmin": "beta"}
    return Reduction.of(name, **({own[name]: PARAMETERS[name]} if name in own else {}))


@pytest.mark.parametrize("name", REDUCTIONS)
@some
@given(weighted_scores())
def test_a_weight_counts_as_so_many_members_of_numpys_unweighted_function(name, case):
    values, weights = case
    if name == "trimmed_mean" and weights.sum() < 3:
        weights = weights + 2
    # The root of a variance that is nothing but rounding is large beside it.
    close = {"rel": 1e-6, "abs": 1e-6} if name == "mean_minus_std" else CLOSE
    assert reduction_of(name, weights)(values, weights) == pytest.approx(expected(name, values, weights), **close)


@pytest.mark.parametrize("name", REDUCTIONS)
@some
@given(weighted_scores(), st.floats(1e-3, 1e3), st.randoms(use_true_random=False))
def test_neither_the_scale_of_weights_nor_the_order_of_members_matters(name, case, scale, random):
    values, weights = case
    order = random.sample(range(len(weights)), len(weights))
    reduce = Reduction.of(name)
    close = {"rel": 1e-6, "abs": 1e-6} if name == "mean_minus_std" else CLOSE
    assert reduce(values[order], scale * weights[order]) == pytest.approx(reduce(values, weights), **close)


@pytest.mark.parametrize("name", REDUCTIONS)
@some
@given(SCORES, st.floats(1e-3, 1e3))
def test_one_member_is_given_back_to_the_last_bit(name, score, weight):
    found = Reduction.of(name)(np.array([[score]]), np.array([weight]))[0]
    assert found == (round(score, 12) if name == "vote" else score)


@pytest.mark.parametrize("name", REDUCTIONS)
@some
@given(weighted_scores())
def test_a_column_is_reduced_alike_whatever_stands_beside_it(name, case):
    values, weights = case
    together = Reduction.of(name)(values, weights)
    alone = [Reduction.of(name)(values[:, [i]], weights)[0] for i in range(values.shape[1])]
    assert together.tolist() == alone


def test_a_half_of_the_weight_is_found_in_spite_of_rounding():
    values, weights = np.array([[1.0], [2.0], [4.0]]), np.array([0.1, 0.2, 0.3])  # 0.1 + 0.2 is not 0.3
    assert Reduction.of("median")(values, weights)[0] == 3.0


def test_equal_mean_ranks_are_equal_in_whichever_order_they_are_added():
    values = np.array([[0.1, 0.3], [0.2, 0.2], [0.3, 0.1]])  # 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1
    a, b = Reduction.of("vote")(values, np.ones(3))
    assert a == b == 0.2


def test_softmin_does_not_overflow_and_lies_between_minimum_and_mean():
    values, weights = np.array([[-1e4], [1e4]]), np.array([1.0, 1.0])
    assert Reduction.of("softmin", beta=5.0)(values, weights)[0] == pytest.approx(-1e4 + math.log(2) / 5)
    assert Reduction.of("softmin", beta=1e-9)(values / 1e4, weights)[0] == pytest.approx(0.0, abs=1e-6)


def test_the_default_trim_cuts_the_outer_of_three_members_in_part():
    # A third each; a fifth is cut at either end, which leaves 2/15, 1/3 and 2/15 of 3/5.
    values = np.array([[0.0], [1.0], [5.0]])
    assert Reduction.of("trimmed_mean")(values, np.ones(3))[0] == pytest.approx((1 / 3 + 5 * 2 / 15) / 0.6)


@some
@given(st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=3))
def test_ranks_are_shares_of_the_others_beaten_with_ties_for_half(rows):
    values = np.array(rows, dtype=float)
    for row, found in zip(rows, ranks(values), strict=True):
        for i, score in enumerate(row):
            others = row[:i] + row[i + 1 :]
            assert found[i] == pytest.approx(sum((score > x) + (score == x) / 2 for x in others) / 3)


@pytest.mark.parametrize(
    ("name", "parameters", "complaint"),
    [
        ("average", {}, "known: mean, median"),
        ("mean", {"beta": 1.0}, "has no beta; it belongs to softmin"),
        ("softmin", {"uncertainty_penalty": 1.0}, "belongs to uncertainty and mean_minus_std"),
        ("softmin", {"beta": 0.0}, "above 0"),
        ("softmin", {"beta": math.nan}, "not a finite number"),
        ("trimmed_mean", {"trim": 0.5}, "below 0.5"),
        ("uncertainty", {"uncertainty_penalty": -1}, "at least 0"),
        ("uncertainty", {"uncertainty_penalty": True}, "not a finite number"),
    ],
)
def test_a_reduction_that_does_not_exist_or_a_parameter_that_does_not_fit_is_refused(name, parameters, complaint):
    with pytest.raises(TypeError, match=complaint):
        Reduction.of(name, **parameters)


# normalisation


@some
@given(st.lists(SCORES, min_size=2, max_size=20), st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=5))
def test_normalised_scores_are_those_of_plain_formulas(fitted, values):
    statistics, x = Statistics.of(np.array(fitted), name="m"), np.array(values)
    if np.ptp(fitted) > 0.01:
        scaled = (x - np.mean(fitted)) / np.std(fitted)
        assert normalized(x, "zscore", statistics) == pytest.approx(scaled, **CLOSE)
        shares = (x - min(fitted)) / (max(fitted) - min(fitted))
        assert normalized(x, "minmax", statistics) == pytest.approx(shares, **CLOSE)
    assert normalized(x, "sigmoid", None) == pytest.approx([1 / (1 + math.exp(-v)) for v in values], **CLOSE)
    ordered = sorted(fitted)
    among = [(sum(y < v for y in fitted) + sum(y == v for y in fitted) / 2) / len(fitted) for v in ordered]
    assert normalized(np.array(ordered), "rank", statistics) == pytest.approx(among, **CLOSE)
    assert normalized(x, None, None) is x


@pytest.mark.parametrize("how", NORMALIZATIONS)
@some
@given(st.lists(SCORES, min_size=3, max_size=20), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_no_normalisation_turns_two_scores_around(how, fitted, a, b):
    if np.ptp(fitted) < 1e-3:
        fitted = [*fitted, fitted[0] + 1]
    low, high = normalized(np.array(sorted((a, b))), how, Statistics.of(np.array(fitted), name="m"))
    assert low <= high


def test_a_rank_between_two_fitted_scores_lies_between_theirs_and_is_0_or_1_outside():
    statistics = Statistics.of(np.array([0.0, 1.0, 2.0, 2.0]), name="m")
    found = normalized(np.array([-0.1, 0.0, 0.5, 1.0, 2.0, 2.1]), "rank", statistics)
    assert found.tolist() == [0.0, 0.125, 0.25, 0.375, 0.75, 1.0]


@pytest.mark.parametrize("scores", [[], [1.0], [1.0, math.nan], [math.inf, 0.0]])
def test_statistics_of_too_little_or_of_what_is_no_score_are_refused(scores):
    with pytest.raises(BackendError, match="the-model"):
        Statistics.of(np.array(scores), name="the-model")


def test_a_constant_model_has_no_spread_to_divide_by():
    constant = Statistics.of(np.array([0.3, 0.3]), name="m")
    constant.check_spread("rank", name="m")
    with pytest.raises(BackendError, match=r"m gave 0\.3 for all 2"):
        constant.check_spread("zscore", name="m")


@pytest.mark.parametrize(
    ("how", "scores"),
    [("zscore", [1e200, 2e200]), ("zscore", [1e-200, 2e-200]), ("minmax", [-1.5e308, 1.5e308])],
)
def test_a_spread_that_floats_cannot_hold_is_refused(how, scores):
    fitted = Statistics.of(np.array(scores), name="m")
    fitted.check_spread("rank", name="m")
    with pytest.raises(BackendError, match=f"{how} cannot be computed"):
        fitted.check_spread(how, name="m")


@some
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=10))
def test_statistics_read_back_as_the_same_floats(tmp_path_factory, scores):
    path = tmp_path_factory.mktemp("statistics") / "s.json"
    saved = Statistics.of(np.array(scores), name="m")
    save_statistics(path, [("m", "f1")], [saved], of="scores")
    [loaded] = load_statistics(path, [("other name", "f1")], of="scores")
    assert loaded.scores.tolist() == saved.scores.tolist()
    assert loaded.digest == saved.digest


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 2}, "version"),
        ({"format": "something"}, "format"),
        ({"of": "step_scores"}, "statistics of step_scores; this ensemble combines scores"),
        ({"members": []}, r"no statistics of m \(f1\)"),
        ({"members": [{"name": "m", "fingerprint": "f2", "scores": [1.0, 2.0]}]}, r"has those of m \(f2\)"),
        ({"members": [{"name": "m", "fingerprint": "f1", "scores": ["1", 2.0]}]}, "members.0.scores.0"),
        ({"members": [{"name": "m", "fingerprint": "f1", "scores": [math.nan, 2.0]}]}, "finite"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_statistics_file_of_something_else_is_refused(tmp_path, change, complaint):
    path = tmp_path / "s.json"
    save_statistics(path, [("m", "f1")], [Statistics.of(np.array([1.0, 2.0]), name="m")], of="scores")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=complaint):
        load_statistics(path, [("m", "f1")], of="scores")


def test_a_torn_statistics_file_is_refused(tmp_path):
    path = tmp_path / "s.json"
    save_statistics(path, [("m", "f1")], [Statistics.of(np.array([1.0, 2.0]), name="m")], of="scores")
    path.write_text(path.read_text()[:50])
    with pytest.raises(CheckpointError, match="holds no ensemble statistics"):
        load_statistics(path, [("m", "f1")], of="scores")
