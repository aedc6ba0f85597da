"""Routes of other servers, over the same model: vLLM (/classify, /pooling), TEI (/predict), OpenRLHF (/get_reward).

Their clients work unchanged. What they send as text or token ids is scored where that is the model's own score (see
`rendered`). Fields that would change a score are honoured or refused, unknown ones refused: vLLM ignores them, and a
misspelt `use_activation` then gives a sigmoid without a word.
"""

from __future__ import annotations

import base64
import logging
import struct
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pydantic
from fastapi import Request, Response

from reward_hub import messages as border
from reward_hub.base import BaseRM
from reward_hub.calls import raise_first, require_score
from reward_hub.errors import InvalidConversationError, UnsupportedError
from reward_hub.http.protocol import to_json
from reward_hub.reward_model import Result, required
from reward_hub.server.rendered import RenderedInput, Truncation
from reward_hub.types import Conversation, ScoreDetails

if TYPE_CHECKING:
    from reward_hub.server.service import Service

logger = logging.getLogger(__name__)


class PoolingRequest(pydantic.BaseModel):
    """vLLM 0.32's /pooling: `input` (rendered text, token ids, or a list of either) or `messages`."""

    model_config = pydantic.ConfigDict(extra="forbid")
    model: str | None = None
    input: str | list[pydantic.StrictInt] | list[str] | list[list[pydantic.StrictInt]] | None = None
    messages: list[Any] | None = None
    use_activation: bool | None = pydantic.Field(None, description="false: raw scores; else values in [0, 1].")
    add_special_tokens: bool | None = pydantic.Field(
        None, description="For text. false: tokenised as it stands; else with the bos tokens that the model wants."
    )
    truncate_prompt_tokens: int | None = pydantic.Field(None, ge=-1, description="-1: the model's limit.")
    truncation_side: Literal["left", "right"] | None = None
    add_generation_prompt: Literal[False] = False
    continue_final_message: Literal[False] = False
    task: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    embed_dtype: Literal["float32"] = "float32"
    endianness: Literal["native", "little"] = "native"
    # They say who asks and what comes first, and change no score.
    user: str | None = None
    request_id: str | None = None
    priority: int | None = None


class ClassifyRequest(PoolingRequest):
    """vLLM 0.32's /classify; the fields of /pooling."""

    task: Literal["classify"] | None = None
    encoding_format: Literal["float"] = "float"


class PredictRequest(pydantic.BaseModel):
    """TEI's /predict: one text, one pair of prompt and response, or a batch of lists of one or two."""

    model_config = pydantic.ConfigDict(extra="forbid")
    inputs: str | list[str] | list[list[str]]
    raw_scores: bool = False
    truncate: bool | None = False
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"


class GetRewardRequest(pydantic.BaseModel):
    """OpenRLHF's remote reward model: texts with their special tokens. The prompts and labels are not needed.

    Other fields are let pass: its releases send more columns of the data from time to time, none meant for the score.
    """

    model_config = pydantic.ConfigDict(extra="allow")
    query: list[str] | str
    prompts: list[Any] | None = None
    labels: list[Any] | None = None


