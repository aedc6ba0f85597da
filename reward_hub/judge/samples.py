"""Several judgements of one task made into one: orders turned back, samples reduced, the spread and the bias stated."""

from __future__ import annotations

import logging
import math
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from reward_hub.judge.chat.limits import Usage
from reward_hub.judge.form import JudgeTask, Mode, Reply, Verdict

logger = logging.getLogger(__name__)

# A mean preference for one place that is warned of, and from how many pairs on.
STRONG_BIAS = 0.25
WARNED_FROM = 10

Reduce: TypeAlias = Literal["mean", "median", "majority"]
Values: TypeAlias = Sequence[float]


def majority(values: Values) -> float:
    """The most frequent value; of several as frequent ones their mean."""
    return statistics.fmean(statistics.multimode(values))


REDUCES: Mapping[str, Callable[[Values], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "majority": majority,
}


@dataclass(frozen=True)
class Sample:
    """One judgement. Its verdict is in the caller's order, whichever the judge was shown."""

    verdict: Verdict
    replies: tuple[Reply, ...]
    usage: Usage
    seed: int | None
    attempts: int
    turned: bool = False

    def to_dict(self, mode: Mode) -> dict[str, Any]:
        """As it stands in details."""
        verdict = self.verdict
        single = mode in ("pointwise", "pairwise")
        shown: dict[str, Any] = {"score": verdict.scores[0]} if single else {"scores": list(verdict.scores)}
        if verdict.criteria:
            shown["attributes"] = dict(verdict.criteria)
        if verdict.score_mass is not None:
            shown["score_mass"] = verdict.score_mass
        if mode in ("pairwise", "listwise"):
            shown["order"] = "reversed" if self.turned else "given"
        shown |= {"reasoning": verdict.reasoning, "text": [reply.text for reply in self.replies]}
        return {**shown, "seed": self.seed, "attempts": self.attempts}


def reversed_task(task: JudgeTask) -> JudgeTask:
    """The same responses in reverse order."""
    return replace(task, responses=task.responses[::-1])


def turned_back(verdict: Verdict, mode: Mode) -> Verdict:
    """A verdict on reversed responses, as one on the responses in the caller's order."""
    if mode == "listwise":
        return replace(verdict, scores=verdict.scores[::-1])
    return replace(
        verdict,
        scores=tuple(1.0 - p for p in verdict.scores),
        criteria={name: 1.0 - p for name, p in verdict.criteria.items()},
    )


@dataclass(frozen=True)
class Reduced:
    """The verdict of all samples."""

    scores: tuple[float, ...]
    criteria: dict[str, float]
    spread: float | None
    """Standard deviation of the samples' (mean) scores; None for a single sample."""


def reduced(groups: Sequence[Sequence[Sample]], how: Reduce, weights: Mapping[str, float]) -> Reduced:
    """One verdict from several.

    Args:
        groups: the samples, each in all orders it was asked in; the orders of one are averaged first.
        weights: criterion -> share. Then the criteria are reduced, and make up the score.
    """
    rows = [_means([sample.verdict.scores for sample in group]) for group in groups]
    names = list(groups[0][0].verdict.criteria)
    table = [_means([[sample.verdict.criteria[name] for name in names] for sample in group]) for group in groups]
    criteria = dict(zip(names, (REDUCES[how](column) for column in zip(*table, strict=True)), strict=True))
    scores = tuple(REDUCES[how](column) for column in zip(*rows, strict=True))
    if weights:
        scores = (math.fsum(share * criteria[name] for name, share in weights.items()),)
    spread = statistics.stdev(statistics.fmean(row) for row in rows) if len(rows) > 1 else None
    return Reduced(scores, criteria, spread)


def _means(rows: Sequence[Values]) -> list[float]:
    """Column by column."""
    return [statistics.fmean(column) for column in zip(*rows, strict=True)]


@dataclass(frozen=True)
class PositionBias:
    """What the two orders of one pair, or of many, say about the judge.

    Attributes:
        pairs: pairs that were judged in both orders.
        agreement: share of them with the same verdict in both.
        bias: mean preference for the response that stands first, from -0.5 to 0.5; 0 is none.
    """

    pairs: int
    agreement: float
    bias: float

    @classmethod
    def of(cls, given: float, turned: float) -> PositionBias:
        """From the probability that a is the better one, with a first and with b first."""
        same = (given > 0.5, given < 0.5) == (turned > 0.5, turned < 0.5)
        return cls(1, float(same), (given - turned) / 2.0)

    def to_dict(self) -> dict[str, Any]:
        return {"pairs": self.pairs, "agreement": self.agreement, "bias": self.bias}


class PositionTally:
    """The position bias over all pairs so far; a strong one is warned of once.

    Args:
        judge: its name, for the warning.
    """

    def __init__(self, judge: str) -> None:
        self._judge = judge
        self._warned = False
        self._lock = threading.Lock()
        self._pairs = 0
        self._agreeing = 0.0
        self._bias = 0.0

    def add(self, one: PositionBias) -> None:
        with self._lock:
            self._pairs += one.pairs
            self._agreeing += one.agreement * one.pairs
            self._bias += one.bias * one.pairs
            bias = self._bias / self._pairs
            if self._warned or self._pairs < WARNED_FROM or abs(bias) < STRONG_BIAS:
                return
            self._warned = True
        logger.warning(
            "%s prefers the response that stands %s: over %d pairs in both orders its position bias is %+.2f (at most "
            "0.5). Its verdicts say less about the responses than about their places.",
            self._judge,
            "first" if bias > 0 else "last",
            self._pairs,
            bias,
        )

    @property
    def total(self) -> PositionBias | None:
        """None before the first pair."""
        with self._lock:
            if not self._pairs:
                return None
            return PositionBias(self._pairs, self._agreeing / self._pairs, self._bias / self._pairs)
