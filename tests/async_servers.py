"""An asynchronous local server that records how many requests are under way in it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from local_servers import Answers, Sent


class AsyncServer:
    """Serves many connections on one event loop, in a thread of its own.

    Args:
        answers: what is answered to a request.
        expected: POST requests are held until so many have been under way together, or `patience_s` has passed;
            0 holds none.
    """

    def __init__(self, answers: Answers, *, expected: int = 0, patience_s: float = 10.0) -> None:
        self._answers = answers
        self._patience_s = patience_s
        self.expected = expected
        self.under_way = self.peak = self.n_begun = self.n_dropped = 0
        self._met = asyncio.Event()
        self.loop = asyncio.new_event_loop()
        self.address = ""

    def expect(self, n: int) -> None:
        """Hold requests again, and begin a new record."""

        async def reset() -> None:
            self.expected, self.peak, self.n_begun, self.n_dropped = n, self.under_way, 0, 0
            self._met.clear()

        asyncio.run_coroutine_threadsafe(reset(), self.loop).result(10)

    def let_go(self) -> None:
        """Answer what is held."""
        self.loop.call_soon_threadsafe(self._met.set)

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (sent := await _request(reader)) is not None:
                status, reply = await self._answer(sent, reader)
                raw = json.dumps(reply).encode()
                head = f"HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
                writer.write(head.encode() + raw)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, sent: Sent, reader: asyncio.StreamReader) -> Any:
        if sent.method != "POST" or not self.expected:
            return self._answers(sent)
        self.under_way += 1
        self.n_begun += 1
        self.peak = max(self.peak, self.under_way)
        try:
            if self.under_way >= self.expected:
                self._met.set()
            await self._held(reader)
            # More requests than may be under way would come in now.
            await asyncio.sleep(0.02)
            return self._answers(sent)
        finally:
            self.under_way -= 1

    async def _held(self, reader: asyncio.StreamReader) -> None:
        """Wait; a client that hangs up meanwhile ends its request."""
        met = asyncio.ensure_future(self._met.wait())
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({met, gone}, timeout=self._patience_s, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                self.n_dropped += 1
                raise ConnectionResetError
        finally:
            met.cancel()
            gone.cancel()
            await asyncio.gather(met, gone, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> Sent | None:
    """The next request of a connection; None where the client has closed it."""
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    method, path, _ = first.split(" ")
    return Sent(method, path, headers, json.loads(body) if body else None)


@contextmanager
def async_server(answers: Answers, **how: Any) -> Iterator[AsyncServer]:
    server = AsyncServer(answers, **how)
    thread = threading.Thread(target=server.loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(server.connect, "127.0.0.1", 0, backlog=128)

    async def end() -> None:
        listening.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    listening = asyncio.run_coroutine_threadsafe(listen(), server.loop).result(10)
    server.address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(end(), server.loop).result(10)
        server.loop.call_soon_threadsafe(server.loop.stop)
        thread.join()
        server.loop.close()
