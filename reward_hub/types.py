"""The values that travel between the parts: Conversation, Pair, TokenInput, Scored, ScoreDetails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]
Kind: TypeAlias = Literal["outcome", "process", "pairwise"]
Config: TypeAlias = Mapping[str, Any]
"""A parsed config.json."""
TensorShapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape, for every tensor of a checkpoint."""

# They link a call and its result, and say nothing themselves.
_LINKS = frozenset({"tool_call_id", "id", "type", "index"})
TOOLS = "tools"
TEMPLATE_ARGUMENTS = "chat_template_kwargs"


@dataclass(frozen=True)
class AtLeast:
    """The smallest value of an argument, beside its type: `Annotated[int, AtLeast(1)]`."""

    least: float


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint of a family; a row of the documentation's table."""

    id: str
    license: str
    max_length: int | None = None
    """Most tokens it takes; None where the card names no limit (then the model's positions decide)."""
    dtype: str = "bfloat16"
    options: Mapping[str, Any] = field(default_factory=dict)
    """What this checkpoint was trained with where the family leaves a choice (a separator, say)."""
    note: str = ""


@dataclass(frozen=True)
class Media:
    """What a model looks at or listens to: the bytes themselves, never a path or an address."""

    kind: Literal["image", "video", "audio"]
    data: bytes


@dataclass(frozen=True)
class Message:
    """One turn. `content` is None only where `tool_calls` stand instead of text; texts and media in their order."""

    role: str
    content: str | tuple[str | Media, ...] | None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other keys the caller gave (`name`, `tool_call_id`, ...), handed to the chat template unchanged.

    The first message of a conversation also holds what the template takes besides the messages: `tools` and
    `chat_template_kwargs`. They belong to the prompt, and so stay with it wherever messages are joined or parted.
    """

    @property
    def text(self) -> str:
        """The content as text.

        Raises:
            TypeError: it holds media, which a reader of texts would lose.
        """
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        if self.media:
            raise TypeError(f"the {self.role}'s message holds {_listed(self.media)}; a text is read here.")
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def media(self) -> tuple[Media, ...]:
        parts = self.content if isinstance(self.content, tuple) else ()
        return tuple(part for part in parts if isinstance(part, Media))

    @property
    def further_keys(self) -> list[str]:
        """The keys that say something besides role, content, calls, and what the chat template takes."""
        own = (*_LINKS, TOOLS, TEMPLATE_ARGUMENTS)
        return [key for key, value in self.extra.items() if key not in own and not is_empty(value)]

    @property
    def template_arguments(self) -> dict[str, Any]:
        """What the chat template is given besides the messages: `tools`, and the entries of `chat_template_kwargs`."""
        if not self.extra:
            return {}
        tools = {TOOLS: list(self.extra[TOOLS])} if self.extra.get(TOOLS) else {}
        return {**(self.extra.get(TEMPLATE_ARGUMENTS) or {}), **tools}

    def without_template_arguments(self) -> Message:
        rest = {name: value for name, value in self.extra.items() if name not in (TOOLS, TEMPLATE_ARGUMENTS)}
        return replace(self, extra=rest)

    def to_dict(self) -> dict[str, Any]:
        content: Any = self.content
        if isinstance(content, tuple):
            content = [{"type": "text", "text": x} if isinstance(x, str) else {"type": x.kind} for x in content]
        message: dict[str, Any] = {"role": self.role, "content": content, **self.extra}
        if self.tool_calls:
            message["tool_calls"] = [dict(call) for call in self.tool_calls]
        return message


def is_empty(value: object) -> bool:
    """Whether a key or a column of this value says nothing."""
    return value is None or (isinstance(value, (str, list, tuple, dict)) and not value)


def _listed(media: Iterable[Media]) -> str:
    kinds = [item.kind for item in media]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


class NoResponseError(TypeError):
    """The response of a conversation that has none was asked for."""


@dataclass(frozen=True)
class Conversation:
    """A validated conversation; the last message is the assistant's, unless none is required. See `messages.parse`."""

    messages: tuple[Message, ...]
    steps: tuple[str, ...] | None = None
    """The response cut into steps, where step scores are asked for."""
    step_spans: tuple[tuple[int, int], ...] | None = None
    """[start, end) of each step in `response`."""

    @property
    def has_response(self) -> bool:
        """False where it is to be read as it stands, and another than the assistant speaks last."""
        return bool(self.messages) and self.messages[-1].role == "assistant"

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Every message before the response."""
        return self.messages[:-1] if self.has_response else self.messages

    @property
    def response(self) -> str:
        """The text of the response.

        Raises:
            NoResponseError: there is none.
        """
        if not self.has_response:
            raise NoResponseError("the conversation has no response")
        return self.messages[-1].text

    @property
    def template_arguments(self) -> dict[str, Any]:
        """What the chat template is given besides the messages."""
        return template_arguments(self.messages)

    def to_dicts(self) -> list[dict[str, Any]]:
        """The messages in the form that callers pass."""
        return [message.to_dict() for message in self.messages]

    def with_response(self, text: str) -> Conversation:
        """The same conversation with another text in its last message (steps stay as they are)."""
        return replace(self, messages=(*self.messages[:-1], replace(self.messages[-1], content=text)))

    def with_default_system(self, text: str) -> Conversation:
        """The same conversation, opened by this system prompt unless it has one."""
        if any(message.role in ("system", "developer") for message in self.messages):
            return self
        return replace(self, messages=(Message("system", text), *self.messages))


def template_arguments(messages: Iterable[Message]) -> dict[str, Any]:
    """What the chat template is given besides these messages."""
    arguments: dict[str, Any] = {}
    for message in messages:
        if message.extra:
            arguments.update(message.template_arguments)
    return arguments


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt; pairwise models judge whether `a` is the better one."""

    prompt: tuple[Message, ...]
    a: str
    b: str

    @property
    def swapped(self) -> Pair:
        return Pair(self.prompt, self.b, self.a)