class ForeignRoutes:
    """The routes of others. They score single responses, so they are there for outcome models."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._foreign_template_seen = False

    async def classify(self, body: ClassifyRequest, request: Request) -> Response:
        """As vLLM's: `data[i].probs` holds the one score, raw with `use_activation: false`, else in [0, 1]."""
        results = await self._of_vllm(body, request)
        data = [
            {"index": i, "label": "LABEL_0", "probs": [_value(result, body)], "num_classes": 1}
            for i, result in enumerate(results)
        ]
        return self._like_vllm("classify", data, results)

    async def pooling(self, body: PoolingRequest, request: Request) -> Response:
        """As vLLM's: `data[i].data` holds the one score."""
        if body.task not in (None, "classify"):
            raise UnsupportedError(
                f"task={body.task!r}: scores are served (task 'classify'), neither vectors nor tokens."
            )
        results = await self._of_vllm(body, request)
        values = [[_value(result, body)] for result in results]
        data: list[dict[str, Any]] = [
            {"index": i, "object": "pooling", "data": _encoded(value, body.encoding_format)}
            for i, value in enumerate(values)
        ]
        return self._like_vllm("pooling", data, results)

    async def predict(self, body: PredictRequest, request: Request) -> Response:
        """As TEI's: `score` raw with `raw_scores`, else in [0, 1]. A pair is a prompt and its response."""
        single = isinstance(body.inputs, str) or (bool(body.inputs) and isinstance(body.inputs[0], str))
        inputs: Any = [body.inputs] if single else body.inputs
        cut = None
        if body.truncate:
            cut = Truncation(self._limit("truncate"), body.truncation_direction.lower())
        prepared = [self._of_tei(entry, cut) for entry in inputs]
        if not prepared:
            raise InvalidConversationError("inputs is empty.", field="inputs")
        results = await self._scored(prepared, request)
        scores = [result.score if body.raw_scores else result.normalized_score for result in results]
        predictions = [[{"score": score, "label": "LABEL_0"}] for score in scores]
        return _json(predictions[0] if single else predictions)

    async def get_reward(self, body: GetRewardRequest, request: Request) -> Response:
        """As OpenRLHF's: `rewards` (higher is better: a cost with its sign turned), `scores` in [0, 1]."""
        rendered = self._service.rendered
        texts = [body.query] if isinstance(body.query, str) else body.query
        if not texts:
            raise InvalidConversationError("query is empty.", field="query")
        self._warn_of_foreign_template(texts[0])
        results = await self._scored([rendered.of_completion(text) for text in texts], request)
        sign = 1.0 if self._service.rm.higher_is_better else -1.0
        return _json(
            {
                "rewards": [sign * result.score for result in results],
                "scores": [result.normalized_score for result in results],
                "extra_logs": {"tokens_scored": [float(result.tokens_scored or 0) for result in results]},
            }
        )

    async def _of_vllm(self, body: PoolingRequest, request: Request) -> list[ScoreDetails]:
        self._service.check_name(body.model)
        if (body.input is None) == (body.messages is None):
            raise InvalidConversationError("give either input or messages.", field="input")
        if body.messages is not None:
            return await self._scored([_conversation(self._service.rm, messages=body.messages)], request)
        if body.input == []:
            # The words of vLLM.
            raise InvalidConversationError("You must pass at least one prompt", field="input")
        cut = self._cut_of_vllm(body)
        rendered = self._service.rendered
        special = body.add_special_tokens is not False
        return await self._scored(
            [
                rendered.of_text(entry, add_special_tokens=special, truncation=cut)
                if isinstance(entry, str)
                else rendered.of_ids(entry, truncation=cut)
                for entry in _listed(body.input)
            ],
            request,
        )

    def _cut_of_vllm(self, body: PoolingRequest) -> Truncation | None:
        size = body.truncate_prompt_tokens
        if size is None:
            return None
        if body.truncation_side is None:
            # Which side vLLM cuts by default depends on the tokenizer's files.
            raise InvalidConversationError(
                "truncate_prompt_tokens needs truncation_side ('left' keeps the end, where the score is read).",
                field="truncation_side",
            )
        return Truncation(self._limit("truncate_prompt_tokens=-1") if size == -1 else size, body.truncation_side)

    def _limit(self, what: str) -> int:
        limit = self._service.rm.max_length
        if limit is None:
            raise UnsupportedError(f"{what}: the model has no limit to cut at.")
        return limit

    def _of_tei(self, entry: str | Sequence[str], cut: Truncation | None) -> Conversation:
        texts = [entry] if isinstance(entry, str) else list(entry)
        if len(texts) == 2:
            return _conversation(self._service.rm, prompt=texts[0], response=texts[1])
        if len(texts) != 1:
            raise InvalidConversationError(
                "inputs: one text, or a prompt and its response, are needed.", field="inputs"
            )
        return self._service.rendered.of_text(texts[0], truncation=cut)

    async def _scored(self, items: Sequence[Conversation], request: Request) -> list[ScoreDetails]:
        """Scores of rendered inputs and conversations, in order; the first failure raises."""
        results: dict[int, Result] = {}
        for rendered, key in ((True, ("rendered",)), (False, ("score", None))):
            places = [i for i, item in enumerate(items) if isinstance(item, RenderedInput) is rendered]
            if places:
                scored = await self._service.results(key, [items[i] for i in places], request)
                results.update(zip(places, scored, strict=True))
        ordered = [results[i] for i in range(len(items))]
        raise_first(ordered, single=len(items) == 1)
        return [required(result) for result in ordered]

    def _like_vllm(self, route: str, data: list[dict[str, Any]], results: Sequence[ScoreDetails]) -> Response:
        n_tokens = sum(result.tokens_scored or 0 for result in results)
        usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens, "completion_tokens": 0}
        return _json(
            {
                "id": f"{route}-{uuid.uuid4().hex[:16]}",
                "object": "list",
                "created": int(time.time()),
                "model": self._service.name,
                "data": data,
                "usage": {**usage, "prompt_tokens_details": None, "completion_tokens_details": None},
            }
        )

    def _warn_of_foreign_template(self, text: str) -> None:
        if not self._foreign_template_seen and not self._service.rendered.looks_own(text):
            self._foreign_template_seen = True
            logger.warning(
                "/get_reward is sent texts that this model's chat template did not render: its scores may mean little. "
                "Use a policy with the same template, or OpenRLHF's function form with a RemoteRM."
            )


def routes(service: Service) -> dict[str, Callable[..., Awaitable[Response]]]:
    """Path -> endpoint."""
    foreign = ForeignRoutes(service)
    return {
        "/classify": foreign.classify,
        "/pooling": foreign.pooling,
        "/predict": foreign.predict,
        "/get_reward": foreign.get_reward,
    }


def tei_error(status: int, message: str) -> dict[str, Any]:
    """The body of TEI's errors."""
    kinds = {400: "Validation", 413: "Validation", 422: "Tokenizer", 429: "Overloaded", 503: "Overloaded"}
    return {"error": message, "error_type": kinds.get(status, "Backend")}


def _conversation(rm: BaseRM, **parts: Any) -> Conversation:
    """One conversation for an outcome model.

    Raises:
        UnsupportedError: another kind of model, whose result has no place in these replies.
    """
    if rm.kind != "outcome":
        route = "/v1/score_steps or /v1/score" if rm.kind == "process" else "/v1/compare or /v1/rank"
        raise UnsupportedError(
            f"{rm.name} is a {rm.kind} model, and this route gives one score a response. Use {route}."
        )
    require_score(rm)
    return border.parse(**parts)


def _value(result: ScoreDetails, body: PoolingRequest) -> float:
    return result.score if body.use_activation is False else result.normalized_score


def _listed(given: Any) -> list[str | list[int]]:
    """One text or one list of ids as a list of one."""
    return [given] if isinstance(given, str) or isinstance(given[0], int) else list(given)


def _encoded(values: list[float], how: str) -> list[float] | str:
    """As vLLM sends it: JSON numbers, or little-endian float32 in base64."""
    return values if how == "float" else base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type="application/json")
