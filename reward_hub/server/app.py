"""The ASGI app: our own routes over one reward model. The routes of other servers are in `dialects`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from reward_hub import messages as border
from reward_hub.base import BaseRM, CallOptions, Result, aggregation_name
from reward_hub.errors import (
    InvalidConversationError,
    RewardHubError,
    ServerError,
    UnknownModelError,
    UnsupportedError,
    missing_dependency,
)
from reward_hub.fingerprints import fingerprint_to_tell
from reward_hub.http.protocol import (
    PROTOCOL,
    CompareRequest,
    ErrorReply,
    PairItem,
    RankReply,
    RankRequest,
    Reply,
    ScoreRequest,
    ServerInfo,
    StepItem,
    StepsRequest,
    conversation_of,
    error_to_wire,
    refused,
    require_sendable,
    status_of,
    to_json,
)
from reward_hub.server.batching import Batcher, OverloadedError
from reward_hub.server.gate import ClientGoneError, Gate
from reward_hub.server.metrics import Metrics
from reward_hub.server.rendered import RenderedScorer
from reward_hub.types import Conversation, Pair, ScoreDetails
from reward_hub.version import __version__

try:
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise missing_dependency("FastAPI", "serve", "Serving a model") from error

from reward_hub.server import foreign_routes as dialects

logger = logging.getLogger(__name__)

# Batches at a time where the model waits for others (a judge, another server) instead of computing.
PARALLEL_BATCHES = 8


@dataclass(frozen=True)
class ServeOptions:
    """How a model is served.

    Attributes:
        api_key: asked of every route but /health; None: none is needed.
        served_name: the name that requests may give besides the model's own.
        max_batch_size: most conversations scored together.
        max_wait_s: how long a conversation waits for others to share its batch, when the engine is free.
        max_queue: most conversations that wait; beyond, requests get 429.
        max_body_bytes: the size of a request.
    """

    api_key: str | None = None
    served_name: str | None = None
    max_batch_size: int = 64
    max_wait_s: float = 0.003
    max_queue: int = 2048
    max_body_bytes: int = 32 * 2**20


class Service:
    """One model with its queue: what the routes of every dialect are made of."""

    def __init__(self, rm: BaseRM, options: ServeOptions) -> None:
        self.rm = rm
        self.options = options
        self.name = options.served_name or rm.name or type(rm).__name__
        self.fingerprint = fingerprint_to_tell(rm)
        self.started = int(time.time())
        self.draining = False
        self.batcher = Batcher(
            self._run,
            max_batch_size=options.max_batch_size,
            max_wait_s=options.max_wait_s,
            max_queue=options.max_queue,
            parallel=PARALLEL_BATCHES if "_ascore_many" in rm._own or "ascore" in rm._own else 1,
            on_batch=lambda size, seconds: self.metrics.batch(size, seconds),
        )
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self._rendered: RenderedScorer | UnsupportedError
        try:
            self._rendered = RenderedScorer(rm)
        except UnsupportedError as error:
            self._rendered = error

    @property
    def rendered(self) -> RenderedScorer:
        """Raises UnsupportedError where rendered input has no score in this model."""
        if isinstance(self._rendered, UnsupportedError):
            raise UnsupportedError(self._rendered.message)
        return self._rendered

    def info(self) -> ServerInfo:
        rm = self.rm
        return ServerInfo(
            protocol=PROTOCOL,
            version=__version__,
            name=rm.name or type(rm).__name__,
            family=rm.family,
            kind=rm.kind,
            higher_is_better=rm.higher_is_better,
            deterministic=rm.deterministic,
            max_length=rm.max_length,
            fingerprint=self.fingerprint,
            step_delimiter=rm.step_delimiter,
            aggregation=rm._default_aggregation(),
            has_score=self._has_score(),
            splits_steps=rm.kind == "process" and "score" not in rm._own,
            max_items=self.options.max_queue,
            max_body_bytes=self.options.max_body_bytes,
        )

    def _has_score(self) -> bool:
        try:
            self.rm._require_score(CallOptions(), None, False)
        except UnsupportedError:
            return False
        return True

    def check_name(self, model: str | None) -> None:
        """Raises UnknownModelError unless the model asked for is the one served."""
        if model is not None and model not in (self.name, self.rm.name):
            raise UnknownModelError(f"The model {model!r} is not served here; {self.name!r} is.", near=[self.name])

    async def results(
        self, key: tuple[Hashable, ...], items: Sequence[Any], request: Request, *, n: int | None = None
    ) -> list[Result]:
        """Have items scored with those of other requests. Given up when the client goes away.

        Args:
            n: how many conversations they are, where that is not one each.
        """
        n = len(items) if n is None else n
        if n > self.options.max_queue:
            raise refused(413, f"{n} conversations in one request, and {self.options.max_queue} are taken.")
        if self.draining:
            raise refused(503, "The server is shutting down.")
        work = asyncio.ensure_future(self.batcher.submit(key, items))
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientGoneError
            results = [_sendable(result) for result in work.result()]
        except OverloadedError:
            self.metrics.turned_away.inc()
            raise
        finally:
            work.cancel()
            gone.cancel()
        scored = [result for result in results if isinstance(result, ScoreDetails)]
        self.metrics.results.labels("ok").inc(len(scored))
        self.metrics.results.labels("error").inc(len(results) - len(scored))
        self.metrics.tokens.inc(sum(result.tokens_scored or 0 for result in scored))
        return results

    async def _run(self, key: Any, items: list[Any]) -> list[Result]:
        """One batch of one kind of question."""
        what, *rest = key
        if what == "score":
            return await self.rm._ascore_many(items, CallOptions(on_error="none", aggregation=rest[0]))
        if what == "compare":
            return await self.rm._acompare_many(items, rest[0], CallOptions(on_error="none"))
        if what == "rendered":
            return await asyncio.to_thread(self.rendered.score, items)
        assert what == "rank"
        return [await _caught(self.rm._arank(turns, texts)) for turns, texts in items]


class OwnRoutes:
    """/v1/score, /v1/score_steps, /v1/compare, /v1/rank, and what tells of the server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._rm = service.rm

    async def score(self, body: ScoreRequest, request: Request) -> Response:
        """Score one conversation, or several. One item of `data` each, in order."""
        self._service.check_name(body.model)
        call = self._rm._score_call(
            body.messages,
            prompt=body.prompt,
            response=body.response,
            on_error=body.on_error,
            aggregation=body.aggregation,
            step_delimiter=body.step_delimiter,
        )
        results = await self._scored(call.conversations, call.options.aggregation, request)
        merged: dict[int, Result] = {**call.failed, **dict(zip(call.places, results, strict=True))}
        return self._scores([merged[place] for place in range(call.n)], body, request, single=call.single)

    async def score_steps(self, body: StepsRequest, request: Request) -> Response:
        """Score each step of one response, or of several. Process models only."""
        self._service.check_name(body.model)
        items, single = body.listed()
        self._rm._steps_call([], None, CallOptions(), False)  # refuses models without step scores
        prepared = [_caught_now(self._with_steps, item, body.step_delimiter) for item in items]
        _raise_first(prepared, body.on_error, single=single)
        conversations = [entry for entry in prepared if isinstance(entry, Conversation)]
        how = None if body.aggregation is None else aggregation_name(body.aggregation)
        scored = iter(await self._scored(conversations, how, request))
        results: list[Result] = [next(scored) if isinstance(entry, Conversation) else entry for entry in prepared]
        return self._scores(results, body, request, single=single, steps=True)

    async def compare(self, body: CompareRequest, request: Request) -> Response:
        """The probability that `a` is the better response to the prompt, for one pair or several."""
        self._service.check_name(body.model)
        pairs, single = _pairs(body)
        prepared = [_caught_now(_pair_of, pair) for pair in pairs]
        _raise_first(prepared, body.on_error, single=single)
        parsed = [entry for entry in prepared if isinstance(entry, Pair)]
        compared = iter(await self._service.results(("compare", body.both_orders), parsed, request) if parsed else [])
        results: list[Result] = [next(compared) if isinstance(entry, Pair) else entry for entry in prepared]
        _raise_first(results, body.on_error, single=single)
        data = [_item(i, result, body.return_details, "probability") for i, result in enumerate(results)]
        return self._reply({"object": "list", "data": data}, request)

    async def rank(self, body: RankRequest, request: Request) -> Response:
        """The responses, best first, with the score of each."""
        self._service.check_name(body.model)
        if not body.responses:
            raise InvalidConversationError("responses must be a list of at least one text.", field="responses")
        candidates = [
            border.parse_pair(body.messages, prompt=body.prompt, a=text, b=text, index=i)
            for i, text in enumerate(body.responses)
        ]
        question = (candidates[0].prompt, body.responses)
        results = await self._service.results(("rank",), [question], request, n=len(candidates))
        _raise_first(results, "raise", single=True)
        details = results[0]
        assert isinstance(details, ScoreDetails)
        ranking = self._rm._ranked(details, False)
        reply: dict[str, Any] = {
            "object": "ranking",
            "ranking": ranking,
            "best": ranking[0],
            "score": details.score,
            "scores": details.scores,
        }
        if body.return_details:
            reply["details"] = details.to_dict()
        return self._reply(reply, request)

    async def models(self) -> Response:
        """The model that is served; its entry `reward_hub` tells a `RemoteRM` what it needs."""
        service = self._service
        entry = {
            "id": service.name,
            "object": "model",
            "created": service.started,
            "owned_by": "reward_hub",
            "root": self._rm.name,
            "parent": None,
            "max_model_len": self._rm.max_length,
            "reward_hub": service.info().model_dump(),
        }
        return json_response({"object": "list", "data": [entry]})

    async def health(self) -> Response:
        """200 as long as the process answers. The one route that needs no key."""
        return json_response({"status": "ok", "server": "reward_hub", "version": __version__})

    async def ready(self) -> Response:
        """200 where requests are taken; 503 while shutting down."""
        service = self._service
        if service.draining or not service.batcher.alive:
            raise refused(503, "The server is shutting down.")
        return json_response({"status": "ready", "model": service.name, "queue_length": service.batcher.waiting})

    async def metrics(self) -> Response:
        """Counters in the form of Prometheus."""
        metrics = self._service.metrics
        return Response(metrics.page(), media_type=metrics.content_type)

    async def _scored(
        self, conversations: Sequence[Conversation], aggregation: str | None, request: Request
    ) -> list[Result]:
        return await self._service.results(("score", aggregation), conversations, request) if conversations else []

    def _with_steps(self, item: StepItem, step_delimiter: str | None) -> Conversation:
        if item.step_spans is not None:
            return conversation_of(item)
        fields = item.model_dump(exclude={"step_spans"})
        fields["step_delimiter"] = fields["step_delimiter"] or step_delimiter
        return self._rm._steps_call([fields], None, CallOptions(), False, single=True).conversations[0]

    def _scores(
        self,
        results: list[Result],
        body: ScoreRequest | StepsRequest,
        request: Request,
        *,
        single: bool,
        steps: bool = False,
    ) -> Response:
        _raise_first(results, body.on_error, single=single)
        data = [_item(i, result, body.return_details, "score", steps=steps) for i, result in enumerate(results)]
        n_tokens = sum(result.tokens_scored or 0 for result in results if isinstance(result, ScoreDetails))
        usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
        return self._reply({"object": "list", "data": data, "usage": usage}, request)

    def _reply(self, content: dict[str, Any], request: Request) -> Response:
        head = {
            "id": request.state.request_id,
            "created": int(time.time()),
            "model": self._service.name,
            "fingerprint": self._service.fingerprint,
        }
        return json_response({**head, **content})


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
    for path, endpoint in dialects.routes(service).items():
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


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(content), status_code=status, media_type="application/json", headers=headers)


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
        return json_response(dialects.tei_error(status, wire["message"]), status, headers)
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
        return InvalidConversationError("the body is no JSON.", field="body")
    if first.get("type") == "extra_forbidden":
        return InvalidConversationError(f"{field} is no field of this route; see /docs.", field=field)
    if field == "body":
        problem = "a JSON object is needed, sent with 'content-type: application/json'."
        return InvalidConversationError(problem, field="body")
    return InvalidConversationError(f"{field}: {first.get('msg', 'wrong')}.", field=field)


