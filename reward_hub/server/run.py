"""Runs the app until it is told to stop: takes no more requests then, finishes those under way, ends."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from reward_hub.base import BaseRM
from reward_hub.errors import BackendError, missing_dependency
from reward_hub.server.app import create_app
from reward_hub.server.service import ServeOptions

try:
    import uvicorn
except ImportError as error:
    raise missing_dependency("uvicorn", "serve", "Serving a model") from error

logger = logging.getLogger(__name__)

# Longer than clients keep idle connections, so that they, and not the server, close them between two requests.
KEEP_ALIVE_S = 75


def serve(
    rm: BaseRM,
    options: ServeOptions,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    drain_s: float = 30.0,
    on_ready: Callable[[str], None] = lambda address: None,
) -> bool:
    """Serve until SIGTERM or SIGINT.

    Args:
        port: 0 takes a free one.
        drain_s: how long requests under way may take to end.
        on_ready: told the address when requests are taken.

    Returns:
        Whether every request got its answer.

    Raises:
        OSError: the address cannot be had.
    """
    listening = _listen(host, port)
    server, service = _server(rm, options, listening, drain_s, on_ready)
    # uvicorn raises the signal again when it is done; without a handler of ours the process would end by it.
    before = signal.signal(signal.SIGTERM, lambda *_: None) if _in_main_thread() else None
    try:
        server.run(sockets=[listening])
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        listening.close()
    return bool(service.metrics.cut_off == 0)


def require_address(host: str, port: int) -> None:
    """Find out before a model is loaded that its server could not listen.

    Raises:
        OSError: the address cannot be had.
    """
    _listen(host, port).close()


@contextmanager
def served_in_background(rm: BaseRM, options: ServeOptions | None = None) -> Iterator[str]:
    """Serve from a thread of this process on a free local port, for as long as the block lasts; yields the address."""
    listening = _listen("127.0.0.1", 0)
    ready = threading.Event()
    server, _ = _server(rm, options or ServeOptions(), listening, 30.0, lambda address: ready.set())
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="reward_hub-server", daemon=True)
    thread.start()
    try:
        while not ready.wait(0.1):
            if not thread.is_alive():
                raise BackendError("The server did not start; its log says why.")
        yield _address(listening)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def _server(
    rm: BaseRM, options: ServeOptions, listening: socket.socket, drain_s: float, on_ready: Callable[[str], None]
) -> tuple[uvicorn.Server, Any]:
    """The server, not yet running, and the app's service."""
    app = create_app(rm, options)
    service = app.state.service
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )

    class Server(uvicorn.Server):
        """Says when it starts, and lets the routes know when it ends."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                on_ready(_address(listening))

        def handle_exit(self, sig: int, frame: Any) -> None:
            service.draining = True
            super().handle_exit(sig, frame)

    return Server(config), service


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.create_server(
        (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
    )
    # Connections inherit it. asyncio sets it only on sockets made with the protocol named, which these are not; without
    # it the body of every reply waits 40 ms for the client to acknowledge the head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
