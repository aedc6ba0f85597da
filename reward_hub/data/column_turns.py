"""The messages that a column holds, whether several columns agree on them, and what is said where they do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from reward_hub import messages as border
from reward_hub.data.column_names import CONVERSATIONS, listed
from reward_hub.errors import InvalidConversationError
from reward_hub.types import Conversation, Message, is_empty

T = TypeVar("T")
Turns: TypeAlias = tuple[Message, ...]

# What `from` of a message says, as a role.
_FROM = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def response_turns(value: Any, name: str) -> Turns:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str):
        return text_turn("assistant", value, name)
    return turns_of([value] if isinstance(value, Mapping) else value, name)


def turns_of(value: Any, name: str) -> Turns:
    """The messages of a column."""
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise unreadable(name, value)
    return _at(name, lambda: border.parse_messages([_with_role(turn) for turn in value]))


def text_turn(role: str, text: str, name: str) -> Turns:
    return _at(name, lambda: border.parse_messages([{"role": role, "content": text}]))


def _with_role(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message of `from` and `value` as one of `role` and `content`."""
    if "role" in turn or not {"from", "value"} <= turn.keys():
        return turn
    if turn["from"] not in _FROM:
        raise InvalidConversationError(f"a message is from {turn['from']!r}; known are {', '.join(_FROM)}.")
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    return {"role": _FROM[turn["from"]], "content": turn["value"], **rest}


def beyond_text(turn: Message) -> str | None:
    """What a response says besides its text, in words; None where the text is all of it."""
    if turn.content is None or turn.tool_calls:
        return "calls tools"
    keys = [name for name, value in turn.extra.items() if not is_empty(value)]
    return f"has {' and '.join(keys)}" if keys else None


def checked_conversation(turns: Turns, name: str, *, require_response: bool = True) -> Conversation:
    return _at(name, lambda: border.conversation_of(turns, require_response=require_response))


def _at(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except InvalidConversationError as error:
        raise InvalidConversationError(f"{name!r}: {error.message}", field=name) from error


def agreed(forms: list[tuple[str, Turns]]) -> tuple[str, Turns] | None:
    """The longest of several forms, of which the others must be turns, with the keys of all of them."""
    if not forms:
        return None
    longest = max(forms, key=lambda form: len(form[1]))
    for form in forms:
        longest = (longest[0], joined(longest, form))
    return longest


def joined(longer: tuple[str, Turns], shorter: tuple[str, Turns]) -> Turns:
    """The messages of a column with the keys that the same messages have in another one.

    Raises:
        InvalidConversationError: those of the other are not some of them, one after the other.
    """
    turns = with_keys_of(longer[1], shorter[1])
    if turns is None:
        raise differ(shorter, longer)
    return turns


def with_keys_of(turns: Turns, others: Turns) -> Turns | None:
    """Messages with the keys that the same messages have among others; None where the others are not some of them."""
    places = [start for start in range(len(turns) - len(others) + 1) if begins_with(turns[start:], others)]
    several = [(*turns[:start], *richer(turns[start:], others)) for start in places]
    # Where messages repeat, it is not known whose keys they are.
    return turns if turns in several else several[0] if len(several) == 1 else None


def richer(turns: Turns, others: Turns) -> Turns:
    """Messages that begin with the others, with the keys of both."""
    first = (replace(turn, extra={**other.extra, **turn.extra}) for turn, other in zip(turns, others, strict=False))
    return (*first, *turns[len(others) :])


def begins_with(turns: Turns, others: Turns) -> bool:
    return len(turns) >= len(others) and all(map(same, turns, others))


def same(turn: Message, other: Message) -> bool:
    """Whether two forms of a message agree: one may have keys that the other lacks, as a plain text lacks them all.

    What the template takes besides is the row's, and compared there.
    """
    if (turn.role, turn.content, turn.tool_calls) != (other.role, other.content, other.tool_calls):
        return False
    keys, others = turn.without_template_arguments().extra, other.without_template_arguments().extra
    return all(keys[name] == others[name] for name in keys.keys() & others.keys())


def differ(form: tuple[str, Turns], other: tuple[str, Turns]) -> InvalidConversationError:
    return InvalidConversationError(
        f"{form[0]!r} and {other[0]!r} do not agree: {texts_in(form[1])} and {texts_in(other[1])}. Leave one of them "
        f"out (--ignore-column {form[0]}).",
        field=form[0],
    )


def missing(record: Mapping[str, Any], problem: str, *, field: str | None = None) -> InvalidConversationError:
    return InvalidConversationError(
        f"{problem}; its columns: {listed(record)}. A column of another name is said with --column NAME=COLUMN.",
        field=field,
    )


def unreadable(name: str, value: Any) -> InvalidConversationError:
    what = "a list of messages is read" if name in CONVERSATIONS else "a text or a list of messages is read"
    return InvalidConversationError(f"{name!r} is {shown(value)}; {what}.", field=name)


def texts_in(turns: Sequence[Message]) -> str:
    return shown(" / ".join(turn.text for turn in turns))


def shown(value: Any) -> str:
    """A value for messages, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
