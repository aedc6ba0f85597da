"""Verdicts in the words of published judges: `parse_verdict(family, text)`.

Each family marks its verdict in its own way. A parser reads every verdict that stands behind such a mark, through
markdown, brackets, full-width characters and words like "the score is", and gives it if all say the same. No verdict,
one out of range and two that differ are a `JudgeParseError`; where the authors' parsers take the first of two, ours
does not choose. Thinking in closed <think> tags is removed first.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from numbers import Real
from typing import Any, TypeVar

from reward_hub.errors import JudgeParseError, UnknownModelError
from reward_hub.numerics import sigmoid

T = TypeVar("T")

# What may stand between a mark and its verdict: white space, markdown, brackets, quotes, spaced dashes, arrows, LaTeX.
# Every run is bounded, so that a reply that repeats itself to its end is still read in linear time.
_DECORATION = r"[\s*_`#:=\"'“”‘’()\[\]{}【】〔〕<|\\$→]|[-–—](?=\s)|[-=]>"
_CLOSING = r"[ \t*_`\"'“”‘’)\]}>$]{0,20}"
_BEFORE_NUMBER = rf"(?:{_DECORATION}|\b(?:the|final|overall|score|result|rating|grade|is|of|boxed)\b){{0,60}}"
_BEFORE_LETTER = (
    rf"(?:{_DECORATION}|\b(?:the|better|best|winner|winning|final|choice|answer|response|assistant|chatbot|model|option|"
    r"output|candidate|is|boxed|text)\b){0,60}"
)
_NUMBER = re.compile(rf"{_BEFORE_NUMBER}(?P<number>[-−+]?\d+(?:[.,]\d+)?)", re.IGNORECASE)
# A mere mention counts where the reply ends with it: "so the score of 3", but not "a score of 5 would need proofs".
_TO_THE_END = r"[\s*_`\"'”’)\]}】〕.!。]{0,20}\Z"
_LAST_NUMBER = re.compile(
    r"[\s*_`\"'(\[{]{0,20}(?P<number>[-−+]?\d+(?:[.,]\d+)?)"
    rf"(?=(?:\s{{0,5}}[(\[]?(?:/|out\s+of)\s{{0,5}}\d+)?{_TO_THE_END})",
    re.IGNORECASE,
)
# "4/5", "4 (out of 5)", "4 stars out of 10", "4 on a scale of 1 to 10".
_SCALE = re.compile(
    rf"{_CLOSING}(?:(?:points?|stars?)\s+)?[(\[]?(?:/|(?:out\s+)?of\b(?:\s+a\s+possible\b)?"
    r"|on\s+a\s+(?:scale\s+(?:of|from)\s+)?\d+\s*(?:-|–|to\b))\s*(?P<top>\d+(?:\.\d+)?|five\b)",
    re.IGNORECASE,
)
# "4 or 5", "3-4", "4:1", "4 5", "4th", "4%", "4+" are no score of 4, nor is "½" one of 1.
_MORE_THAN_A_NUMBER = re.compile(
    rf"[^\W_]|[%+^⁄]|{_CLOSING}(?:[-–—~/&:,]|to\b|or\b|and\b)\s*[(\[]?\d|[ \t]+\d", re.IGNORECASE
)
# "A or B" and "A/B" name what there is to choose from; a small "a" before a word is an article.
_LETTER = re.compile(
    rf"{_BEFORE_LETTER}(?!(?-i:a)[ \t]+\w)(?P<letter>[A-Za-z])(?!_{{0,2}}[^\W_]|['’]\w)"
    rf"(?!{_CLOSING}(?:/|\bor\b){_BEFORE_LETTER}[AB]\b)",
    re.IGNORECASE,
)
_LAST_LETTER = re.compile(rf"{_LETTER.pattern}(?={_TO_THE_END})", re.IGNORECASE)
# "A and B", "A = B" are no choice; nor are "A tie", "A is not better", "A is worse". "A > B" is one, of A.
_MORE_THAN_A_LETTER = re.compile(
    rf"{_CLOSING}(?:and|vs\.?|versus|[,&|=≈~<+]+){_BEFORE_LETTER}[AB]\b"
    r"|[ \t]+[AB]\b|\s+(?:tie|draw)\b"
    r"|\s+(?:(?:is|was|does|did|has)\s*)?(?:n['’]t|not\b|worse\b|weaker\b|inferior\b|loses\b|lost\b|fails\b)",
    re.IGNORECASE,
)

_RESULT = re.compile(r"[\[【〔][\s*_]{0,10}(?:final\s)?(?:result|score)\b", re.IGNORECASE)
_SCORE_COLON = re.compile(r"\b(?:score|result)\b[\s*_`\"']{0,20}[:=]", re.IGNORECASE)
_SCORE_OF = re.compile(r"\b(?:score|result)\b(?:\s{1,5}of\b)?", re.IGNORECASE)
_RESULT_LINE = re.compile(r"(?:^|\n)[ \t*_#>]{0,20}result\b|\bresult\b[\s*_`\"']{0,20}[:=]", re.IGNORECASE)
_RESPONSE = re.compile(r"[\[【〔][\s*_]{0,10}response\b", re.IGNORECASE)
_BOLD_RESULT = re.compile(r"\*\*\s{0,5}result\s{0,5}(?::\s{0,5}\*\*|\*\*\s{0,5}:|:)", re.IGNORECASE)
_DOUBLE_BRACKETS = re.compile(r"\\?\[\s{0,5}\\?\[(?P<inside>[^\[\]\n]{1,40}?)\\?\]\s{0,5}\\?\]")
_ANSWER_TAG = re.compile(r"<answer>(?P<inside>.{0,100}?)</answer>", re.IGNORECASE | re.DOTALL)
_CHOICE = re.compile(r"\bchoice\b[\s*_`\"'“”]{0,20}[:=]", re.IGNORECASE)
_YES_NO = re.compile(
    rf"(?:{_DECORATION}){{0,60}}(?P<word>yes|no)(?![^\W_])(?!\s{{0,5}}(?:/|or\b|and\b))", re.IGNORECASE
)
# The prompt of GenPRM ends in "\boxed", so that a reply may begin with the braces.
_BOX = re.compile(
    r"(?:\A\s{0,5}|box(?:ed)?\s{0,5})\{\s{0,5}(?:\\[a-z]{2,12}\s{0,5}\{)?[ *_\"'`]{0,5}(?P<word>[a-z]{1,20})"
    r"[*_\"'`.\s]{0,10}\}",
    re.IGNORECASE,
)
_IS_CORRECT = re.compile(r"is\s+the\s+solution\s+correct\s{0,5}\?", re.IGNORECASE)
_STEP_OR_BOX = re.compile(rf"(?:^|\n)[ \t*_#>-]{{0,20}}step\s{{1,5}}(?P<step>\d+)\b|{_BOX.pattern}", re.IGNORECASE)
# Characters without a width, and marks of the direction of writing.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufe0e\ufe0f\ufeff]")
_THINK_TAG = re.compile(r"<(?P<end>/?)(?:seed:)?think(?:ing)?>", re.IGNORECASE)


class _NotAVerdictError(ValueError):
    """Something stands where the verdict belongs, and is none."""


def parse_verdict(family: str, text: str, *, token_logprobs: Mapping[str, Any] | None = None) -> Any:
    """The verdict in a published judge's reply.

    Args:
        family: "prometheus-absolute", "prometheus-relative", "bracket-verdict" (Skywork-Critic), "rm-r1",
            "selene-atla" (pairwise), "selene-absolute", "selene-classification", "compass-judger",
            "compass-judger-1", "genprm", "thinkprm" or "thinkprm-steps"; the names of the forms are known too.
        token_logprobs: genprm and thinkprm: log-probabilities where the verdict stands, {"Yes": float | None,
            "No": float | None, "others": [float, ...]}.

    Returns:
        A score 1..5, "A" or "B", "Yes" or "No". genprm and thinkprm: p(Yes) / (p(Yes) + p(No)), where a missing one of
        the two is replaced by the smallest of the others; 1.0 or 0.0 without log-probabilities. thinkprm-steps: 1.0
        or 0.0 for each step that is labelled.

    Raises:
        JudgeParseError: there is no verdict, or two that differ; `.text` is the reply.
        UnknownModelError: no such family.
        TypeError: `token_logprobs` for a family whose verdict is no probability, or of another form; no text.
    """
    parser = _PARSERS.get(family)
    if parser is None:
        raise UnknownModelError(
            f"There is no verdict parser {family!r}. Known: {', '.join(sorted(_PARSERS))}.",
            near=get_close_matches(family, _PARSERS, n=3, cutoff=0.4),
        )
    if not isinstance(text, str):
        raise TypeError(f"text is {type(text).__name__}; the judge's reply is needed.")
    try:
        verdict = parser(_INVISIBLE.sub("", unicodedata.normalize("NFKC", text)))
        if token_logprobs is None:
            return verdict
        if not isinstance(verdict, float):
            raise TypeError(f"token_logprobs has no meaning for {family}: its verdict is no probability.")
        return _probability(verdict, token_logprobs)
    except _NotAVerdictError as error:
        raise JudgeParseError(f"The {family} judge's reply {error}.", text=text) from error


def without_thinking(text: str) -> str:
    """The text outside of <think> tags. Where only an end stands, the chat template had opened the thinking.

    Raises:
        JudgeParseError: the thinking has no end, so that there is no answer.
    """
    try:
        return _without_thinking(text)
    except _NotAVerdictError as error:
        raise JudgeParseError(f"The judge's reply {error}.", text=text) from error


def box_of(text: str, word: str) -> tuple[int, int] | None:
    """Where a word stands in the last box that holds it, in any case."""
    spans = [box.span("word") for box in _BOX.finditer(text) if box["word"].lower() == word]
    return spans[-1] if spans else None


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


def _probability(said: float, token_logprobs: Mapping[str, Any]) -> float:
    if not isinstance(token_logprobs, Mapping):
        raise TypeError(f"token_logprobs is {type(token_logprobs).__name__}; {{'Yes': ..., 'No': ...}} is needed.")
    unknown = sorted(set(map(str, token_logprobs)) - {"Yes", "No", "others"})
    if unknown:
        raise TypeError(f"token_logprobs has {', '.join(map(repr, unknown))}; known: 'Yes', 'No', 'others'.")
    yes, no, others = token_logprobs.get("Yes"), token_logprobs.get("No"), token_logprobs.get("others")
    listed = others is None or (isinstance(others, Iterable) and not isinstance(others, (str, Mapping)))
    rest = list(others) if listed and others is not None else []
    if not listed or not all(map(_is_logprob, (yes, no, *rest))):
        raise TypeError(
            f"token_logprobs={dict(token_logprobs)!r}: 'Yes' and 'No' are log-probabilities (0 at most) or None, "
            "'others' is a list of them."
        )
    probability = yes_probability(yes, no, [value for value in rest if value is not None])
    return said if probability is None else probability


def _is_logprob(value: Any) -> bool:
    """Rounding may carry one over 0 by a little."""
    return value is None or (not isinstance(value, bool) and isinstance(value, Real) and value <= 1e-3)


def _without_thinking(text: str) -> str:
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
        raise _NotAVerdictError("ends while it is thinking, so there is no verdict")
    return "".join(kept) + text[position:]


def _agreed(verdicts: Sequence[T]) -> T:
    """The one verdict that all of them are."""
    if not verdicts:
        raise _NotAVerdictError("holds no verdict")
    if any(verdict != verdicts[0] for verdict in verdicts):
        raise _NotAVerdictError("holds verdicts that differ")
    return verdicts[0]


def _behind(
    marks: Sequence[tuple[re.Pattern[str], re.Pattern[str]]], text: str, value: Callable[[re.Match[str]], T]
) -> T:
    """The verdict behind the marks of the first kind that one follows; a mark that none follows is talk."""
    for mark, what in marks:
        found = [match for place in mark.finditer(text) if (match := what.match(text, place.end())) is not None]
        if found:
            return _agreed([value(match) for match in found])
    raise _NotAVerdictError("holds no verdict")


def _whole_score(match: re.Match[str]) -> int:
    """A whole number from 1 to 5, alone or as a part of 5."""
    said, end = match["number"], match.end()
    scale = _SCALE.match(match.string, end)
    if scale is not None:
        if scale["top"].lower() not in ("5", "5.0", "five"):
            raise _NotAVerdictError(f"scores {said}{scale[0]}, which is another scale than 1 to 5")
        end = scale.end()
    more = _MORE_THAN_A_NUMBER.match(match.string, end) is not None
    if more or "," in said or not float(said.replace("−", "-")).is_integer():
        raise _NotAVerdictError(f"says {match.string[match.start('number') : end + 10]!r}, which is no whole score")
    score = int(float(said.replace("−", "-")))
    if not 1 <= score <= 5:
        raise _NotAVerdictError(f"scores {said}, which is not between 1 and 5")
    return score


def _a_or_b(match: re.Match[str]) -> str:
    """The letter of one of the two responses."""
    letter, end = match["letter"], match.end()
    if letter.upper() not in ("A", "B"):
        raise _NotAVerdictError(f"chooses {letter}, which is neither A nor B")
    if _MORE_THAN_A_LETTER.match(match.string, end) is not None:
        raise _NotAVerdictError(f"says {match.string[end - 1 : end + 20]!r}, which chooses neither A nor B")
    return letter.upper()


def _prometheus_absolute(text: str) -> int:
    marks = ((_RESULT, _NUMBER), (_SCORE_COLON, _NUMBER), (_SCORE_OF, _LAST_NUMBER))
    return _behind(marks, _without_thinking(text), _whole_score)


def _prometheus_relative(text: str) -> str:
    return _behind(
        ((_RESULT, _LETTER), (_RESULT_LINE, _LETTER), (_RESPONSE, _LAST_LETTER)), _without_thinking(text), _a_or_b
    )


def _brackets(text: str) -> str:
    """[[A]] or [[B]]; what else stands in double brackets is a verdict too if it is a letter or a tie."""
    return _agreed(list(_letters_in_brackets(_without_thinking(text))))


def _letters_in_brackets(text: str) -> Iterator[str]:
    for brackets in _DOUBLE_BRACKETS.finditer(text):
        inside = brackets["inside"].strip(" *_`\\")
        letter = _LETTER.fullmatch(inside)
        if letter is not None:
            yield _a_or_b(letter)
        elif inside.lower() in ("tie", "draw", "both", "neither"):
            raise _NotAVerdictError(f"chooses {inside}, which is neither A nor B")


def _rm_r1(text: str) -> str:
    """<answer>[[A]]</answer>; both letters in double brackets are an error wherever they stand, as in the authors'."""
    answer = _without_thinking(text)
    tagged = [tag["inside"].strip(" \n*_`[]\\") for tag in _ANSWER_TAG.finditer(answer)]
    letters = [_a_or_b(match) for inside in tagged if (match := _LETTER.fullmatch(inside)) is not None]
    return _agreed([*letters, *_letters_in_brackets(answer)])


