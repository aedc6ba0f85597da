"""One asynchronous HTTP client for every server that holds a model: pooled, bounded, patient, silent about keys.

    client = HttpClient("http://localhost:8000/v1", api_key=key)
    replies = await in_order([client.post("/v1/score", body) for body in bodies])

What may succeed when tried again is tried again: 429 and 5xx (`Retry-After` is honoured), lost connections, timeouts,
replies that are not JSON. A reply never holds NaN or infinity: such a number is a `ServerError`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx

from reward_hub.errors import ServerError, ServerTimeoutError
from reward_hub.http.sending import (
    FIRST_DELAY_S,
    MAX_RETRY_AFTER_S,
    RETRYABLE_STATUS,
    AttemptError,
    Sender,
    retry_after_s,
)
from reward_hub.load_call import names_key
from reward_hub.loops import PerLoop

logger = logging.getLogger(__name__)

# Of a reply that is not JSON, so much is quoted.
_QUOTED = 300

ErrorOf = Callable[[int, Any], Exception | None]
"""(status, parsed body or None) -> the error that a server of a known dialect means, or None."""


def api_key_from(given: str | None) -> str | None:
    """The key that was given, else REWARD_HUB_API_KEY, else OPENAI_API_KEY."""
    return given or os.environ.get("REWARD_HUB_API_KEY") or os.environ.get("OPENAI_API_KEY") or None


def require_sendable_key(api_key: str | None) -> None:
    """Said before anything is sent, because the error of a header that cannot be sent quotes it.

    Raises:
        ServerError: the key holds characters that no header can carry.
    """
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise ServerError("The api key holds characters that no header can carry (a line break at its end?).")


def server_root(api_base: str) -> str:
    """`http://host:8000/v1/` as `http://host:8000`: routes are given with their `/v1`, where they have one.

    Raises:
        ServerError: it is not an http address.
    """
    try:
        url = httpx.URL(api_base)
    except httpx.InvalidURL as error:
        raise ServerError(f"api_base is not an address: {error}.") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ServerError(f"api_base={shown_address(api_base)!r}: write http://host:port or https://host.")
    return str(url.copy_with(query=None, fragment=None)).rstrip("/").removesuffix("/v1").rstrip("/")


class HttpClient:
    """Requests to one server. Usable from several threads and event loops at once.

    Args:
        api_base: the server's address; a trailing `/v1` is dropped.
        api_key: sent as a bearer token; see `api_key_from`.
        timeout_s: for one attempt, from its first byte to the last of the reply.
        max_retries: further attempts after the first one.
        max_concurrency: requests under way at a time, those that wait for a further attempt included.
        error_of: reads the errors of a server whose dialect is known; what it returns is raised, and not tried again
            unless it is a `ServerError` that says so.
    """

    def __init__(
        self,
        api_base: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_retries: int = 4,
        max_concurrency: int = 32,
        first_delay_s: float = FIRST_DELAY_S,
        error_of: ErrorOf | None = None,
    ) -> None:
        if timeout_s <= 0:
            raise TypeError(f"timeout_s={timeout_s}: it must be positive.")
        require_sendable_key(api_key)
        self.root = server_root(api_base)
        self.timeout_s = timeout_s
        self._sender = Sender(max_concurrency=max_concurrency, max_retries=max_retries, first_delay_s=first_delay_s)
        self._error_of = error_of
        self._headers = {"content-type": "application/json"}
        self._key_sent = bool(api_key)
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        connections = httpx.Limits(max_connections=max_concurrency, max_keepalive_connections=max_concurrency)
        # A client of httpx belongs to the loop it was first used in. Each attempt has one limit for everything, which a
        # server that drips bytes does not escape.
        self._connections = PerLoop(
            lambda: httpx.AsyncClient(limits=connections, timeout=None), lambda http: http.aclose()
        )

    def __repr__(self) -> str:
        return f"HttpClient({shown_address(self.root)!r})"

    @property
    def address(self) -> str:
        """The server's address, without the user and password that may stand in it."""
        return shown_address(self.root)

    def slot(self) -> AbstractAsyncContextManager[None]:
        """The right to one request, for callers that make its body only when its turn comes; see `post`."""
        return self._sender.slot()

    async def get(self, path: str, *, retries: int | None = None) -> Any:
        """The parsed reply to GET. See `post`."""
        return await self._send("GET", path, None, retries=retries)

    async def post(self, path: str, body: Any, *, retries: int | None = None, in_slot: bool = False) -> Any:
        """The parsed reply to POST of a JSON body.

        Args:
            retries: in place of `max_retries`; 0 for a probe.
            in_slot: the caller holds a `slot` for this request.

        Raises:
            ServerError: the server refused, was lost, or gave something that is not JSON (`.status`, `.retryable`).
            ServerTimeoutError: it did not answer in time.
        """
        content = json.dumps(body, allow_nan=False).encode()
        return await self._send("POST", path, content, retries=retries, in_slot=in_slot)

    def close(self) -> None:
        """Close the connections of every loop. A later request opens new ones."""
        self._connections.close()

    async def _send(self, method: str, path: str, content: bytes | None, **how: Any) -> Any:
        return await self._sender.send(lambda: self._attempt(method, path, content), label=f"{method} {path}", **how)

    async def _attempt(self, method: str, path: str, content: bytes | None) -> Any:
        http = await self._connections.get()
        where = f"{method} {shown_address(self.root)}{path}"
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self.timeout_s):
                reply = await http.request(method, self.root + path, content=content, headers=self._headers)
        except (TimeoutError, httpx.TimeoutException) as error:
            late = ServerTimeoutError(f"{where}: no answer within {self.timeout_s:g} s.")
            raise AttemptError(late) from error
        except httpx.TransportError as error:
            lost = ServerError(f"{where}: {_transport_problem(error)}", retryable=True)
            raise AttemptError(lost) from error
        logger.debug(
            "%s: %d bytes sent, status %d and %d bytes after %.3f s.",
            *(where, len(content or b""), reply.status_code, len(reply.content), time.perf_counter() - started),
        )
        if reply.status_code == 200:
            try:
                return parse_json(reply.content)
            except UnusableNumberError as error:
                raise AttemptError(
                    ServerError(f"{where}: the reply holds {error}, which is not a score.", status=200)
                ) from None
            except ValueError:
                problem = f"{where}: the reply is not JSON: {_quoted(reply.content)}."
                raise AttemptError(ServerError(problem, status=200, retryable=True)) from None
        raise self._refused(where, reply)

    def _refused(self, where: str, reply: httpx.Response) -> AttemptError:
        """The error of a reply that is not 200."""
        status = reply.status_code
        try:
            body = parse_json(reply.content)
        except ValueError:
            body = None
        meant = self._error_of(status, body) if self._error_of is not None else None
        if meant is not None:
            return AttemptError(meant, retry_after_s(reply.headers.get("retry-after")))
        return refused(where, status, reply.headers, _quoted(reply.content) + ".", key_sent=self._key_sent)


