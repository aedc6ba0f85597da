"""A reward model of a user's own needs one method; everything else is derived."""

from __future__ import annotations

import asyncio
import math

import pytest

from reward_hub import AutoRM, BackendError, BaseRM, CachedRM, EnsembleRM, InvalidConversationError, UnsupportedError
from reward_hub.base import AggregationMethod, PRMResult
from reward_hub.numerics import sigmoid

SHORT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a" * 10}]
LONG = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a" * 40}]


class LengthRM(BaseRM):
    def score(self, messages):
        return min(len(messages[-1]["content"]) / 100, 1.0)


class WithOptions(BaseRM):
    """Written for an older interface: own constructor, own batch, keyword arguments."""

    def __init__(self, **config):
        super().__init__()
        self.config = config

    def score(self, messages, **kwargs):
        return len(messages[-1]["content"]) / 100

    def score_batch(self, batch, **kwargs):
        return [self.score(messages) for messages in batch]


class AsyncRM(BaseRM):
    async def ascore(self, messages):
        await asyncio.sleep(0)
        return len(messages[-1]["content"]) / 100


class BatchRM(BaseRM):
    def score_batch(self, batch):
        return [len(messages[-1]["content"]) / 100 for messages in batch]


class CostRM(LengthRM):
    higher_is_better = False


class StepRM(BaseRM):
    kind = "process"

    def score_steps(self, messages, steps):
        return [1 / (1 + len(step)) for step in steps]


class BrokenRM(BaseRM):
    def score(self, messages):
        raise ValueError("no such word") if len(messages[-1]["content"]) > 20 else None


class NaNRM(BaseRM):
    def score(self, messages):
        return math.nan


@pytest.mark.parametrize("rm", [LengthRM(), WithOptions(a=1), AsyncRM(), BatchRM()], ids=lambda rm: type(rm).__name__)
def test_one_overridden_method_gives_all_the_others(rm):
    assert rm.score_batch([LONG, SHORT]) == [0.4, 0.1]
    assert list(rm.score_iter(iter([LONG, SHORT, LONG]), window=2)) == [0.4, 0.1, 0.4]
    assert rm.compare(prompt="Hi", a="a" * 40, b="a" * 10) == pytest.approx(sigmoid(0.3))
    assert rm.rank(prompt="Hi", responses=["a", "aaa", "aa", "aaa"]) == [1, 3, 2, 0]
    assert rm.best_of_n(prompt="Hi", responses=["a", "aaa", "aa"]) == 1
    assert asyncio.run(rm.ascore(LONG)) == 0.4
    assert asyncio.run(rm.ascore_batch([LONG, SHORT])) == [0.4, 0.1]
    assert asyncio.run(rm.arank(prompt="Hi", responses=["a", "aa"])) == [1, 0]
    assert asyncio.run(rm.acompare(prompt="Hi", a="a", b="a")) == 0.5


def test_an_async_score_serves_synchronous_calls_inside_a_running_loop():
    async def notebook():
        return AsyncRM().score(LONG), AsyncRM().score_batch([SHORT])

    assert asyncio.run(notebook()) == (0.4, [0.1])


def test_a_cost_turns_every_choice_around():
    rm = CostRM()
    assert rm.rank(prompt="Hi", responses=["aaa", "a", "aa"]) == [1, 2, 0]
    assert rm.best_of_n(prompt="Hi", responses=["aaa", "a"]) == 1
    assert rm.compare(prompt="Hi", a="aaa", b="a") < 0.5
    [(_, details)] = rm.score_batch([LONG], return_details=True)
    assert details["normalized_score"] == pytest.approx(sigmoid(-0.4))


@pytest.mark.parametrize(("cost", "expected"), [(False, 0.7), (True, 0.3)])
def test_the_range_that_a_class_declares_decides_its_normalized_score(cost, expected):
    class RatingRM(BaseRM):
        score_range = (-1.0, 1.0)
        higher_is_better = not cost

        def score(self, messages):
            return 0.4

    [(_, details)] = RatingRM().score_batch([LONG], return_details=True)
    assert details["normalized_score"] == pytest.approx(expected)


