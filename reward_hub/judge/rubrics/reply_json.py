"""From a judge's reply to the JSON of its verdict: thinking is cut off, text around the object is passed over.

Only replies are read here, never the judged texts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from reward_hub.errors import JudgeParseError

T = TypeVar("T")

# As DeepSeek, Qwen, Seed and others write it.
_THINK = re.compile(r"<(?:seed:)?(?:think|thinking)>", re.IGNORECASE)
_END_THINK = re.compile(r"</(?:seed:)?(?:think|thinking)>", re.IGNORECASE)
_MARKUP = r"[ \t*_`\"'(\[]{0,10}"
_TRAILING_COMMA = re.compile(r",(?=\s*[}\]])")


@dataclass(frozen=True)
class ReplyObject:
    """A JSON object and where it stands in the reply: text[start:end]."""

    value: dict[str, Any]
    start: int
    end: int


def verdict_in(
    text: str,
    *,
    key: str,
    read: Callable[[dict[str, Any]], T],
    holds: Callable[[dict[str, Any]], bool],
    in_words: Callable[[str], dict[str, Any] | None],
) -> tuple[T, ReplyObject]:
    """The verdict of the reply's JSON object that has `key`, or that its words are where it has no object at all.

    Args:
        read: object -> verdict; raises ValueError where it holds none.
        holds: whether an object is one with a verdict, readable or not.
        in_words: a text without braces -> the object that it says; None where it says none. Raises ValueError where it
            says two.

    Raises:
        JudgeParseError: there is no such object, one that cannot be read, or two that say different things.
    """
    start = answer_start(text)
    objects = [one for one in _objects_in(text, start) if holds(one.value)]
    if not objects:
        objects = [one for one in _objects_in(_TRAILING_COMMA.sub(" ", text), start) if holds(one.value)]
    if not objects and "{" not in text[start:]:
        try:
            stated = in_words(text[start:])
        except ValueError as error:
            raise JudgeParseError(f"The judge's reply holds no verdict: {error}.", text=text) from error
        objects = [] if stated is None else [ReplyObject(stated, start, len(text))]
    if not objects:
        raise JudgeParseError(f"The judge's reply has no JSON object with {key!r}.", text=text)
    try:
        verdicts = [read(one.value) for one in objects]
    except ValueError as error:
        raise JudgeParseError(f"The judge's reply holds no verdict: {error}.", text=text) from error
    if any(verdict != verdicts[0] for verdict in verdicts[1:]):
        raise JudgeParseError(f"The judge's reply holds {len(verdicts)} verdicts that differ.", text=text)
    return verdicts[-1], objects[-1]


def answer_start(text: str) -> int:
    """Where the answer begins, behind the thinking.

    Raises:
        JudgeParseError: the thinking has no end, so that there is no answer.
    """
    start = 0
    if _is_object(text):
        # Whatever tags its strings quote.
        return start
    end = _END_THINK.search(text)
    if end is not None and _THINK.search(text, 0, end.start()) is None:
        # Templates that open the thinking themselves leave only its end to the reply.
        start = end.end()
    while True:
        think, brace = _THINK.search(text, start), text.find("{", start)
        if think is None or 0 <= brace < think.start():
            return start
        end = _END_THINK.search(text, think.end())
        if end is None:
            raise JudgeParseError("The judge's thinking has no end, so there is no verdict.", text=text)
        start = end.end()


def number_in(value: Any, *, low: float, high: float, whole: bool) -> float:
    """A score as JSON gives it: a number, or a text that is one ("4"; "4/5", "4 out of 5" where 5 is the highest).

    Raises:
        ValueError: it is none, out of range, or no whole number where one is wanted.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r:.80} is not a score")
    if isinstance(value, str):
        value = re.sub(rf"\s*(?:/|\bout\s+of\b)\s*{high:g}\s*$", "", value)
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{value!r:.80} is not a score") from error
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"{value!r:.80} is not between {low:g} and {high:g}")
    if whole and not number.is_integer():
        raise ValueError(f"{value!r:.80} is not a whole number")
    return number


def value_in_words(text: str, name: str) -> str | None:
    """What stands behind a name and a colon ("**Score:** 4/5", "Clarity (weight: 0.3): 4"), through markdown, if any.

    Raises:
        ValueError: two things that differ.
    """
    words = r"\s+".join(re.escape(word) for word in name.split())
    pattern = re.compile(
        rf"(?<!\w)(?:{words})[\"'*_`]{{0,3}}(?:[ \t]*\([^()\n]{{1,40}}\)[\"'*_`]{{0,3}})?[ \t]*[:=]{_MARKUP}"
        r"(?P<value>-?\d+(?:\.\d+)?(?:\s*/\s*\d+)?|A|B|tie)"
        rf"(?!\w|\.\d){_MARKUP}(?=[.,;)]?(?:\s|$))(?!\s*(?:[-–]\s*\d|(?:to|or|and|out)\b))",
        re.IGNORECASE,
    )
    values = {match["value"] for match in pattern.finditer(text)}
    if len(values) > 1:
        raise ValueError(f"{name} is {' and '.join(sorted(values))}")
    return values.pop() if values else None


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _objects_in(text: str, start: int) -> Iterator[ReplyObject]:
    """The outermost JSON objects from `start` on, in code fences or among other text."""
    # Line breaks inside of strings are let through: judges write them where no grammar holds them.
    decoder = json.JSONDecoder(object_pairs_hook=_without_contradiction, strict=False)
    while (start := text.find("{", start)) >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except _ContradictionError as error:
            raise JudgeParseError(f"The judge's reply gives {error.args[0]!r} twice.", text=text) from error
        except (ValueError, RecursionError):
            start += 1
            continue
        yield ReplyObject(value, start, end)
        start = end


class _ContradictionError(Exception):
    """A key that stands twice in one object, with different values."""


def _without_contradiction(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value_of: dict[str, Any] = {}
    for key, value in pairs:
        if key in value_of and value_of[key] != value:
            raise _ContradictionError(key)
        value_of[key] = value
    return value_of
