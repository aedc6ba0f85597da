"""Event loops: a private one for synchronous calls of asynchronous code, calls that run together, what each loop has.

result = run_sync(coroutine)                  # from synchronous code, also where another loop is running
results = await in_order([call(), call()])    # together, in their order
PerLoop(make, aclose)                         # connections and semaphores, which belong to one loop
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_pid: int | None = None


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from synchronous code, also where another loop is running (notebooks).

    Raises:
        RuntimeError: called from the private loop itself, which would wait for itself for ever.
    """
    future = start(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def start(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Begin what `run_sync` waits for; the caller does something else before it asks for the result."""
    loop = _get_loop()
    try:
        inside = asyncio.get_running_loop() is loop
    except RuntimeError:
        inside = False
    if inside:
        coroutine.close()
        raise RuntimeError("A synchronous call from inside an asynchronous model; await the a-form (ascore) instead.")
    return asyncio.run_coroutine_threadsafe(coroutine, loop)


def _get_loop() -> asyncio.AbstractEventLoop:
    global _loop, _pid
    with _lock:
        # After a fork the thread is gone; the child makes its own.
        if _loop is None or _pid != os.getpid():
            _loop, _pid = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_loop.run_forever, name="reward_hub-loop", daemon=True).start()
        return _loop


@atexit.register
def _close_what_is_open() -> None:
    """Close connections that nobody closed, as long as the modules that closing needs are there."""
    global _loop
    with _lock:
        loop, _loop = _loop, None
    if loop is not None and _pid == os.getpid():
        wait([asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop)], timeout=5.0)


async def in_order(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of calls that run together, in their order. The first failure is raised and the others cancelled."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


class PerLoop(Generic[T]):
    """One `T` for each event loop, made on first use there and closed when the loop shuts down.

    Args:
        make: makes one, in the loop it is for.
        aclose: closes one, in its loop.
    """

    def __init__(self, make: Callable[[], T], aclose: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._aclose = aclose
        self._held: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Held[T]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    async def get(self) -> T:
        """The running loop's."""
        loop = asyncio.get_running_loop()
        with self._lock:
            held = self._held.get(loop)
            new = held is None
            if held is None:
                for other in [other for other in self._held if other.is_closed()]:
                    del self._held[other]
                held = self._held[loop] = _Held(self._make(), self._aclose)
        if new:
            await held.bind()
        return held.value

    def close(self) -> None:
        """Close those of every loop. A later `get` makes new ones."""
        with self._lock:
            held, self._held = dict(self._held), weakref.WeakKeyDictionary()
        for loop, one in held.items():
            one.close(loop)


class _Held(Generic[T]):
    def __init__(self, value: T, aclose: Callable[[T], Awaitable[None]]) -> None:
        self.value = value
        self._key = object()
        self._lifetime = _open_until_loop_ends(value, aclose, self._key)

    async def bind(self) -> None:
        """Have the value closed when the loop shuts down, as `asyncio.run` does it for generators."""
        await self._lifetime.__anext__()

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the value in its loop, from wherever."""
        if loop.is_closed() or not loop.is_running():
            return
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            # Nobody can wait here. Where the loop ends before the task has run, it closes the generator itself.
            _closing[self._key] = (self._lifetime, loop.create_task(self._lifetime.aclose()))
        else:
            asyncio.run_coroutine_threadsafe(self._lifetime.aclose(), loop).result(5.0)


_closing: dict[object, Any] = {}
"""What must live until it is closed."""


async def _open_until_loop_ends(value: T, aclose: Callable[[T], Awaitable[None]], key: object) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await aclose(value)
        _closing.pop(key, None)
