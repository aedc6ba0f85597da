"""How step scores become one score, by name; and the result that holds them with their usual aggregates."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from reward_hub.errors import UnsupportedError
from reward_hub.numerics import AGGREGATIONS, aggregate


class AggregationMethod(enum.Enum):
    """How step scores become one score; the names of reward_hub 0.1 and those added since."""

    PRODUCT = "product"
    MIN = "min"
    LAST = "last"
    MODEL = "model"
    MEAN = "mean"
    GEOMETRIC_MEAN = "geometric_mean"
    MAX = "max"
    SUM = "sum"

    @classmethod
    def _missing_(cls, value: object) -> AggregationMethod | None:
        return cls.PRODUCT if value == "prod" else None


@dataclass(frozen=True, init=False)
class PRMResult:
    """The step scores of one response with the usual aggregates; `score` is the one that was asked for.

    Args:
        step_scores: one score a step; `scores` in reward_hub 0.1.
        score: the score, or how it is made of the steps: an aggregation, as in reward_hub 0.1.
        aggregation_method: as `score`; "last" where neither is given, as in reward_hub 0.1.

    Raises:
        TypeError: a score is not a number, or something is given twice or not at all.
        ValueError: a score is not finite, there is no step to aggregate, or "model" is asked of several steps.
        UnsupportedError: there is no such aggregation.
    """

    step_scores: list[float]
    score: float

    def __init__(
        self,
        step_scores: Sequence[float] | None = None,
        score: float | str | AggregationMethod | None = None,
        *,
        scores: Sequence[float] | None = None,
        aggregation_method: str | AggregationMethod | None = None,
    ) -> None:
        given = step_scores if scores is None else scores
        if given is None or (step_scores is not None and scores is not None):
            raise TypeError("PRMResult takes the step scores once: as step_scores, or as scores.")
        if score is not None and aggregation_method is not None:
            raise TypeError("PRMResult takes the score or the aggregation that makes it, not both.")
        steps = [_checked(step) for step in given]
        how = score if score is not None else aggregation_method or AggregationMethod.LAST
        if isinstance(how, (str, AggregationMethod)):
            name = aggregation_name(how)
            if not steps or (name == "model" and len(steps) > 1):
                raise ValueError(f"PRMResult cannot aggregate {len(steps)} step scores by {name!r}.")
            how = aggregate(steps, name)
        object.__setattr__(self, "step_scores", steps)
        object.__setattr__(self, "score", _checked(how))

    @property
    def product(self) -> float:
        return aggregate(self.step_scores, "product")

    @property
    def min(self) -> float:
        return min(self.step_scores)

    @property
    def last(self) -> float:
        return self.step_scores[-1]


def _checked(score: Any) -> float:
    if isinstance(score, bool) or not isinstance(score, Real):
        raise TypeError(f"{score!r} is not a number; PRMResult holds scores.")
    if not math.isfinite(score):
        raise ValueError(f"{score!r} is not finite; PRMResult holds scores.")
    return float(score)


def aggregation_name(how: str | AggregationMethod) -> str:
    """The canonical name of an aggregation ("prod" is "product").

    Raises:
        UnsupportedError: there is no such aggregation.
    """
    if isinstance(how, AggregationMethod):
        return str(how.value)
    try:
        return str(AggregationMethod(how).value)
    except ValueError as error:
        raise UnsupportedError(f"Unknown aggregation {how!r}; known: {', '.join(AGGREGATIONS)}.") from error