@dataclass(frozen=True)
class TokenInput:
    """What crosses from a family to a backend: token ids and the positions to be read."""

    token_ids: list[int]
    positions: list[int]
    """Indices into `token_ids` (into `decoder_ids` where those are set)."""
    token_type_ids: list[int] | None = None
    """Segment ids of encoder pair inputs."""
    decoder_ids: list[int] | None = None
    """The decoder's tokens, for encoder-decoder models."""
    n_kept_first: int = 0
    """Leading tokens that a cut from the left keeps, because they are read or mark the beginning (an encoder's cls)."""
    n_kept_last: int = 0
    """Trailing tokens that are not text but part of how the score is read; truncation keeps them."""
    passed_over: int | None = None
    """The read position is the last one that holds another token than this (a stock classifier's pad token)."""
    media: tuple[Media, ...] = ()
    """What stands at the placeholders among `token_ids`, in their order."""


def last_position(token_ids: Sequence[int], passed_over: int | None = None) -> int:
    """The last place that holds another token than `passed_over`; the first one where none does, as classes have it."""
    places = range(len(token_ids) - 1, -1, -1)
    return next((place for place in places if token_ids[place] != passed_over), 0)


@dataclass(frozen=True)
class StepTokens(TokenInput):
    """Tokens read one after the other, of which some end a step."""

    step_ends: tuple[int, ...] = ()
    """For each step the index in `positions` of the last token that counts for it."""


@dataclass(frozen=True)
class ShownToken:
    """One token of what a model is given. The texts of all, one after the other, are the whole text."""

    index: int
    id: int
    text: str
    read: bool
    """Whether the family reads at it."""


@dataclass(frozen=True)
class ModelInput:
    """One input that a model is given of a conversation or a pair: its tokens, or what is sent where these are made.

    Attributes:
        title: which one it is, where there are several (an order of a pair, a model of two, the steps so far).
        tokens: empty where they are not known here.
        decoder_tokens: of an encoder-decoder model, whose positions lie among them.
        text: the rendered text that is sent to a server.
        messages: what is sent to a server that renders, or to a judge.
    """

    title: str = ""
    tokens: tuple[ShownToken, ...] = ()
    decoder_tokens: tuple[ShownToken, ...] = ()
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Scored:
    """What a family makes of the outputs at the read positions. Process families fill `steps`, the others `score`."""

    score: float | None = None
    steps: list[float] | None = None
    attributes: dict[str, Any] | None = None
    gating: dict[str, float] | None = None
    distribution: Any = None
    quantiles: list[float] | None = None


@dataclass(frozen=True)
class ScoreDetails:
    """One score and all that is known about how it came to be; `to_dict` gives the details dict users see."""

    score: float
    raw_logits: list[float]
    normalized_score: float
    tokens_scored: int | None
    truncated: bool = False
    dropped_tokens: int = 0
    dropped: list[str] | None = None
    """What of the conversation the chat template, or the family's recipe, leaves out."""
    read_tokens: list[dict[str, Any]] | None = None
    """Index, id and text of each position read."""
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
    """`compare`: the scores of a and b; `rank`: one score a response."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further JSON-serialisable entries (a judge's reasoning, an ensemble's members, ...)."""

    def changed(self, **values: Any) -> ScoreDetails:
        """As `dataclasses.replace`, which takes several times as long; a call makes a record a conversation."""
        if not values.keys() <= vars(self).keys():
            raise TypeError(f"ScoreDetails has no {', '.join(sorted(values.keys() - vars(self).keys()))}.")
        other = object.__new__(type(self))
        vars(other).update(vars(self), **values)
        return other

    def to_dict(self) -> dict[str, Any]:
        """A plain, JSON-serialisable dict; entries that this model does not have are left out."""
        values = vars(self)
        details = {
            name: values[name] for name in _shown_names() if values[name] is not None or name in _SHOWN_WITHOUT_VALUE
        }
        return {**details, **self.extra}


_SHOWN_WITHOUT_VALUE = frozenset({"revision", "family", "backend", "model", "tokens_scored"})


@cache
def _shown_names() -> tuple[str, ...]:
    return tuple(f.name for f in fields(ScoreDetails) if f.name not in ("score", "extra"))


def joined_details(parts: Sequence[ScoreDetails]) -> ScoreDetails:
    """The details of several responses to one prompt as one record; `scores` keeps each score."""
    counts = [part.tokens_scored for part in parts]
    tokens = [token for part in parts for token in part.read_tokens or ()]
    dropped = [name for part in parts for name in part.dropped or ()]
    return parts[0].changed(
        raw_logits=[logit for part in parts for logit in part.raw_logits],
        tokens_scored=None if None in counts else sum(n or 0 for n in counts),
        truncated=any(part.truncated for part in parts),
        dropped_tokens=sum(part.dropped_tokens for part in parts),
        dropped=None if all(part.dropped is None for part in parts) else list(dict.fromkeys(dropped)),
        read_tokens=None if any(part.read_tokens is None for part in parts) else tokens,
        scores=[part.score for part in parts],
        step_scores=None,
        step_spans=None,
        attributes=None,
        gating=None,
        distribution=None,
        quantiles=None,
    )
