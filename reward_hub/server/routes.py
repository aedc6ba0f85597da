"""Our own routes: /v1/score, /v1/score_steps, /v1/compare, /v1/rank, and what tells of the server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response

from reward_hub import messages as border
from reward_hub.aggregation import aggregation_name
from reward_hub.calls import order_of, raise_first, ranking_options, require_steps, score_call, steps_call
from reward_hub.errors import InvalidConversationError
from reward_hub.http.protocol import (
    CompareRequest,
    PairItem,
    RankRequest,
    ScoreRequest,
    StepItem,
    StepsRequest,
    conversation_of,
    error_to_wire,
    refused,
    to_json,
)
from reward_hub.reward_model import Result, at, each, in_places, required, sound
from reward_hub.server.service import Service
from reward_hub.types import Conversation, Pair, ScoreDetails
from reward_hub.version import __version__


class OwnRoutes:
    """/v1/score, /v1/score_steps, /v1/compare, /v1/rank, and what tells of the server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._rm = service.rm

    async def score(self, body: ScoreRequest, request: Request) -> Response:
        """Score one conversation, or several. One item of `data` each, in order."""
        self._service.check_name(body.model)
        call = score_call(
            self._rm,
            body.messages,
            prompt=body.prompt,
            response=body.response,
            require_response=body.require_response,
            on_error=body.on_error,
            aggregation=body.aggregation,
            step_delimiter=body.step_delimiter,
        )
        results = await self._scored(call.conversations, call.options.aggregation, request)
        return self._scores(call.merged(results), body, request, single=call.single)

    async def score_steps(self, body: StepsRequest, request: Request) -> Response:
        """Score each step of one response, or of several. Process models only."""
        self._service.check_name(body.model)
        items, single = body.listed()
        require_steps(self._rm)
        prepared = each(items, lambda item: self._with_steps(item, body.step_delimiter))
        _raise_where_asked(prepared, body.on_error, single=single)
        how = None if body.aggregation is None else aggregation_name(body.aggregation)
        results = in_places(prepared, await self._scored(sound(prepared), how, request))
        return self._scores(results, body, request, single=single, steps=True)

    async def compare(self, body: CompareRequest, request: Request) -> Response:
        """The probability that `a` is the better response to the prompt, for one pair or several."""
        self._service.check_name(body.model)
        pairs, single = _pairs(body)
        prepared = each(pairs, _pair_of)
        _raise_where_asked(prepared, body.on_error, single=single)
        parsed = sound(prepared)
        compared = await self._service.results(("compare", body.both_orders), parsed, request) if parsed else []
        results = in_places(prepared, compared)
        _raise_where_asked(results, body.on_error, single=single)
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
        options = ranking_options(self._rm, body.step_delimiter)
        item = (candidates[0].prompt, body.responses)
        (result,) = await self._service.results(("rank", options), [item], request, n=len(candidates))
        details = required(result)
        ranking = order_of(details, higher_is_better=self._rm.higher_is_better)
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
        return steps_call(self._rm, [fields], single=True).conversations[0]

    def _scores(
        self,
        results: list[Result],
        body: ScoreRequest | StepsRequest,
        request: Request,
        *,
        single: bool,
        steps: bool = False,
    ) -> Response:
        _raise_where_asked(results, body.on_error, single=single)
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


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(content), status_code=status, media_type="application/json", headers=headers)


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
        return {"index": index, name: None, "error": error_to_wire(at(result, index))}
    item: dict[str, Any] = {"index": index, name: result.score}
    if steps:
        item["step_scores"] = result.step_scores
    if details:
        item["details"] = result.to_dict()
    return item


def _raise_where_asked(results: Sequence[object], on_error: str, *, single: bool) -> None:
    """Raise the first failure, unless failures are results; in a list each says its place."""
    if on_error == "raise":
        raise_first(results, single=single)


def _pair_of(pair: PairItem) -> Pair:
    return border.parse_pair(pair.messages, prompt=pair.prompt, a=pair.a, b=pair.b)
