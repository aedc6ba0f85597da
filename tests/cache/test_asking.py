"""CachedRM asks its model only for what it has not given before; failures are not kept."""

from __future__ import annotations

import asyncio
import threading

import pytest
from cached_models import CountingRM, flag, turns

from reward_hub import BaseRM, InputTooLongError, InvalidConversationError
from reward_hub.messages import parse
from reward_hub.reward_model import CallOptions


def test_duplicates_are_scored_once_and_order_is_kept(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    results = wrapped.score_batch([turns(r) for r in ("aaa", "b", "aaa", "cc", "b")], return_details=True)
    assert [score for score, _ in results] == [3 / 7, 1 / 7, 3 / 7, 2 / 7, 1 / 7]
    assert rm.asked == [["aaa", "b", "cc"]]
    assert [flag(result) for result in results] == [False, False, True, False, True]


def test_of_partial_hits_the_rest_is_scored_in_one_call(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    wrapped.score_batch([turns("b"), turns("dddd")])
    scores = wrapped.score_batch([turns(r) for r in ("a", "bb", "b", "ccc", "dddd")])
    assert scores == [1 / 7, 2 / 7, 1 / 7, 3 / 7, 4 / 7]
    assert rm.asked == [["b", "dddd"], ["a", "bb", "ccc"]]
    stats = wrapped.stats()
    assert (stats["hits"], stats["misses"], stats["entries"], stats["errors"]) == (2, 5, 5, 0)


def test_nothing_is_asked_where_everything_is_there(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    assert wrapped.score_batch([]) == []
    assert [wrapped.score_batch([turns("a"), turns("b")]) for _ in range(2)] == [[1 / 7, 1 / 7]] * 2
    assert len(rm.asked) == 1


def test_a_failure_is_not_kept_and_has_its_place(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    wrapped.score_batch([turns("a"), turns("b")])
    batch = [turns(r) for r in ("a", "b", "a", "broken", "c")]
    for _ in range(2):
        with pytest.raises(InputTooLongError) as caught:
            wrapped.score_batch(batch)
        assert caught.value.index == 3
    assert rm.asked[1:] == [["broken", "c"]] * 2


def test_with_on_error_none_a_failure_is_none_and_not_kept(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    batch = [turns(r) for r in ("broken", "a", "broken", "b")]
    for n in range(2):
        results = wrapped.score_batch(batch, on_error="none", return_details=True)
        assert [score for score, _ in results] == [None, 1 / 7, None, 1 / 7]
        assert results[0][1]["error"] == results[2][1]["error"] == {"type": "InputTooLongError", "message": "too long"}
        assert rm.asked[n] == (["broken", "a", "b"] if n == 0 else ["broken"])
    failures = wrapped.score_conversations([parse(c) for c in batch], CallOptions())
    assert failures[0] is not failures[2]


def test_failures_of_a_class_that_cannot_be_copied_are_none_for_duplicates_too(cached):
    class HttpError(Exception):
        def __init__(self, message, *, status):
            super().__init__(message)

    class FailingRM(BaseRM):
        def score(self, messages):
            raise HttpError("gone", status=503)

    results = cached(FailingRM()).score_batch([turns("a"), turns("a")], on_error="none", return_details=True)
    assert [score for score, _ in results] == [None, None]
    assert [details["error"] for _, details in results] == [{"type": "HttpError", "message": "gone"}] * 2


def test_what_is_invalid_is_refused_before_the_cache_is_asked(cached):
    wrapped = cached(CountingRM())
    with pytest.raises(InvalidConversationError):
        wrapped.score([{"role": "user", "content": "Hi"}])
    assert wrapped.stats()["misses"] == 0


def test_progress_counts_every_conversation(cached):
    wrapped = cached(CountingRM())
    wrapped.score(turns("a"))
    done: list[int] = []
    conversations = [parse(turns(r)) for r in ("a", "b", "b", "c", "a")]
    wrapped.score_conversations(conversations, CallOptions(progress=done.append))
    assert sum(done) == 5


async def test_the_asynchronous_forms_use_the_same_entries(cached):
    rm = CountingRM("process")
    wrapped = cached(rm)
    own = CountingRM("process")
    response = "step one\n\nstep two"
    assert await wrapped.ascore(turns(response)) == own.score(turns(response))
    assert wrapped.score(turns(response)) == own.score(turns(response))
    assert await wrapped.ascore_steps(turns(response)) == own.score_steps(turns(response))
    assert await wrapped.ascore_batch([turns(response), turns("x")]) == own.score_batch([turns(response), turns("x")])
    assert await wrapped.acompare(prompt="Hi", a=response, b="x") == own.compare(prompt="Hi", a=response, b="x")
    assert await wrapped.arank(prompt="Hi", responses=["x", response]) == [1, 0]
    assert await wrapped.abest_of_n(prompt="Hi", responses=["x", response]) == 1
    assert rm.asked == [[response], ["x"]]


async def test_an_asynchronous_model_is_awaited(cached):
    class SlowRM(BaseRM):
        fingerprint = "slow-1"

        async def ascore_conversations(self, conversations, options):
            await asyncio.sleep(0.01)
            return [self._own_details(float(len(c.response))) for c in conversations]

    wrapped = cached(SlowRM())
    assert await asyncio.gather(*(wrapped.ascore(turns("a" * n)) for n in range(1, 6))) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert wrapped.score(turns("aaa"), return_details=True)[1]["cached"] is True
    assert await asyncio.to_thread(wrapped.score, turns("b" * 6)) == 6.0


async def test_an_asynchronous_failure_has_its_place(cached):
    wrapped = cached(CountingRM())
    await wrapped.ascore(turns("a"))
    with pytest.raises(InputTooLongError) as caught:
        await wrapped.ascore_batch([turns("a"), turns("broken")])
    assert caught.value.index == 1


def test_threads_share_one_object(cached):
    wrapped = cached(CountingRM())
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(n for n in range(1, 60) if wrapped.score(turns("a" * n)) != n / 7)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = wrapped.stats()
    assert wrong == []
    assert (stats["hits"] + stats["misses"], stats["entries"], stats["errors"]) == (236, 59, 0)
