"""What counts as a label among the tokens that could have stood in its place, and what is left out as doubtful."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import tokens

from reward_hub import JudgeParseError
from reward_hub.judge.form import Reply, ReplyToken
from reward_hub.judge.rubrics.expected_scores import Expected, expected_at

TEN = {str(n): float(n) for n in range(1, 11)}


def expected(labels: Mapping[str, float], label: str, *parts) -> Expected:
    """Over the labels' values where the reply, given as tokens with what could have stood there, has `label`."""
    made = tuple(ReplyToken(text, ways) for text, ways in tokens(*parts))
    reply = Reply("".join(token.text for token in made), made)
    return expected_at(reply, reply.text.index(label), label, labels)


@pytest.mark.parametrize(
    ("labels", "label", "parts", "shares"),
    [
        pytest.param(
            TEN,
            "1",
            [("1", {"1": 0.6, "10": 0.3, "9": 0.1}), ("}", {"}": 0.8, "0": 0.2})],
            {"1": 0.6, "10": 0.3, "9": 0.1},
            id="where 10 is a token of its own, 1 is not its beginning",
        ),
        pytest.param(
            TEN,
            "10",
            [("10", {"10": 0.5, "1": 0.3, "9": 0.2}), "}"],
            {"10": 0.5, "1": 0.3, "9": 0.2},
            id="nor is a 1 that was not written",
        ),
        pytest.param(
            TEN,
            "10",
            [("1", {"1": 0.5, "ten": 0.1, "9": 0.4}), ("0", {"0": 0.25, "}": 0.75})],
            {"10": 0.5 * 0.25, "1": 0.5 * 0.75, "9": 0.4},
            id="a word that is not a label makes no beginning of 10 a whole label",
        ),
        pytest.param(
            TEN,
            "1",
            [('1"', {'1"': 0.6, "1": 0.1, '9"': 0.3})],
            {"1": 0.6, "9": 0.3},
            id="a label is whole where its token goes on behind it",
        ),
        pytest.param(
            {"a": 1.0, "b": 0.0, "tie": 0.5},
            "A",
            [("A", {"A": 0.6, "T": 0.25, "t.": 0.15}), '"'],
            {"a": 0.6, "tie": 0.25},
            id="the beginning of one label counts as it, one that has ended does not",
        ),
        pytest.param(
            {"tie": 0.5, "tin": 1.0},
            "tie",
            [("ti", {"ti": 0.6, "TI": 0.4}), ("e", {"e": 0.75, "n": 0.25})],
            {"tie": 0.6 * 0.75, "tin": 0.6 * 0.25},
            id="how a beginning goes on is known of the written one alone",
        ),
        pytest.param(
            {"1": 1.0, "1101": 5.0},
            "1",
            [("1", {"1": 1.0}), ("}", {"}": 0.5, "101": 0.3, "01": 0.2})],
            {"1": 0.7, "1101": 0.3},
            id="a label is begun by its beginning, not by any part",
        ),
        pytest.param(
            TEN,
            "9",
            [(" 9", {" 9": 0.6, "8": 0.3, " 7": 0.1}), "}"],
            {"9": 0.6, "7": 0.1},
            id="what lacks the characters before the label stands in another place",
        ),
        pytest.param(
            TEN,
            "1",
            [('1"', {'1"': 0.6, '11"': 0.2, "11": 0.1, "100": 0.1}), "}"],
            {"1": 0.6},
            id="a number that begins with a label is another number",
        ),
    ],
)
def test_only_whole_labels_share_the_probability(labels, label, parts, shares) -> None:
    found = expected(labels, label, "s: ", *parts)
    assert found.mass == pytest.approx(sum(shares.values()))
    assert found.value == pytest.approx(sum(labels[name] * p for name, p in shares.items()) / sum(shares.values()))


SIGNED = {str(i): float(i) for i in range(-2, 3)}


