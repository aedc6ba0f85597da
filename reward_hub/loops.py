"""One private event loop in a thread of its own, for synchronous calls of asynchronous code."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

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
