"""Calls for an engine that is not thread-safe: one at a time, those that wait joined into one. And its end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from reward_hub.backends.base import Progress
from reward_hub.errors import BackendError

logger = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass
class _Call(Generic[In, Out]):
    inputs: list[In]
    progress: Progress | None
    future: Future[list[Out]] = field(default_factory=Future)


class JoinedCalls(Generic[In, Out]):
    """Many callers, one engine. A call that fails in company is made again alone, so that only the culprit fails.

    Args:
        run: inputs and a progress callback to one output an input.
    """

    def __init__(self, run: Callable[[list[In], Progress], list[Out]]) -> None:
        self._run = run
        self._busy = threading.Lock()
        self._waiting: deque[_Call[In, Out]] = deque()
        # Async callers share one thread, however many tasks wait.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reward_hub-engine")

    def call(self, inputs: Sequence[In], progress: Progress | None = None) -> list[Out]:
        """The outputs of these inputs, after the calls that are running."""
        mine: _Call[In, Out] = _Call(list(inputs), progress)
        self._waiting.append(mine)
        self._drain()
        return mine.future.result()

    async def acall(self, inputs: Sequence[In], progress: Progress | None = None) -> list[Out]:
        """The same without blocking the event loop."""
        mine: _Call[In, Out] = _Call(list(inputs), progress)
        self._waiting.append(mine)
        self._thread.submit(self._drain)
        return await asyncio.wrap_future(mine.future)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Hold the engine still: the call that runs is finished, the next ones wait."""
        with self._busy:
            yield

    def _drain(self) -> None:
        """Serve everybody who waits, unless another thread has done so meanwhile."""
        with self._busy:
            calls = []
            while self._waiting:
                call = self._waiting.popleft()
                if call.future.set_running_or_notify_cancel():
                    calls.append(call)
            try:
                self._serve(calls)
            finally:
                for call in calls:
                    if not call.future.done():
                        call.future.set_exception(BackendError("The engine was interrupted; score these again."))

    def _serve(self, calls: Sequence[_Call[In, Out]]) -> None:
        try:
            outputs = iter(self._run([item for call in calls for item in call.inputs], _shared(calls)) if calls else ())
        except Exception as error:
            if len(calls) == 1:
                calls[0].future.set_exception(error)
                return
            for call in calls:
                self._serve([call])
            return
        for call in calls:
            call.future.set_result([next(outputs) for _ in call.inputs])


def _shared(calls: Sequence[_Call[Any, Any]]) -> Progress:
    """The progress of joined calls, handed to the first, then the second, ... caller."""
    left = [len(call.inputs) for call in calls]

    def progress(n: int) -> None:
        for i, call in enumerate(calls):
            part = min(n, left[i])
            left[i] -= part
            n -= part
            if part and call.progress is not None:
                call.progress(part)

    return progress


def shut_down(engine: Any) -> None:
    """End the processes of a `vllm.LLM`."""
    try:
        engine.llm_engine.engine_core.shutdown()
    except Exception as error:
        logger.warning("The vLLM engine did not shut down properly: %s", error)
