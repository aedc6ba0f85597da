"""Calls to an engine that takes one at a time."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from reward_hub import BackendError
from reward_hub.backends.base import Progress
from reward_hub.backends.vllm.calls import JoinedCalls
from reward_hub.types import Array, TokenInput


class Engine:
    """Answers with the first token id, refuses token 1313, and is held while `gate` is closed."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self._inside = threading.Lock()

    def run(self, inputs: list[TokenInput], progress: Progress) -> list[Array]:
        assert self._inside.acquire(blocking=False), "two calls at once"
        try:
            self.batches.append(len(inputs))
            self.gate.wait()
            if any(item.token_ids[0] == 1313 for item in inputs):
                raise BackendError("token 1313")
            progress(len(inputs))
            return [np.array([[item.token_ids[0]]], np.float32) for item in inputs]
        finally:
            self._inside.release()


def inputs(*ids: int) -> list[TokenInput]:
    return [TokenInput([i], [0]) for i in ids]


def values(outputs: list[Array]) -> list[float]:
    return [float(output[0, 0]) for output in outputs]


def test_threads_get_their_own_answers_in_order() -> None:
    calls = JoinedCalls(Engine().run)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: values(calls.call(inputs(i, i + 1000))), range(100, 300)))
    assert answers == [[float(i), float(i + 1000)] for i in range(100, 300)]


async def test_tasks_that_wait_are_joined_into_one_batch() -> None:
    engine = Engine()
    engine.gate.clear()
    calls = JoinedCalls(engine.run)
    tasks = [asyncio.create_task(calls.acall(inputs(i))) for i in range(50)]
    await asyncio.sleep(0.05)
    engine.gate.set()
    answers = await asyncio.gather(*tasks)
    assert [values(answer) for answer in answers] == [[float(i)] for i in range(50)]
    assert sum(engine.batches) == 50 and len(engine.batches) <= 3


async def test_only_the_call_that_fails_fails() -> None:
    engine = Engine()
    engine.gate.clear()
    calls = JoinedCalls(engine.run)
    tasks = [asyncio.create_task(calls.acall(inputs(i))) for i in (1, 1313, 3)]
    await asyncio.sleep(0.05)
    engine.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[1], BackendError)
    assert [values(answers[0]), values(answers[2])] == [[1.0], [3.0]]


async def test_a_cancelled_task_leaves_the_others_alone() -> None:
    engine = Engine()
    engine.gate.clear()
    calls = JoinedCalls(engine.run)
    tasks = [asyncio.create_task(calls.acall(inputs(i))) for i in (1, 2, 3)]
    await asyncio.sleep(0.05)
    tasks[2].cancel()
    engine.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [values(answers[0]), values(answers[1])] == [[1.0], [2.0]]
    assert isinstance(answers[2], asyncio.CancelledError)


def test_the_progress_of_a_joined_call_reaches_each_caller() -> None:
    seen: list[int] = []
    JoinedCalls(Engine().run).call(inputs(1, 2, 3), seen.append)
    assert sum(seen) == 3


def test_an_interrupted_engine_does_not_leave_others_waiting() -> None:
    def interrupted(inputs: list[TokenInput], progress: Progress) -> list[Array]:
        raise KeyboardInterrupt

    calls = JoinedCalls(interrupted)
    with pytest.raises(KeyboardInterrupt):
        calls.call(inputs(1))
