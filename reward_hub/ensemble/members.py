"""The members of an ensemble, and what kind of ensemble they make."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reward_hub.base import BaseRM
from reward_hub.errors import UnsupportedError
from reward_hub.reward_model import label_of
from reward_hub.types import Kind


@dataclass(frozen=True, eq=False)
class Member:
    """One model of an ensemble with its weight, as given, and its place among the members."""

    rm: BaseRM
    weight: float
    place: int

    @classmethod
    def of(cls, given: Any, place: int) -> Member:
        """A member as the user gave it: a pair of model and weight, or a model, whose weight is 1.

        Raises:
            TypeError: it is neither, or the weight is not a positive finite number.
        """
        rm, weight = given if isinstance(given, (tuple, list)) and len(given) == 2 else (given, 1.0)
        if not isinstance(rm, BaseRM):
            raise TypeError(f"Member {place} is {type(rm).__name__}; give a BaseRM, or a pair of one and its weight.")
        if isinstance(weight, bool) or not isinstance(weight, numbers.Real):
            raise TypeError(f"Member {place} ({label_of(rm)}) has the weight {weight!r}; a number is needed.")
        if not 0 < (number := float(weight)) < math.inf:
            raise TypeError(f"Member {place} ({label_of(rm)}) has the weight {weight}; it must be positive and finite.")
        return cls(rm, number, place)

    @property
    def name(self) -> str:
        return label_of(self.rm)

    @property
    def sign(self) -> float:
        """A cost counts with its sign turned."""
        return 1.0 if self.rm.higher_is_better else -1.0

    @property
    def on_server(self) -> bool:
        return self.rm.capabilities.waits_elsewhere

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Between which numbers its scores lie, higher being better; None where that is not known."""
        known = self.rm.capabilities.score_range
        if known is None:
            return None
        low, high = map(float, known)
        return (low, high) if self.rm.higher_is_better else (-high, -low)


def kind_of(members: Sequence[Member]) -> Kind:
    """What an ensemble of them is: pairwise, process where each member scores steps, else outcome.

    Raises:
        UnsupportedError: some compare and some score.
    """
    n_pairwise = sum(member.rm.kind == "pairwise" for member in members)
    if 0 < n_pairwise < len(members):
        kinds = ", ".join(f"{member.name}: {member.rm.kind}" for member in members)
        raise UnsupportedError(
            f"Models that compare and models that score cannot be combined ({kinds}). Make an ensemble of each kind."
        )
    if n_pairwise:
        return "pairwise"
    return "process" if all(member.rm.capabilities.scores_steps for member in members) else "outcome"
