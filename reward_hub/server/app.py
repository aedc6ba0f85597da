"""The ASGI app: the routes over one reward model, and what becomes of an error."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from reward_hub.base import BaseRM
from reward_hub.errors import (
    InvalidConversationError,
    RewardHubError,
    ServerError,
    missing_dependency,
)
from reward_hub.http.protocol import (
    ErrorReply,
    RankReply,
    Reply,
    error_to_wire,
    refused,
    status_of,
)
from reward_hub.server.batching import OverloadedError
from reward_hub.server.gate import Gate
from reward_hub.version import __version__

try:
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise missing_dependency("FastAPI", "serve", "Serving a model") from error

from reward_hub.server import foreign_routes
from reward_hub.server.routes import OwnRoutes, json_response
from reward_hub.server.service import ServeOptions as ServeOptions
from reward_hub.server.service import Service


def create_app(rm: BaseRM, options: ServeOptions | None = None) -> FastAPI:
    """The app that serves `rm`; run it with `reward_hub.server.run.serve` or any ASGI server."""
    service = Service(rm, options or ServeOptions())

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        service.batcher.start()
        yield
        await service.batcher.stop()

    app = FastAPI(title="reward_hub", version=__version__, summary=f"Scores by {service.name}.", lifespan=lifespan)
    app.state.service = service
    own = OwnRoutes(service)
    _add(app, "POST", "/v1/score", own.score, Reply)
    _add(app, "POST", "/v1/score_steps", own.score_steps, Reply)
    _add(app, "POST", "/v1/compare", own.compare, Reply)
    _add(app, "POST", "/v1/rank", own.rank, RankReply)
    _add(app, "GET", "/v1/models", own.models)
    _add(app, "GET", "/health", own.health)
    _add(app, "GET", "/ready", own.ready)
    _add(app, "GET", "/metrics", own.metrics)
    for path, endpoint in foreign_routes.routes(service).items():
        _add(app, "POST", path, endpoint)
    app.add_exception_handler(RewardHubError, _on_error)
    app.add_exception_handler(OverloadedError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_error)
    app.add_exception_handler(HTTPException, _on_error)
    known = frozenset(str(getattr(route, "path", "")) for route in app.routes)
    app.add_middleware(
        Gate,
        api_key=service.options.api_key,
        max_body_bytes=service.options.max_body_bytes,
        metrics=service.metrics,
        known=known,
    )
    return app


def _add(app: FastAPI, method: str, path: str, endpoint: Callable[..., Awaitable[Response]], reply: Any = None) -> None:
    responses: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorReply}}
    if reply is not None:
        responses[200] = {"model": reply}
    # The models of replies are documentation: FastAPI would write NaN as null, so that routes write their own JSON.
    app.add_api_route(path, endpoint, methods=[method], response_model=None, responses=responses)


async def _on_error(request: Request, error: Exception) -> Response:
    """Every error as `{"error": {"type", "message", ...}}`."""
    headers: dict[str, str] = {}
    if isinstance(error, OverloadedError):
        headers["retry-after"] = str(error.retry_after_s)
        status, wire = 429, error_to_wire(refused(429, str(error)))
    elif isinstance(error, RequestValidationError):
        status, wire = 400, error_to_wire(_invalid(error))
    elif isinstance(error, HTTPException):
        status, wire = error.status_code, error_to_wire(refused(error.status_code, str(error.detail)))
        headers.update(error.headers or {})
    elif isinstance(error, ServerError) and _is_own(error):
        status, wire = error.status or 500, error_to_wire(error)
        if status == 503:
            headers["retry-after"] = "1"
    else:
        status, wire = status_of(error), error_to_wire(error)
    if request.url.path == "/predict":
        return json_response(foreign_routes.tei_error(status, wire["message"]), status, headers)
    more = {"param": wire.get("field"), "code": status, "request_id": request.state.request_id}
    return json_response({"error": {**wire, **more}}, status, headers)


def _is_own(error: ServerError) -> bool:
    """Whether this server refused, and not one that the model asks itself."""
    return error.status in (413, 503)


def _invalid(error: RequestValidationError) -> InvalidConversationError:
    """The first of what is wrong with a request, without what stood in it."""
    first = error.errors()[0]
    place = [str(part) for part in first.get("loc", ()) if part != "body"]
    field = ".".join(place) or "body"
    if first.get("type") == "json_invalid":
        return InvalidConversationError("the body is not JSON.", field="body")
    if first.get("type") == "extra_forbidden":
        return InvalidConversationError(f"{field} is not a field of this route; see /docs.", field=field)
    if field == "body":
        problem = "a JSON object is needed, sent with 'content-type: application/json'."
        return InvalidConversationError(problem, field="body")
    return InvalidConversationError(f"{field}: {first.get('msg', 'wrong')}.", field=field)
