"""What the verdicts of published judges have in common: marks, what may stand around a verdict, and how one is read.

Each judge marks its verdict in its own way, which its file in `published/` says. A parser reads every verdict that
stands behind such a mark, through markdown, brackets, full-width characters and words like "the score is", and gives it
if all say the same. No verdict, one out of range and two that differ are a `JudgeParseError`; where the authors'
parsers take the first of two, ours does not choose. Thinking in closed <think> tags is removed first.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from reward_hub.errors import JudgeParseError
from reward_hub.numerics import sigmoid

T = TypeVar("T")

# What may stand between a mark and its verdict: white space, markdown, brackets, quotes, spaced dashes, arrows, LaTeX.
# Every run is bounded, so that a reply that repeats itself to its end is still read in linear time.
DECORATION = r"[\s*_`#:=\"'“”‘’()\[\]{}【】〔〕<|\\$→]|[-–—](?=\s)|[-=]>"
CLOSING = r"[ \t*_`\"'“”‘’)\]}>$]{0,20}"
BEFORE_NUMBER = rf"(?:{DECORATION}|\b(?:the|final|overall|score|result|rating|grade|is|of|boxed)\b){{0,60}}"
BEFORE_LETTER = (
    rf"(?:{DECORATION}|\b(?:the|better|best|winner|winning|final|choice|answer|response|assistant|chatbot|model|option|"
    r"output|candidate|is|boxed|text)\b){0,60}"
)
NUMBER = re.compile(rf"{BEFORE_NUMBER}(?P<number>[-−+]?\d+(?:[.,]\d+)?)", re.IGNORECASE)
# "4/5", "4 (out of 5)", "4 stars out of 10", "4 on a scale of 1 to 10".
_SCALE = re.compile(
    rf"{CLOSING}(?:(?:points?|stars?)\s+)?[(\[]?(?:/|(?:out\s+)?of\b(?:\s+a\s+possible\b)?"
    r"|on\s+a\s+(?:scale\s+(?:of|from)\s+)?\d+\s*(?:-|–|to\b))\s*(?P<top>\d+(?:\.\d+)?|five\b)",
    re.IGNORECASE,
)
# What makes the words before it the subject of a sentence, which is not a verdict: "5 would be perfect", "A might win".
_TALKED_ABOUT = r"(?:would|could|should|might|may|can(?:not)?|had|if|unless|seems?|needs?|requires?|means?)\b"
# "4 or 5", "3-4", "4:1", "4 5", "4th", "4%", "4+", "5 is too much" are not a score, nor is "½" one of 1.
_MORE_THAN_A_NUMBER = re.compile(
    rf"[^\W_]|[%+^⁄]|{CLOSING}(?:[-–—~/&:,]|to\b|or\b|and\b)\s*[(\[]?\d|[ \t]+\d"
    rf"|{CLOSING},?[ \t]+(?:{_TALKED_ABOUT}|(?:is|was|were|minus|less|but)\b|(?:is|was)n['’]t\b)",
    re.IGNORECASE,
)
# "A or B" and "A/B" name what there is to choose from; a small "a" before a word is an article.
LETTER = re.compile(
    rf"{BEFORE_LETTER}(?!(?-i:a)[ \t]+\w)(?P<letter>[A-Za-z])(?!_{{0,2}}[^\W_]|['’]\w)"
    rf"(?!{CLOSING}(?:/|\bor\b){BEFORE_LETTER}[AB]\b)",
    re.IGNORECASE,
)
# "A and B", "A = B" are not a choice; nor are "A tie", "A is not better", "A is worse". "A > B" is one, of A.
_MORE_THAN_A_LETTER = re.compile(
    rf"{CLOSING}(?:and|vs\.?|versus|[,&|=≈~<+]+){BEFORE_LETTER}[AB]\b"
    rf"|[ \t]+[AB]\b|\s+(?:tie|draw)\b|,?[ \t]+{_TALKED_ABOUT}"
    r"|\s+(?:(?:is|was|does|did|has)\s*)?(?:n['’]t|not\b|worse\b|weaker\b|inferior\b|loses\b|lost\b|fails\b)",
    re.IGNORECASE,
)
_DOUBLE_BRACKETS = re.compile(r"\\?\[\s{0,5}\\?\[(?P<inside>[^\[\]\n]{1,40}?)\\?\]\s{0,5}\\?\]")
YES_NO = re.compile(rf"(?:{DECORATION}){{0,60}}(?P<word>yes|no)(?![^\W_])(?!\s{{0,5}}(?:/|or\b|and\b))", re.IGNORECASE)
# The prompt of GenPRM ends in "\boxed", so that a reply may begin with the braces.
BOX = re.compile(
    r"(?:\A\s{0,5}|box(?:ed)?\s{0,5})\{\s{0,5}(?:\\[a-z]{2,12}\s{0,5}\{)?[ *_\"'`]{0,5}(?P<word>[a-z]{1,20})"
    r"[*_\"'`.\s]{0,10}\}",
    re.IGNORECASE,
)
# Characters without a width, and marks of the direction of writing.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufe0e\ufe0f\ufeff]")
_THINK_TAG = re.compile(r"<(?P<end>/?)(?:seed:)?think(?:ing)?>", re.IGNORECASE)


class NotAVerdictError(ValueError):
    """There is no verdict, or something else in its place."""


def verdict_in(text: str, parse: Callable[[str], T], judge: str) -> T:
    """The verdict in a judge's reply.

    Args:
        parse: reads it from text without invisible and full-width characters.
        judge: the form's name, for the error.

    Raises:
        JudgeParseError: there is no verdict, or two that differ; `.text` is the reply.
    """
    try:
        return parse(_INVISIBLE.sub("", unicodedata.normalize("NFKC", text)))
    except NotAVerdictError as error:
        raise JudgeParseError(f"The {judge} judge's reply {error}.", text=text) from error


def without_thinking(text: str) -> str:
    kept: list[str] = []
    position, thinking = 0, False
    for tag in _THINK_TAG.finditer(text):
        if not thinking:
            kept.append(text[position : tag.start()])
        if tag["end"] and not thinking:
            kept.clear()
        thinking = not tag["end"]
        position = tag.end()
    if thinking:
        raise NotAVerdictError("ends while it is thinking, so there is no verdict")
    return "".join(kept) + text[position:]


def agreed(verdicts: Sequence[T]) -> T:
    """The one verdict that all of them are."""
    if not verdicts:
        raise NotAVerdictError("holds no verdict")
    if any(verdict != verdicts[0] for verdict in verdicts):
        raise NotAVerdictError("holds verdicts that differ")
    return verdicts[0]


def behind(
    marks: Sequence[tuple[re.Pattern[str], re.Pattern[str]]], text: str, value: Callable[[re.Match[str]], T]
) -> T:
    """The verdict behind the marks of the first kind that one follows; a mark that none follows is talk."""
    for mark, what in marks:
        found = [match for place in mark.finditer(text) if (match := what.match(text, place.end())) is not None]
        if found:
            return agreed([value(match) for match in found])
    raise NotAVerdictError("holds no verdict")


def whole_score(match: re.Match[str]) -> int:
    """A whole number from 1 to 5, alone or as a part of 5."""
    said, end = match["number"], match.end()
    scale = _SCALE.match(match.string, end)
    if scale is not None:
        if scale["top"].lower() not in ("5", "5.0", "five"):
            raise NotAVerdictError(f"scores {said}{scale[0]}, which is another scale than 1 to 5")
        end = scale.end()
    more = _MORE_THAN_A_NUMBER.match(match.string, end) is not None
    if more or "," in said or not float(said.replace("−", "-")).is_integer():
        raise NotAVerdictError(f"says {match.string[match.start('number') : end + 10]!r}, which is not a whole score")
    score = int(float(said.replace("−", "-")))
    if not 1 <= score <= 5:
        raise NotAVerdictError(f"scores {said}, which is not between 1 and 5")
    return score


def a_or_b(match: re.Match[str]) -> str:
    """The letter of one of the two responses."""
    letter, end = match["letter"], match.end()
    if letter.upper() not in ("A", "B"):
        raise NotAVerdictError(f"chooses {letter}, which is neither A nor B")
    if _MORE_THAN_A_LETTER.match(match.string, end) is not None:
        raise NotAVerdictError(f"says {match.string[end - 1 : end + 20]!r}, which chooses neither A nor B")
    return letter.upper()


def in_brackets(text: str) -> str:
    """[[A]] or [[B]]; what else stands in double brackets is a verdict too if it is a letter or a tie."""
    return agreed(list(letters_in_brackets(without_thinking(text))))


def letters_in_brackets(text: str) -> Iterator[str]:
    for brackets in _DOUBLE_BRACKETS.finditer(text):
        inside = brackets["inside"].strip(" *_`\\")
        letter = LETTER.fullmatch(inside)
        if letter is not None:
            yield a_or_b(letter)
        elif inside.lower() in ("tie", "draw", "both", "neither"):
            raise NotAVerdictError(f"chooses {inside}, which is neither A nor B")


def yes_probability(yes: float | None, no: float | None, others: Sequence[float]) -> float | None:
    """p(yes) / (p(yes) + p(no)) from log-probabilities; None where they do not tell.

    A missing one of the two is replaced by the smallest of the others, as GenPRM's code does.
    """
    unknown = [yes, no].count(None)
    if unknown == 2 or (unknown == 1 and not others):
        return None
    high = min(others) if yes is None else yes
    low = min(others) if no is None else no
    return None if math.isinf(high) and math.isinf(low) else sigmoid(high - low)