def _pairs(body: CompareRequest) -> tuple[list[PairItem], bool]:
    single = (body.messages, body.prompt, body.a, body.b)
    if body.pairs is not None:
        if any(value is not None for value in single):
            raise InvalidConversationError("give pairs, or one pair, not both.", field="pairs")
        return body.pairs, False
    if body.a is None or body.b is None:
        raise InvalidConversationError("a and b, two response texts, are needed.", field="a" if body.a is None else "b")
    return [PairItem(messages=body.messages, prompt=body.prompt, a=body.a, b=body.b)], True


def _item(index: int, result: Any, details: bool, name: str, *, steps: bool = False) -> dict[str, Any]:
    if isinstance(result, Exception):
        return {"index": index, name: None, "error": error_to_wire(result)}
    item: dict[str, Any] = {"index": index, name: result.score}
    if steps:
        item["step_scores"] = result.step_scores
    if details:
        item["details"] = result.to_dict()
    return item


def _raise_first(results: Sequence[Any], on_error: str, *, single: bool = False) -> None:
    """Raise the first failure, unless failures are results; in a list it says its place."""
    for place, result in enumerate(results):
        if not isinstance(result, Exception):
            continue
        if hasattr(result, "index"):
            result.index = None if single else place
        if on_error == "raise":
            raise result


def _sendable(result: Result) -> Result:
    if isinstance(result, Exception):
        return result
    try:
        return require_sendable(result)
    except RewardHubError as error:
        return error


async def _caught(call: Awaitable[ScoreDetails]) -> Result:
    try:
        return await call
    except Exception as error:
        return error


def _caught_now(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except RewardHubError as error:
        return error


def _pair_of(pair: PairItem) -> Pair:
    return border.parse_pair(pair.messages, prompt=pair.prompt, a=pair.a, b=pair.b)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
