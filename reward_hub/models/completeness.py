"""What of a conversation does not reach the model: turns that a chat template passes over, thoughts that it cuts off.

A template is a program and may do anything with a text (trim it, escape it), so nothing is searched for in what it
writes. Whether a part reaches the model is seen by changing it: where the token ids stay the same, it does not.

- Whole parts (a turn's content, its tool calls and other keys, the tools): once for each shape of conversation, on a
  conversation of that shape whose texts are made-up words.
- Parts of a text (a thought between `<think>` and `</think>`): for every conversation. Where the text that was rendered
  is the template's own text with the contents in their places, all of it is there, and that is nearly always so. Else
  it is rendered once more with every letter and digit replaced by another one: these must change in what is written.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np

from reward_hub.errors import CheckpointError, InvalidConversationError, RewardHubError
from reward_hub.family import Family, Rendering, Setup, WatchedTokenizer
from reward_hub.tokenizers.chat_templates import strings_in
from reward_hub.types import TEMPLATE_ARGUMENTS, TOOLS, Conversation, Message, Pair, TokenInput, is_empty

logger = logging.getLogger(__name__)

OnDropped: TypeAlias = Literal["warn", "error", "ignore"]
Value: TypeAlias = Conversation | Pair

_CONTENT, _CALLS = "content", "tool_calls"
_RESPONSE = "response"


@dataclass(frozen=True)
class Part:
    """One part of a conversation: a message's content or another of its keys; without a place, the tools.

    What a family writes of a pair's responses has no place either.
    """

    place: int | None
    key: str
    role: str = ""
    """Of the message; "response" for the one that is scored."""
    whole: bool = True
    has_words: bool = True
    """Whether other words may stand there: not where it is a number, say."""

    @property
    def name(self) -> str:
        """As details have it."""
        if self.place is None:
            return "part of the responses" if self.key == _CONTENT else self.key
        where = f"messages[{self.place}]"
        if self.key != _CONTENT:
            return f"{where}.{self.key}"
        return f"{where} ({self.role})" if self.whole else f"part of {where} ({self.role})"

    @property
    def kind(self) -> str:
        """What is warned of once."""
        if self.key != _CONTENT:
            return repr(self.key)
        whose = "responses" if self.role == _RESPONSE else f"{self.role} turns"
        return whose if self.whole else f"part of the text of {whose}"


@dataclass(frozen=True)
class Missing:
    """What does not reach the model.

    Attributes:
        names: of the parts, as details have them.
        of_response: whether the response's text is among them.
    """

    names: tuple[str, ...] = ()
    of_response: bool = False


NOTHING = Missing()


@dataclass
class Completeness:
    """Encodes conversations and pairs of one model, and finds what of them is lost on the way.

    Attributes:
        name: the model's, for warnings.
        on_dropped: "warn" (once for each kind of part), "error", or "ignore".
    """

    name: str
    family: Family
    setup: Setup
    on_dropped: OnDropped = "warn"
    _shapes: dict[Any, tuple[Part, ...]] = field(default_factory=dict, repr=False)
    _frames: dict[Any, _Frame] = field(default_factory=dict, repr=False)
    _warned: set[str] = field(default_factory=set, repr=False)

    def encode(self, value: Value) -> tuple[TokenInput, Missing]:
        """The family's tokens, and what is not among them.

        Raises:
            InvalidConversationError: something is lost, and `on_dropped` is "error".
        """
        started = time.perf_counter()
        tokens, seen = self.family.watched(value, self.setup)
        if logger.isEnabledFor(logging.DEBUG):
            self._log(tokens, seen, time.perf_counter() - started)
        whole = self._whole_parts(value)
        return tokens, self.tell([*whole, *self._cut_texts(value, seen.renderings, whole)])

    def tell(self, parts: Sequence[Part]) -> Missing:
        """What is said of parts that are lost. Raises as `encode`."""
        if not parts:
            return NOTHING
        names = tuple(dict.fromkeys(part.name for part in parts))
        if self.on_dropped == "error":
            raise InvalidConversationError(
                f"the chat template, or the recipe of {self.family.name}, leaves out {', '.join(names)}: the score "
                "would be another conversation's. Take it out, give a chat_template= that writes it, or load with "
                "on_dropped='warn'.",
                field=names[0],
            )
        if self.on_dropped == "warn":
            self._warn(parts)
        return Missing(names, any(part.key == _CONTENT and part.role == _RESPONSE for part in parts))

    def _warn(self, parts: Iterable[Part]) -> None:
        for part in parts:
            if part.kind not in self._warned:
                self._warned.add(part.kind)
                logger.warning(
                    "%s: the chat template, or the recipe of %s, leaves out %s (%s): the score does not depend on it. "
                    "details['dropped'] names it in each conversation; on_dropped='error' refuses such conversations.",
                    *(self.name, self.family.name, part.kind, part.name),
                )

    def _log(self, tokens: TokenInput, seen: WatchedTokenizer, seconds: float) -> None:
        for rendering in seen.renderings:
            logger.debug("%s: rendered %r", self.name, rendering.text)
        if not seen.renderings:
            logger.debug("%s: wrote %r", self.name, seen.encoded)
        if tokens.decoder_ids is not None:
            logger.debug("%s: %d tokens for the encoder: %s", self.name, len(tokens.token_ids), tokens.token_ids)
        ids = tokens.token_ids if tokens.decoder_ids is None else tokens.decoder_ids
        logger.debug(
            "%s: %d tokens, of which %d are read, made in %.4f s.",
            *(self.name, len(ids), len(tokens.positions), seconds),
        )
        for position in tokens.positions[:_SHOWN]:
            first = max(0, position - _AROUND)
            around = ids[first : position + _AROUND + 1]
            logger.debug(
                "%s: read at %d of %d; ids from %d on: %s = %r",
                *(self.name, position, len(ids), first, around, self.setup.tokenizer.decode(around)),
            )
        if len(tokens.positions) > _SHOWN:
            logger.debug("%s: read at %d further positions.", self.name, len(tokens.positions) - _SHOWN)

    # -- whole parts -------------------------------------------------------------------------------------------------

    def _whole_parts(self, value: Value) -> tuple[Part, ...]:
        shape = _shape(value)
        parts = self._shapes.get(shape)
        if parts is None:
            parts = tuple(self._find_whole_parts(value))
            if len(self._shapes) >= _MOST_KEPT:
                self._shapes.clear()
            self._shapes[shape] = parts
        return parts

    def _find_whole_parts(self, value: Value) -> list[Part]:
        parts = list(_parts(value))
        words = {part: _word(i) for i, part in enumerate(parts) if part.has_words}
        try:
            made_up = _changed(value, words)
            tokens, seen = self.family.watched(made_up, self.setup)
        except RewardHubError:
            # A template that wants certain texts: the conversation itself is changed, one part at a time.
            made_up, written = value, ""
            tokens = self.family.tokens_of(value, self.setup)
        else:
            written = "\0".join(seen.encoded).lower()
        suspects = [part for part in parts if not part.has_words or words[part] not in written]
        others = {part: _word(i, "y") for i, part in enumerate(parts)}

        def makes_no_difference(changed: Sequence[Part]) -> bool:
            try:
                other = self.family.tokens_of(_changed(made_up, {part: others[part] for part in changed}), self.setup)
            except RewardHubError:
                return False
            return (other.token_ids, other.decoder_ids) == (tokens.token_ids, tokens.decoder_ids)

        if not suspects or makes_no_difference(suspects):
            return suspects
        return [part for part in suspects if makes_no_difference([part])]

    # -- parts of texts ----------------------------------------------------------------------------------------------

    def _cut_texts(self, value: Value, renderings: Sequence[Rendering], whole: Sequence[Part]) -> Iterator[Part]:
        """Texts of which the chat template wrote only a part. Families that write by themselves write all of a text."""
        if not renderings:
            return
        # A family may render the conversation as it grows, or try its template on made-up turns: the longest has all.
        rendering = max(renderings, key=lambda one: (len(one.messages), len(one.text)))
        frame = self._frame(rendering)
        if frame.holds(rendering):
            return
        for place in _cut_places(rendering, frame, self._render, _markers(self.setup.tokenizer.chat_template)):
            message = rendering.messages[place]
            part = _content_of(value, message)
            if part not in whole:
                yield replace(part, whole=False)

    def _frame(self, rendering: Rendering) -> _Frame:
        key = _rendering_key(rendering)
        frame = self._frames.get(key)
        if frame is None:
            frame = _Frame.of(rendering, self._render)
            if len(self._frames) >= _MOST_KEPT:
                self._frames.clear()
            self._frames[key] = frame
        return frame

    def _render(self, rendering: Rendering, texts: Mapping[int, str]) -> str | None:
        """What the template writes with these contents in place of the others; None where it refuses them."""
        messages = [
            replace(message, content=texts[place]) if place in texts else message
            for place, message in enumerate(rendering.messages)
        ]
        try:
            return self.setup.tokenizer.render(messages, add_generation_prompt=rendering.add_generation_prompt)
        except RewardHubError:
            return None


# In the log: positions of one conversation, and tokens on each side of one.
_SHOWN, _AROUND = 64, 4
# Shapes of conversations that are remembered; a conversation with tools may have one of its own.
_MOST_KEPT = 1024

Render: TypeAlias = Callable[[Rendering, Mapping[int, str]], str | None]


# -- the parts of a conversation ---------------------------------------------------------------------------------------


def _messages(value: Value) -> tuple[Message, ...]:
    return value.messages if isinstance(value, Conversation) else value.prompt


def _role(value: Value, place: int) -> str:
    messages = _messages(value)
    role = messages[place].role
    scored = isinstance(value, Conversation) and place == len(messages) - 1 and role == "assistant"
    return _RESPONSE if scored else role


def _parts(value: Value) -> Iterator[Part]:
    for place, message in enumerate(_messages(value)):
        role = _role(value, place)
        if isinstance(message.content, str) and message.content:
            yield Part(place, _CONTENT, role)
        if message.tool_calls:
            yield Part(place, _CALLS, role)
        for key in message.further_keys:
            yield Part(place, key, role, has_words=isinstance(message.extra[key], str))
        if message.extra.get(TOOLS):
            yield Part(None, TOOLS)


def parts_beside_text(conversation: Conversation) -> list[Part]:
    """Those of the response that are not its text."""
    last = len(conversation.messages) - 1
    return [part for part in _parts(conversation) if part.place == last and part.key != _CONTENT]


def _content_of(value: Value, message: Message) -> Part:
    """The content of a message that was rendered; one that the family made holds what is scored."""
    messages = _messages(value)
    place = next((i for i, own in enumerate(messages) if own is message), None)
    if place is None and isinstance(value, Conversation):
        place = len(messages) - 1
    return Part(place, _CONTENT, _RESPONSE if place is None else _role(value, place))


def _shape(value: Value) -> Any:
    """What decides which parts a template writes, as far as it does not look into texts."""
    turns: list[Any] = []
    for message in _messages(value):
        turn: tuple[Any, ...] = (message.role, None if message.content is None else bool(message.content))
        if message.tool_calls:
            turn = (*turn, tuple(tuple(call.get("function") or call) for call in message.tool_calls))
        if message.extra:
            switches = repr(message.extra.get(TEMPLATE_ARGUMENTS))
            turn = (*turn, switches, *((key, type(said)) for key, said in message.extra.items() if not is_empty(said)))
        turns.append(turn)
    return type(value), tuple(turns)


def _word(number: int, last: str = "x") -> str:
    """A made-up word; none is a part of another one."""
    letters = "".join(chr(ord("a") + number // 26**power % 26) for power in (2, 1, 0))
    return f"zq{letters}{last}"


def _changed(value: Value, words: Mapping[Part, str]) -> Value:
    """The conversation with these parts made of other words; what has no words is taken out."""
    messages = list(_messages(value))
    for part, word in words.items():
        place = 0 if part.place is None else part.place
        messages[place] = _with_word(messages[place], part.key, word)
    if isinstance(value, Pair):
        return replace(value, prompt=tuple(messages))
    changed = replace(value, messages=tuple(messages))
    if value.steps is None:
        return changed
    return replace(changed, steps=(changed.response,), step_spans=((0, len(changed.response)),))


def _with_word(message: Message, key: str, word: str) -> Message:
    if key == _CONTENT:
        return replace(message, content=word)
    if key == _CALLS:
        return replace(message, tool_calls=tuple(_call_of(call, word) for call in message.tool_calls))
    if key == TOOLS:
        return replace(message, extra={**message.extra, TOOLS: [_renamed(tool, word) for tool in message.extra[TOOLS]]})
    if isinstance(message.extra[key], str):
        return replace(message, extra={**message.extra, key: word})
    return replace(message, extra={name: value for name, value in message.extra.items() if name != key})


def _call_of(call: Mapping[str, Any], word: str) -> dict[str, Any]:
    """A tool call whose arguments are a word."""
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _call_of(call["function"], word)}
    return {**call, "arguments": {"value": word}}


def _renamed(tool: Mapping[str, Any], word: str) -> dict[str, Any]:
    """A tool that is called by a word."""
    if isinstance(tool.get("function"), Mapping):
        return {**tool, "function": _renamed(tool["function"], word)}
    return {**tool, "name": word}


# -- whether a rendered text holds all of its contents -----------------------------------------------------------------


def _rendering_key(rendering: Rendering) -> Any:
    """What decides the text that a template writes around the contents."""
    turns: list[Any] = []
    for message in rendering.messages:
        turn: Any = (message.role, message.content if not isinstance(message.content, str) else bool(message.content))
        if message.extra or message.tool_calls:
            turn = (*turn, json.dumps([message.tool_calls, message.extra], default=repr))
        turns.append(turn)
    return tuple(turns), rendering.add_generation_prompt


# What a template may do to the white space at a content's ends.
_TRIMS: tuple[Callable[[str], str], ...] = (str, str.strip, str.lstrip, str.rstrip)


@dataclass(frozen=True)
class _Frame:
    """What a template writes around the contents of a conversation.

    Attributes:
        texts: before the first content, between two, and behind the last one.
        places: the messages whose contents these are.
        unwritten: the messages whose contents are not written at all.
        complete: every content has a place, or is not written at all.
    """

    texts: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    unwritten: frozenset[int] = frozenset()
    complete: bool = False

    @classmethod
    def of(cls, rendering: Rendering, render: Render) -> _Frame:
        messages = rendering.messages
        places = [i for i, message in enumerate(messages) if isinstance(message.content, str) and message.content]
        words = {place: _word(place) for place in places}
        text = render(rendering, words)
        if text is None:
            return cls()
        place_of = {word: place for place, word in words.items()}
        pieces = re.split("(" + "|".join(place_of) + ")", text) if words else [text]
        found = tuple(place_of[word] for word in pieces[1::2])
        absent = set(places) - set(found)
        # What is written in another form (in capitals, cut) is written.
        unwritten = {place for place in absent if render(rendering, {**words, place: _word(place, "y")}) == text}
        return cls(tuple(pieces[::2]), found, frozenset(unwritten), complete=absent == unwritten)

    def holds(self, rendering: Rendering) -> bool:
        """Whether the text is the frame with the contents in their places, apart from white space at their ends."""
        text = rendering.text
        if not self.complete or not text.startswith(self.texts[0]):
            return False
        position = len(self.texts[0])
        for place, behind in zip(self.places, self.texts[1:], strict=True):
            content = str(rendering.messages[place].content)
            for trim in _TRIMS:
                form = trim(content)
                if text.startswith(form, position) and text.startswith(behind, position + len(form)):
                    position += len(form) + len(behind)
                    break
            else:
                return False
        return position == len(text)


def _cut_places(rendering: Rendering, frame: _Frame, render: Render, markers: Sequence[str]) -> list[int]:
    """The messages whose contents the text has in part only."""
    contents = {
        place: message.content
        for place, message in enumerate(rendering.messages)
        if isinstance(message.content, str) and place not in frame.unwritten
    }
    turned = {place: _turned(content, markers, step=1 + place % 3) for place, content in contents.items()}
    expected = b"".join(turned[place].changes for place in frame.places if place in turned)
    other = render(rendering, {place: one.text for place, one in turned.items()})
    if _changes(rendering.text, other) == expected:
        return []
    return [place for place, content in contents.items() if _is_cut(rendering, place, content, render, markers)]


def _is_cut(rendering: Rendering, place: int, content: str, render: Render, markers: Sequence[str]) -> bool:
    turned = _turned(content, markers)
    changes = _changes(rendering.text, render(rendering, {place: turned.text}))
    if changes is not None:
        return len(changes) < len(turned.changes)
    # The template did something else with the other text. By pieces: one that makes no difference is not there.
    words = list(re.finditer(r"\w+", content))
    size = max(1, len(words) // _PIECES)
    for first in range(0, len(words), size):
        start, end = words[first].start(), words[min(first + size, len(words)) - 1].end()
        piece = _turned(content[start:end], markers)
        if piece.changes and render(rendering, {place: content[:start] + piece.text + content[end:]}) == rendering.text:
            return True
    return False


_PIECES = 32


def _changes(text: str, other: str | None) -> bytes | None:
    """The characters that differ, and what stands in their places; None where the texts are not of one length."""
    if other is None or len(other) != len(text):
        return None
    both = np.array([np.frombuffer(one.encode("utf-32-le"), np.uint32) for one in (text, other)])
    return bytes(both[:, both[0] != both[1]].T.tobytes())


@dataclass(frozen=True)
class _Turned:
    """A text with other letters and digits, and its `_changes`."""

    text: str
    changes: bytes


def _turned(text: str, markers: Sequence[str], *, step: int = 1) -> _Turned:
    """The text with other letters and digits; what a template looks for stays.

    Args:
        step: how far the others are, so that texts can be told apart.
    """
    # Every second piece is a marker; where markers overlap, the longer one stands first.
    pieces = re.split("(" + "|".join(map(re.escape, markers)) + ")", text) if markers else [text]
    pieces[::2] = [piece.translate(_others(step)) for piece in pieces[::2]]
    turned = "".join(pieces)
    return _Turned(turned, _changes(text, turned) or b"")


@cache
def _others(step: int) -> _Others:
    return _Others(step)


class _Others(dict[int, int]):
    """For each letter and digit another one of the same sort; what is neither stays."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._steps = (step, -step, 1, -1)

    def __missing__(self, number: int) -> int:
        character = chr(number)
        near = [number + step for step in self._steps if character.isalnum()]
        alike = (other for other in near if 0 <= other < sys.maxunicode and _sort(chr(other)) == _sort(character))
        self[number] = next(alike, number)
        return self[number]


def _sort(character: str) -> tuple[bool, bool, bool]:
    return character.isalnum(), character.islower(), character.isupper()


@lru_cache(maxsize=64)
def _markers(template: str | None) -> tuple[str, ...]:
    """The texts that a template may look for in others (`</think>`), plain words apart: they stand in any text."""
    try:
        strings = strings_in(template or "")
    except CheckpointError:  # a tokenizer of the caller's, whose template is of another kind
        return ()
    return tuple(sorted({text.strip() for text in strings if re.search(r"[^\w\s]", text)}, key=len, reverse=True))
