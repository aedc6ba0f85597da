"""The score range and the weighted criteria of a rubric in plain words.

Read are the forms of docs/judges.md: "from 1-5", "Correctness (weight: 0.5)" and a few more. Where a text announces a
range or weights in another form, it is refused with the `Rubric(...)` that says the same: never a guess.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_MEANING = r"(?: ?\([^()\n]{1,40}\))?"
# "between 100 and 200 words" counts something else than points.
_END = r"(?![\d.]*\d| ?(?:words?|sentences?|characters?|tokens?|lines?|paragraphs?|pages?|minutes?|hours?|years?)\b)"
_SCORING = (
    r"\b(?:from|between|scales?|range|scor(?:e|es|ed|ing)|rat(?:e|es|ed|ing)|grades?|points?|numbers?)\b[^\n\d-]{0,40}?"
)


def _ranges(span: str) -> tuple[re.Pattern[str], ...]:
    """The places where a span of numbers is a range of scores."""
    places = (
        # "from 1-5", "on a scale of 1 to 10", "between 0 and 1", "score (0-100)", "from 1 (worst) to 5 (best)"
        rf"{_SCORING}(?<![\w.]){span}",
        # "a 1-5 scale", "a 0-1 score"
        rf"(?<![\w.]){span}[ -](?:scale|points?|stars?|scores?)\b",
        # "Is it polite? (1-10)"
        rf"[(\[] ?{span} ?[)\]]",
    )
    return tuple(re.compile(place, re.IGNORECASE) for place in places)


_SPAN = rf"(?P<low>{_NUMBER}){_MEANING} ?(?:-|–|to|and) ?(?P<high>{_NUMBER})(?! ?%){_END}"
_RANGES = _ranges(_SPAN)
# "from one to ten", "0% to 100%", "0 up to 3", "1~7": not read.
_IN_LETTERS = rf"(?:{_NUMBER}|(?:zero|one|two|three|four|five|six|seven|eight|nine|ten)\b)"
_UNREAD_RANGES = _ranges(
    rf"(?P<low>{_IN_LETTERS}) ?%?{_MEANING} ?(?:[-–—~]|\.\.+|(?:up )?to|and|through) ?{_IN_LETTERS}{_END}"
)
# "a score of 0, 1 or 2"
_LISTED = re.compile(
    rf"{_SCORING}(?<![\w.])(?P<scores>\d+(?:, ?\d+){{0,20}},? or \d+)(?!,? (?:or )?\d){_END}", re.IGNORECASE
)
# "0: wrong" and "1: right", one a line
_LEVEL = re.compile(rf"^[ \t]*(?:[-*•+] )?(?:score )?(?P<level>{_NUMBER}) ?[:=]", re.IGNORECASE | re.MULTILINE)
# What says that scores between whole numbers are wanted.
_BETWEEN_WHOLES = re.compile(
    r"\b(?:steps|increments) of 0?\.\d|\b0?\.\d+[ -](?:point )?(?:increments?|steps?)\b|\bhalf[ -]points?\b"
    r"|\bone decimal\b|\bdecimals? (?:(?:are|is) )?(?:allowed|fine|ok|possible|numbers?|values?|scores?|places?)\b",
    re.IGNORECASE,
)
# "out of 10", "a 10-point scale", "5 stars"
_HIGHEST_ALONE = re.compile(
    rf"(?:{_SCORING}|\bmarks? )out of {_IN_LETTERS}|\b\w+[ -]points? (?:\w+ )?scale\b|\b{_IN_LETTERS}[ -]stars?\b",
    re.IGNORECASE,
)
# "range [0, 3]", "score 3/2/1", "scores: 0 (wrong), 1 (right)", "1 = bad, 10 = good", "a score of zero or one"
_UNREAD_SCORES = re.compile(
    rf"{_SCORING}(?<![\w.]){_NUMBER}[^\n\d]{{1,20}}?{_NUMBER}{_END}|(?<![\w.:=(]){_NUMBER} ?= ?[^\W\d]\w*"
    rf"|\b(?:scores?|scale|rate)\b[^.\n\d]{{0,15}}?\b{_IN_LETTERS} or {_IN_LETTERS}",
    re.IGNORECASE,
)

_SHARE = r"(?P<weight>\d*\.?\d+) ?(?P<percent>%?)"
# "(weight: 0.5)", "[weight=30%]"; "Clarity, weight 30%", "Clarity - weight 0.3" where a phrase ends
_WEIGHT = re.compile(
    rf"(?:(?P<bracket>[(\[]) ?|[,;:–—-] ?)weight ?[:=]? ?{_SHARE}(?(bracket) ?[)\]]|(?= ?(?:[,;:|]|\.(?!\d)|$)))",
    re.IGNORECASE,
)
# Where a weight is announced, so that it must be one of those: "(weight: high)", "is weighted 0.5", "(20% weight)"
_ANNOUNCED = re.compile(
    r"[(\[] ?w(?:eight(?:ed|ing|age)?\b| ?[:=])|\bweight ?[:=]|[(\[] ?[\d.]+ ?%? ?(?:of the (?:total )?)?weight"
    r"|\bweight(?:ed|ing|age)?(?: of| is| at)? ?(?:\d*\.\d|\d+ ?%|\d+(?= ?(?:[,;.]|and\b|$)))",
    re.IGNORECASE,
)
# "- Correctness (0.5)", "- Correctness: 50%", "Correctness (50%): is it right?"
_FRACTION = r"(?:(?P<weight>0?\.\d+)|(?P<percent>\d+(?:\.\d+)?) ?%)"
_BARE = re.compile(
    rf"(?P<name>[^\W\d][^:|()\n]{{0,60}}?)[ *_`]*(?:[:=(–—]| -)[ *_`]*{_FRACTION} ?\)?(?= ?(?:$|[:,.;–—-]))"
)
# A share anywhere, unless it is one by which or of which something is: "cut costs by 40%", "in steps of 0.1"
_ANY_SHARE = re.compile(rf"(?P<no_weight>\b(?:by|of|than|least|most) )?(?<![\d.]){_FRACTION}(?: ?[*×·] ?\w+)?")
_BULLET = re.compile(r"^(?P<indent>[ \t]*)(?:[-*•+–—]|\(?(?:\d+|[a-zA-Z])[.)])[ \t]+(?P<item>\S.*)", re.MULTILINE)
_TASK = re.compile(rf"{_SPAN}|^(?:score|rate|grade|judge|assess|evaluate)(?: |$)|[(?]", re.IGNORECASE)
_MOST_WORDS = 4
_WRAPPING = " \t-–—*•+`_|,;:\"'“”"

_SAY_RANGE = "Write 'from 1 to 10', or give Rubric(instructions=..., score_range=(1, 10))."
_SAY_WEIGHTS = "Write '- Clarity (weight: 0.5)', or give Rubric(instructions=..., criteria={'Clarity': 0.5, ...})."


def range_in(text: str) -> tuple[float, float] | None:
    """The lowest and the highest score that a text names; None where it names none.

    Raises:
        ValueError: it names several, or one in a form that is not read.
    """
    text = _plain(text)
    spans = list(_matches(_RANGES, text))
    read = {match.start("low") for match in spans}
    for unread in _matches(_UNREAD_RANGES, text):
        if unread.start("low") not in read:
            raise ValueError(f"The rubric's score range {unread[0]!r} cannot be read. {_SAY_RANGE}")
    ranges = sorted({(float(match["low"]), float(match["high"])) for match in spans})
    if len(ranges) > 1:
        named = ", ".join(f"{low:g} to {high:g}" for low, high in ranges)
        raise ValueError(f"The rubric names several score ranges ({named}). {_SAY_RANGE}")
    if ranges:
        return ranges[0]
    unweighed = "\n".join(line for line in text.splitlines() if not _WEIGHT.search(line))
    levels = _listed(text) or sorted({float(match["level"]) for match in _LEVEL.finditer(unweighed)})
    if len(levels) > 1:
        return levels[0], levels[-1]
    if alone := _HIGHEST_ALONE.search(text):
        raise ValueError(f"The rubric names the highest score alone ({alone[0]!r}). {_SAY_RANGE}")
    if scores := _UNREAD_SCORES.search(unweighed):
        raise ValueError(f"The rubric's scores {scores[0]!r} cannot be read. {_SAY_RANGE}")
    return None


def whole_in(text: str) -> bool | None:
    """Whether a text wants whole scores; None where its words leave that to the range."""
    text = _plain(text)
    spans = list(_matches(_RANGES, text))
    if _BETWEEN_WHOLES.search(text) or any("." in match["low"] + match["high"] for match in spans):
        return False
    return True if not spans and _listed(text) else None


def criteria_in(text: str) -> dict[str, float]:
    """Criterion -> weight, as the text has it (50% is 0.5); empty where it weighs none.

    Raises:
        ValueError: a weight that cannot be read or belongs to nothing; a criterion that is listed without one.
    """
    text = _plain(text)
    criteria: dict[str, float] = {}
    for line in text.splitlines():
        for name, weight in _weighed(line):
            _add(criteria, name, weight, line)
    if criteria:
        _check_that_all_are_weighed(text)
        return criteria
    return _table_criteria(text) or _bare_criteria(text)


def _plain(text: str) -> str:
    """The text with plain marks, and one blank in place of several, so that the patterns take linear time."""
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-")
    return re.sub(r"(?<=\S)[ \t]+", " ", text)


def _matches(patterns: Sequence[re.Pattern[str]], text: str) -> Iterator[re.Match[str]]:
    return (match for pattern in patterns for match in pattern.finditer(text))


def _listed(text: str) -> list[float]:
    """The scores that a text lists one by one: 0 and 1, or three and more in a row. Others are not a scale."""
    for match in _LISTED.finditer(text):
        scores = sorted(float(number) for number in re.findall(r"\d+", match["scores"]))
        in_a_row = all(high - low == 1 for low, high in pairwise(scores))
        if in_a_row and (len(scores) > 2 or scores == [0, 1]):
            return scores
    return []


def _add(criteria: dict[str, float], name: str, weight: float, line: str) -> None:
    if not name or name in criteria:
        problem = f"is the second of {name!r}" if name else "has no criterion that can be told"
        raise ValueError(f"The weight in {line.strip()!r} {problem}. {_SAY_WEIGHTS}")
    criteria[name] = weight


def _weight_of(match: re.Match[str]) -> float:
    return float(match["weight"]) / (100.0 if match["percent"] else 1.0)


def _weighed(line: str) -> Iterator[tuple[str, float]]:
    """The criteria of a line, each with the weight behind it."""
    matches = list(_WEIGHT.finditer(line))
    for announced in _ANNOUNCED.finditer(line):
        if not any(match.start() <= announced.start() < match.end() for match in matches):
            raise ValueError(f"The weight in {line.strip()!r} cannot be read. {_SAY_WEIGHTS}")
    start = 0
    for match in matches:
        yield _name_in(line[start : match.start()], alone=len(matches) == 1), _weight_of(match)
        start = match.end()


def _name_in(words: str, *, alone: bool) -> str:
    """The criterion in the words before its weight; empty where they are more than its name."""
    bullet = _BULLET.match(words)
    if bullet and alone:
        # "- Accuracy: are the facts right? (weight: 0.5)"
        return bullet["item"].partition(":")[0].strip(_WRAPPING)
    phrase = re.split(r"[:;,]|[.!?] ", (bullet["item"] if bullet else words).rstrip(_WRAPPING))[-1]
    name = re.sub(r"^(?:and|or) ", "", phrase.strip()).strip(_WRAPPING)
    if _TASK.search(name):
        # "Score the response from 1 to 5 based on correctness (weight: 0.5)"
        name = re.sub(r"^.* on (?:the )?", "", name).strip(_WRAPPING)
    return "" if _TASK.search(name) else name


def _check_that_all_are_weighed(text: str) -> None:
    """In a list with weights each item has one; what is set in deeper, or begins with a number, is not a criterion."""
    for part in re.split(r"^.*:[ \t]*$", text, flags=re.MULTILINE):
        bullets = list(_BULLET.finditer(part))
        least = min((len(bullet["indent"]) for bullet in bullets), default=0)
        items = [bullet["item"] for bullet in bullets if len(bullet["indent"]) == least]
        bare = [item for item in items if not _WEIGHT.search(item) and not item[0].isdigit()]
        if bare and any(_WEIGHT.search(item) for item in items):
            raise ValueError(f"{bare[0]!r} has no weight, which others of its list have. {_SAY_WEIGHTS}")


def _table_criteria(text: str) -> dict[str, float]:
    """Criterion -> weight of a Markdown table, where one column is headed as weights."""
    criteria: dict[str, float] = {}
    column: int | None = None
    for line in text.splitlines():
        cells = [cell.strip(_WRAPPING) for cell in line.strip().strip("|").split("|")]
        if len(cells) < 2:
            column = None
        elif column is None:
            headed = [i for i, cell in enumerate(cells) if re.match(r"weight", cell, re.IGNORECASE)]
            column = headed[0] if len(headed) == 1 else None
        elif any(cells) and not re.fullmatch(r"(?:total|sum)?", name := cells[0 if column else 1], re.IGNORECASE):
            weight = re.fullmatch(_SHARE, cells[column]) if column < len(cells) else None
            if weight is None:
                raise ValueError(f"The weight in {line.strip()!r} cannot be read. {_SAY_WEIGHTS}")
            _add(criteria, name, _weight_of(weight), line)
    return criteria


def _bare_criteria(text: str) -> dict[str, float]:
    """Shares that no word calls weights ("- Correctness: 50%"): they are, where they add up to 1."""
    for pattern in _RANGES:
        text = pattern.sub(" ", text)  # "from 1.0 to 5.0" weighs nothing
    lines = [_BULLET.sub(r"\g<item>", line).strip(_WRAPPING) for line in text.splitlines()]
    criteria = {match["name"].strip(_WRAPPING): _fraction(match) for line in lines if (match := _BARE.match(line))}
    weighed = len(criteria) > 1 and all(0.0 < weight < 1.0 for weight in criteria.values())
    if weighed and _is_whole(list(criteria.values())) and all(len(name.split()) <= _MOST_WORDS for name in criteria):
        return criteria
    if weighed:
        named = ", ".join(f"{name} {weight:g}" for name, weight in criteria.items())
        raise ValueError(f"The rubric's numbers look like weights that do not add up to 1 ({named}). {_SAY_WEIGHTS}")
    shares = [match for match in _ANY_SHARE.finditer(text) if not match["no_weight"] and 0.0 < _fraction(match) < 1.0]
    if len(shares) > 1 and ("weight" in text.lower() or _is_whole(list(map(_fraction, shares)))):
        raise ValueError(f"The weights of {shares[0][0]!r} cannot be read. {_SAY_WEIGHTS}")
    return {}


def _fraction(match: re.Match[str]) -> float:
    return float(match["weight"] or float(match["percent"]) / 100.0)


def _is_whole(shares: Sequence[float]) -> bool:
    """Whether shares, rounded to whole percents as they may be, add up to 1."""
    return abs(math.fsum(shares) - 1.0) < 0.015
