"""Calibration: known temperatures are found, maps are what they are defined to be, figures after are held-out ones."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from golden_sets import GoldenSet
from hypothesis import given
from hypothesis import strategies as st

from reward_hub import (
    AutoRM,
    BaseRM,
    CalibratedRM,
    CheckpointError,
    InvalidConversationError,
    UnsupportedError,
    builtin,
    calibrate,
    load_calibration,
)
from reward_hub.calibration.fitting import calibrate_scores, expected_calibration_error
from reward_hub.calibration.maps import (
    IsotonicMap,
    TemperatureMap,
    fit_isotonic,
    fit_temperature,
    map_from_dict,
    pool_adjacent_violators,
)
from reward_hub.data.preferences import read_preferences
from reward_hub.numerics import sigmoid

JUDGEBENCH = Path(__file__).parents[3] / "shared" / "data" / "judgebench"


def margins_at(temperature, n, seed=0, spread=3.0):
    """Margins of chosen over rejected of a Bradley-Terry model that is right at this temperature."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(0.0, spread * temperature, n)
    right = rng.random(n) < 1.0 / (1.0 + np.exp(-margins / temperature))
    return np.where(right, margins, -margins)


# -- the maps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.05, 1.0, 40.0])
def test_a_known_temperature_is_found(temperature):
    fitted = fit_temperature(margins_at(temperature, 20_000))
    # The standard error of log T is about 1 / sqrt(n x 0.2) for margins this wide.
    assert math.log(fitted.temperature / temperature) == pytest.approx(0.0, abs=0.05)


def test_the_temperature_is_the_most_likely_one_on_a_fine_grid():
    margins = margins_at(2.0, 200, seed=1)
    grid = np.linspace(0.5, 8.0, 20_001)
    losses = np.logaddexp(0, -margins[:, None] / grid)
    assert fit_temperature(margins).temperature == pytest.approx(grid[np.argmin(losses.mean(0))], abs=2e-3)


def test_pairs_without_a_wrong_one_have_a_finite_temperature():
    fitted = fit_temperature(np.full(8, 3.0))
    assert fitted.probabilities(np.array(3.0)) == pytest.approx(9 / 10)


@given(st.floats(1e-6, 1e6), st.integers(0, 100))
def test_the_scale_of_the_scores_makes_no_difference(scale, seed):
    margins = margins_at(1.0, 50, seed)
    if margins.sum() > 0:
        assert fit_temperature(scale * margins).temperature == pytest.approx(
            scale * fit_temperature(margins).temperature, rel=1e-9
        )


def test_a_model_that_is_wrong_on_average_has_no_temperature():
    with pytest.raises(ValueError, match="mean margin -1"):
        fit_temperature(np.array([1.0, -3.0]))


def brute_force_isotonic(x, y):
    """The least-squares ascending fit at each x by the min-max formula, over all points at once."""
    points = np.unique(x)
    means = [[np.mean(y[(x >= low) & (x <= high)]) if low <= high else 0 for high in points] for low in points]
    table = np.array(means)
    return points, [max(table[j, i:].min() for j in range(i + 1)) for i in range(len(points))]


margins_with_ties = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=25)


@given(margins_with_ties)
def test_the_isotonic_map_is_the_least_squares_fit_of_both_orders(values):
    margins = np.array(values)
    if not margins.any():
        with pytest.raises(ValueError, match="nothing to fit"):
            fit_isotonic(margins)
        return
    fitted = fit_isotonic(margins)
    both = np.concatenate([margins, -margins])
    outcomes = np.concatenate([np.ones(len(margins)), np.zeros(len(margins))])
    points, expected = brute_force_isotonic(both, outcomes)
    limit = 1 / (len(margins) + 2)
    assert fitted.probabilities(points) == pytest.approx(np.clip(expected, limit, 1 - limit), abs=1e-12)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 5)), min_size=1, max_size=12))
def test_pooled_values_ascend_and_keep_the_weighted_mean(rows):
    values, weights = np.array(rows).T
    pooled = pool_adjacent_violators(values, weights)
    assert (np.diff(pooled) >= 0).all()
    assert pooled @ weights == pytest.approx(values @ weights, abs=1e-9)