def refused(where: str, status: int, headers: Mapping[str, str], text: str, *, key_sent: bool) -> AttemptError:
    """The failure of an attempt that a server answered with another status than 200."""
    wait_s = retry_after_s(headers.get("retry-after"))
    hint = ""
    if status in (401, 403):
        hint = f" ({'a' if key_sent else 'no'} key was sent; give api_key= or set REWARD_HUB_API_KEY)"
    elif 300 <= status < 400:
        hint = f" (it points to {shown_address(headers.get('location', 'nowhere'))}; give that address)"
    patient = wait_s is None or wait_s <= MAX_RETRY_AFTER_S
    retryable = status in RETRYABLE_STATUS and patient
    return AttemptError(
        ServerError(f"{where}: status {status}{hint}: {text}", status=status, retryable=retryable), wait_s
    )


class UnusableNumberError(ValueError):
    """NaN or infinity in a reply."""


def parse_json(content: bytes) -> Any:
    """JSON without NaN and infinities.

    Raises:
        UnusableNumberError: there is one, spelled out or too large for a float.
        ValueError: it is not JSON.
    """
    try:
        return json.loads(content, parse_constant=_unusable, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _unusable(name: str) -> float:
    raise UnusableNumberError(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise UnusableNumberError(text)
    return value


def _transport_problem(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectError):
        return f"no connection ({error}). Is the server running?"
    return f"the connection was lost ({type(error).__name__}: {error})."


def _quoted(content: bytes) -> str:
    text = content[: _QUOTED + 1].decode(errors="replace")
    return repr(text[:_QUOTED]) + ("..." if len(text) > _QUOTED else "") if text else "nothing"


def shown_address(address: str) -> str:
    """An address without the user and password that may stand in it, and without the keys of its query."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return "..."
    secrets = [name for name in url.params if names_key(name)]
    if not (url.userinfo or secrets):
        return address
    for name in secrets:
        url = url.copy_remove_param(name)
    return str(url.copy_with(username=None, password=None)).removesuffix("?")
