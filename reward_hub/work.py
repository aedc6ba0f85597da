"""Work that is written once and runs from synchronous and from asynchronous code.

A `Work` is a generator. Where it has to wait (for an engine, a server, a file) it yields a `Wait`, which knows how to
wait here and now and how to wait in an event loop, and is sent what came of it:

    def scaled(backend, inputs, factor) -> Work[list[Array]]:
        outputs = yield from wait(lambda: backend.read(inputs), lambda: backend.aread(inputs))
        return [factor * output for output in outputs]

    run(scaled(backend, inputs, 2.0))            # in this thread
    await arun(scaled(backend, inputs, 2.0))     # without blocking the event loop

One piece of work asks for another one with `yield from`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from reward_hub.loops import in_order, run_sync, start

T = TypeVar("T")


@dataclass(frozen=True)
class Wait(Generic[T]):
    """Something to wait for, from synchronous code (`now`) and from asynchronous code (`later`)."""

    now: Callable[[], T]
    later: Callable[[], Awaitable[T]]


Work: TypeAlias = Generator[Wait[Any], Any, T]


def run(work: Work[T]) -> T:
    """Do the work in this thread."""
    try:
        waiting = next(work)
        while True:
            try:
                outcome = waiting.now()
            except BaseException as error:
                waiting = work.throw(error)
            else:
                waiting = work.send(outcome)
    except StopIteration as done:
        result: T = done.value
        return result


async def arun(work: Work[T]) -> T:
    """Do the work in the running event loop. What is waited for when this is cancelled is cancelled too."""
    try:
        waiting = next(work)
        while True:
            try:
                outcome = await waiting.later()
            except BaseException as error:
                waiting = work.throw(error)
            else:
                waiting = work.send(outcome)
    except StopIteration as done:
        result: T = done.value
        return result


def wait(now: Callable[[], T], later: Callable[[], Awaitable[T]]) -> Work[T]:
    """What comes of waiting for one thing."""
    outcome: T = yield Wait(now, later)
    return outcome


def in_thread(function: Callable[[], T]) -> Work[T]:
    """A function that would block an event loop: it is called in another thread there, and here right away."""
    return wait(function, lambda: asyncio.to_thread(function))


def awaited(function: Callable[[], Coroutine[Any, Any, T]]) -> Work[T]:
    """A coroutine function of no arguments; synchronous code waits for it in the private event loop."""
    return wait(lambda: run_sync(function()), function)


def together(works: Sequence[Work[T]], elsewhere: Sequence[bool]) -> Work[list[T]]:
    """Several pieces of work: those that wait for other processes all at once, the others beside them in turn.

    Those that compute here share a CPU or GPU: two at once are no faster than one after the other. With none
    `elsewhere` a synchronous caller does everything in its own thread.
    """
    there = [i for i, waits in enumerate(elsewhere) if waits]
    here = [i for i, waits in enumerate(elsewhere) if not waits]

    def now() -> list[T]:
        if len(works) == 1 or not there:
            return [run(work) for work in works]
        waiting = start(in_order([arun(works[i]) for i in there]))
        try:
            results = {i: run(works[i]) for i in here}
            return _placed(results | dict(zip(there, waiting.result(), strict=True)))
        except BaseException:
            waiting.cancel()
            raise

    async def in_turn(places: Sequence[int]) -> list[tuple[int, T]]:
        return [(i, await arun(works[i])) for i in places]

    async def later() -> list[T]:
        groups = await in_order([in_turn(places) for places in (*([i] for i in there), here)])
        return _placed(dict(result for group in groups for result in group))

    return wait(now, later)


def _placed(results: dict[int, T]) -> list[T]:
    return [results[i] for i in sorted(results)]
