"""How requests are sent to one server: so many at a time, and again where that may help.

One `Sender` stands behind every client: `HttpClient`, and the chat clients of judges.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import math
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from reward_hub.errors import ServerError

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRYABLE_STATUS = frozenset({408, 429, 500, 502, 503, 504, 529})
# Seconds before the first further attempt; doubled each time, with jitter. Four attempts more bridge about ten seconds.
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 30.0
# A server that asks for more patience than this is taken as one that does not answer.
MAX_RETRY_AFTER_S = 120.0


class AttemptError(Exception):
    """An attempt that failed: the error a caller would see, and for how long the server asked to be left alone."""

    def __init__(self, error: Exception, wait_s: float | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.wait_s = wait_s


class Slots:
    """At most `n` at a time over all event loops and threads; first come, first served."""

    def __init__(self, n: int) -> None:
        if n < 1:
            raise TypeError(f"max_concurrency={n}; at least 1 is needed.")
        self._n = n
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # Counted by loop: what a loop held that was closed under its tasks is free again.
        self._held: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, int] = weakref.WeakKeyDictionary()
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a slot, and hold it."""
        loop = asyncio.get_running_loop()
        await self._take(loop)
        try:
            yield
        finally:
            self._give(loop)

    async def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._pid != os.getpid():
            self._start()  # after a fork: what the parent holds, it gives back there
        with self._lock:
            if sum(n for other, n in self._held.items() if not other.is_closed()) < self._n:
                self._held[loop] = self._held.get(loop, 0) + 1
                return
            place = (loop, loop.create_future())
            self._waiting.append(place)
        try:
            await place[1]
        except BaseException:
            with self._lock:
                waits = place in self._waiting
                if waits:
                    self._waiting.remove(place)
            if not waits:  # it was given a slot in the same moment
                self._give(loop)
            raise

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand a slot to who waits longest, or set it free."""
        with self._lock:
            self._held[loop] -= 1
            while self._waiting:
                other, turn = self._waiting.popleft()
                if wake(other, turn):
                    self._held[other] = self._held.get(other, 0) + 1
                    return


class Sender:
    """Sends the requests of one client, from any number of threads and event loops.

    Args:
        max_concurrency: requests under way at a time, those that wait for a further attempt included.
        max_retries: further attempts of one request, where it failed in a way that may pass.
    """

    def __init__(self, *, max_concurrency: int, max_retries: int, first_delay_s: float = FIRST_DELAY_S) -> None:
        if max_retries < 0:
            raise TypeError(f"max_retries={max_retries}: it must not be negative.")
        self.max_retries = max_retries
        self._first_delay_s = first_delay_s
        self._slots = Slots(max_concurrency)

    def slot(self) -> AbstractAsyncContextManager[None]:
        """The right to one request, for callers that make its body only when its turn comes."""
        return self._slots.one()

    async def send(
        self, attempt: Callable[[], Awaitable[T]], *, label: str, retries: int | None = None, in_slot: bool = False
    ) -> T:
        """What an attempt gave, the first or a further one.

        Args:
            attempt: sends the request once; an `AttemptError` says why that failed.
            label: names the request in logs.
            retries: in place of `max_retries`.
            in_slot: the caller holds a `slot` for it.

        Raises:
            ServerError, BackendError: it failed, for good or too often.
        """
        retries = self.max_retries if retries is None else retries
        if in_slot:
            return await self._attempts(attempt, label, retries)
        # The slot is kept while waiting: a server in trouble gets fewer requests, not more.
        async with self.slot():
            return await self._attempts(attempt, label, retries)

    async def _attempts(self, attempt: Callable[[], Awaitable[T]], label: str, retries: int) -> T:
        for n_failed in range(1, retries + 2):
            try:
                return await attempt()
            except AttemptError as failed:
                error, asked_s, cause = failed.error, failed.wait_s, failed.__cause__
            patient = n_failed <= retries and (asked_s or 0.0) <= MAX_RETRY_AFTER_S
            if not (patient and getattr(error, "retryable", False)):
                break
            wait_s = delay_s(n_failed - 1, asked_s, first_delay_s=self._first_delay_s)
            status = getattr(error, "status", None)
            reason = type(cause or error).__name__ if status is None else f"status {status}"
            logger.info("%s: %s; attempt %d of %d in %.1f s.", label, reason, n_failed + 1, retries + 1, wait_s)
            await asyncio.sleep(wait_s)
        if n_failed > 1 and isinstance(error, ServerError):
            error.message += f" ({n_failed} attempts.)"
        raise error from cause


def delay_s(attempt: int, asked_s: float | None, *, first_delay_s: float = FIRST_DELAY_S) -> float:
    """Seconds to wait after failed attempt number `attempt`, from 0; `asked_s` is what the server asked for."""
    backoff = min(MAX_DELAY_S, first_delay_s * 2.0**attempt) * random.uniform(0.5, 1.0)
    if asked_s is None:
        return backoff
    # Not before the time asked for, and not everybody at once.
    return asked_s + random.uniform(0.0, min(backoff, 0.25 * asked_s + 0.05))


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number, or a date."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def wake(loop: asyncio.AbstractEventLoop, waiting: asyncio.Future[None]) -> bool:
    """End a wait in whichever loop it is; False where that loop is closed."""
    try:
        loop.call_soon_threadsafe(_end_wait, waiting)
    except RuntimeError:
        return False
    return True


def _end_wait(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
