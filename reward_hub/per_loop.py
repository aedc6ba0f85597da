"""Things that belong to one event loop (connections, semaphores), kept apart for each loop that uses them."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


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
