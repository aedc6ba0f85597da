"""Length, markdown and position bias; margins, distributions and calibration."""

from __future__ import annotations

import math
from typing import Any

import pytest
from bench_examples import FEW, compared, failed, pair
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.bench import bias, margins
from reward_hub.bench.statistics import pearson, spearman


def described(row: dict[str, Any], chosen: list[int], rejected: list[int]) -> dict[str, Any]:
    """The row with responses of these lengths, each with a bold span for every ten characters."""
    sides = {"chosen": chosen, "rejected": rejected}
    return row | {
        "responses": {
            name: [{"characters": n, "words": n, "markdown": {"headers": 1, "bold": n // 10}} for n in lengths]
            for name, lengths in sides.items()
        }
    }


def test_a_model_that_scores_by_length_is_found_out() -> None:
    lengths = [(100, 50), (80, 20), (30, 60), (10, 90)]
    rows = [described(pair(i, float(a), float(b)), [a], [b]) for i, (a, b) in enumerate(lengths)]
    found = bias.bias_of(rows)
    assert found is not None
    assert (found["chosen_has_more"]["accuracy"], found["chosen_has_more"]["n"]) == (1.0, 2)
    assert (found["chosen_has_less"]["accuracy"], found["chosen_has_less"]["n"]) == (0.0, 2)
    assert (found["accuracy_gap"], found["prefers_more"], found["chosen_share"]) == (1.0, 1.0, 0.5)
    assert found["score_correlation"] == {"pearson": pytest.approx(1.0), "spearman": pytest.approx(1.0), "n": 8}
    assert found["margin_correlation"]["pearson"] == pytest.approx(1.0)


def test_a_model_without_the_bias_is_as_accurate_either_way() -> None:
    lengths = [(100, 50), (50, 100), (80, 20), (20, 80)]
    scores = [(1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, 1.0)]
    rows = [described(pair(i, *scores[i]), [a], [b]) for i, (a, b) in enumerate(lengths)]
    found = bias.bias_of(rows)
    assert found is not None
    assert (found["accuracy_gap"], found["prefers_more"]) == (0.0, 0.5)
    assert found["margin_correlation"]["pearson"] == pytest.approx(0.0)
    low, high = found["chosen_has_more"]["ci95"]
    assert (low, high) == (0.0, 1.0)


def test_markdown_is_counted_over_all_its_forms() -> None:
    rows = [described(pair(0, 1.0, 0.0), [5], [50]), described(pair(1, 0.0, 1.0), [7], [9])]
    found = bias.bias_of(rows, measure=bias.markdown_marks)
    assert found is not None
    # 1 mark against 6, and 1 against 1.
    assert (found["chosen_has_less"]["n"], found["equal"]["n"], found["chosen_has_more"]["n"]) == (1, 1, 0)
    assert found["chosen_has_more"]["accuracy"] is None
    assert found["accuracy_gap"] is None


def test_failed_and_undescribed_rows_have_no_part() -> None:
    assert bias.bias_of([pair(0, 1.0, 0.0), failed(1)]) is None
    report = bias.bias_report([failed(0)])
    assert report == {"length": None, "markdown": None, "position": None}


def test_equal_scores_prefer_no_response() -> None:
    rows = [described(pair(0, 1.0, 1.0), [10], [5]), described(pair(1, 0.0, 1.0), [10], [5])]
    found = bias.bias_of(rows)
    assert found is not None
    assert (found["prefers_more"], found["chosen_has_more"]["accuracy"]) == (0.0, 0.0)


def test_a_tie_is_won_by_neither_response_and_has_no_part_in_what_is_preferred() -> None:
    # The first prefers the longer response, the second ties; both have a longer chosen response.
    scored = [described(pair(i, score, 0.0), [10], [5]) for i, score in enumerate([1.0, 0.0])]
    judged = [described(compared(i, [p]), [10], [5]) for i, p in enumerate([0.75, 0.5])]
    swapped = [described(compared(i, [p]), [5], [10]) for i, p in enumerate([0.25, 0.5])]
    for rows, accuracy, name in (
        (scored, 0.5, "chosen_has_more"),
        (judged, 0.5, "chosen_has_more"),
        (swapped, 0.0, "chosen_has_less"),
    ):
        found = bias.bias_of(rows)
        assert found is not None
        assert (found[name]["accuracy"], found[name]["n"]) == (accuracy, 2)
        assert found["prefers_more"] == 1.0
        assert found["margin_correlation"]["n"] == 2


def test_responses_of_one_length_are_counted_apart() -> None:
    rows = [described(pair(0, 1.0, 0.0), [10], [10]), described(pair(1, 1.0, 0.0), [5], [10])]
    found = bias.bias_of(rows)
    assert found is not None
    assert [found[name]["n"] for name in ("chosen_has_more", "chosen_has_less", "equal")] == [0, 1, 1]
    assert (found["prefers_more"], found["chosen_share"]) == (0.0, 0.0)


def test_a_comparing_model_is_measured_by_its_probability() -> None:
    rows = [described(compared(0, [0.9, 0.7]), [30], [10]), described(compared(1, [0.2, None]), [10], [20])]
    found = bias.bias_of(rows)
    assert found is not None
    assert found["prefers_more"] == 1.0
    assert found["margin_correlation"]["n"] == 2
    assert found["score_correlation"]["n"] == 0


SIDE = st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 3)), min_size=1, max_size=3)