@given(margins_with_ties, st.floats(-20, 20))
def test_an_isotonic_map_ascends_inside_0_and_1_and_mirrors(values, margin):
    margins = np.array([*values, 1.0])
    fitted = fit_isotonic(margins)
    p, mirrored, above = (float(fitted.probabilities(np.array(m))) for m in (margin, -margin, margin + 0.1))
    assert 0 < p < 1
    assert p == 1 - mirrored
    assert above >= p


@pytest.mark.parametrize("fitted", [TemperatureMap(2.5), IsotonicMap((0.5, 1.5), (0.6, 0.9))])
def test_a_map_survives_json(fitted):
    assert map_from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


@pytest.mark.parametrize(
    ("margins", "values"), [((), ()), ((1.0,), ()), ((1.0, 0.5), (0.6, 0.7)), ((1.0,), (1.0,)), ((1.0,), (0.4,))]
)
def test_knots_that_are_no_map_are_refused(margins, values):
    with pytest.raises(ValueError, match="isotonic map"):
        IsotonicMap(margins, values)


# -- the calibration error ----------------------------------------------------------------------------------------


def test_the_calibration_error_is_the_weighted_gap_of_each_bin():
    probabilities = [0.05, 0.15, 0.12, 0.95, 1.0]
    outcomes = [0, 1, 0, 1, 0.5]
    expected = 1 / 5 * 0.05 + 2 / 5 * abs(0.5 - 0.135) + 2 / 5 * abs(0.75 - 0.975)
    assert expected_calibration_error(probabilities, outcomes) == pytest.approx(expected)


def test_a_probability_where_a_bin_begins_falls_into_it_also_where_its_product_rounds():
    assert 15 / 22 * 22 < 15
    below = 14 / 22 + 1e-6
    # In one bin the two gaps would cancel.
    found = expected_calibration_error([15 / 22, below], [0, 1], n_bins=22)
    assert found == pytest.approx((15 / 22 + 1 - below) / 2)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 30))
def test_the_calibration_error_is_that_of_a_plain_loop(rows, n_bins):
    total = 0.0
    for i in range(n_bins):
        last = i == n_bins - 1
        inside = [(p, y) for p, y in rows if i / n_bins <= p and (last or p < (i + 1) / n_bins)]
        if inside:
            total += abs(sum(y for _, y in inside) - math.fsum(p for p, _ in inside)) / len(rows)
    found = expected_calibration_error([p for p, _ in rows], [y for _, y in rows], n_bins=n_bins)
    assert found == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize(
    ("probabilities", "outcomes", "problem"),
    [([], [], "at least one"), ([0.5], [1, 0], "as many"), ([1.5], [1], "1.5"), ([0.5], [math.nan], "nan")],
)
def test_a_calibration_error_of_something_else_is_refused(probabilities, outcomes, problem):
    with pytest.raises(ValueError, match=problem):
        expected_calibration_error(probabilities, outcomes)


# -- recorded scores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_calibration_of_an_overconfident_model_is_seen_in_every_held_out_figure(method):
    margins = margins_at(8.0, 1000, seed=2)
    report = calibrate_scores(margins, np.zeros(1000), method=method).report
    assert report.ece_before > 0.1
    assert report.ece_after < 0.04
    assert report.log_loss_after < report.log_loss_before - 0.1


def test_what_is_calibrated_already_stays_so():
    report = calibrate_scores(margins_at(1.0, 4000, seed=3), np.zeros(4000)).report
    assert report.temperature == pytest.approx(1.0, abs=0.1)
    assert report.log_loss_after == pytest.approx(report.log_loss_before, abs=1e-3)


def test_figures_after_are_those_of_maps_that_never_saw_the_pair():
    # Every pair is another margin: fitted on itself, the isotonic map would be nearly never wrong.
    margins = np.where(np.random.default_rng(4).random(60) < 0.6, 1.0, -1.0) * np.arange(1, 61)
    calibration = calibrate_scores(margins, np.zeros(60), method="isotonic", n_folds=60)
    losses = []
    for i in range(60):
        others = fit_isotonic(np.delete(margins, i))
        losses.append(-math.log(others.probabilities(np.array(margins[i]))))
    assert calibration.report.log_loss_after == pytest.approx(np.mean(losses))
    assert calibration.report.log_loss_after > -np.log(calibration.map.probabilities(margins)).mean()