def test_a_process_model_of_ones_own_aggregates():
    rm = StepRM()
    assert rm.score(prompt="Hi", response="a\n\nbbb") == 0.25
    assert rm.score(prompt="Hi", response="a\n\nbbb", aggregation="max") == 0.5
    assert rm.score_steps_batch([{"messages": SHORT, "steps": ["a" * 10]}]) == [[1 / 11]]
    result = rm.score(prompt="Hi", response="a\n\nbbb", return_full_prm_result=True)
    assert result == PRMResult([0.5, 0.25], 0.25)
    assert (result.product, result.min, result.last) == (0.125, 0.25, 0.25)


def test_what_a_model_has_not_is_refused():
    with pytest.raises(UnsupportedError, match="no step scores"):
        BatchRM().score_steps(prompt="Hi", response="a")
    with pytest.raises(UnsupportedError, match="no steps to split or aggregate"):
        AsyncRM().score(SHORT, aggregation="min")


def test_a_failure_is_raised_or_given_as_none_with_its_reason():
    with pytest.raises(ValueError, match="no such word"):
        BrokenRM().score_batch([LONG])
    [(none, details)] = BrokenRM().score_batch([LONG], on_error="none", return_details=True)
    assert none is None
    assert details == {"error": {"type": "ValueError", "message": "no such word"}}


def test_nan_is_no_score():
    with pytest.raises(RuntimeError, match="nan"):
        NaNRM().score_batch([LONG])


def test_an_invalid_conversation_names_its_place_in_the_batch():
    with pytest.raises(InvalidConversationError) as caught:
        LengthRM().score_batch([SHORT, [], LONG])
    assert caught.value.index == 1
    scores = LengthRM().score_batch([SHORT, [], LONG], on_error="none", return_details=True)
    assert [score for score, _ in scores] == [0.1, None, 0.4]
    assert scores[1][1]["error"] == {"type": "InvalidConversationError", "message": "there are no messages."}


def test_an_empty_batch_is_an_empty_list():
    assert LengthRM().score_batch([]) == []


@pytest.mark.parametrize("option", [{"on_error": "skip"}, {"batch_size": 0}, {"nonsense": 1}])
def test_an_option_that_does_not_exist_is_a_type_error(option):
    with pytest.raises(TypeError):
        LengthRM().score_batch([SHORT], **option)


def test_both_inner_methods_cannot_be_overridden_together():
    with pytest.raises(TypeError, match="one is derived from the other"):

        class Twice(BaseRM):
            def score_conversations(self, conversations, options):
                return []

            async def ascore_conversations(self, conversations, options):
                return []


def test_the_names_of_reward_hub_0_1_remain():
    assert AggregationMethod("prod") is AggregationMethod("product") is AggregationMethod.PRODUCT
    assert {"PRODUCT", "MIN", "LAST", "MODEL"} <= set(AggregationMethod.__members__)


class BothBatchesRM(BaseRM):
    """Scores whole batches, and the steps of one response."""

    kind = "process"

    def __init__(self):
        self.batches = []

    def score_batch(self, batch):
        self.batches.append(len(batch))
        if any("bad" in messages[-1]["content"] for messages in batch):
            raise ValueError("no such word")
        return [1.0 for _ in batch]

    def score_steps(self, messages, steps):
        return [1 / (1 + len(step)) for step in steps]


def test_steps_are_scored_by_what_scores_steps_whatever_else_a_class_overrides():
    items = [{"prompt": "Hi", "response": "a\n\nbbb"}, {"prompt": "Hi", "response": "a"}]
    assert BothBatchesRM().score_steps_batch(items) == [[0.5, 0.25], [0.5]]


