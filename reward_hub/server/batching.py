"""Joins what concurrent requests wait for into batches of one engine, and says when too much is waiting."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from reward_hub.errors import BackendError
from reward_hub.reward_model import Result

logger = logging.getLogger(__name__)

Run = Callable[[Any, list[Any]], Awaitable[list[Result]]]
"""(key, items) -> one result an item; only items of one key are scored together."""

# Weight of the last batch in the running mean of the seconds that an item takes.
_LATEST = 0.2


class OverloadedError(Exception):
    """More is waiting than may wait; `retry_after_s` estimates when there is room again."""

    def __init__(self, waiting: int, retry_after_s: int) -> None:
        super().__init__(f"{waiting} conversations are waiting; try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


@dataclass
class _Job:
    item: Any
    arrived: float
    future: asyncio.Future[Result] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """A bounded queue in front of one engine.

    A batch starts when `max_batch_size` items of one key wait, or when the oldest has waited for `max_wait_s`; while
    the engine is busy, items gather. Where a batch fails as a whole, its items are scored one by one, so that one bad
    item fails alone.

    Args:
        max_queue: most items that wait, those being scored not counted.
        parallel: batches under way at a time: 1 for an engine of this process, more for a model that waits for others.
        on_batch: told the size and the seconds of every batch.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_batch_size: int,
        max_wait_s: float,
        max_queue: int,
        parallel: int = 1,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self.max_batch_size = max_batch_size
        self.max_wait_s = max_wait_s
        self.max_queue = max_queue
        self._run = run
        self._parallel = parallel
        self._on_batch = on_batch
        self._queues: dict[Hashable, deque[_Job]] = {}
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._workers: list[asyncio.Task[None]] = []
        self._seconds_per_item = 0.01

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return sum(map(len, self._queues.values()))

    @property
    def alive(self) -> bool:
        """Whether batches are being made."""
        return bool(self._workers) and not any(worker.done() for worker in self._workers)

    def start(self) -> None:
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._parallel)]

    async def stop(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def submit(self, key: Hashable, items: Sequence[Any]) -> list[Result]:
        """One result an item, in order; a failure is a result. Cancelling takes out what has not begun.

        Raises:
            OverloadedError: the queue has no room for the items.
        """
        waiting = self.waiting
        if waiting + len(items) > self.max_queue:
            seconds = math.ceil(waiting * self._seconds_per_item / self._parallel)
            raise OverloadedError(waiting, min(max(seconds, 1), 60))
        now = time.monotonic()
        jobs = [_Job(item, now) for item in items]
        self._queues.setdefault(key, deque()).extend(jobs)
        self._changed.set()
        try:
            return [await job.future for job in jobs]
        except asyncio.CancelledError:
            for job in jobs:
                job.future.cancel()
            raise

    async def _work(self) -> None:
        while True:
            async with self._turn:
                key, jobs = await self._next()
            if jobs:
                await self._score(key, jobs)

    async def _next(self) -> tuple[Hashable, list[_Job]]:
        """The next batch, as soon as it is full or has waited long enough."""
        while not self._queues:
            self._changed.clear()
            await self._changed.wait()
        key = min(self._queues, key=lambda key: self._queues[key][0].arrived)
        queue = self._queues[key]
        due = queue[0].arrived + self.max_wait_s
        while len(queue) < self.max_batch_size and (left := due - time.monotonic()) > 0:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                break
        jobs: list[_Job] = []
        while queue and len(jobs) < self.max_batch_size:
            job = queue.popleft()
            if not job.future.done():
                jobs.append(job)
        if not queue:
            del self._queues[key]
        return key, jobs

    async def _score(self, key: Hashable, jobs: list[_Job]) -> None:
        start = time.monotonic()
        results = await self._results(key, [job.item for job in jobs])
        for job, result in zip(jobs, results, strict=True):
            if not job.future.done():
                job.future.set_result(result)
        seconds = time.monotonic() - start
        self._seconds_per_item += _LATEST * (seconds / len(jobs) - self._seconds_per_item)
        logger.debug("A batch of %d in %.1f ms.", len(jobs), 1000 * seconds)
        if self._on_batch is not None:
            self._on_batch(len(jobs), seconds)

    async def _results(self, key: Hashable, items: list[Any]) -> list[Result]:
        try:
            results = await self._run(key, items)
            if len(results) != len(items):
                raise BackendError(f"The model gave {len(results)} results for {len(items)} conversations.")
            return results
        except Exception as error:
            if len(items) == 1:
                return [error]
        logger.warning("A batch of %d failed as a whole; its items are scored one by one.", len(items))
        return [result for item in items for result in await self._results(key, [item])]
