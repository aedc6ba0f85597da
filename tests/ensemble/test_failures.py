"""A member that fails: the ensemble's failure, or the others stand in for it."""

from __future__ import annotations

import math

import pytest
from ensemble_models import CONVERSATIONS, Failing, Judge, Scaled, Steps, Vowels, conversation

from reward_hub import (
    BackendError,
    BaseRM,
    EnsembleRM,
    InputTooLongError,
    InvalidConversationError,
)
from reward_hub.ensemble.reduction import REDUCTIONS
from reward_hub.messages import parse_pair
from reward_hub.numerics import sigmoid
from reward_hub.reward_model import CallOptions, first_failure, required


def test_a_failing_member_is_the_ensembles_failure_unless_it_is_skipped():
    raising = EnsembleRM([Vowels(), Failing("x")])
    with pytest.raises(ValueError, match="no such word") as caught:
        raising.score_batch([*CONVERSATIONS[:1], conversation("x")])
    assert "raised by failing, member 1" in caught.value.__notes__[0]
    [good, (none, details)] = raising.score_batch(
        [conversation("a"), conversation("x")], on_error="none", return_details=True
    )
    assert (good[0], none, details["error"]) == (1.0, None, {"type": "ValueError", "message": "no such word"})


def test_the_others_stand_in_for_a_member_that_is_skipped():
    rm = EnsembleRM([(Scaled(1.0), 1), (Failing("x"), 8), (Vowels(), 3)], on_member_error="skip")
    value, details = rm.score(conversation("xaa"), return_details=True)
    assert value == pytest.approx((3 + 3 * math.sqrt(2)) / 4)
    assert [("error" in m, "score" in m) for m in details["members"]] == [(False, True), (True, False), (False, True)]
    assert details["members"][1]["error"] == {"type": "ValueError", "message": "no such word"}
    assert details["members"][1]["weight"] == 8.0
    assert details["spread"] == pytest.approx(abs(3 - math.sqrt(2)) / 2)
    assert rm.score(conversation("aa")) == pytest.approx((2 + 8 + 3 * math.sqrt(2)) / 12)


@pytest.mark.parametrize(
    ("quorum", "n_failing", "enough"),
    [(None, 2, True), (None, 3, False), (2, 2, True), (3, 2, False), (1.0, 1, False), (0.5, 2, True), (0.75, 2, False)],
)
def test_the_quorum_says_how_many_must_answer(quorum, n_failing, enough):
    members = [Failing("x") for _ in range(n_failing)] + [Vowels() for _ in range(4 - n_failing)]
    rm = EnsembleRM(members, on_member_error="skip", quorum=quorum)
    if enough:
        assert rm.score(conversation("xa")) == 1.0
        return
    with pytest.raises(
        BackendError, match=rf"{4 - n_failing} of 4 members answered.* failing: ValueError: no such word"
    ):
        rm.score(conversation("xa"))
    with pytest.raises(BackendError) as caught:
        rm.score_batch([conversation("a"), conversation("xa")])
    assert caught.value.index == 1
    scores = rm.score_batch([conversation("a"), conversation("xa")], on_error="none")
    assert (scores[0] is None, scores[1]) == (False, None)


def test_responses_are_ranked_and_compared_by_the_same_members():
    # Without "x" failing would speak for the response in which it does not fail.
    rm = EnsembleRM([Vowels(), (Failing("x"), 100)], on_member_error="skip")
    ranking, details = rm.rank(prompt="Hi", responses=["xaaaa", "a"], return_details=True)
    assert (ranking, details["scores"]) == ([0, 1], [2.0, 1.0])
    assert details["members"][0]["scores"] == [2.0, 1.0]
    assert details["members"][1]["error"]["type"] == "ValueError"
    assert rm.compare(prompt="Hi", a="xaaaa", b="a") == pytest.approx(sigmoid(1.0))


def test_a_member_that_fails_as_a_whole_is_skipped_too():
    class Gone(BaseRM):
        name = "gone"

        def score_conversations(self, conversations, options):
            raise BackendError("the engine is gone")

    class Short(BaseRM):
        name = "short"

        def score_conversations(self, conversations, options):
            return []

    rm = EnsembleRM([Vowels(), Gone(), Short()], on_member_error="skip", quorum=1)
    _, details = rm.score(conversation("a"), return_details=True)
    assert [m["error"]["message"] for m in details["members"][1:]] == ["the engine is gone", "gave 0 results for 1."]
    with pytest.raises(BackendError, match="the engine is gone"):
        EnsembleRM([Vowels(), Gone()]).score(conversation("a"))


def test_what_is_not_finite_is_no_score():
    with pytest.raises(BackendError, match="nan"):
        EnsembleRM([Scaled(math.nan)]).score(conversation("a"))
    with pytest.raises(BackendError, match="combine to -inf"):
        EnsembleRM([Scaled(1e200), Scaled(-1e200)], reduce="uncertainty").score(conversation("aaa"))


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_a_probability_that_is_not_finite_is_its_members_failure(reduce):
    class Undecided(Judge):
        def _details(self, probability):
            return super()._details(math.nan)

    members, prompt, responses = [Judge(0.5), Undecided(name="undecided"), Judge(0.2)], "Hi", ["aaa", "b"]
    raising = EnsembleRM(members, reduce=reduce)
    for call in (
        lambda: raising.compare(prompt=prompt, a="aaa", b="b"),
        lambda: raising.rank(prompt=prompt, responses=responses),
    ):
        with pytest.raises(BackendError, match=r"undecided gave .*nan"):
            call()
    skipping = EnsembleRM(members, reduce=reduce, on_member_error="skip")
    others = EnsembleRM([members[0], members[2]], reduce=reduce)
    assert skipping.compare(prompt=prompt, a="aaa", b="b") == others.compare(prompt=prompt, a="aaa", b="b")
    assert skipping.rank(prompt=prompt, responses=responses) == others.rank(prompt=prompt, responses=responses)


@pytest.mark.parametrize("cut", ["the second", "the first"])
def test_a_ranking_names_the_response_that_a_member_cannot_score(cut):
    class Picky(Vowels):
        def score(self, messages):
            if messages[-1]["content"] == cut:
                raise InputTooLongError("too long", n_tokens=9, max_length=8)
            return super().score(messages)

    responses = ["the first", "the second"]
    with pytest.raises(InputTooLongError) as caught:
        EnsembleRM([Vowels(), Picky()]).rank(prompt="Hi", responses=responses)
    assert caught.value.index == responses.index(cut)


def test_an_invalid_response_of_one_pair_is_the_failure_of_that_pair():
    rm = EnsembleRM([Steps(len), Steps(len)])
    pairs = [parse_pair(prompt="Hi", a=a, b="bb") for a in ("a", " ", "ccc")]
    for options in (CallOptions(), CallOptions(fail_fast=True)):
        results = rm.compare_pairs(pairs, False, options)
        failure = first_failure(results)
        assert failure is not None
        assert failure[0] == 1
        assert isinstance(failure[1], InvalidConversationError)
    alone = EnsembleRM([Steps(len), Steps(len)]).compare(prompt="Hi", a="a", b="bb")
    assert required(rm.compare_pairs(pairs, False, CallOptions())[0]).score == alone
