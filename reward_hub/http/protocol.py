"""What goes over the wire between `reward-hub serve` and `RemoteRM`: requests, results, errors.

Floats cross as Python writes them, which reads back as the same float; NaN and infinity never cross. An error crosses
as the name of its class and its fields, and is raised on the other side as what it was.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import pydantic

from reward_hub import errors
from reward_hub.errors import BackendError, InvalidConversationError, RewardHubError, ServerError
from reward_hub.messages import parse
from reward_hub.types import Conversation, Kind, ScoreDetails

PROTOCOL = 1

# Errors whose cause is the request, and that of a name that is not served.
_STATUS = {"InvalidConversationError": 400, "InputTooLongError": 400, "UnsupportedError": 400, "UnknownModelError": 404}


class ServerInfo(pydantic.BaseModel):
    """What a server says of its model: `reward_hub` in the entry of `/v1/models`."""

    protocol: int
    version: str
    name: str
    family: str | None
    kind: Kind
    higher_is_better: bool
    deterministic: bool = True
    max_length: int | None
    fingerprint: str
    step_delimiter: str
    aggregation: str
    has_score: bool
    """Whether one response has a score (a pairwise model compares two)."""
    splits_steps: bool
    """Whether a response is split into steps before it is scored."""
    template_arguments: bool = False
    """Whether `tools` and `chat_template_kwargs` of a first message are honoured; older servers did not read them."""
    takes_any_ending: bool = False
    """Whether `require_response` is honoured; older servers refuse it."""
    max_items: int
    """Most conversations of one request."""
    max_body_bytes: int


class _Request(pydantic.BaseModel):
    """Unknown fields are refused: one that is misspelt would change what is asked."""

    model_config = pydantic.ConfigDict(extra="forbid")
    model: str | None = pydantic.Field(None, description="The served name; may be left out.")


class _Scoring(_Request):
    on_error: Literal["raise", "none"] = pydantic.Field(
        "raise", description="`none`: what cannot be scored has `error` in place of a score, the others are scored."
    )
    return_details: bool = False
    aggregation: str | None = pydantic.Field(None, description="Process models: how step scores become the score.")
    step_delimiter: str | None = pydantic.Field(None, description="Process models: where the response is split.")


class ScoreRequest(_Scoring):
    """`messages` is one conversation or a list of conversations; or `prompt` and `response`."""

    messages: list[Any] | None = None
    prompt: str | None = None
    response: str | None = None
    require_response: bool = pydantic.Field(True, description="`false` takes a conversation as it stands.")

    model_config = pydantic.ConfigDict(
        json_schema_extra={
            "example": {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]}
        }
    )


class StepItem(pydantic.BaseModel):
    """One response to be scored step by step."""

    model_config = pydantic.ConfigDict(extra="forbid")
    messages: list[Any] | None = None
    prompt: str | None = None
    response: str | None = None
    steps: list[str] | None = None
    step_delimiter: str | None = None
    step_spans: list[tuple[int, int]] | None = pydantic.Field(
        None, description="[start, end) of each of `steps` in the last message; between them may stand anything."
    )


class StepsRequest(_Scoring):
    """One response, or several as `items`."""

    items: list[StepItem] | None = None
    messages: list[Any] | None = None
    prompt: str | None = None
    response: str | None = None
    steps: list[str] | None = None

    def listed(self) -> tuple[list[StepItem], bool]:
        """The items, and whether it is one that stands for itself.

        Raises:
            InvalidConversationError: items beside a single response.
        """
        single = {name: getattr(self, name) for name in ("messages", "prompt", "response", "steps")}
        if self.items is None:
            return [StepItem(**single)], True
        if any(value is not None for value in single.values()):
            raise InvalidConversationError("give items, or one response, not both.", field="items")
        return self.items, False


class PairItem(pydantic.BaseModel):
    """Two responses to one prompt."""

    model_config = pydantic.ConfigDict(extra="forbid")
    messages: list[Any] | None = None
    prompt: str | None = None
    a: str
    b: str


class CompareRequest(_Request):
    """One pair, or several as `pairs`."""

    pairs: list[PairItem] | None = None
    messages: list[Any] | None = None
    prompt: str | None = None
    a: str | None = None
    b: str | None = None
    both_orders: bool = False
    on_error: Literal["raise", "none"] = "raise"
    return_details: bool = False


class RankRequest(_Request):
    messages: list[Any] | None = None
    prompt: str | None = None
    responses: list[str]
    return_details: bool = False
    step_delimiter: str | None = pydantic.Field(None, description="Process models: where the responses are split.")


class ResultItem(pydantic.BaseModel):
    """One result as a client reads it: a number or an error, never neither."""

    model_config = pydantic.ConfigDict(strict=True)
    index: int
    score: float | None = None
    probability: float | None = None
    step_scores: list[float] | None = None
    details: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class Reply(pydantic.BaseModel):
    """A reply of `/v1/score`, `/v1/score_steps` and `/v1/compare`."""

    model_config = pydantic.ConfigDict(strict=True)
    model: str
    fingerprint: str
    data: list[ResultItem]


class RankReply(pydantic.BaseModel):
    """A reply of `/v1/rank`."""

    model_config = pydantic.ConfigDict(strict=True)
    model: str
    fingerprint: str
    ranking: list[int]
    score: float
    scores: list[float]
    details: dict[str, Any] | None = None


class ErrorReply(pydantic.BaseModel):
    """Every failure: the class of `reward_hub.errors`, its message and its fields."""

    error: dict[str, Any]


class _Details(pydantic.BaseModel):
    """Details as they arrive; entries that are not named here are a model's own."""

    model_config = pydantic.ConfigDict(strict=True, extra="allow")
    raw_logits: list[float]
    normalized_score: float
    tokens_scored: int | None = None
    truncated: bool = False
    dropped_tokens: int = 0
    dropped: list[str] | None = None
    read_tokens: list[dict[str, Any]] | None = None
    family: str | None = None
    backend: str | None = None
    model: str | None = None
    revision: str | None = None
    step_scores: list[float] | None = None
    step_spans: list[list[int]] | None = None
    attributes: dict[str, Any] | None = None
    gating: dict[str, float] | None = None
    distribution: Any = None
    quantiles: list[float] | None = None
    scores: list[float] | None = None


