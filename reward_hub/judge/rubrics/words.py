"""The score range and the weighted criteria of a rubric in plain words; what is named but unreadable is an error."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_BOUND = rf"(?:{_NUMBER}|(?:{'|'.join(_WORDS)})\b)"
_MEANING = r"(?:\s*\([^()\n]{1,40}\))?"
# "between 100 and 200 words" counts something else than points.
_UNITS = (
    r"words?|sentences?|characters?|letters?|tokens?|lines?|paragraphs?|pages?|examples?|items?|bullets?|reasons?|"
    r"seconds?|minutes?|hours?|days?|weeks?|months?|years?"
)
_SPAN = (
    rf"(?P<low>{_BOUND}){_MEANING}\s*(?:-|–|—|~|\.\.+|(?:up\s+)?to|and|through)\s*"
    rf"(?P<high>{_BOUND})(?![\d.]*\d|\s*%|[\s-]*(?:{_UNITS})\b)"
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
# "a score of 0, 1 or 2", "1 (bad), 2 (fair), 3 (good)": whole numbers in a row.
_ENUMERATED = re.compile(
    rf"{_SCORING}[^\n\d-]{{0,40}}?(?<![\w.])(?P<levels>{_BOUND}{_MEANING}"
    rf"(?:\s{{0,3}}(?:,(?:\s{{0,3}}(?:or|and)\b)?|/|\bor\b)\s{{0,3}}{_BOUND}{_MEANING}){{1,100}})(?![\d.]*\d)",
    re.IGNORECASE,
)
# What says that scores between whole numbers are wanted.
_BETWEEN_WHOLES = re.compile(
    r"\b(?:steps|increments)\s+of\s+0?\.\d|\b0?\.\d+[\s-](?:point\s+)?(?:increments?|steps?)\b"
    r"|\bhalf[\s-]points?\b|\bone\s+decimal\b"
    r"|\bdecimals?\s+(?:are\s+|is\s+)?(?:allowed|fine|ok|possible|numbers?|values?|scores?|places?)\b",
    re.IGNORECASE,
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
    rf"{_SHARE.replace('weight>', 'weight3>').replace('percent>', 'percent3>')}"
    r"(?=\s*(?:[,;.:|)\]]|[-–—]\s|and\b|$))(?!\.\d)",
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
# "70% for correctness, 30% for style"
_BARE_FOR = re.compile(
    rf"{_FRACTION.format('first_')}\s*(?:for|on)\s+(?:the\s+)?(?P<last_name>[^\W\d][^:;,.|()\n]{{0,60}}?)"
    r"(?=\s*(?:[:;,.]|and\b|$))"
)
# "0.7 * correctness + 0.3 * clarity"
_FORMULA = re.compile(rf"(?<!\d){_FRACTION.format('')}(?: [*×·] |[*×·])(?P<last_name>[^\W\d]\w*)")
_BULLET = re.compile(r"^(?P<indent>\s*)(?:[-*•+–—]|\(?(?:\d+|[a-zA-Z])[.)])\s+")
_ON = re.compile(
    r"^.*?\b(?:based\s+on|according\s+to|in\s+terms\s+of|regarding|considering|criteria|where|on|for|by|are|is)\s+"
    r"(?:the\s+)?(?=\S)",
    re.IGNORECASE,
)
_TASK = re.compile(rf"{_SPAN}|^\s*(?:score|rate|grade|judge|assess|evaluate)\s", re.IGNORECASE)
_MOST_WORDS = 4
# "Correctness counts for 70%", "tone has a weight of 0.3"
_JOINING = re.compile(
    r"(?:\s+(?:counts?|accounts?|makes?|gets?|weighs?|has|have|is|are|for|up|at|worth|an?)){1,4}$", re.IGNORECASE
)
_WRAPPING = " \t-–—*•+`_|,;"
# Full-width marks and the minus sign, as the ones that the patterns know.
_PLAIN_MARKS = str.maketrans("（）［］：；％～＝−", "()[]:;%~=-")
_TOTAL = re.compile(r"(?:total|sum)?:?", re.IGNORECASE)


def range_in(text: str) -> tuple[float, float] | None:
    """The lowest and the highest score that a text names; None where it names none.

    Raises:
        ValueError: it names several, or the highest alone.
    """
    text = _compact(text)
    found = {(_number(m["low"]), _number(m["high"])) for m in _spans_in(text)}
    if len(found) > 1:
        named = ", ".join(f"{low:g} to {high:g}" for low, high in sorted(found))
        raise ValueError(
            f"The rubric names several score ranges ({named}). Say which with Rubric.parse(text, score_range=...)."
        )
    if found:
        return found.pop()
    if enumerated := _enumerated(text):
        return float(min(enumerated)), float(max(enumerated))
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


def whole_in(text: str) -> bool | None:
    """Whether a text wants whole scores; None where its words leave that to the range."""
    text = _compact(text)
    spans = list(_spans_in(text))
    if _BETWEEN_WHOLES.search(text) or any("." in m["low"] + m["high"] for m in spans):
        return False
    return True if not spans and _enumerated(text) else None


def _spans_in(text: str) -> Iterator[re.Match[str]]:
    return (match for pattern in _RANGES for match in pattern.finditer(text))


def _enumerated(text: str) -> list[int]:
    """The scores that a text lists one by one: 0 and 1, or three and more in a row. Others are no scale."""
    for match in _ENUMERATED.finditer(text):
        said = re.findall(_BOUND, re.sub(r"\([^()]*\)", "", match["levels"]), re.IGNORECASE)
        levels = sorted(map(_number, said))
        in_a_row = all(high - low == 1 for low, high in pairwise(levels))
        if in_a_row and levels[0].is_integer() and (len(levels) > 2 or levels == [0, 1]):
            return [int(level) for level in levels]
    return []


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
    return _table_criteria(text) or _bare_criteria(text)


def _compact(text: str) -> str:
    """The text with plain marks; runs of white space cut short, which the patterns need to be read in linear time."""
    text = text.translate(_PLAIN_MARKS)
    # "0-100%", "from 0% to 100%": the one range of shares that is a scale.
    text = re.sub(r"(?<![\d.])0[ \t]{0,3}%?[ \t]{0,3}(?:-|–|—|~|to\b|and\b)[ \t]{0,3}100[ \t]{0,3}%", "0 to 100", text)
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
        name = _name_in(line[start : match.start()], alone=len(matches) == 1, in_a_sentence=bool(match["weight3"]))
        yield name, float(number) / (100.0 if percent else 1.0)
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


def _table_criteria(text: str) -> dict[str, float]:
    """Criterion -> weight of a Markdown table, where one column is headed as weights."""
    criteria: dict[str, float] = {}
    column: int | None = None
    for line in text.splitlines():
        if "|" not in line:
            column = None
            continue
        cells = [cell.strip(_WRAPPING + ":") for cell in line.strip().strip("|").split("|")]
        if column is None:
            headed = [i for i, cell in enumerate(cells) if re.search(r"\bweight", cell, re.IGNORECASE)]
            column = headed[0] if len(headed) == 1 and len(cells) > 1 else None
            continue
        name = cells[0 if column else 1] if len(cells) > 1 else ""
        if not any(cells) or _TOTAL.fullmatch(name):
            continue
        weight = re.fullmatch(_SHARE, cells[column]) if column < len(cells) else None
        if weight is None or name in criteria:
            reason = f"is the second of {name!r}" if name in criteria else "cannot be read; write it as 0.5 or 50%"
            raise ValueError(f"The weight in {line.strip()!r} {reason}.")
        criteria[name] = float(weight["weight"]) / (100.0 if weight["percent"] else 1.0)
    return criteria


def _bare_criteria(text: str) -> dict[str, float]:
    """Shares that no word calls weights ("Correctness (50%)"): they are, where they add up to 1."""
    for pattern in _RANGES:
        text = pattern.sub(" ", text)  # "from 1.0 to 5.0" weighs nothing
    terms = list(_FORMULA.finditer(text))
    if len(terms) > 1 and abs(math.fsum(_plain(term)[1] for term in terms) - 1.0) < 0.015:
        raise ValueError(f"The weights of {terms[0][0]!r} cannot be read; write them as 'Correctness (weight: 0.5)'.")
    lines = text.splitlines()
    found = [_plain(match) for line in lines if (match := _bare_in(line)) is not None]
    announced = len(found) > 1 or any("weight" in line.lower() for line in lines)
    if len(found) < 2:
        ways = (_BARE_INLINE, _BARE_FOR)
        found = max(([_plain(m) for line in lines for m in way.finditer(line)] for way in ways), key=len)
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
    name = found.get("name") or found.get("last_name") or ""
    weight, percent = (found.get(part) or found.get(f"first_{part}") for part in ("weight", "percent"))
    name = re.sub(r"^(?:and|or|weigh|weight)\s+", "", name.strip(_WRAPPING), flags=re.IGNORECASE)
    return _unquoted(_JOINING.sub("", name)), float(weight) if weight else float(percent or 0) / 100.0


def _name_in(words: str, *, alone: bool, in_a_sentence: bool) -> str:
    """The name of a criterion in the words before its weight."""
    if alone and _BULLET.match(words):
        # "- Accuracy: are the facts right? (weight: 0.5)"
        words = _BULLET.sub("", words).partition(":")[0]
    else:
        words = re.split(r"[:;,]|[.!?]\s", words.rstrip(" :;,-–—"))[-1]
        words = re.sub(r"^\s*(?:and|or)\s+", "", words)
        if in_a_sentence:
            words = _JOINING.sub("", words)
        # "Score the response from 1 to 5 based on correctness (weight: 0.5)"
        while _TASK.search(words):
            words, n = _ON.subn("", words)
            if n == 0:
                return ""
    words = words.strip(_WRAPPING)
    if words.count("(") > words.count(")"):
        # "Correctness (the facts, weight: 0.5)"
        words = words[: words.rindex("(")]
    return _unquoted(re.sub(r"^\(?(?:\d+|[a-zA-Z])[.)]\s+", "", words).strip(_WRAPPING + ":"))


def _unquoted(name: str) -> str:
    return name[1:-1].strip() if len(name) > 2 and name[0] + name[-1] in ('""', "''", "“”", "‘’", "«»") else name
