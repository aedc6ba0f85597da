"""The gate in front of every route: request ids, keys, the size of a body, the access log, unexpected errors."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import re
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from reward_hub.errors import ServerError
from reward_hub.http.protocol import error_to_wire, refused, to_json
from reward_hub.server.metrics import Metrics

logger = logging.getLogger(__name__)

Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
App: TypeAlias = Callable[[Event, Receive, Send], Awaitable[None]]

OPEN_ROUTES = frozenset({"/health"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class ClientGoneError(Exception):
    """The client has closed its connection; nobody waits for the answer."""


class Gate:
    """ASGI middleware. What it refuses never reaches a route; what a route throws never reaches the client as it is."""

    def __init__(
        self, app: App, *, api_key: str | None, max_body_bytes: int, metrics: Metrics, known: frozenset[str]
    ) -> None:
        self._app = app
        self._api_key = api_key
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics
        self._known = known

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        # A path of a client's own making becomes neither a label nor a log line.
        route = scope["path"] if scope["path"] in self._known else "other"
        start = time.perf_counter()
        answer = _Answer(send, request_id)
        with self._metrics.under_way.track_inprogress():
            try:
                await self._pass(scope, receive, answer, headers)
            except ServerError as error:
                await answer.refuse(error)
            except ClientGoneError:
                answer.status = 499
            except asyncio.CancelledError:
                self._metrics.cut_off += 1
                raise
            except Exception as error:
                _log_unexpected(error, route, request_id)
                if answer.status:
                    # The reply has begun and cannot be taken back: the connection is cut, without the error's text.
                    raise RuntimeError(f"reply cut off, request id {request_id}") from None
                await answer.refuse(refused(500, f"The server failed; request id {request_id}."))
        seconds = time.perf_counter() - start
        self._metrics.requests.labels(route, str(answer.status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        logger.info("%s %s %d %.1f ms id=%s", scope["method"], route, answer.status, 1000 * seconds, request_id)

    async def _pass(self, scope: Event, receive: Receive, answer: _Answer, headers: dict[str, str]) -> None:
        if scope["path"] not in OPEN_ROUTES and not self._authorised(headers.get("authorization", "")):
            raise refused(401, "A valid api key is needed: send it as 'Authorization: Bearer KEY'.")
        body = await self._body(receive, headers) if scope["method"] in ("POST", "PUT", "PATCH") else b""
        pending: list[Event] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Event:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, answer)

    def _authorised(self, header: str) -> bool:
        """A bearer token; or the password of basic authentication, which clients make of http://any:KEY@host."""
        if self._api_key is None:
            return True
        scheme, _, value = header.strip().partition(" ")
        if scheme.lower() == "basic":
            try:
                value = base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        elif scheme.lower() != "bearer":
            return False
        # Digests have one length, so that the time taken tells nothing of the key's.
        digests = (hashlib.sha256(text.strip().encode()).digest() for text in (value, self._api_key))
        return hmac.compare_digest(*digests)

    async def _body(self, receive: Receive, headers: dict[str, str]) -> bytes:
        limit = self._max_body_bytes
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise refused(
                413, f"The body has {length} bytes, and {limit} are taken. Send fewer conversations at a time."
            )
        parts: list[bytes] = []
        size = 0
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise ClientGoneError
            parts.append(event.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise refused(413, f"The body has more than {limit} bytes. Send fewer conversations at a time.")
            if not event.get("more_body", False):
                return b"".join(parts)


class _Answer:
    """Sends the reply, with the request id in its headers; remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0

    async def __call__(self, event: Event) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            event["headers"] = [*event.get("headers", ()), (b"x-request-id", self._request_id.encode())]
        await self._send(event)

    async def refuse(self, error: ServerError) -> None:
        status = error.status or 500
        body = to_json({"error": {**error_to_wire(error), "code": status, "request_id": self._request_id}})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if status == 401:
            headers.append((b"www-authenticate", b'Bearer, Basic realm="reward_hub"'))
        if status == 413:
            # The rest of the body is not read.
            headers.append((b"connection", b"close"))
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


def _log_unexpected(error: Exception, route: str, request_id: str) -> None:
    """Where it happened and of what kind it is. Its message is left out: it may quote a conversation."""
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed with %s, id=%s\n%s", route, type(error).__name__, request_id, where.rstrip())