def details_of(score: float, wire: Mapping[str, Any]) -> ScoreDetails:
    """The details of a score that came over the wire.

    Raises:
        ValueError: they are not details.
    """
    # Only checked, not rebuilt: the values themselves stay as they were parsed.
    _Details.model_validate(dict(wire))
    names = {field.name for field in dataclasses.fields(ScoreDetails)} - {"score", "extra"}
    known = {name: value for name, value in wire.items() if name in names}
    extra = {name: value for name, value in wire.items() if name not in names}
    return ScoreDetails(score=score, **known, extra=extra)


def conversation_of(item: StepItem) -> Conversation:
    """The conversation of an item that says where its steps stand.

    Raises:
        InvalidConversationError: the spans are not those of the steps.
    """
    conversation = parse(item.messages, prompt=item.prompt, response=item.response)
    steps, spans = item.steps, item.step_spans
    assert spans is not None
    if not steps or len(steps) != len(spans):
        raise InvalidConversationError("step_spans needs steps, one for each span.", field="step_spans")
    end = 0
    for i, (step, span) in enumerate(zip(steps, spans, strict=True)):
        if not end <= span[0] <= span[1] or conversation.response[span[0] : span[1]] != step:
            raise InvalidConversationError(
                f"step_spans[{i}] is not where step {i} stands in the response.", field=f"step_spans[{i}]"
            )
        end = span[1]
    return dataclasses.replace(conversation, steps=tuple(steps), step_spans=tuple(spans))


def step_item_of(conversation: Conversation) -> dict[str, Any]:
    """The item that `conversation_of` makes this very conversation of."""
    return {
        "messages": [message.to_dict() for message in conversation.messages],
        "steps": list(conversation.steps or ()),
        "step_spans": [list(span) for span in conversation.step_spans or ()],
    }


def error_to_wire(error: Exception) -> dict[str, Any]:
    """`{"type", "message", ...}` with the error's fields."""
    if not isinstance(error, RewardHubError):
        # What a model of a user's raised; its class is not known at the other end.
        return {"type": "BackendError", "message": f"{type(error).__name__}: {error}"}
    fields = {name: value for name, value in vars(error).items() if value is not None and not name.startswith("_")}
    return {"type": _wire_type(error), **{name: _plain(value) for name, value in fields.items()}}


def _wire_type(error: RewardHubError) -> str:
    """The name of the nearest class that every client knows."""
    known = (c.__name__ for c in type(error).__mro__ if getattr(errors, c.__name__, None) is c)
    return str(next(known))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def error_from_wire(wire: Any) -> RewardHubError | None:
    """The error that was sent, or None where this is none."""
    if not isinstance(wire, Mapping) or not isinstance(wire.get("type"), str):
        return None
    error_class = getattr(errors, wire["type"], None)
    if not (isinstance(error_class, type) and issubclass(error_class, RewardHubError)):
        return None
    fields = {name: value for name, value in wire.items() if name not in _ENVELOPE}
    try:
        error = error_class(**fields)
    except TypeError:
        return None
    return error if isinstance(error.message, str) else None


# What an error's object holds besides the fields of its class: what clients of vLLM look for.
_ENVELOPE = ("type", "code", "param", "request_id")


def status_of(error: Exception) -> int:
    """The HTTP status that an error is sent with."""
    return _STATUS.get(type(error).__name__, 500)


def refused(status: int, message: str) -> ServerError:
    """A request that the server itself turns away; 429 and 503 may be tried again."""
    return ServerError(message, status=status, retryable=status in (429, 503))


def to_json(value: Any) -> bytes:
    """JSON with every float as Python writes it.

    Raises:
        BackendError: it holds NaN, infinity or something that JSON has no form for.
    """
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError) as error:
        raise BackendError(f"The model's results cannot be sent: {error}.") from error


def require_sendable(details: ScoreDetails) -> ScoreDetails:
    """The details themselves.

    Raises:
        BackendError: a NaN or infinite number is among them.
    """
    if not math.isfinite(details.score):
        raise BackendError(f"The model gave {details.score}, which is not a score.")
    to_json(details.to_dict())
    return details