@FEW
@given(st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=8))
def test_bias_agrees_with_a_plain_recomputation(drawn: list[Any]) -> None:
    rows = []
    won: dict[int, list[bool]] = {-1: [], 0: [], 1: []}
    preferred, xs, ys, length_margins, score_margins = [], [], [], [], []
    for i, (chosen, rejected) in enumerate(drawn):
        sides = (
            [[s for s, _ in side] for side in (chosen, rejected)],
            [[n for _, n in side] for side in (chosen, rejected)],
        )
        rows.append(described(pair(i, *sides[0]), *sides[1]))
        ys += [s for s, _ in chosen + rejected]
        xs += [n for _, n in chosen + rejected]
        for score, length in chosen:
            for other_score, other_length in rejected:
                sign = (length > other_length) - (length < other_length)
                won[sign].append(score > other_score)
                length_margins.append(length - other_length)
                score_margins.append(score - other_score)
                if sign and score != other_score:
                    preferred.append((score > other_score) == (sign > 0))
    found = bias.bias_of(rows)
    assert found is not None
    for sign, name in ((1, "chosen_has_more"), (-1, "chosen_has_less"), (0, "equal")):
        expected = sum(won[sign]) / len(won[sign]) if won[sign] else None
        assert found[name]["accuracy"] == (None if expected is None else pytest.approx(expected))
    assert found["prefers_more"] == (pytest.approx(sum(preferred) / len(preferred)) if preferred else None)
    correlations = {"pearson": pearson(xs, ys), "spearman": spearman(xs, ys), "n": len(xs)}
    assert found["score_correlation"] == pytest.approx(correlations)
    expected_margin = {"pearson": pearson(length_margins, score_margins)}
    assert found["margin_correlation"]["pearson"] == pytest.approx(expected_margin["pearson"])


def test_a_judge_that_always_takes_the_first_is_found_out() -> None:
    # p(chosen): high where it stands first, low where it stands second.
    found = bias.position_bias([compared(i, [0.9, 0.1]) for i in range(3)])
    assert found is not None
    assert (found["prefers_first"], found["disagreement"]) == (1.0, 1.0)
    assert (found["accuracy_chosen_first"], found["accuracy_chosen_second"]) == (1.0, 0.0)
    assert found["mean_shift"] == pytest.approx(0.8)


def test_position_bias_by_hand() -> None:
    rows = [compared(0, [0.8, 0.6]), compared(1, [0.7, 0.2]), compared(2, [None, 0.4]), compared(3, [0.5, 0.9])]
    found = bias.position_bias([*rows, compared(4, [0.9]), pair(5, 1.0, 0.0), failed(6)])
    # For the first place speak 0.8, 0.7, 0.2 and 0.4; for the second 0.6 and 0.9; 0.5 for neither.
    assert found is not None
    assert found["prefers_first"] == pytest.approx(4 / 6)
    assert found["disagreement"] == pytest.approx(2 / 3)
    assert found["accuracy_chosen_first"] == pytest.approx(2 / 3)
    assert found["accuracy_chosen_second"] == pytest.approx(2 / 4)
    assert found["mean_shift"] == pytest.approx((0.2 + 0.5 - 0.4) / 3)
    assert (found["n"], found["n_verdicts"], found["n_without"]) == (4, 7, 1)


def test_models_that_score_have_no_position() -> None:
    assert bias.position_bias([pair(0, 1.0, 0.0)]) is None


def test_margins_are_summed_up_per_subset() -> None:
    rows = [pair(0, [3.0, 1.0], [0.0], "a"), pair(1, 0.0, 2.0, "b"), failed(2, "b"), compared(3, [0.9], "b")]
    found = margins.margin_summary(rows)
    assert margins.margins(rows) == {"a": [3.0, 1.0], "b": [-2.0]}
    assert (found["overall"]["n"], found["overall"]["mean"]) == (3, pytest.approx(2 / 3))
    assert found["subsets"]["a"]["median"] == 2.0


def test_distributions_of_both_sides_share_their_bins() -> None:
    found = margins.score_distributions([pair(0, 3.0, 0.0), pair(1, 1.0, 2.0), failed(2)], n_bins=3)
    assert found is not None
    assert found["edges"] == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert (found["chosen"], found["rejected"]) == ([0, 1, 1], [1, 0, 1])
    assert found["summaries"]["chosen"]["mean"] == 2.0
    assert margins.score_distributions([compared(0, [0.5])]) is None


def test_calibration_of_a_comparing_model_by_hand() -> None:
    # Four times 0.75, of which the chosen response's probability is 0.25 once: right in 3 of 4 cases.
    rows = [compared(i, [p]) for i, p in enumerate([0.75, 0.75, 0.75, 0.25])]
    found = margins.calibration(rows)
    assert found is not None
    assert (found["ece"], found["read_from"], found["n"]) == (pytest.approx(0.0), "probabilities", 4)
    assert [(b["mean"], b["share_right"], b["n"]) for b in found["bins"]] == [(0.25, 0.25, 4), (0.75, 0.75, 4)]


def test_calibration_of_scores_reads_the_margin_as_bradley_and_terry_do() -> None:
    found = margins.calibration([pair(i, 2.0, 0.0) for i in range(5)])
    assert found is not None
    assert found["read_from"] == "margins"
    assert found["ece"] == pytest.approx(1 - 1 / (1 + math.exp(-2.0)))
    assert margins.calibration([failed(0)]) is None