def test_before_is_the_plain_sigmoid_also_where_it_underflows():
    report = calibrate_scores([2.0, 2.0, 0.0, 900.0], [1.0, 1.0, 50.0, 0.0], n_folds=2).report
    assert report.log_loss_before == pytest.approx((2 * -math.log(sigmoid(1.0)) + 50) / 4)
    assert report.accuracy == 0.75


def test_equal_scores_count_half():
    assert calibrate_scores([1.0, 2.0, 3.0, 0.0], [1.0, 0.0, 0.0, 1.0], n_folds=2).report.accuracy == 0.625


def test_the_sign_of_a_cost_is_turned():
    chosen, rejected = margins_at(1.0, 100, seed=5), np.zeros(100)
    assert calibrate_scores(-chosen, rejected, higher_is_better=False) == calibrate_scores(chosen, rejected)


@pytest.mark.parametrize(
    ("chosen", "rejected", "options", "error", "problem"),
    [
        ([1.0] * 4, [0.0] * 3, {}, ValueError, "as many chosen"),
        ([1.0] * 4, [0.0] * 4, {}, ValueError, "4 pairs for 5 folds"),
        ([1.0] * 4, [0.0] * 4, {"n_folds": 1}, ValueError, "2 folds"),
        ([1.0, 1.0, math.nan], [0.0] * 3, {"n_folds": 2}, ValueError, "pair 2 has scores that are not finite"),
        ([1.0] * 6, [0.0] * 6, {"method": "platt"}, TypeError, "known: temperature, isotonic"),
        (
            [100.0] + [0.0] * 9,
            [0.0] + [1.0] * 9,
            {},
            ValueError,
            "All 10 pairs can be fitted, but not without the 2 of",
        ),
        ([0.0] * 10, [1.0] * 10, {}, ValueError, r"no better than the rejected ones \(mean margin -1\)"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(chosen, rejected, options, error, problem):
    with pytest.raises(error, match=problem):
        calibrate_scores(chosen, rejected, **options)


# Held-out calibration error of each model at most this, and its log-loss below that of a coin.
RECORDED = {
    "scores_Skywork_Skywork-Reward-Gemma-2-27B": 0.06,
    "scores_Ray2333_GRM-Gemma-2B-rewardmodel-ft": 0.06,
    "scores_internlm_internlm2-7b-reward": 0.07,
}


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_scores_of_real_models_get_honest(name, method):
    if not JUDGEBENCH.is_dir():
        pytest.skip("needs the recorded JudgeBench scores in ../shared/data/judgebench")
    rows = [json.loads(line) for line in (JUDGEBENCH / f"{name}.jsonl").read_text().splitlines()]
    scores = [[row[f"{side}_score"] for row in rows] for side in ("chosen", "rejected")]
    report = calibrate_scores(*scores, method=method).report
    assert report.n_pairs == 350
    assert report.ece_after < report.ece_before
    assert report.ece_after < RECORDED[name]
    assert report.log_loss_after < min(report.log_loss_before, math.log(2)) + 0.005
    # The published accuracies count a tie as wrong.
    ties = sum(a == b for a, b in zip(*scores, strict=True))
    published = json.loads((JUDGEBENCH / "expected_accuracy.json").read_text())[name.removeprefix("scores_")]
    assert 100 * (report.accuracy - ties / 2 / 350) == pytest.approx(published["overall"], abs=0.005)


# -- a model at hand ----------------------------------------------------------------------------------------------


class LengthRM(BaseRM):
    """Scores a response by its length."""

    name = "length"

    def score(self, messages):
        return float(len(messages[-1]["content"]))


class LengthCost(LengthRM):
    higher_is_better = False


def length_pairs(n=40):
    """The chosen response is longer by 1 to 4 characters in three of four pairs, and shorter by 2 in the others."""
    lengths = [(5, 3) if i % 4 == 3 else (3, 4 + i % 4) for i in range(n)]
    return [{"prompt": "?", "rejected": "a" * a, "chosen": "b" * b} for a, b in lengths]


def length_margins(n=40):
    return np.array([len(pair["chosen"]) - len(pair["rejected"]) for pair in length_pairs(n)], float)


def test_compare_gives_the_calibrated_probability_and_score_the_raw_reward():
    rm = calibrate(LengthRM(), length_pairs())
    assert rm.report.temperature == pytest.approx(fit_temperature(length_margins()).temperature)
    probability, details = rm.compare(prompt="?", a="bbbb", b="b", return_details=True)
    assert probability == pytest.approx(sigmoid(3 / rm.report.temperature))
    assert details["calibrated"] is True
    assert details["raw_probability"] == sigmoid(3.0)
    assert details["scores"] == [4.0, 1.0]
    assert details["normalized_score"] == probability
    assert rm.compare(prompt="?", a="b", b="bbbb") == pytest.approx(1 - probability, abs=1e-12)
    assert rm.score(prompt="?", response="bbbb") == 4.0
    assert rm.rank(prompt="?", responses=["b", "bbb", "bb"]) == [1, 2, 0]


async def test_asynchronous_calls_give_the_same():
    rm = calibrate(LengthRM(), length_pairs(), method="isotonic")
    assert await rm.acompare(prompt="?", a="bbb", b="b") == rm.compare(prompt="?", a="bbb", b="b")
    assert await rm.ascore(prompt="?", response="bb") == 2.0
    assert await rm.arank(prompt="?", responses=["b", "bb"]) == [1, 0]


def test_a_cost_is_calibrated_the_other_way_round():
    swapped = [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in length_pairs()]
    cost, reward = calibrate(LengthCost(), swapped), calibrate(LengthRM(), length_pairs())
    assert cost.report == reward.report
    assert cost.compare(prompt="?", a="b", b="bbbb") == reward.compare(prompt="?", a="bbbb", b="b")


def test_scores_far_apart_are_not_lost_in_a_sigmoid_of_1():
    class Loud(LengthRM):
        def score(self, messages):
            return 100 * super().score(messages)

    loud, plain = calibrate(Loud(), length_pairs()), calibrate(LengthRM(), length_pairs())
    assert loud.report.temperature == pytest.approx(100 * plain.report.temperature)
    assert loud.compare(prompt="?", a="bbb", b="b") == pytest.approx(plain.compare(prompt="?", a="bbb", b="b"))


def demo_pairs():
    """A right and a wrong solution to each problem that ships with the built-in models, in every combination."""
    rows = json.loads((Path(builtin.__file__).parent / "demo.json").read_text())
    solutions = [list(zip(row["responses"], row["first_errors"], strict=True)) for row in rows]
    return [
        {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected}
        for row, solved in zip(rows, solutions, strict=True)
        for chosen, first in solved
        for rejected, error in solved
        if first == -1 and error != -1
    ]


@pytest.mark.parametrize("name", ["builtin/arithmetic-orm", "builtin/arithmetic-prm"])
def test_a_loaded_model_is_calibrated_by_its_scores(name):
    pairs = demo_pairs()[::2]
    with AutoRM.load(name, load_method="transformers") as raw:
        rm = calibrate(raw, pairs)
        chosen = [raw.score(prompt=pair["prompt"], response=pair["chosen"]) for pair in pairs]
        rejected = [raw.score(prompt=pair["prompt"], response=pair["rejected"]) for pair in pairs]
    expected = calibrate_scores(chosen, rejected).report
    assert rm.report.n_pairs == len(pairs)
    assert rm.report.temperature == pytest.approx(expected.temperature, rel=1e-4)
    assert rm.report.log_loss_after == pytest.approx(expected.log_loss_after, rel=1e-4)


# -- pairwise models ----------------------------------------------------------------------------------------------


class FirstPlaceRM(BaseRM):
    """Compares by length, and likes the first response better by 1."""

    kind = "pairwise"
    name = "first place"

    def compare_pairs(self, pairs, both_orders, options):
        def p(a, b):
            return sigmoid(len(a) - len(b) + 1.0)

        return [
            self._own_details((p(pair.a, pair.b) + 1 - p(pair.b, pair.a)) / 2 if both_orders else p(pair.a, pair.b))
            for pair in pairs
        ]


def test_a_pairwise_model_is_asked_in_both_orders_so_that_its_bias_for_a_place_counts():
    rm = calibrate(FirstPlaceRM(), length_pairs())
    margins = np.concatenate([length_margins() + 1, length_margins() - 1])
    assert rm.report.temperature == pytest.approx(fit_temperature(margins).temperature)
    assert rm.report.n_pairs == 40
    expected = sigmoid((2 + 1) / rm.report.temperature)
    assert rm.compare(prompt="?", a="bbb", b="b") == pytest.approx(expected)


def test_a_pairwise_model_calibrated_for_both_orders_asks_both():
    rm = calibrate(FirstPlaceRM(), length_pairs(), both_orders=True)
    p = rm.compare(prompt="?", a="bbb", b="b")
    assert rm.compare(prompt="?", a="bbb", b="b", both_orders=True) == p
    assert rm.compare(prompt="?", a="b", b="bbb") == pytest.approx(1 - p)


class Own(LengthRM):
    def compare(self, messages=None, **responses):
        return 0.9


def test_a_compare_of_a_users_own_is_refused_rather_than_left_out():
    with pytest.raises(UnsupportedError, match="a compare of its own"):
        calibrate(Own(), length_pairs())


def test_an_order_that_was_not_calibrated_is_refused():
    rm = calibrate(FirstPlaceRM(), length_pairs())
    with pytest.raises(UnsupportedError, match="both_orders=True"):
        rm.compare(prompt="?", a="b", b="bb", both_orders=True)
    with pytest.raises(UnsupportedError, match="no score for one"):
        rm.score(prompt="?", response="b")


def test_a_real_pairwise_model_keeps_its_ranking(golden_models):
    golden = GoldenSet("pairrm-hf", "own")
    raw = golden_models.load(golden)
    # Random weights: what the model itself prefers is the chosen response.
    couples = [("a " * (1 + i % 7), "b " * (1 + i % 5)) for i in range(12)]
    sorted_couples = [
        couple if raw.compare(prompt="?", a=couple[0], b=couple[1]) > 0.5 else couple[::-1] for couple in couples
    ]
    rm = calibrate(
        raw, [{"prompt": "?", "chosen": chosen, "rejected": rejected} for chosen, rejected in sorted_couples]
    )
    responses = ["one", "two words", "three words here"]
    assert rm.rank(prompt="?", responses=responses) == raw.rank(prompt="?", responses=responses)
    logit = math.log(raw.compare(prompt="?", a="x", b="y")) - math.log1p(-raw.compare(prompt="?", a="x", b="y"))
    assert rm.compare(prompt="?", a="x", b="y") == pytest.approx(sigmoid(logit / rm.report.temperature), abs=1e-6)


# -- process models, files, pairs ---------------------------------------------------------------------------------


class StepRM(BaseRM):
    kind = "process"

    def score_steps(self, messages, steps):
        return [len(step) / 10 for step in steps]

    @property
    def capabilities(self):
        return replace(super().capabilities, aggregation="last")


def test_a_process_model_keeps_its_steps_and_its_aggregation():
    rm = calibrate(StepRM(), length_pairs())
    assert rm.score_steps(prompt="?", response="aa\n\nbbbb") == [0.2, 0.4]
    assert rm.score(prompt="?", response="aa\n\nbbbb") == 0.4
    expected = sigmoid((0.4 - 0.1) / rm.report.temperature)
    assert rm.compare(prompt="?", a="aa\n\nbbbb", b="aa\n\nb") == pytest.approx(expected)


def test_a_calibrated_model_is_calibrated_again_by_its_probabilities():
    # Margins of 60 at a temperature of 4 are ones of 15, whose sigmoid is that of 60 within a millionth.
    inner = CalibratedRM(LengthRM(), replace(calibrate(LengthRM(), length_pairs()).calibration, map=TemperatureMap(4)))
    pairs = [{"prompt": "?", "chosen": "b" * 61, "rejected": "a"} for _ in range(15)]
    pairs += [{"prompt": "?", "chosen": "b", "rejected": "a" * 61} for _ in range(5)]
    expected = fit_temperature(np.array([15.0] * 15 + [-15.0] * 5)).temperature
    assert calibrate(inner, pairs).report.temperature == pytest.approx(expected)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_saved_calibration_gives_the_same_probabilities(tmp_path, method):
    fitted = calibrate(LengthRM(), length_pairs(), method=method)
    fitted.save(tmp_path / "length.json")
    loaded = load_calibration(tmp_path / "length.json", LengthRM())
    assert isinstance(loaded, CalibratedRM)
    assert loaded.report == fitted.report
    assert loaded.fingerprint == fitted.fingerprint
    assert loaded.compare(prompt="?", a="bb", b="b") == fitted.compare(prompt="?", a="bb", b="b")


def test_another_models_calibration_is_an_error(tmp_path):
    calibrate(LengthRM(), length_pairs()).save(tmp_path / "length.json")
    with pytest.raises(CheckpointError, match="fitted for 'length'"):
        load_calibration(tmp_path / "length.json", FirstPlaceRM())


@pytest.mark.parametrize(
    "written", [b"", b"\xff\xfe", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "map": {"method": "magic"}}']
)
def test_a_file_that_is_no_calibration_is_an_error(tmp_path, written):
    (tmp_path / "broken.json").write_bytes(written)
    with pytest.raises(CheckpointError, match=r"broken\.json"):
        load_calibration(tmp_path / "broken.json", LengthRM())


def test_the_fingerprint_tells_maps_and_models_apart():
    models = [
        LengthRM(),
        calibrate(LengthRM(), length_pairs()),
        calibrate(LengthRM(), length_pairs(), method="isotonic"),
        calibrate(LengthRM(), length_pairs(37)),
        calibrate(FirstPlaceRM(), length_pairs()),
        calibrate(FirstPlaceRM(), length_pairs(), both_orders=True),
    ]
    assert len({model.fingerprint for model in models}) == len(models)


def test_pairs_come_from_a_file_and_as_messages_too(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in length_pairs()))
    as_messages = [
        {
            "prompt": [{"role": "user", "content": pair["prompt"]}],
            "chosen": [{"role": "assistant", "content": pair["chosen"]}],
            "rejected": [{"role": "assistant", "content": pair["rejected"]}],
        }
        for pair in length_pairs()
    ]
    report = calibrate(LengthRM(), length_pairs()).report
    assert calibrate(LengthRM(), read_preferences(path)).report == report
    assert calibrate(LengthRM(), as_messages).report == report


@pytest.mark.parametrize(
    ("pair", "problem"),
    [
        ({"prompt": "?", "chosen": "a"}, "pair 1: there is no 'rejected'"),
        ("a pair", "pair 1 is str"),
        (
            {"prompt": "?", "chosen": [{"role": "assistant", "tool_calls": [{"id": "1"}]}], "rejected": "b"},
            "pair 1: 'chosen' calls tools",
        ),
        (
            {"prompt": "?", "chosen": "a", "rejected": {"role": "assistant", "content": "b", "reasoning_content": "r"}},
            "pair 1: 'rejected' has reasoning_content",
        ),
    ],
)
def test_a_malformed_pair_is_told_by_its_place(pair, problem):
    with pytest.raises(InvalidConversationError, match=problem):
        calibrate(LengthRM(), [length_pairs()[0], pair, *length_pairs()])


def test_too_few_pairs_are_an_error():
    for n in (0, 4):
        with pytest.raises(ValueError, match=f"{n} pairs for 5 folds"):
            calibrate(LengthRM(), length_pairs(n))


def test_what_cannot_be_fitted_is_refused_before_anything_is_scored():
    class Untouched(LengthRM):
        def score(self, messages):
            raise AssertionError("scored")

    for options in ({"method": "platt"}, {"n_folds": 1}, {"n_bins": 0}):
        with pytest.raises((TypeError, ValueError), match=next(iter(options)).removeprefix("n_")):
            calibrate(Untouched(), length_pairs(), **options)


def test_a_pair_that_cannot_be_scored_is_an_error():
    class Picky(LengthRM):
        def score(self, messages):
            if messages[-1]["content"] == "b" * 6:
                raise UnsupportedError("six are too many")
            return super().score(messages)

    with pytest.raises(UnsupportedError, match="six are"):
        calibrate(Picky(), length_pairs())


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in demo_pairs()[:8]))
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    names["raw"].close()
    assert names["rm"].report.n_pairs == 8