def test_ten_is_told_from_one_where_it_is_a_token_of_its_own() -> None:
    found = expected(TEN, "1", "s: ", ("1", {"1": 0.5, "10": 0.3, "9": 0.2}), "}")
    assert found.value == pytest.approx(0.5 * 1 + 0.3 * 10 + 0.2 * 9)


def test_ten_is_told_from_one_by_the_token_that_follows() -> None:
    digits = ["s: ", ("1", {"1": 0.6, "9": 0.4}), ("0", {"0": 0.75, "}": 0.25}), "}"]
    found = expected(TEN, "10", *digits)
    assert found.value == pytest.approx(0.6 * (0.75 * 10 + 0.25 * 1) + 0.4 * 9)
    assert found.mass == pytest.approx(1.0)
    ended = ["s: ", ("1", {"1": 0.6, "9": 0.4}), ("}", {"0": 0.25, "}": 0.75})]
    assert expected(TEN, "1", *ended).value == pytest.approx(0.6 * (0.25 * 10 + 0.75 * 1) + 0.4 * 9)


def test_a_minus_that_is_a_token_of_its_own_is_a_part_of_the_score() -> None:
    digit = ("1", {"1": 0.7, "2": 0.3})
    found = expected(SIGNED, "-1", '"score": ', ("-", {"-": 0.6, "1": 0.3, "2": 0.1}), digit, "}")
    assert found.value == pytest.approx(0.6 * (0.7 * -1 + 0.3 * -2) + 0.3 * 1 + 0.1 * 2)
    assert found.mass == pytest.approx(1.0)
    found = expected(SIGNED, "-1", '"score":', (" -", {" -": 0.5, " 2": 0.5}), digit, "}")
    assert found.value == pytest.approx(0.5 * (0.7 * -1 + 0.3 * -2) + 0.5 * 2)
    whole = ("-1", {"-1": 0.6, "1": 0.4})
    assert expected(SIGNED, "-1", "s: ", whole, "}").value == pytest.approx(-0.2)


def test_a_minus_that_was_not_written_is_not_counted_where_it_begins_several_scores() -> None:
    found = expected(SIGNED, "1", "s: ", ("1", {"1": 0.6, "2": 0.1, "-": 0.3}), "}")
    assert (found.value, found.mass) == (pytest.approx(0.8 / 0.7), pytest.approx(0.7))


def test_a_negative_score_in_one_token_makes_no_beginning_of_ten_a_whole_score() -> None:
    labels = {str(i): float(i) for i in range(-10, 11)}
    digits = ["s: ", ("1", {"1": 0.6, "-1": 0.4}), ("0", {"0": 0.75, "}": 0.25}), "}"]
    found = expected(labels, "10", *digits)
    assert found.value == pytest.approx(0.75 * 10 + 0.25 * 1)
    assert found.mass == pytest.approx(0.6)


def test_the_mean_of_other_labels_than_the_one_written_is_no_score() -> None:
    # "1" ends the reply, so that nothing tells whether it was to be 10.
    with pytest.raises(JudgeParseError, match="how likely '1' was"):
        expected(TEN, "1", "s: ", ("1", {"1": 0.6, "9": 0.4}))


def test_a_digit_that_may_be_one_or_ten_is_not_counted() -> None:
    found = expected(TEN, "8", "s: ", ("8", {"8": 0.9, "1": 0.1}), "}")
    assert (found.value, found.mass) == (8.0, pytest.approx(0.9))


@given(st.lists(st.floats(0.01, 1.0), min_size=5, max_size=5), st.integers(1, 5))
def test_the_mean_is_that_of_the_renormalised_probabilities(weights: list[float], written: int) -> None:
    total = sum(weights) * 1.25
    ways = {str(i): weight / total for i, weight in enumerate(weights, start=1)}
    labels = {str(i): float(i) for i in range(1, 6)}
    found = expected(labels, str(written), "s: ", (str(written), ways), "}")
    assert found.value == pytest.approx(sum(i * w for i, w in enumerate(weights, start=1)) / sum(weights))
    assert found.mass == pytest.approx(0.8)
