"""How requests are sent to one server: so many at a time, and again where that may help."""

from __future__ import annotations

import asyncio
import email.utils
import math
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
        self._n = n
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