def _selene_pairwise(text: str) -> str:
    return _behind(((_BOLD_RESULT, _LETTER),), _without_thinking(text), _a_or_b)


def _selene_absolute(text: str) -> int:
    return _behind(((_BOLD_RESULT, _NUMBER),), _without_thinking(text), _whole_score)


def _selene_classification(text: str) -> str:
    return _behind(((_BOLD_RESULT, _YES_NO),), _without_thinking(text), lambda match: match["word"].capitalize())


def _compass_judger(text: str) -> str:
    return _behind(((_CHOICE, _LETTER),), _without_thinking(text), _a_or_b)


def _compass_judger_1(text: str) -> str:
    """The letter is the whole reply."""
    letter = re.fullmatch(
        rf"{_BEFORE_LETTER}(?P<letter>[ABab])[\s.*_`\"'”’)\]]*", _without_thinking(text), re.IGNORECASE
    )
    return _agreed([] if letter is None else [letter["letter"].upper()])


def _genprm(text: str) -> float:
    boxes = (box["word"].lower() for box in _BOX.finditer(_without_thinking(text)))
    return 1.0 if _agreed([word for word in boxes if word in ("yes", "no")]) == "yes" else 0.0


def _thinkprm(text: str) -> float:
    """The chain itself is the model's thinking, so that no tags are looked at."""
    return _behind(((_IS_CORRECT, _YES_NO),), text, lambda match: 1.0 if match["word"].lower() == "yes" else 0.0)


