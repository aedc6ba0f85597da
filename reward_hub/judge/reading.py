"""From a judge's reply to the JSON of its verdict: thinking is cut off, text around the object is passed over.

Only replies are read here, never the judged texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from reward_hub.errors import JudgeParseError

T = TypeVar("T")

THINK, END_THINK = "<think>", "</think>"


@dataclass(frozen=True)
class FoundObject:
    """A JSON object and where it stands in the reply: text[start:end]."""

    value: dict[str, Any]
    start: int
    end: int


def verdict_in(text: str, *, key: str, read: Callable[[dict[str, Any]], T]) -> tuple[T, FoundObject]:
    """The verdict of the reply's JSON object that has `key`.

    Args:
        read: object -> verdict; raises ValueError where it holds none.

    Raises:
        JudgeParseError: there is no such object, one that cannot be read, or two that say different things.
    """
    found = [one for one in _objects_in(text, answer_start(text)) if key in one.value]
    if not found:
        raise JudgeParseError(f"The judge's reply has no JSON object with {key!r}.", text=text)
    try:
        verdicts = [read(one.value) for one in found]
    except ValueError as error:
        raise JudgeParseError(f"The judge's reply holds no verdict: {error}.", text=text) from error
    if any(verdict != verdicts[0] for verdict in verdicts[1:]):
        raise JudgeParseError(f"The judge's reply holds {len(verdicts)} verdicts that differ.", text=text)
    return verdicts[-1], found[-1]


def answer_start(text: str) -> int:
    """Where the answer begins, behind the thinking.

    Raises:
        JudgeParseError: the thinking has no end, so that there is no answer.
    """
    start = 0
    if _is_object(text):
        # Whatever tags its strings quote.
        return start
    if END_THINK in text and THINK not in text[: text.index(END_THINK)]:
        # Templates that open the thinking themselves leave only its end to the reply.
        start = text.index(END_THINK) + len(END_THINK)
    while True:
        think, brace = text.find(THINK, start), text.find("{", start)
        if think < 0 or 0 <= brace < think:
            return start
        end = text.find(END_THINK, think)
        if end < 0:
            raise JudgeParseError("The judge's thinking has no end, so there is no verdict.", text=text)
        start = end + len(END_THINK)


def number_in(value: Any, *, low: float, high: float, whole: bool) -> float:
    """A score as JSON gives it: a number, or a text that is one.

    Raises:
        ValueError: it is none, out of range, or no whole number where one is wanted.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r:.80} is no score")
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{value!r:.80} is no score") from error
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"{value!r:.80} is not between {low:g} and {high:g}")
    if whole and not number.is_integer():
        raise ValueError(f"{value!r:.80} is no whole number")
    return number


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _objects_in(text: str, start: int) -> Iterator[FoundObject]:
    """The outermost JSON objects from `start` on, in code fences or among other text."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_contradiction)
    while (start := text.find("{", start)) >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except _ContradictionError as error:
            raise JudgeParseError(f"The judge's reply gives {error.args[0]!r} twice.", text=text) from error
        except (ValueError, RecursionError):
            start += 1
            continue
        yield FoundObject(value, start, end)
        start = end


class _ContradictionError(Exception):
    """A key that stands twice in one object, with different values."""


def _without_contradiction(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made and made[key] != value:
            raise _ContradictionError(key)
        made[key] = value
    return made
