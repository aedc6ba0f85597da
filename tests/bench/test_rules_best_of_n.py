"""Best of n: the model's choice, pass@n and votes, against counting out every subset."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from bench_examples import FEW, examples, failed
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.bench.rules import best_of_n
from reward_hub.bench.rules.best_of_n import expected_grade, expected_vote, pass_at_n, select, sizes
from reward_hub.data.rows import RowFormatError


def item(name: Any, scores: list[float], grades: list[float], **more: Any) -> dict[str, Any]:
    return {"id": name, "subset": None, "scores": {"candidates": scores}, "grades": grades, **more}


def test_the_worked_selections_come_out() -> None:
    example = examples("best_of_n")
    for file, rows in example["rows_per_file"].items():
        for prompt, expected in example["selected_by_argmax_first_on_ties"][file].items():
            scores = [row["scores"] for row in rows if row["id"][0] == int(prompt)]
            assert len(scores) == example["best_of"]
            assert select(scores) == expected


def test_the_first_of_equal_scores_is_picked_among_the_first_n() -> None:
    assert select([1.0, 3.0, 3.0, 9.0]) == 3
    assert select([1.0, 3.0, 3.0, 9.0], n=3) == 1


def test_pass_at_n_by_hand() -> None:
    # 1 of 4 is right: a pair holds it in 3 of 6 cases.
    assert [pass_at_n(4, 1, n) for n in (1, 2, 4)] == [0.25, 0.5, 1.0]
    with pytest.raises(ValueError, match="n=5 of 4"):
        pass_at_n(4, 1, 5)


def test_a_curve_by_hand() -> None:
    rows = [
        item(0, [0.1, 0.9, 0.5, 0.2], [0, 1, 0, 0], answers=["3", "4", "3", "3"]),
        item(1, [0.9, 0.1, 0.5, 0.2], [0, 1, 0, 0], answers=["5", "6", "7", "6"]),
    ]
    result = best_of_n.score(rows)
    assert [point["n"] for point in result.metrics["overall"]["curve"]] == [1, 2, 4]
    one, two, four = result.metrics["overall"]["curve"]
    # Of the 6 pairs of the first item the 3 with the second candidate pick it; in the second item it always loses.
    assert (one["model"], two["model"], four["model"]) == (0.25, 0.25, 0.5)
    assert (one["pass"], two["pass"], four["pass"]) == (0.25, 0.5, 1.0)
    assert (one["random"], four["random"]) == (0.25, 0.25)
    # "3" is wrong; "6" stands for the right second candidate or for the wrong fourth, whichever is seen first.
    assert four["majority"] == 0.25
    # The weights are 0.8 for "3" against 0.9 for "4", and 0.9, 0.3, 0.5 for "5", "6", "7".
    assert four["weighted_majority"] == 0.5
    assert result.metrics["overall"]["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("answers", "grades", "expected"),
    [
        (["a", "b", "b", "a"], [0, 1, 0, 0], 0.25),  # equally frequent: any of the four may be seen first
        ([None, "b", None, None], [0, 1, 0, 0], 1),  # those without an answer do not vote
        ([None, None, None, None], [0.5, 1, 0, 0], 0.375),  # nobody votes: the first candidate, whichever that is
    ],
)
def test_votes_of_equal_weight(answers: list[str | None], grades: list[float], expected: float) -> None:
    assert expected_vote(answers, grades, n=4) == expected


def test_a_negative_score_is_no_weight() -> None:
    point = best_of_n.score([item(0, [-1.0, 2.0], [0, 1], answers=["a", "b"])]).metrics["overall"]["curve"][-1]
    assert point["weighted_majority"] is None
    assert point["softmax_majority"] == 1.0


def test_grades_between_give_an_oracle_and_no_pass() -> None:
    point = best_of_n.score([item(0, [1.0, 2.0], [0.2, 0.7])]).metrics["overall"]["curve"][-1]
    assert (point["oracle"], point["pass"], point["majority"]) == (0.7, None, None)


def test_curves_end_at_the_fewest_candidates_of_an_item() -> None:
    result = best_of_n.score([item(0, [1.0] * 3, [1, 0, 0]), item(1, [1.0] * 7, [0] * 6 + [1])])
    assert [point["n"] for point in result.metrics["overall"]["curve"]] == [1, 2, 3]
    assert [i.tie for i in result.items] == [True, True]
    assert sizes(8) == [1, 2, 4, 8]


def test_a_failed_item_is_a_wrong_choice_among_the_same_candidates() -> None:
    rows = [item(0, [1.0, 2.0], [0, 1], answers=["a", "b"]), failed(1, grades=[1, 1], answers=["c", "c"]), failed(2)]
    result = best_of_n.score(rows)
    last = result.metrics["overall"]["curve"][-1]
    assert (last["model"], last["pass"], last["majority"], last["weighted_majority"]) == (0.5, 1.0, 0.75, 0.5)
    assert [i.correct for i in result.items] == [1.0, 0.0, None]
    assert result.n_failed == 2


def test_another_number_of_grades_is_refused() -> None:
    with pytest.raises(RowFormatError, match="item 3 has 2 candidates and 1 grades"):
        best_of_n.score([item(3, [1.0, 2.0], [1])])


def test_subsets_have_curves_of_their_own() -> None:
    rows = [item(0, [1.0, 2.0], [0, 1]) | {"subset": "a"}, item(1, [1.0, 2.0], [1, 0]) | {"subset": "b"}]
    subsets = best_of_n.score(rows).metrics["subsets"]
    assert [subsets[name]["curve"][-1]["model"] for name in "ab"] == [1.0, 0.0]


def test_votes_over_very_many_subsets_are_estimated_closely() -> None:
    # 7 of 20 vote for the right answer, so a random 9 do in most cases when the others are split: exact by counting.
    answers = ["right"] * 7 + ["x"] * 5 + ["y"] * 4 + ["z"] * 4
    grades = [1.0] * 7 + [0.0] * 13
    exact = total = 0
    for a, b, c, d in itertools.product(range(8), range(6), range(5), range(5)):
        if a + b + c + d == 9:
            ways = math.comb(7, a) * math.comb(5, b) * math.comb(4, c) * math.comb(4, d)
            tied = (a, b, c, d).count(max(a, b, c, d))
            exact, total = exact + ways * (a >= max(b, c, d)) / tied, total + ways
    assert total == math.comb(20, 9)
    # 2,000 draws have a standard error of about 0.01.
    assert expected_vote(answers, grades, n=9) == pytest.approx(exact / total, abs=0.04)


CANDIDATES = st.integers(1, 6).flatmap(
    lambda size: st.tuples(
        *(
            st.lists(values, min_size=size, max_size=size)
            for values in (st.integers(0, 3), st.sampled_from([0.0, 1.0]), st.sampled_from(["a", "b", "c", None]))
        )
    )
)


@given(CANDIDATES)
def test_expectations_are_means_over_all_subsets(drawn: tuple[list[int], list[float], list[str | None]]) -> None:
    scores, grades, answers = drawn
    for n in range(1, len(scores) + 1):
        subsets = list(itertools.combinations(range(len(scores)), n))
        picked = [max(subset, key=lambda i: (scores[i], -i)) for subset in subsets]
        assert expected_grade(scores, grades, n=n) == pytest.approx(sum(grades[i] for i in picked) / len(subsets))
        passed = sum(any(grades[i] for i in subset) for subset in subsets) / len(subsets)
        assert pass_at_n(len(grades), int(sum(grades)), n) == pytest.approx(passed)
        # Votes also over the orders in which a subset may come.
        orders = list(itertools.permutations(range(len(scores)), n))
        for weights in (None, scores):
            voted = sum(grades[winner(order, answers, weights)] for order in orders) / len(orders)
            assert expected_vote(answers, grades, n=n, weights=weights) == pytest.approx(voted)


@FEW
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.1, 0.7, 1.0]), st.sampled_from(["a", "b", "c", None])),
        min_size=2,
        max_size=20,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_candidates_in_the_file_changes_no_vote(
    candidates: list[tuple[int, float, str | None]], chance: random.Random
) -> None:
    def found(candidates: list[tuple[int, float, str | None]]) -> Any:
        scores, grades, answers = map(list, zip(*candidates, strict=True))
        result = best_of_n.score([item(0, list(map(float, scores)), grades, answers=answers)])
        # Of equal scores the model takes the first.
        choice = ("model", "ci95") if len(set(scores)) < len(scores) else ("ci95",)
        return [
            {name: value for name, value in point.items() if name not in choice and value is not None}
            for point in result.metrics["overall"]["curve"]
        ]

    for here, there in zip(found(chance.sample(candidates, len(candidates))), found(candidates), strict=True):
        assert here == pytest.approx(there, rel=1e-12)


def winner(subset: tuple[int, ...], answers: list[str | None], weights: list[int] | None) -> int:
    """The candidate that a vote picks, counted out."""
    totals: dict[str, float] = {}
    for i in subset:
        if answers[i] is not None:
            totals[str(answers[i])] = totals.get(str(answers[i]), 0) + (1 if weights is None else weights[i])
    if not totals:
        return subset[0]
    best = next(answer for answer in totals if totals[answer] == max(totals.values()))
    return next(i for i in subset if answers[i] == best)


@given(st.integers(1, 12), st.data())
def test_pass_at_n_grows_with_n_and_with_right_candidates(size: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, size))
    passes = [pass_at_n(size, right, n) for n in range(1, size + 1)]
    assert passes == sorted(passes)
    assert passes[0] == pytest.approx(right / size)
    assert passes[-1] == float(right > 0)


@FEW
@given(CANDIDATES)
def test_no_choice_beats_the_oracle(drawn: tuple[list[int], list[float], list[str | None]]) -> None:
    scores, grades, answers = drawn
    for point in best_of_n.score([item(0, list(map(float, scores)), grades, answers=answers)]).metrics["overall"][
        "curve"
    ]:
        assert point["oracle"] == point["pass"]
        for name in ("model", "majority", "weighted_majority", "softmax_majority", "random"):
            assert point[name] <= point["oracle"] + 1e-12
