"""The score range and the weighted criteria of a rubric in plain words; what is named but unreadable is an error."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = r"-?\d+(?:\.\d+)?"
_BOUND = rf"(?:{_NUMBER}|(?:{'|'.join(_WORDS)})\b)"
_MEANING = r"(?:\s*\([^()\n]{1,40}\))?"
_SPAN = (
    rf"(?P<low>{_BOUND}){_MEANING}\s*(?:-|–|—|\.\.+|to|and|through)\s*"
    rf"(?P<high>{_BOUND})(?![\d.]*\d|\s*%)"
)
_SCORING = (
    r"\b(?:from|between|scales?|range|scor(?:e|es|ed|ing)|rat(?:e|es|ed|ing)|grades?|points?|numbers?|integers?)\b"
)
_RANGES = (
    # "from 1-5", "on a scale of 1 to 10", "between 0 and 1", "score (0-100)", "from 1 (worst) to 5 (best)"
    re.compile(rf"{_SCORING}[^\n\d-]{{0,40}}?(?<![\w.]){_SPAN}", re.IGNORECASE),
    # "range [1, 5]"
    re.compile(rf"{_SCORING}[^\n\d-]{{0,40}}?\[\s*(?P<low>{_BOUND})\s*,\s*(?P<high>{_BOUND})\s*\]", re.IGNORECASE),
    # "a 1-5 scale", "1 to 10 points", "0-1 score"
    re.compile(rf"(?<![\w.]){_SPAN}[\s-]*(?:scale|points?|stars?|rating|range|scores?|grades?)\b", re.IGNORECASE),
    # "Is it polite? (1-10)"
    re.compile(rf"[(\[]\s*{_SPAN}\s*[)\]]", re.IGNORECASE),
)
# "0: wrong", "- Score 2 = right", one a line; "1 = bad, 5 = good" in one.
_LEVELS = (
    re.compile(
        rf"^[ \t]*(?:[-*•+][ \t]+)?(?:score[ \t]+)?(?P<level>{_NUMBER})[ \t]*[:=]", re.IGNORECASE | re.MULTILINE
    ),
    re.compile(rf"(?<![\w.:=(])(?P<level>{_NUMBER})(?=\s*=\s*[^\W\d])"),
)
# "out of 10", "a 10-point scale", "5 stars": the highest score alone.
_HIGHEST_ALONE = re.compile(
    rf"(?:{_SCORING}|\bmarks?\b)[^.\n\d]{{0,30}}?\bout\s+of\s+{_BOUND}|\b\w+[\s-]points?\s+(?:\w+\s+)?scale\b"
    rf"|\b{_BOUND}[\s-]stars?\b",
    re.IGNORECASE,
)

_SHARE = r"(?P<weight>\d*\.?\d+)\s*(?P<percent>%?)"
_WEIGHT = re.compile(
    # "(weight: 0.5)", "[weighted 50%]", "(w=0.5)", "(50% weight)", "(weight 0.5, required)" is not read
    rf"[(\[]\s*(?:weight(?:ed|ing|age)?|w\s*(?=[:=]))\s*(?:of|is|at)?\s*[:=]?\s*{_SHARE}\s*[)\]]"
    rf"|[(\[]\s*{_SHARE.replace('weight>', 'weight2>').replace('percent>', 'percent2>')}\s*"
    r"(?:of\s+the\s+(?:total\s+)?)?weight(?:ing|age)?\s*[)\]]"
    # "Correctness, weight 0.5", "Correctness - weight: 50%", at the end of a phrase
    rf"|[ \t]?[-–—,:;|]{{0,3}}[ \t]?\bweight(?:ed|ing|age)?\s*(?:of|is|at)?\s*[:=]?\s*"
    rf"{_SHARE.replace('weight>', 'weight3>').replace('percent>', 'percent3>')}(?=\s*(?:[,;.:|)\]]|[-–—]\s|$))(?!\.\d)",
    re.IGNORECASE,
)
# Where a weight is announced, so that it must be read; a table's heading announces none of its own.
_ANNOUNCED = re.compile(r"[(\[]\s*weight|\bweight\s*[:=]", re.IGNORECASE)
# "- Correctness (0.5)", "- Correctness: 50%", "50% Correctness", "| Correctness | 0.5 |"
_FRACTION = r"(?:(?P<{0}weight>[01]?\.\d+)|(?P<{0}percent>\d+(?:\.\d+)?)\s*%)"
_BARE = re.compile(
    rf"(?P<name>[^\W\d][^:|()\[\]\n]{{0,60}}?)[\s*_`]*(?:[:=|–—]|\s-)?\s*[(\[]?\s*{_FRACTION.format('')}\s*[)\]]?"
    rf"\s*(?:$|[|:,.;–—]|-\s)"
    rf"|{_FRACTION.format('first_')}\s*[:–—-]?\s*(?P<last_name>[^\W\d][^:|()\n]{{0,60}}?)\s*(?:$|[:.;–—(])"
)
_BARE_INLINE = re.compile(
    rf"(?P<name>[^\W\d][^:;,.|()\[\]\n]{{0,60}}?)\s*[:=]?\s*[(\[]?\s*{_FRACTION.format('')}\s*[)\]]?"
)
_BULLET = re.compile(r"^(?P<indent>\s*)(?:[-*•+]|\d+[.)])\s+")
_ON = re.compile(
    r"^.*?\b(?:based\s+on|according\s+to|in\s+terms\s+of|regarding|considering|criteria|on|for|by|are|is)\s+"
    r"(?:the\s+)?(?=\S)",
    re.IGNORECASE,
)
_TASK = re.compile(rf"{_SPAN}|^\s*(?:score|rate|grade|judge|assess|evaluate)\s", re.IGNORECASE)
_MOST_WORDS = 4
_WRAPPING = " \t-–—*•+`_|"


def range_in(text: str) -> tuple[float, float] | None:
    """The lowest and the highest score that a text names; None where it names none.

    Raises:
        ValueError: it names several, or the highest alone.
    """
    text = _compact(text)
    found = {(_number(m["low"]), _number(m["high"])) for pattern in _RANGES for m in pattern.finditer(text)}
    if len(found) > 1:
        named = ", ".join(f"{low:g} to {high:g}" for low, high in sorted(found))
        raise ValueError(
            f"The rubric names several score ranges ({named}). Say which with Rubric.parse(text, score_range=...)."
        )
    if found:
        return found.pop()
    lines = "\n".join(line for line in text.splitlines() if not _WEIGHT.search(line))
    for pattern in _LEVELS:
        levels = {float(m["level"]) for m in pattern.finditer(lines)}
        if len(levels) > 1:
            return min(levels), max(levels)
    if alone := _HIGHEST_ALONE.search(text):
        raise ValueError(
            f"The rubric names the highest score alone ({alone[0]!r}). Name both: 'from 1 to 10', or "
            "Rubric.parse(text, score_range=...)."
        )
    return None


def criteria_in(text: str) -> dict[str, float]:
    """Criterion -> weight, as the text has it (50% is 0.5); empty where it weighs none.

    Raises:
        ValueError: a weight that cannot be read or belongs to nothing; a criterion that is listed without one.
    """
    text = _compact(text)
    criteria: dict[str, float] = {}
    for line in text.splitlines():
        for name, weight in _weighed(line):
            if not name or name in criteria:
                reason = f"is the second of {name!r}" if name else "has no criterion"
                raise ValueError(f"The weight in {line.strip()!r} {reason}.")
            criteria[name] = weight
    if criteria:
        _check_that_all_are_weighed(text)
        return criteria
    return _bare_criteria(text)


def _compact(text: str) -> str:
    """Runs of white space cut short, which the patterns need to be read in linear time."""
    return re.sub(r"\n\s*\n", "\n\n", re.sub(r"[ \t]{20,}", " " * 20, re.sub(r"(?<=\S)[ \t]{2,}", " ", text)))


def _number(text: str) -> float:
    return float(_WORDS.index(text.lower())) if text.lower() in _WORDS else float(text)


def _weighed(line: str) -> Iterator[tuple[str, float]]:
    """The criteria of a line, each with the weight behind it."""
    matches = list(_WEIGHT.finditer(line))
    for announced in _ANNOUNCED.finditer(line):
        if not any(match.start() <= announced.start() < match.end() for match in matches):
            raise ValueError(f"The weight in {line.strip()!r} cannot be read; write it as (weight: 0.5).")
    start = 0
    for match in matches:
        number = match["weight"] or match["weight2"] or match["weight3"]
        percent = match["percent"] or match["percent2"] or match["percent3"]
        yield (
            _name_in(line[start : match.start()], alone=len(matches) == 1),
            float(number) / (100.0 if percent else 1.0),
        )
        start = match.end()


def _check_that_all_are_weighed(text: str) -> None:
    """In a list with weights each item needs one; what is set in deeper, or begins with a number, is no criterion."""
    indent, weighed, bare = "", False, ""
    for line in [*text.splitlines(), ""]:
        bullet = _BULLET.match(line)
        if bullet is None:
            if line.strip() and not line.rstrip().endswith(":"):
                continue
            indent, weighed, bare = "", False, ""
            continue
        if not (weighed or bare):
            indent = bullet["indent"]
        if bullet["indent"] != indent:
            continue
        item = line[bullet.end() :]
        if _WEIGHT.search(line):
            weighed = True
        elif not item[:1].isdigit():
            bare = bare or item.strip()
        if weighed and bare:
            raise ValueError(f"{bare!r} has no weight, which others of its list have; write it as (weight: 0.5).")


def _bare_criteria(text: str) -> dict[str, float]:
    """Shares that no word calls weights ("Correctness (50%)"): they are, where they add up to 1."""
    lines = text.splitlines()
    found = [_plain(match) for line in lines if (match := _bare_in(line)) is not None]
    announced = len(found) > 1 or any("weight" in line.lower() for line in lines)
    if len(found) < 2:
        found = [_plain(match) for line in lines for match in _BARE_INLINE.finditer(line)]
    # Longer ones are sentences about shares, not names.
    criteria = {name: weight for name, weight in found if len(name.split()) <= _MOST_WORDS}
    if len(criteria) < 2:
        return {}
    if len(criteria) == len(found) and abs(math.fsum(criteria.values()) - 1.0) < 0.015:
        return criteria
    if announced and all(0.0 < weight < 1.0 for weight in criteria.values()):
        named = ", ".join(f"{name} {weight:g}" for name, weight in criteria.items())
        raise ValueError(
            f"The rubric's numbers look like weights that do not add up to 1 ({named}). Write weights as "
            "'Correctness (weight: 0.5)'."
        )
    return {}


def _bare_in(line: str) -> re.Match[str] | None:
    return _BARE.match(_BULLET.sub("", line).strip().lstrip(_WRAPPING))


def _plain(match: re.Match[str]) -> tuple[str, float]:
    found = match.groupdict()
    name = found["name"] or found.get("last_name") or ""
    weight, percent = found["weight"] or found.get("first_weight"), found["percent"] or found.get("first_percent")
    name = re.sub(r"^(?:and|or)\s+", "", name.strip(_WRAPPING))
    return name, float(weight) if weight else float(percent or 0) / 100.0


def _name_in(words: str, *, alone: bool) -> str:
    """The name of a criterion in the words before its weight."""
    if alone and _BULLET.match(words):
        # "- Accuracy: are the facts right? (weight: 0.5)"
        words = _BULLET.sub("", words).partition(":")[0]
    else:
        words = re.split(r"[:;,]|[.!?]\s", words.rstrip(" :;,-–—"))[-1]
        words = re.sub(r"^\s*(?:and|or)\s+", "", words)
        # "Score the response from 1 to 5 based on correctness (weight: 0.5)"
        while _TASK.search(words):
            words, n = _ON.subn("", words)
            if n == 0:
                return ""
    words = words.strip(_WRAPPING)
    return re.sub(r"^\d+[.)]\s+", "", words).strip(_WRAPPING + ":")
