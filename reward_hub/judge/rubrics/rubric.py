"""Rubric: what a judge goes by, as data, and how one is read from plain words.

Rubric.parse("Score the response from 1-5 based on:\n- Correctness (weight: 0.7)\n- Clarity (weight: 0.3)")
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from reward_hub.judge.rubrics.words import criteria_in, range_in, whole_in

DEFAULT_RANGE = (1.0, 5.0)
# A scale with no more steps than this is shown to the judge, and to its grammar, number by number.
MAX_LEVELS = 101


@dataclass(frozen=True, kw_only=True)
class Rubric:
    """What a response is judged by.

    Attributes:
        instructions: the rubric in plain words; the judge reads it as it is.
        score_range: the lowest and the highest score; higher is better.
        criteria: criterion -> weight. Each gets a score of its own, and the score is their mean by these weights,
            which need not add up to 1. Empty: one score.
        descriptions: criterion -> what it means, where `instructions` does not say.
        levels: score -> what it means, likewise.
        whole: whether scores are whole numbers. None: they are, unless the range has a fraction or is at most 1 wide.
    """

    instructions: str
    score_range: tuple[float, float] = DEFAULT_RANGE
    criteria: Mapping[str, float] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[float, str] = field(default_factory=dict)
    whole: bool | None = None

    def __post_init__(self) -> None:
        low, high = (float(bound) for bound in self.score_range)
        if not self.instructions.strip():
            raise ValueError("The rubric is empty; say what is judged.")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"score_range={self.score_range!r}: a lower and a higher number are needed.")
        object.__setattr__(self, "score_range", (low, high))
        if self.whole is None:
            object.__setattr__(self, "whole", low.is_integer() and high.is_integer() and high - low > 1)
        if self.whole and not (low.is_integer() and high.is_integer()):
            raise ValueError(f"score_range={self.score_range!r}: whole scores need a range of whole numbers.")
        if any(not (math.isfinite(weight) and weight >= 0) for weight in self.criteria.values()):
            raise ValueError(f"The weights {dict(self.criteria)!r} must be finite and not negative.")
        if self.criteria and sum(self.criteria.values()) <= 0:
            raise ValueError("The weights of the criteria are all 0.")
        if len({plain_name(name) for name in self.criteria}) < len(self.criteria) or "" in map(
            plain_name, self.criteria
        ):
            raise ValueError(f"The criteria {list(self.criteria)!r} need names that differ, in more than case.")
        if unknown := sorted(set(self.descriptions) - set(self.criteria)):
            raise ValueError(f"descriptions of {', '.join(unknown)}, which is none of the criteria.")
        if outside := [level for level in self.levels if not low <= float(level) <= high]:
            raise ValueError(f"levels {outside!r} are outside of the range {low:g} to {high:g}.")

    @classmethod
    def parse(cls, text: str, *, score_range: tuple[float, float] | None = None) -> Rubric:
        """Read range and criteria from plain words ("from 1-5", "Correctness (weight: 0.5)").

        Scores are whole where the text lists them ("0, 1 or 2"), and are not where it has decimals ("0.0 to 10.0").

        Args:
            score_range: in place of the range that the text names. A text that names none is judged from 1 to 5.

        Raises:
            ValueError: the text names several ranges, or only the highest score; weights that cannot be read, or a
                list in which some criteria have one and others have none.
        """
        return cls(
            instructions=text,
            score_range=score_range or range_in(text) or DEFAULT_RANGE,
            criteria=criteria_in(text),
            whole=whole_in(text) if score_range is None else None,
        )

    @property
    def weights(self) -> dict[str, float]:
        """Criterion -> its share of the score; they add up to 1. Empty where there are no criteria."""
        total = math.fsum(self.criteria.values())
        return {name: weight / total for name, weight in self.criteria.items()}

    @property
    def scores(self) -> tuple[int, ...] | None:
        """Every score there is, where they are few enough to be listed."""
        low, high = self.score_range
        return tuple(range(int(low), int(high) + 1)) if self.whole and high - low < MAX_LEVELS else None

    @property
    def scale(self) -> str:
        """ "a whole number from 1 (worst) to 5 (best)" """
        low, high = self.score_range
        return f"a {'whole ' if self.whole else ''}number from {low:g} (worst) to {high:g} (best)"


def plain_name(name: str) -> str:
    """A criterion's name as judges may write it: case and white space make no difference."""
    return " ".join(name.casefold().split())
