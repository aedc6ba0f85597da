"""One asynchronous HTTP client for every server that holds a model: pooled, bounded, patient, silent about keys.

    client = HttpClient("http://localhost:8000/v1", api_key=key)
    replies = await in_order([client.post("/v1/score", body) for body in bodies])

What may succeed when tried again is tried again: 429 and 5xx (`Retry-After` is honoured), lost connections, timeouts,
replies that are no JSON. A reply never holds NaN or infinity: such a number is a `ServerError`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from reward_hub.errors import ServerError, ServerTimeoutError
from reward_hub.http.sending import (
    FIRST_DELAY_S,
    MAX_RETRY_AFTER_S,
    RETRYABLE_STATUS,
    AttemptError,
    delay_s,
    retry_after_s,
)
from reward_hub.loops import PerLoop

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Of a reply that is no JSON, so much is quoted.
_QUOTED = 300

ErrorOf = Callable[[int, Any], Exception | None]
"""(status, parsed body or None) -> the error that a server of a known dialect means, or None."""


def api_key_from(given: str | None) -> str | None:
    """The key that was given, else REWARD_HUB_API_KEY, else OPENAI_API_KEY."""
    return given or os.environ.get("REWARD_HUB_API_KEY") or os.environ.get("OPENAI_API_KEY") or None


def server_root(api_base: str) -> str:
    """`http://host:8000/v1/` as `http://host:8000`: routes are given with their `/v1`, where they have one.

    Raises:
        ServerError: it is no http address.
    """
    try:
        url = httpx.URL(api_base)
    except httpx.InvalidURL as error:
        raise ServerError(f"api_base is no address: {error}.") from error
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
        if timeout_s <= 0 or max_retries < 0 or max_concurrency < 1:
            raise TypeError(
                f"timeout_s={timeout_s}, max_retries={max_retries}, max_concurrency={max_concurrency}: the first must "
                "be positive, the second not negative, the third at least 1."
            )
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            # Said here, because the error of a header that cannot be sent quotes it.
            raise ServerError("The api key holds characters that no header can carry (a line break at its end?).")
        self.root = server_root(api_base)
        self.timeout_s = timeout_s
        self.max_retries = max_retries
        self.max_concurrency = max_concurrency
        self._first_delay_s = first_delay_s
        self._error_of = error_of
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        # A client of httpx belongs to the loop it was first used in, a semaphore too.
        self._links = PerLoop(lambda: _Link(max_concurrency), lambda link: link.http.aclose())

    def __repr__(self) -> str:
        return f"HttpClient({shown_address(self.root)!r})"

    @property
    def address(self) -> str:
        """The server's address, without the user and password that may stand in it."""
        return shown_address(self.root)

    async def get(self, path: str, *, retries: int | None = None) -> Any:
        """The parsed reply to GET. See `post`."""
        return await self._send("GET", path, None, retries)

    async def post(self, path: str, body: Any, *, retries: int | None = None) -> Any:
        """The parsed reply to POST of a JSON body.

        Args:
            retries: in place of `max_retries`; 0 for a probe.

        Raises:
            ServerError: the server refused, was lost, or gave something that is no JSON (`.status`, `.retryable`).
            ServerTimeoutError: it did not answer in time.
        """
        return await self._send("POST", path, json.dumps(body, allow_nan=False).encode(), retries)

    def close(self) -> None:
        """Close the connections of every loop. A later request opens new ones."""
        self._links.close()

    async def _send(self, method: str, path: str, content: bytes | None, retries: int | None) -> Any:
        link = await self._links.get()
        retries = self.max_retries if retries is None else retries
        attempt = 0
        # The slot is kept while waiting: a server in trouble gets fewer requests, not more.
        async with link.slots:
            while True:
                try:
                    return await self._attempt(link.http, method, path, content)
                except AttemptError as failed:
                    error, wait_s = failed.error, failed.wait_s
                if not getattr(error, "retryable", False) or attempt >= retries:
                    if attempt and isinstance(error, ServerError):
                        error.message += f" ({attempt + 1} attempts.)"
                    raise error
                wait_s = self._delay_s(attempt, wait_s)
                attempt += 1
                logger.info(
                    "%s %s: %s; attempt %d of %d in %.1f s.",
                    method, path, _reason(error), attempt + 1, retries + 1, wait_s,
                )  # fmt: skip
                await asyncio.sleep(wait_s)

    def _delay_s(self, attempt: int, retry_after_s: float | None) -> float:
        return delay_s(attempt, retry_after_s, first_delay_s=self._first_delay_s)

    async def _attempt(self, http: httpx.AsyncClient, method: str, path: str, content: bytes | None) -> Any:
        where = f"{method} {shown_address(self.root)}{path}"
        try:
            async with asyncio.timeout(self.timeout_s):
                reply = await http.request(method, self.root + path, content=content, headers=self._headers)
        except (TimeoutError, httpx.TimeoutException) as error:
            late = ServerTimeoutError(f"{where}: no answer within {self.timeout_s:g} s.")
            raise AttemptError(late) from error
        except httpx.TransportError as error:
            lost = ServerError(f"{where}: {_transport_problem(error)}", retryable=True)
            raise AttemptError(lost) from error
        if reply.status_code == 200:
            try:
                return parse_json(reply.content)
            except UnusableNumberError as error:
                raise AttemptError(
                    ServerError(f"{where}: the reply holds {error}, which is no score.", status=200)
                ) from None
            except ValueError:
                problem = f"{where}: the reply is no JSON: {_quoted(reply.content)}."
                raise AttemptError(ServerError(problem, status=200, retryable=True)) from None
        raise self._refused(where, reply)

    def _refused(self, where: str, reply: httpx.Response) -> AttemptError:
        """The error of a reply that is no 200."""
        status = reply.status_code
        try:
            body = parse_json(reply.content)
        except ValueError:
            body = None
        wait_s = retry_after_s(reply.headers.get("retry-after"))
        meant = self._error_of(status, body) if self._error_of is not None else None
        if meant is not None:
            return AttemptError(meant, wait_s)
        hint = ""
        if status in (401, 403):
            sent = "a key was sent" if "authorization" in self._headers else "no key was sent"
            hint = f" ({sent}; give api_key= or set REWARD_HUB_API_KEY)"
        elif 300 <= status < 400:
            hint = f" (it points to {shown_address(reply.headers.get('location', 'nowhere'))}; give that address)"
        message = f"{where}: status {status}{hint}: {_quoted(reply.content)}."
        patient = wait_s is None or wait_s <= MAX_RETRY_AFTER_S
        return AttemptError(
            ServerError(message, status=status, retryable=status in RETRYABLE_STATUS and patient), wait_s
        )


class _Link:
    """The connections and slots of one event loop."""

    def __init__(self, max_concurrency: int) -> None:
        limits = httpx.Limits(max_connections=max_concurrency, max_keepalive_connections=max_concurrency)
        # Each attempt has one limit for everything, which a server that drips bytes does not escape.
        self.http = httpx.AsyncClient(limits=limits, timeout=None)
        self.slots = asyncio.Semaphore(max_concurrency)


class UnusableNumberError(ValueError):
    """NaN or infinity in a reply."""


def parse_json(content: bytes) -> Any:
    """JSON without NaN and infinities.

    Raises:
        UnusableNumberError: there is one, spelled out or too large for a float.
        ValueError: it is no JSON.
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


def _reason(error: Exception) -> str:
    status = getattr(error, "status", None)
    return f"status {status}" if status is not None else type(error.__cause__ or error).__name__


def _quoted(content: bytes) -> str:
    text = content[: _QUOTED + 1].decode(errors="replace")
    return repr(text[:_QUOTED]) + ("..." if len(text) > _QUOTED else "") if text else "nothing"


def shown_address(address: str) -> str:
    """An address without the user and password that may stand in it."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return "..."
    return str(url.copy_with(username=None, password=None)) if url.userinfo else address
