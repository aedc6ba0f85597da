"""EnsembleRM: several models as one. Members are small models of known scores, and the built-in and tiny real ones."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import runpy
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from golden_sets import GoldenSet
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_server import fails, judge_server, says, verdict

from reward_hub import (
    AutoRM,
    BackendError,
    BaseRM,
    CachedRM,
    CheckpointError,
    EnsembleRM,
    InvalidConversationError,
    LLMJudge,
    UnsupportedError,
    calibrate,
)
from reward_hub.base import joined_details
from reward_hub.ensemble.normalization import NORMALIZATIONS
from reward_hub.ensemble.reduction import REDUCTIONS, Reduction
from reward_hub.numerics import sigmoid
from reward_hub.types import ScoreDetails

ROOT = Path(__file__).parents[1]
SCALES = [None, *NORMALIZATIONS]


def conversation(response, prompt="Hi"):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


CONVERSATIONS = [conversation("word " * n + "." * (7 * n % 5)) for n in range(12)]


class Scaled(BaseRM):
    """Characters, times a factor, plus an offset."""

    def __init__(self, factor=1.0, offset=0.0, *, name="characters", cost=False):
        self.factor, self.offset, self.name = factor, offset, name
        self.higher_is_better = not cost

    def score(self, messages):
        return self.factor * len(messages[-1]["content"]) + self.offset


class Vowels(BaseRM):
    name = "vowels"

    def score(self, messages):
        return math.sqrt(sum(letter in "aeiou" for letter in messages[-1]["content"]))


class Words(BaseRM):
    """Asynchronous, as models on servers are."""

    name = "words"

    async def ascore(self, messages):
        await asyncio.sleep(0)
        return float(len(messages[-1]["content"].split()) % 5)


class Failing(BaseRM):
    name = "failing"

    def __init__(self, on=""):
        self.on = on

    def score(self, messages):
        if self.on in messages[-1]["content"]:
            raise ValueError("no such word")
        return 1.0


class Steps(BaseRM):
    kind = "process"

    def __init__(self, function, *, name="steps", step_delimiter="\n\n", cost=False):
        self.function, self.name, self.step_delimiter = function, name, step_delimiter
        self.higher_is_better = not cost

    def score_steps(self, messages, steps):
        return [self.function(step) for step in steps]


class Judge(BaseRM):
    """Compares: p(a) grows with the difference of the lengths; `bias` speaks for the first place."""

    kind = "pairwise"

    def __init__(self, scale=1.0, bias=0.0, *, name="judge"):
        self.scale, self.bias, self.name = scale, bias, name

    def _details(self, probability):
        return ScoreDetails(probability, [probability], probability, 10, extra={"reasoning": f"{self.name} says so"})

    def _p(self, a, b):
        return sigmoid(self.scale * (len(a) - len(b)) + self.bias)

    def _compare_many(self, pairs, both_orders, options):
        first = [self._p(pair.a, pair.b) for pair in pairs]
        if both_orders:
            first = [(p + 1 - self._p(pair.b, pair.a)) / 2 for p, pair in zip(first, pairs, strict=True)]
        return [self._details(p) for p in first]

    def _rank(self, prompt, responses):
        wins = [np.mean([self._p(a, b) for b in responses]) for a in responses]
        return joined_details([self._details(float(win)) for win in wins])

    async def _arank(self, prompt, responses):
        return self._rank(prompt, responses)


def three(**options):
    return EnsembleRM([(Scaled(0.1), 0.5), (Vowels(), 0.3), (Words(), 0.2)], **options)


def member_scores(rm, conversations=CONVERSATIONS):
    return np.array([model.score_batch(conversations) for model, _ in rm.members])


@pytest.fixture(scope="module")
def orm():
    with AutoRM.load("builtin/arithmetic-orm", "transformers") as rm:
        yield rm


@pytest.fixture(scope="module")
def prm():
    with AutoRM.load("builtin/arithmetic-prm", "transformers") as rm:
        yield rm


# one member, weights, order, batches


@pytest.mark.parametrize(("reduce", "normalize"), [(r, n) for r in REDUCTIONS for n in SCALES])
def test_the_score_is_the_reduction_of_the_normalised_scores(reduce, normalize):
    rm = three(reduce=reduce, normalize=normalize).fit(CONVERSATIONS)
    scores, fitted = member_scores(rm), member_scores(rm)
    plain = {
        None: scores,
        "zscore": (scores - fitted.mean(axis=1, keepdims=True)) / fitted.std(axis=1, keepdims=True),
        "minmax": (scores - fitted.min(axis=1, keepdims=True)) / np.ptp(fitted, axis=1, keepdims=True),
        "sigmoid": 1 / (1 + np.exp(-scores)),
        "rank": np.array(
            [
                [((f < s).sum() + (f == s).sum() / 2) / f.size for s in row]
                for row, f in zip(scores, fitted, strict=True)
            ]
        ),
    }["rank" if reduce == "vote" else normalize]
    expected = Reduction.of(reduce)(plain, np.array([5.0, 3.0, 2.0]))
    assert rm.score_batch(CONVERSATIONS) == pytest.approx(expected.tolist(), abs=1e-12)
    assert asyncio.run(rm.ascore_batch(CONVERSATIONS)) == rm.score_batch(CONVERSATIONS)


@pytest.mark.parametrize("reduce", [name for name in REDUCTIONS if name != "vote"])
def test_an_ensemble_of_one_is_that_member(orm, reduce):
    ensemble = EnsembleRM([(orm, 0.37)], reduce=reduce)
    prompt, responses = "What is 17 + 25?", ["17 + 25 = 42.", "17 + 25 = 32.", "It is 42."]
    score, details = ensemble.score(prompt=prompt, response=responses[0], return_details=True)
    own_score, own = orm.score(prompt=prompt, response=responses[0], return_details=True)
    same = ("raw_logits", "normalized_score", "tokens_scored", "truncated", "dropped_tokens", "backend")
    assert (score, *(details[key] for key in same)) == (own_score, *(own[key] for key in same))
    assert ensemble.rank(prompt=prompt, responses=responses) == orm.rank(prompt=prompt, responses=responses)
    a, b = responses[:2]
    assert ensemble.compare(prompt=prompt, a=a, b=b) == orm.compare(prompt=prompt, a=a, b=b)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(REDUCTIONS),
    st.lists(st.floats(0.05, 20), min_size=3, max_size=3),
    st.floats(1e-3, 1e3),
    st.permutations(range(3)),
)
def test_scaled_weights_and_another_order_of_members_are_the_same_ensemble(reduce, weights, scale, order):
    models = [Scaled(0.1), Vowels(), Scaled(-0.03, 2, name="another")]
    normalize = None if reduce == "vote" else "zscore"
    one = EnsembleRM(list(zip(models, weights, strict=True)), reduce=reduce, normalize=normalize)
    other = EnsembleRM([(models[i], scale * weights[i]) for i in order], reduce=reduce, normalize=normalize)
    one.fit(CONVERSATIONS)
    other.fit(CONVERSATIONS)
    assert other.score_batch(CONVERSATIONS) == pytest.approx(one.score_batch(CONVERSATIONS), rel=1e-9, abs=1e-9)
    assert other.fingerprint == one.fingerprint


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(NORMALIZATIONS),
    st.lists(st.sampled_from(CONVERSATIONS), min_size=1, max_size=6),
    st.sampled_from(CONVERSATIONS),
)
def test_a_score_does_not_depend_on_the_batch_it_is_in(normalize, mates, one):
    rm = three(normalize=normalize).fit(CONVERSATIONS[:7])
    assert rm.score_batch([*mates, one])[-1] == rm.score(one)


def test_plain_models_weigh_alike():
    both = EnsembleRM([Scaled(1.0), Scaled(3.0, name="other")])
    assert [weight for _, weight in both.members] == [1.0, 1.0]
    assert both.score(conversation("abc")) == 6.0


def test_a_cost_enters_with_its_sign_turned_and_the_ensemble_is_higher_for_the_better():
    rm = EnsembleRM([(Scaled(1.0), 1), (Scaled(5.0, name="cost", cost=True), 1)])
    value, details = rm.score(conversation("abc"), return_details=True)
    assert (value, rm.higher_is_better) == ((3.0 - 15.0) / 2, True)
    assert [member["score"] for member in details["members"]] == [3.0, 15.0]
    assert [member["normalized"] for member in details["members"]] == [3.0, -15.0]
    assert rm.rank(prompt="Hi", responses=["aa", "a"]) == [1, 0]
    costs = EnsembleRM([Scaled(5.0, cost=True)])
    assert (costs.score(conversation("abc")), costs.higher_is_better) == (-15.0, True)


# fit, save, load


@pytest.mark.parametrize("normalize", ["zscore", "minmax", "rank"])
def test_scoring_without_the_statistics_is_refused_before_any_member_is_asked(normalize):
    rm = EnsembleRM([Failing()], normalize=normalize)
    for call in (
        lambda: rm.score(CONVERSATIONS[0]),
        lambda: rm.rank(prompt="Hi", responses=["a"]),
        lambda: rm.compare(prompt="Hi", a="a", b="b"),
        lambda: rm.fingerprint,
    ):
        with pytest.raises(UnsupportedError, match=r"needs statistics: call fit"):
            call()


def test_statistics_are_saved_and_loaded_by_an_ensemble_of_the_same_members(tmp_path):
    fitted = three(normalize="rank").fit(CONVERSATIONS)
    fitted.save(tmp_path / "s.json")
    members = [(Words(), 0.2), (Scaled(0.1), 0.5), (Vowels(), 0.3)]
    loaded = EnsembleRM(members, normalize="rank").load(tmp_path / "s.json")
    assert loaded.fingerprint == fitted.fingerprint
    assert loaded.score_batch(CONVERSATIONS) == pytest.approx(fitted.score_batch(CONVERSATIONS), abs=1e-12)
    fewer = EnsembleRM(members[1:], reduce="min", normalize="zscore").load(tmp_path / "s.json")
    scores = member_scores(fewer)
    scaled = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    assert fewer.score_batch(CONVERSATIONS) == pytest.approx(scaled.min(axis=0), abs=1e-12)


def test_statistics_of_another_model_are_refused(tmp_path):
    EnsembleRM([Scaled(0.1)], normalize="zscore").fit(CONVERSATIONS).save(tmp_path / "s.json")
    with pytest.raises(CheckpointError, match="no statistics of characters"):
        EnsembleRM([Scaled(0.2)], normalize="zscore").load(tmp_path / "s.json")
    with pytest.raises(CheckpointError, match="statistics of scores; this ensemble combines step_scores"):
        EnsembleRM([Steps(len)], normalize="rank").load(tmp_path / "s.json")


def test_statistics_are_fitted_once(tmp_path):
    rm = three(normalize="zscore").fit(CONVERSATIONS)
    rm.save(tmp_path / "s.json")
    for again in (lambda: rm.fit(CONVERSATIONS), lambda: rm.load(tmp_path / "s.json")):
        with pytest.raises(UnsupportedError, match="fitted once"):
            again()
    with pytest.raises(UnsupportedError, match="no statistics to save"):
        three(normalize="zscore").save(tmp_path / "t.json")


def test_a_fit_that_cannot_be_is_refused():
    with pytest.raises(BackendError, match="characters gave 2 for all 12"):
        EnsembleRM([Scaled(0.0, 2.0)], normalize="zscore").fit(CONVERSATIONS)
    with pytest.raises(BackendError, match="1 scores are too few"):
        three(normalize="zscore").fit(CONVERSATIONS[:1])
    with pytest.raises(BackendError, match="0 scores are too few"):
        three(normalize="zscore").fit([])
    with pytest.raises(ValueError, match="no such word"):
        EnsembleRM([Failing(), Scaled()], normalize="zscore", on_member_error="skip").fit(CONVERSATIONS)
    with pytest.raises(InvalidConversationError) as caught:
        three(normalize="zscore").fit([*CONVERSATIONS, []])
    assert caught.value.index == len(CONVERSATIONS)


def test_the_fingerprint_tells_of_members_weights_settings_and_statistics():
    def fitted(conversations=CONVERSATIONS, **options):
        rm = EnsembleRM([(Scaled(0.1), options.pop("weight", 1)), Vowels()], **{"normalize": "zscore", **options})
        return rm.fit(conversations).fingerprint

    others = [
        fitted(CONVERSATIONS[1:]),
        fitted(weight=2),
        fitted(reduce="min"),
        fitted(reduce="softmin"),
        fitted(reduce="softmin", beta=2.0),
        fitted(normalize="minmax"),
        fitted(normalize=None),
        fitted(on_member_error="skip"),
        fitted(on_member_error="skip", quorum=2),
        EnsembleRM([Scaled(0.2), Vowels()], normalize="zscore").fit(CONVERSATIONS).fingerprint,
    ]
    assert len({fitted(), *others}) == len(others) + 1
    assert fitted() == fitted()


# process models


def test_process_models_are_combined_step_by_step_and_then_aggregated():
    a, b = Steps(lambda step: 1 / len(step), name="a"), Steps(lambda step: len(step) / 10, name="b")
    rm = EnsembleRM([(a, 3), (b, 1)])
    assert rm.kind == "process"
    messages = conversation("aa\n\nbbbb\n\nc")
    expected = [(3 / n + n / 10) / 4 for n in (2, 4, 1)]
    steps, details = rm.score_steps(messages, return_details=True)
    assert steps == pytest.approx(expected)
    assert details["step_spans"] == [[0, 2], [4, 8], [10, 11]]
    assert rm.score(messages) == pytest.approx(min(expected))
    assert rm.score(messages, aggregation="mean") == pytest.approx(sum(expected) / 3)
    assert rm.score_steps_batch([{"messages": messages, "steps": ["aa", "bbbb\n\nc"]}]) == [
        pytest.approx([expected[0], (3 / 7 + 0.7) / 4])
    ]
    assert asyncio.run(rm.ascore_steps(messages)) == steps
    first = details["members"][0]
    assert (first["step_scores"], first["normalized"]) == ([0.5, 0.25, 1.0], [0.5, 0.25, 1.0])
    assert details["step_spread"] == pytest.approx([abs(1 / n - n / 10) / 2 for n in (2, 4, 1)])


def test_statistics_of_process_models_are_of_steps(tmp_path):
    rm = EnsembleRM([Steps(len)], normalize="zscore").fit([conversation("a\n\nbbb"), conversation("cccc")])
    assert rm.statistics[0].scores.tolist() == [1.0, 3.0, 4.0]
    scaled = (np.array([2, 6]) - 8 / 3) / np.std([1, 3, 4])
    assert rm.score_steps(conversation("aa\n\nbbbbbb")) == pytest.approx(scaled)
    by_items = EnsembleRM([Steps(len)], normalize="zscore")
    by_items.fit([{"messages": conversation("abbb"), "steps": ["a", "bbb"]}, {"prompt": "Hi", "response": "cccc"}])
    assert by_items.statistics[0].scores.tolist() == [1.0, 3.0, 4.0]


def test_a_product_of_z_scores_is_refused(prm):
    rm = EnsembleRM([Steps(len)], normalize="zscore").fit([conversation("a\n\nbbb")])
    with pytest.raises(UnsupportedError, match="The product of z-scores has no direction"):
        rm.score(conversation("a\n\nbbb"), aggregation="product")
    with pytest.raises(UnsupportedError, match="The product of z-scores has no direction"):
        EnsembleRM([prm], normalize="zscore")  # whose own aggregation is the product
    assert EnsembleRM([prm], normalize="zscore", aggregation="min").kind == "process"


def test_process_models_that_differ_need_a_setting_of_the_ensemble():
    members = [Steps(len), Steps(len, step_delimiter="\n")]
    with pytest.raises(TypeError, match=r"differ in step_delimiter .*say step_delimiter="):
        EnsembleRM(members)
    rm = EnsembleRM(members, step_delimiter="\n")
    assert rm.score_steps(conversation("a\nbb")) == [1.0, 2.0]
    with pytest.raises(TypeError, match="aggregation='mean' belongs to ensembles of process models"):
        EnsembleRM([Vowels()], aggregation="mean")


def test_members_with_other_numbers_of_steps_are_an_error():
    class OneStep(Steps):
        def score_steps(self, messages, steps):
            return [1.0]

    rm = EnsembleRM([Steps(len, name="all"), OneStep(len, name="one")])
    with pytest.raises(BackendError, match="one gave 1 step scores for 2 steps"):
        rm.score(conversation("a\n\nb"))


class WholeResponses(BaseRM):
    """A process model that scores no steps, by any of the methods that a user may override."""

    kind = "process"

    @staticmethod
    def of(method):
        def score(self, messages):
            return float(len(messages[-1]["content"]))

        def score_batch(self, batch):
            return [score(self, messages) for messages in batch]

        async def ascore(self, messages):
            return score(self, messages)

        overrides = {"score": score, "score_batch": score_batch, "ascore": ascore}
        return type("WholeResponses", (WholeResponses,), {"name": method, method: overrides[method]})()


@pytest.mark.parametrize("method", ["score", "score_batch", "ascore"])
def test_a_process_model_without_step_scores_is_combined_by_its_score(method):
    rm = EnsembleRM([WholeResponses.of(method), Steps(len)])
    assert (rm.kind, rm.score(conversation("aa\n\nbbbb"))) == ("outcome", (8 + 2) / 2)
    assert EnsembleRM([WholeResponses.of(method)]).score(conversation("aa\n\nbbbb")) == 8


def test_a_process_model_without_step_scores_is_known_behind_a_cache_and_on_a_server(tmp_path):
    pytest.importorskip("fastapi")
    from reward_hub.server.run import served_in_background

    with CachedRM(WholeResponses.of("score"), cache_dir=tmp_path) as cached:
        assert EnsembleRM([EnsembleRM([cached])]).score(conversation("aa\n\nbbbb")) == 8
    served = served_in_background(WholeResponses.of("score"))
    with served as address, AutoRM.load("score", "api", api_base=address) as client:
        assert EnsembleRM([client]).score(conversation("aa\n\nbbbb")) == 8


def test_beside_an_outcome_model_a_process_model_aggregates_by_itself(orm, prm):
    rm = EnsembleRM([orm, (prm, 3)])
    assert rm.kind == "outcome"
    messages = conversation("17 + 25 = 42\n\nThe answer is 42.", prompt="What is 17 + 25?")
    expected = (orm.score(messages) + 3 * prm.score(messages)) / 4
    assert rm.score(messages) == pytest.approx(expected)
    assert asyncio.run(rm.ascore(messages)) == pytest.approx(expected)
    blank = [messages, conversation(" ")]
    [_, (none, details)] = rm.score_batch(blank, on_error="none", return_details=True)
    assert (none, details["error"]["type"]) == (None, "InvalidConversationError")
    with pytest.raises(InvalidConversationError) as caught:
        rm.score_batch(blank)
    assert caught.value.index == 1


def test_an_ensemble_of_one_process_model_is_that_model(prm):
    one = EnsembleRM([prm])
    messages = conversation("17 + 25 = 43\n\nThe answer is 43.", prompt="What is 17 + 25?")
    assert (one.kind, one.score(messages)) == ("process", prm.score(messages))
    assert one.score_steps(messages) == prm.score_steps(messages)
    assert one.score(messages, aggregation="min") == prm.score(messages, aggregation="min")


def test_unlike_score_ranges_are_warned_of_once_and_not_where_they_are_normalised(caplog, orm, prm):
    with caplog.at_level(logging.WARNING, "reward_hub"):
        EnsembleRM([orm, prm], normalize="sigmoid")
        EnsembleRM([orm, prm], reduce="vote")
        EnsembleRM([orm, orm])
        assert caplog.messages == []
        rm = EnsembleRM([orm, prm])
        rm.rank(prompt="What is 2 + 2?", responses=["4", "5"])
    [warning] = caplog.messages
    assert "unlike ranges (builtin/arithmetic-orm (-inf, inf), builtin/arithmetic-prm (0.0, 1.0))" in warning


def test_weights_that_have_no_part_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "reward_hub"):
        EnsembleRM([(Vowels(), 1), (Words(), 2)], reduce="min")
    assert "weights have no part in reduce='min'" in caplog.text


def test_calibration_that_has_no_part_is_warned_of(caplog, tmp_path):
    pairs = [{"prompt": "Hi", "chosen": "aa", "rejected": "a"}] * 5
    calibrated = calibrate(Scaled(3.0), pairs)
    with caplog.at_level(logging.WARNING, "reward_hub"), CachedRM(calibrated, cache_dir=tmp_path) as cached:
        rm = EnsembleRM([cached])
        assert rm.compare(prompt="Hi", a="aa", b="a") == Scaled(3.0).compare(prompt="Hi", a="aa", b="a")
        assert "the calibration of characters has no part" in caplog.text
        caplog.clear()
        calibrate(EnsembleRM([Scaled(3.0)]), pairs)
        assert caplog.messages == []


# failures


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

        def _score_many(self, conversations, options):
            raise BackendError("the engine is gone")

    class Short(BaseRM):
        name = "short"

        def _score_many(self, conversations, options):
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


# votes


def test_a_vote_among_responses_is_their_mean_rank():
    rm = three(reduce="vote")
    responses = ["aaaa a a a", "bbbbbbbbbbbbbb", "e e", "e e"]
    members = np.array([[model.score(conversation(text)) for text in responses] for model, _ in rm.members])
    beaten = [[sum((x > y) + (x == y) / 2 for y in row) - 0.5 for x in row] for row in members]
    expected = np.average(np.array(beaten) / 3, axis=0, weights=[0.5, 0.3, 0.2])
    ranking, details = rm.rank(prompt="Hi", responses=responses, return_details=True)
    assert details["scores"] == pytest.approx(expected)
    assert ranking == sorted(range(4), key=lambda i: -expected[i])
    assert asyncio.run(rm.arank(prompt="Hi", responses=responses)) == ranking
    # Two of the members, 0.5 and 0.3 of the weight, prefer the first.
    assert rm.compare(prompt="Hi", a="aaaa", b="b") == pytest.approx(sigmoid(0.8 + 0.1 - 0.1))
    with pytest.raises(UnsupportedError, match="A vote on a single response needs statistics"):
        rm.score(conversation("a"))


def test_a_fitted_vote_takes_ranks_among_the_fitted_scores_everywhere():
    rm = three(reduce="vote").fit(CONVERSATIONS)
    texts = [messages[-1]["content"] for messages in CONVERSATIONS[2:6]]
    scores = rm.score_batch(CONVERSATIONS[2:6])
    assert rm.rank(prompt="Hi", responses=texts, return_details=True)[1]["scores"] == scores
    assert rm.compare(prompt="Hi", a=texts[0], b=texts[1]) == pytest.approx(sigmoid(scores[0] - scores[1]))


def test_normalisation_has_no_part_in_a_vote_which_is_said(caplog):
    rm = three(reduce="vote", normalize="zscore")
    assert [record.getMessage() for record in caplog.records] == [
        f"{rm.name}: normalize='zscore' has no part in a vote, which takes ranks."
    ]
    texts = ["aaaa", "b", "e e e"]
    assert rm.rank(prompt="Hi", responses=texts) == three(reduce="vote").rank(prompt="Hi", responses=texts)


def test_a_vote_that_a_cache_knows_without_statistics_is_not_fitted_later(tmp_path):
    rm = three(reduce="vote")
    texts = ["aaaa", "b", "e e e"]
    with CachedRM(rm, cache_dir=tmp_path) as cached:
        found = [cached.rank(prompt="Hi", responses=texts, return_details=True) for _ in range(2)]
        assert [details["cached"] for _, details in found] == [False, True]
        assert [ranking for ranking, _ in found] == [rm.rank(prompt="Hi", responses=texts)] * 2
        with pytest.raises(UnsupportedError, match="before it is cached"):
            rm.fit(CONVERSATIONS)
    assert three(reduce="vote").fit(CONVERSATIONS).fingerprint != rm.fingerprint


def test_process_models_vote_on_whole_responses():
    rm = EnsembleRM(
        [Steps(len, name="a"), Steps(lambda step: -len(step), name="b"), Steps(len, name="c")], reduce="vote"
    )
    ranking, details = rm.rank(prompt="Hi", responses=["aa\n\naaa", "a\n\naaaaa"], return_details=True)
    assert (ranking, details["scores"]) == ([0, 1], [1.0, 0.0])
    assert "step_scores" not in details


# pairwise models


def test_probabilities_of_pairwise_models_are_combined():
    rm = EnsembleRM([(Judge(0.5), 3), (Judge(-0.2, name="contrary"), 1)])
    assert rm.kind == "pairwise"
    expected = (3 * sigmoid(1.0) + sigmoid(-0.4)) / 4
    value, details = rm.compare(prompt="Hi", a="aaa", b="b", return_details=True)
    assert value == pytest.approx(expected)
    assert [member["score"] for member in details["members"]] == [sigmoid(1.0), sigmoid(-0.4)]
    assert [member["reasoning"] for member in details["members"]] == ["judge says so", "contrary says so"]
    assert asyncio.run(rm.acompare(prompt="Hi", a="aaa", b="b")) == value
    ranking, details = rm.rank(prompt="Hi", responses=["b", "aaa"], return_details=True)
    assert ranking == [1, 0] == asyncio.run(rm.arank(prompt="Hi", responses=["b", "aaa"]))
    assert details["scores"] == pytest.approx(
        [(3 * a + b) / 4 for a, b in zip(*rank_scores(rm, ["b", "aaa"]), strict=True)]
    )
    for call in (lambda: rm.score(conversation("a")), lambda: rm.fit(CONVERSATIONS)):
        with pytest.raises(UnsupportedError):
            call()


def rank_scores(rm, responses):
    return [model.rank(prompt="Hi", responses=responses, return_details=True)[1]["scores"] for model, _ in rm.members]


@pytest.mark.parametrize("reduce", REDUCTIONS)
@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(0.1, 5)), min_size=1, max_size=4), st.text("ab", max_size=4))
@settings(max_examples=20, deadline=None)
def test_the_swapped_question_has_one_minus_the_answer_under_every_reduction(reduce, judges, a):
    rm = EnsembleRM([(Judge(scale), weight) for scale, weight in judges], reduce=reduce)
    ab, ba = (rm.compare(prompt="Hi", a=x, b=y) for x, y in ((a, "aa"), ("aa", a)))
    assert 0 < ab < 1
    assert ab + ba == pytest.approx(1.0)
    if reduce in ("mean", "median", "trimmed_mean"):
        p = np.array([[sigmoid(scale * (len(a) - 2))] for scale, _ in judges])
        assert ab == pytest.approx(Reduction.of(reduce)(p, np.array([weight for _, weight in judges]))[0])


def test_a_compare_or_rank_of_a_users_own_is_refused_rather_than_left_out():
    class Own(Judge):
        def compare(self, messages=None, *, prompt=None, a, b):
            return 0.9

        def rank(self, messages=None, *, prompt=None, responses):
            return [0]

    rm = EnsembleRM([Judge(), Own(name="own")], on_member_error="skip")
    with pytest.raises(UnsupportedError, match="own has a compare of its own"):
        rm.compare(prompt="Hi", a="a", b="b")
    with pytest.raises(UnsupportedError, match="own has a rank of its own"):
        rm.rank(prompt="Hi", responses=["a"])


@pytest.fixture
def jury_of(monkeypatch):
    """`jury_of(scripts, **arguments)`: one judge a script, each on an endpoint of its own."""
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ExitStack() as stack:

        def make(scripts, **arguments):
            servers = [stack.enter_context(judge_server(script)) for script in scripts]
            return [
                LLMJudge(f"judge {i}", api_base=server.api_base, max_retries=0, **arguments)
                for i, server in enumerate(servers)
            ]

        yield make


def test_a_jury_is_an_ensemble_of_judges(jury_of):
    judges = jury_of([verdict(5, reasoning="good"), verdict(2), fails(400)], rubric="Score the response from 1-5.")
    with EnsembleRM(judges, reduce="median", on_member_error="skip") as jury:
        score, details = jury.score(prompt="Explain gravity", response="It falls.", return_details=True)
        assert (score, details["normalized_score"], details["spread"]) == (3.5, 0.625, 1.5)
        first, second, third = details["members"]
        assert (first["score"], first["reasoning"], second["score"]) == (5, "good", 2)
        assert first["usage"]["calls"] == 1
        assert "status 400" in third["error"]["message"]
        assert asyncio.run(jury.ascore(prompt="Explain gravity", response="It falls.")) == 3.5


def test_judges_that_compare_vote(jury_of):
    def for_a(asked):
        return says(json.dumps({"winner": "A" if asked.text.index("It falls.") < asked.text.index("No.") else "B"}))(
            asked
        )

    def for_b(asked):
        return says(json.dumps({"winner": "B" if asked.text.index("It falls.") < asked.text.index("No.") else "A"}))(
            asked
        )

    judges = jury_of([for_a, for_b, for_a], rubric="Which is better?", mode="pairwise")
    with EnsembleRM(judges, reduce="vote") as jury:
        assert jury.kind == "pairwise"
        question = {"prompt": "Explain gravity", "a": "It falls.", "b": "No."}
        assert jury.compare(**question) == pytest.approx(sigmoid(2 / 3 - 1 / 3))
        assert jury.rank(prompt="Explain gravity", responses=["No.", "It falls."]) == [1, 0]


def test_both_orders_are_asked_of_every_member():
    rm = EnsembleRM([Judge(0.5, bias=3.0), Judge(0.5, bias=-1.0)])
    one = (sigmoid(0.5 + 3.0) + sigmoid(0.5 - 1.0)) / 2
    both = [(sigmoid(0.5 + bias) + 1 - sigmoid(-0.5 + bias)) / 2 for bias in (3.0, -1.0)]
    assert rm.compare(prompt="Hi", a="aa", b="a") == pytest.approx(one)
    assert rm.compare(prompt="Hi", a="aa", b="a", both_orders=True) == pytest.approx(sum(both) / 2)


def test_real_pairwise_families_are_combined(golden_models):
    members = [golden_models.load(GoldenSet(slug, "own")) for slug in ("pairrm-hf", "better-pairrm")]
    rm = EnsembleRM(members)
    question = {"prompt": "What is the capital of France?", "a": "Paris.", "b": "I think it is Lyon."}
    expected = [member.compare(**question) for member in members]
    assert rm.compare(**question) == pytest.approx(sum(expected) / 2)
    assert rm.fingerprint != EnsembleRM(members[:1]).fingerprint


# who is asked where


def test_local_members_are_asked_in_turn_in_the_thread_of_the_caller():
    seen, here = [], threading.get_ident()

    class Local(Scaled):
        def score(self, messages):
            seen.append((self.name, threading.get_ident()))
            return super().score(messages)

    rm = EnsembleRM([Local(name="a"), EnsembleRM([Local(name="b"), Local(name="c")])])
    rm.score(CONVERSATIONS[1])
    rm.rank(prompt="Hi", responses=["a"])
    assert seen == [(name, here) for _ in range(2) for name in "abc"]


class Meeting(BaseRM):
    """Answers only when as many members as were expected have been asked."""

    def __init__(self, expected, asked):
        self.expected, self.asked = expected, asked
        self.name = f"server {len(asked)}"

    async def _ascore_many(self, conversations, options):
        self.asked.append(self.name)
        while len(self.asked) < self.expected:
            await asyncio.sleep(0.001)
        return [self._own_details(1.0) for _ in conversations]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_members_on_servers_are_asked_together_while_local_ones_compute(asynchronous):
    asked: list[str] = []

    class Local(BaseRM):
        name = "local"

        def score(self, messages):
            asked.append(self.name)
            while len(asked) < 3:
                threading.Event().wait(0.001)
            return 4.0

    rm = EnsembleRM([Meeting(3, asked), Local(), Meeting(3, asked)])
    score = asyncio.run(rm.ascore(CONVERSATIONS[1])) if asynchronous else rm.score(CONVERSATIONS[1])
    assert score == 2.0
    assert len(asked) == 3


@pytest.mark.timeout(60)
def test_a_local_failure_ends_the_wait_for_servers():
    started, cancelled = threading.Event(), threading.Event()

    class Endless(BaseRM):
        async def _ascore_many(self, conversations, options):
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    class Local(BaseRM):
        def score(self, messages):
            started.wait(30)
            raise ValueError("no such word")

    with pytest.raises(ValueError, match="no such word"):
        EnsembleRM([Endless(), Local()]).score(CONVERSATIONS[1])
    assert cancelled.wait(30)


def test_a_served_ensemble_gives_the_scores_and_members_of_the_ensemble_itself():
    pytest.importorskip("fastapi")
    from reward_hub.server.run import served_in_background

    rm = three(normalize="zscore").fit(CONVERSATIONS)
    with served_in_background(rm) as address, AutoRM.load(rm.name, "api", api_base=address) as client:
        assert client.fingerprint == rm.fingerprint
        value, details = client.score(CONVERSATIONS[3], return_details=True)
        own, own_details = rm.score(CONVERSATIONS[3], return_details=True)
        assert (value, details["members"], details["spread"]) == (own, own_details["members"], own_details["spread"])
        outer = EnsembleRM([(client, 1), (Vowels(), 1)])
        assert outer.score_batch(CONVERSATIONS) == pytest.approx(
            [
                (a + b) / 2
                for a, b in zip(rm.score_batch(CONVERSATIONS), Vowels().score_batch(CONVERSATIONS), strict=True)
            ]
        )
        assert outer.score(CONVERSATIONS[3], return_details=True)[1]["members"][0]["members"] == details["members"]


def test_a_conversation_counts_as_done_when_every_member_has_scored_it(capsys):
    three().score_batch(CONVERSATIONS, show_progress=True)
    three(normalize="zscore").fit(CONVERSATIONS, show_progress=True)
    assert capsys.readouterr().err.count("12/12") == 2


def test_close_closes_every_member_also_where_one_fails():
    closed = []

    class Closing(BaseRM):
        def __init__(self, name):
            self.name = name

        def close(self):
            closed.append(self.name)
            if self.name == "b":
                raise OSError("gone already")

    with pytest.raises(OSError, match="gone already"), EnsembleRM([Closing(name) for name in "abc"]):
        pass
    assert sorted(closed) == ["a", "b", "c"]


# what is refused


@pytest.mark.parametrize(
    ("members", "options", "error", "complaint"),
    [
        ([], {}, TypeError, "at least one member"),
        (Vowels(), {}, TypeError, "members is one Vowels; give a list"),
        (["rm"], {}, TypeError, "Member 0 is str"),
        ([(Vowels(), 0)], {}, TypeError, "must be positive"),
        ([(Vowels(), math.inf)], {}, TypeError, "must be positive"),
        ([(Vowels(), "1")], {}, TypeError, "a number is needed"),
        ([(Vowels(), True)], {}, TypeError, "a number is needed"),
        ([Vowels(), Judge()], {}, UnsupportedError, "cannot be combined .vowels: outcome, judge: pairwise"),
        ([Vowels()], {"normalize": "z"}, TypeError, "known: None, 'zscore'"),
        ([Judge()], {"normalize": "zscore"}, TypeError, "probabilities"),
        ([Vowels()], {"reduce": "mean", "beta": 1.0}, TypeError, "no beta"),
        ([Vowels()], {"on_member_error": "ignore"}, TypeError, "known: 'raise', 'skip'"),
        ([Vowels()], {"quorum": 1}, TypeError, "belongs to on_member_error='skip'"),
        ([Vowels()], {"on_member_error": "skip", "quorum": 2}, TypeError, "of 1 members 1 to 1"),
        ([Vowels()], {"on_member_error": "skip", "quorum": 1.5}, TypeError, "a share is above 0"),
        ([Vowels()], {"on_member_error": "skip", "quorum": "all"}, TypeError, "a number of members"),
    ],
)
def test_an_ensemble_that_makes_no_sense_is_refused(members, options, error, complaint):
    with pytest.raises(error, match=complaint):
        EnsembleRM(members, **options)


def test_details_are_plain_json():
    rm = EnsembleRM([three(), Failing("e")], on_member_error="skip")
    value, details = rm.score(conversation("hello"), return_details=True)
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert details["model"] == rm.name == "mean of mean of characters, vowels, words, failing"
    assert details["members"][0]["members"][1]["name"] == "vowels"
    assert details["normalized_score"] == pytest.approx(sigmoid(value))


# documentation


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "ensembles.md").read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(block, names)
    rm = names["rm"]
    assert capsys.readouterr().out.startswith(f"{rm.score(prompt='What is 17 + 25?', response='17 + 25 = 42.')} ")
    assert len(json.loads((tmp_path / "statistics.json").read_text())["members"][0]["scores"]) == 8


def test_the_example_ranks_right_solutions_first(capsys):
    runpy.run_path(str(ROOT / "examples" / "ensemble.py"))
    problems = capsys.readouterr().out.strip().split("\n\n")
    first = [problem.splitlines()[1] for problem in problems]
    assert len(first) > 3
    assert [line for line in first if "right: " not in line] == []
