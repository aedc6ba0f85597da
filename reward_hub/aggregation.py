"""How step scores become one score, by name; and the result that holds them with their usual aggregates."""

from __future__ import annotations

import enum
from dataclasses import dataclass

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


@dataclass(frozen=True)
class PRMResult:
    """The step scores of one response with the usual aggregates; `score` is the one that was asked for."""

    step_scores: list[float]
    score: float

    @property
    def product(self) -> float:
        return aggregate(self.step_scores, "product")

    @property
    def min(self) -> float:
        return min(self.step_scores)

    @property
    def last(self) -> float:
        return self.step_scores[-1]


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
