"""Verdicts in the words of published judges: `parse_verdict(family, text)`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from reward_hub.judge.marks import verdict_in, yes_probability
from reward_hub.judge.published import parser_named


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
        TypeError: `token_logprobs` for a family whose verdict is not a probability, or of another form; no text.
    """
    parse = parser_named(family)
    if not isinstance(text, str):
        raise TypeError(f"text is {type(text).__name__}; the judge's reply is needed.")
    verdict = verdict_in(text, parse, family)
    if token_logprobs is None:
        return verdict
    if not isinstance(verdict, float):
        raise TypeError(f"token_logprobs has no meaning for {family}: its verdict is not a probability.")
    return _probability(verdict, token_logprobs)


def _probability(verdict: float, token_logprobs: Mapping[str, Any]) -> float:
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
    return verdict if probability is None else probability


def _is_logprob(value: Any) -> bool:
    """Rounding may carry one over 0 by a little."""
    return value is None or (not isinstance(value, bool) and isinstance(value, Real) and value <= 1e-3)