def test_a_batch_of_ones_own_is_scored_whole_and_one_by_one_only_where_it_fails():
    class Batches(BothBatchesRM):
        kind = "outcome"
        score_steps = BaseRM.score_steps

    good, bad = SHORT, [SHORT[0], {"role": "assistant", "content": "bad"}]
    rm = Batches()
    assert rm.compare(prompt="Hi", a="a", b="b") == 0.5
    assert rm.batches == [2]
    with pytest.raises(ValueError, match="no such word"):
        rm.compare(prompt="Hi", a="a", b="bad")
    assert rm.batches == [2, 2]
    assert EnsembleRM([rm]).score_batch([good, bad, good], on_error="none") == [1.0, None, 1.0]
    assert rm.batches[2:] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    "option", [{"aggregation": "mean"}, {"step_delimiter": "\n"}, {"return_full_prm_result": True}]
)
def test_what_a_score_of_ones_own_would_ignore_is_refused(option):
    class Whole(StepRM):
        def score(self, messages, **kwargs):
            return 42.0

    assert Whole().score_batch([SHORT]) == [42.0]
    with pytest.raises(UnsupportedError, match="score of its own"):
        Whole().score_batch([SHORT], **option)


class SlowRM(BaseRM):
    """Waits for something else; knows what is under way, and what was cancelled."""

    def __init__(self):
        super().__init__()
        self.under_way = self.most_under_way = self.cancelled = 0

    async def ascore(self, messages):
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(60 if messages[-1]["content"] == "for ever" else 0.05)
            if messages[-1]["content"] == "bad":
                raise ValueError("bad")
            return len(messages[-1]["content"]) / 100
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1


def said(text):
    return [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text}]


FOREVER = said("for ever")


def test_what_is_awaited_runs_together_and_in_order(tmp_path):
    batch = [said("a" * n) for n in range(1, 7)]
    expected = [n / 100 for n in range(1, 7)]
    rm = SlowRM()
    assert asyncio.run(rm.ascore_batch(batch)) == rm.score_batch(batch) == expected
    assert rm.most_under_way == 6

    async def through_a_cache():
        cached = CachedRM(SlowRM(), cache_dir=tmp_path)
        conversations = [said("a" * n) for n in range(1, 65)]
        scores = await asyncio.gather(*(cached.ascore(conversation) for conversation in conversations))
        assert scores == [n / 100 for n in range(1, 65)]
        return cached.rm.most_under_way

    assert asyncio.run(through_a_cache()) == 64


def test_a_failure_keeps_its_place_or_ends_what_is_awaited():
    rm = SlowRM()
    assert rm.score_batch([SHORT, said("bad"), LONG], on_error="none") == [0.1, None, 0.4]
    with pytest.raises(ValueError, match="bad"):
        rm.score_batch([FOREVER, said("bad")])
    assert (rm.cancelled, rm.under_way) == (1, 0)


def test_cancelling_reaches_what_is_awaited():
    async def cancelled(rm):
        task = asyncio.create_task(rm.ascore(FOREVER))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    rm, other = SlowRM(), SlowRM()
    asyncio.run(cancelled(EnsembleRM([rm, other])))
    assert (rm.cancelled, rm.under_way, other.cancelled, other.under_way) == (1, 0, 1, 0)


@pytest.mark.parametrize("spelling", ["step_delimiter", "step_sep", "step_separator"])
def test_a_batch_takes_every_spelling_of_where_to_split(spelling):
    conversation = said("16 - 3 = 13; 13 + 5 = 18")
    with AutoRM.load("builtin/arithmetic-prm") as rm:
        expected = rm.score(conversation, step_delimiter="; ")
        assert rm.score_batch([conversation], **{spelling: "; "}) == [expected] != rm.score_batch([conversation])
        assert asyncio.run(rm.ascore_batch([conversation], **{spelling: "; "})) == [expected]
        with pytest.raises(TypeError, match="step_delimiter"):
            rm.score_batch([conversation], step_sep="; ", step_delimiter="\n")


@pytest.mark.parametrize("given", [[1.0], [1.0, 2.0, 3.0], [1.0, math.nan]])
def test_steps_of_ones_own_are_one_finite_number_each(given: list[float]) -> None:
    class Steps(BaseRM):
        kind = "process"

        def score_steps(self, messages=None, *, steps=None):
            return given

    with pytest.raises(BackendError, match="one finite number each is needed"):
        Steps().score_steps_batch([{"prompt": "q", "steps": ["a", "b"]}])
    assert Steps().score_steps_batch([{"prompt": "q", "steps": ["a", "b"]}], on_error="none") == [None]
