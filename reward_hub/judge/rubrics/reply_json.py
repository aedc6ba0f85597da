"""From a judge's reply to the object of its verdict: thinking is cut off, text around the object is passed over.

Only replies are read here, never the judged texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from reward_hub.errors import JudgeParseError

T = TypeVar("T")

# As DeepSeek, Qwen, Seed and others write it.
_THINK = re.compile(r"<(?:seed:)?(?:think|thinking)>", re.IGNORECASE)
_END_THINK = re.compile(r"</(?:seed:)?(?:think|thinking)>", re.IGNORECASE)
# Pieces of an object as Python and hasty judges write it: quotes of either kind, a comma too many, True and None.
_PIECE = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<comma>,(?=\s*[}\]]))|(?P<word>\b(?:True|False|None)\b)"""
    r"|(?P<opens>[{\[])|(?P<closes>[}\]])|(?P<other>[^\"'{}\[\],TFN]+|.)",
    re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?P<code>x[0-9a-fA-F]{2}|U(?:000[0-9a-fA-F]|0010)[0-9a-fA-F]{4})"
    r"|\\(?P<known>[\"\\/bfnrt]|u[0-9a-fA-F]{4})|\\.|\\|\"",
    re.DOTALL,
)
_JSON_WORDS = {"True": "true", "False": "false", "None": "null"}
# So many objects that are not JSON are looked into, which keeps the time for any reply in bounds.
_MOST_LOOSE = 8


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


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _objects_in(text: str, start: int) -> Iterator[ReplyObject]:
    """The outermost objects from `start` on, in code fences or among other text.

    What stands inside of braces that cannot be read is not the verdict: it may be quoted there.
    """
    # Line breaks inside of strings are let through: judges write them where no grammar holds them.
    decoder = json.JSONDecoder(object_pairs_hook=_without_contradiction, strict=False)
    unread: int | None = None
    loose_left = _MOST_LOOSE
    while (start := text.find("{", start)) >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except _ContradictionError as error:
            raise JudgeParseError(f"The judge's reply gives {error.args[0]!r} twice.", text=text) from error
        except (ValueError, RecursionError):
            loose = _loose_object(text, start, decoder) if loose_left else None
            loose_left -= loose_left > 0
            if loose is None:
                unread = start if unread is None else unread
                start += 1
                continue
            value, end = loose
        if unread is None or not _is_inside(text[unread:start]):
            unread = None
            yield ReplyObject(value, start, end)
        start = end


def _is_inside(before: str) -> bool:
    """Whether what follows `before`, which begins with a brace, stands inside of it; "{{" is one brace."""
    return before.count("{") > before.count("}") and bool(before.strip("{ \t\n"))


def _loose_object(text: str, start: int, decoder: json.JSONDecoder) -> tuple[dict[str, Any], int] | None:
    """The object that begins at `start` as Python writes it, and its end; None where it cannot be read so either.

    Raises:
        JudgeParseError: it has a key twice, with different values.
    """
    pieces: list[str] = []
    depth = 0
    for piece in _PIECE.finditer(text, start):
        depth += bool(piece["opens"]) - bool(piece["closes"])
        pieces.append(_as_json(piece))
        if depth == 0:
            break
    else:
        return None
    try:
        value = decoder.decode("".join(pieces))
    except _ContradictionError as error:
        raise JudgeParseError(f"The judge's reply gives {error.args[0]!r} twice.", text=text) from error
    except (ValueError, RecursionError):
        return None
    return value, piece.end()


def _as_json(piece: re.Match[str]) -> str:
    if piece["comma"]:
        return ""
    if piece["text"]:
        return f'"{_ESCAPE.sub(_as_json_escape, piece[0][1:-1])}"'
    return _JSON_WORDS.get(piece[0], piece[0])


def _as_json_escape(match: re.Match[str]) -> str:
    """A quote or an escape inside of a text; a backslash that escapes nothing ("\\frac", "\\(") stands for itself."""
    if match["code"]:
        return json.dumps(chr(int(match["code"][1:], 16)))[1:-1]
    if match[0] in ('"', "\\'"):
        return match[0].removeprefix("\\").replace('"', '\\"')
    return match[0] if match["known"] else "\\" + match[0]


class _ContradictionError(Exception):
    """A key that stands twice in one object, with different values."""


def _without_contradiction(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value_of: dict[str, Any] = {}
    for key, value in pairs:
        if key in value_of and value_of[key] != value:
            raise _ContradictionError(key)
        value_of[key] = value
    return value_of