def _thinkprm_steps(text: str) -> tuple[float, ...]:
    """One label a step; several boxes of one step must agree."""
    labels: dict[int, list[str]] = {}
    current = 0
    for found in _STEP_OR_BOX.finditer(text):
        if found["step"]:
            current = int(found["step"])
        elif (word := found["word"].lower()) in ("correct", "incorrect"):
            labels.setdefault(current, []).append(word)
    if 0 in labels and len(labels) == 1:
        # No step is named: the boxes stand in the order of the steps.
        labels = {number: [label] for number, label in enumerate(labels[0], start=1)}
    if not labels or sorted(labels) != list(range(1, len(labels) + 1)):
        raise _NotAVerdictError(f"labels the steps {sorted(labels)}, not each from the first on")
    return tuple(1.0 if _agreed(labels[number]) == "correct" else 0.0 for number in sorted(labels))


_PARSERS: dict[str, Callable[[str], Any]] = {
    "prometheus-absolute": _prometheus_absolute,
    "prometheus-relative": _prometheus_relative,
    "bracket-verdict": _brackets,
    "skywork-critic": _brackets,
    "rm-r1": _rm_r1,
    "rm-r1-distilled": _rm_r1,
    "selene-atla": _selene_pairwise,
    "selene-pairwise": _selene_pairwise,
    "selene-absolute": _selene_absolute,
    "selene-classification": _selene_classification,
    "compass-judger": _compass_judger,
    "compass-judger-1": _compass_judger_1,
    "genprm": _genprm,
    "genprm-simple": _genprm,
    "thinkprm": _thinkprm,
    "thinkprm-steps": _thinkprm_steps,
}
