"""Verdicts that stand in words: a number, a label, and a statement like "**Final score:** 4/5"."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

# A verdict in words is a statement of its own: "**Final score:** 4/5", not "score: 5 would be perfect".
_MARKUP = r"[ \t*_`\"'(\[]{0,10}"
_BEGINS = (
    r"(?:^|[.!?;,])[\s*_`#>|•-]{0,10}"
    r"(?:(?:\d+[.)]|(?:so|thus|therefore|the|my|final|overall|total)\b,?)[ \t*_`]{1,5}){0,4}"
)
# The end of a line or a sentence, a reason, or the next of several: "Clarity: 4, Tone: 5".
_ENDS = (
    r"[*_`\"')\]]{0,10}(?=[ \t*_`\"')\]]{0,10}(?:\n|$|[.;|](?:[\s*_`\"')\]]|$)|,?[ \t]+(?:because|since)\b"
    r"|,[ \t]+[^\W\d][^\n,:=]{0,60}[:=]))"
)
_NUMBER = (
    r"(?P<number>-?\d+(?:\.\d+)?)(?:[ \t]+points?\b)?"
    r"(?:\s{0,3}\(?(?:/|\b(?:out\s+)?of\b)\s{0,3}(?P<highest>\d+(?:\.\d+)?)\)?)?"
)
_RESPONSE = r"(?:(?:the\s+)?(?:response|answer|assistant|option|candidate)\s+)?"
_LABEL = (
    rf"{_RESPONSE}(?P<label>[AB])(?:\s+(?:is\s+(?:the\s+)?better|wins)(?:\s+(?:one|response|answer))?"
    rf"(?:\s+than\s+{_RESPONSE}[AB])?)?|(?:an?\s+)?(?P<tie>tie)"
)
_QUOTES = " \t\n*_`\"'“”‘’()[].。"


def number_in(value: Any, *, low: float, high: float, whole: bool) -> float:
    """A score as JSON gives it: a number, or a text that is one ("4"; "4/5", "4 out of 5" where 5 is the highest).

    Raises:
        ValueError: it is none, out of range, or no whole number where one is wanted.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r:.80} is not a score")
    if isinstance(value, str):
        value = re.sub(rf"\s*\(?(?:/|\b(?:out\s+)?of\b)\s*{high:g}(?:\.0+)?\)?\s*$", "", value)
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{value!r:.80} is not a score") from error
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"{value!r:.80} is not between {low:g} and {high:g}")
    if whole and not number.is_integer():
        raise ValueError(f"{value!r:.80} is not a whole number")
    return number


def label_in(value: str) -> str | None:
    """The label that a text is: "A" of "Response A" and "[[A]]", "tie" of "A tie"; None where it is anything else."""
    match = re.fullmatch(_LABEL, value.strip(_QUOTES), re.IGNORECASE)
    return None if match is None else "tie" if match["tie"] else match["label"].upper()


def value_in_words(text: str, name: str) -> str | None:
    """What stands behind a name and a colon ("**Score:** 4/5", "Clarity (weight: 0.3): 4"), through markdown, if any.

    Raises:
        ValueError: two things that differ.
    """
    words = r"\s+".join(re.escape(word) for word in _plain(name).split())
    statement = (
        rf"(?<!\w)(?:{words})[\"'*_`]{{0,3}}(?:[ \t]*\([^()\n]{{1,40}}\)[\"'*_`]{{0,3}})?[ \t]*[:=]{_MARKUP}"
        rf"(?:{_NUMBER}|{_LABEL}){_ENDS}"
    )
    flags = re.IGNORECASE | re.MULTILINE
    if re.search(_BEGINS + statement, _plain(text), flags) is None:
        return None
    # "Overall score: 4" beside "Style score: 2" does not tell which is meant.
    values = {_stated(match) for match in re.finditer(statement, _plain(text), flags)}
    if len(values) > 1:
        raise ValueError(f"{name} is {' and '.join(sorted(values))}")
    return values.pop()


def _plain(text: str) -> str:
    """A text with plain characters in place of full-width ones."""
    return unicodedata.normalize("NFKC", text)


def _stated(match: re.Match[str]) -> str:
    if match["number"] is not None:
        return match["number"] + (f"/{match['highest']}" if match["highest"] else "")
    return "tie" if match["tie"] else match["label"].upper()
