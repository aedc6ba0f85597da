"""Requests under way at a time and further attempts, which every client shares."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.errors import BackendError, ServerError
from reward_hub.http import sending
from reward_hub.http.sending import AttemptError, Sender, Slots


class Counted:
    """Attempts that are under way together, and how many were at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = self.begun = 0

    async def __call__(self) -> str:
        with self._lock:
            self.now += 1
            self.begun += 1
            self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.02)
        finally:
            with self._lock:
                self.now -= 1
        return "done"


def send(sender: Sender, attempt: Callable[[], Awaitable[str]]) -> Awaitable[str]:
    return sender.send(attempt, label="test")


async def test_sixty_four_calls_keep_thirty_two_under_way() -> None:
    sender, attempt = Sender(max_concurrency=32, max_retries=0), Counted()
    assert await asyncio.gather(*(send(sender, attempt) for _ in range(64))) == ["done"] * 64
    assert (attempt.most, attempt.begun) == (32, 64)


def test_the_limit_holds_over_all_threads_and_event_loops() -> None:
    sender, attempt = Sender(max_concurrency=3, max_retries=0), Counted()

    async def several() -> list[str]:
        return await asyncio.gather(*(send(sender, attempt) for _ in range(5)))

    with ThreadPoolExecutor(4) as pool:
        batches = [pool.submit(asyncio.run, several()) for _ in range(4)]
        assert [batch.result() for batch in batches] == [["done"] * 5] * 4
    assert (attempt.most, attempt.begun) == (3, 20)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=12), st.integers(1, 4))
def test_cancelling_calls_ends_no_other_and_leaks_no_slot(cancelled: list[tuple[int, int]], n: int) -> None:
    sender = Sender(max_concurrency=n, max_retries=0)

    async def attempt() -> str:
        for _ in range(3):
            await asyncio.sleep(0)
        return "done"

    async def run() -> None:
        calls = [asyncio.ensure_future(send(sender, attempt)) for _ in range(10)]
        for i, n_turns in cancelled:
            for _ in range(n_turns):
                await asyncio.sleep(0)
            calls[i].cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        kept = [results[i] for i in range(10) if i not in {i for i, _ in cancelled}]
        assert kept == ["done"] * len(kept)
        # All slots are there again: as many calls as before run together.
        counted = Counted()
        async with asyncio.timeout(60):
            await asyncio.gather(*(send(sender, counted) for _ in range(n)))
        assert counted.most == n

    asyncio.run(run())


async def test_a_call_that_holds_a_slot_takes_no_second_one() -> None:
    sender = Sender(max_concurrency=1, max_retries=0)
    async with asyncio.timeout(60), sender.slot():
        assert await sender.send(Counted(), label="test", in_slot=True) == "done"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_forked_process_has_all_slots_of_its_own() -> None:
    slots = Slots(1)

    async def take() -> str:
        async with asyncio.timeout(30), slots.one():
            return "taken"

    def child() -> None:
        # In a thread of its own: the forked one still counts as running its parent's event loop.
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(asyncio.run, take()).result() == "taken"

    async with slots.one():
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        await asyncio.to_thread(process.join, 60)
    assert process.exitcode == 0


@given(st.integers(0, 5), st.integers(0, 5))
def test_what_may_pass_is_tried_as_often_as_allowed(n_failures: int, max_retries: int) -> None:
    sender = Sender(max_concurrency=1, max_retries=max_retries, first_delay_s=0.0)
    n_attempts = 0

    async def attempt() -> str:
        nonlocal n_attempts
        n_attempts += 1
        if n_attempts <= n_failures:
            raise AttemptError(ServerError("busy", status=503, retryable=True))
        return "done"

    if n_failures <= max_retries:
        assert asyncio.run(sender.send(attempt, label="test")) == "done"
        assert n_attempts == n_failures + 1
    else:
        with pytest.raises(ServerError, match="busy"):
            asyncio.run(sender.send(attempt, label="test"))
        assert n_attempts == max_retries + 1


@pytest.mark.parametrize(
    "failure",
    [
        AttemptError(ServerError("no", status=403)),
        AttemptError(BackendError("no")),
        AttemptError(ServerError("no", status=503, retryable=True), wait_s=sending.MAX_RETRY_AFTER_S + 1),
    ],
)
async def test_what_will_not_pass_soon_is_not_tried_again(failure: AttemptError) -> None:
    n_attempts = 0

    async def attempt() -> str:
        nonlocal n_attempts
        n_attempts += 1
        raise failure

    with pytest.raises(BackendError, match=r"^no$"):
        await Sender(max_concurrency=1, max_retries=3).send(attempt, label="test")
    assert n_attempts == 1


@given(st.integers(0, 40), st.floats(0, 120))
def test_a_wait_is_never_shorter_than_the_server_asks_for(attempt: int, asked_s: float) -> None:
    assert asked_s <= sending.delay_s(attempt, asked_s) <= asked_s + sending.MAX_DELAY_S
    assert 0.0 <= sending.delay_s(attempt, None) <= sending.MAX_DELAY_S
