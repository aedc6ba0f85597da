"""The members of an ensemble: who they are, what kind of ensemble they make, where they run, how far scores reach."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reward_hub.base import BaseRM
from reward_hub.errors import UnsupportedError
from reward_hub.types import Kind
from reward_hub.wrapper_rm import WrapperRM


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
            TypeError: it is neither, or the weight is no positive finite number.
        """
        rm, weight = given if isinstance(given, (tuple, list)) and len(given) == 2 else (given, 1.0)
        if not isinstance(rm, BaseRM):
            raise TypeError(f"Member {place} is {type(rm).__name__}; give a BaseRM, or a pair of one and its weight.")
        if isinstance(weight, bool) or not isinstance(weight, numbers.Real):
            raise TypeError(f"Member {place} ({rm._label()}) has the weight {weight!r}; a number is needed.")
        if not 0 < (number := float(weight)) < math.inf:
            raise TypeError(f"Member {place} ({rm._label()}) has the weight {weight}; it must be positive and finite.")
        return cls(rm, number, place)

    @property
    def name(self) -> str:
        return self.rm._label()

    @property
    def sign(self) -> float:
        """A cost counts with its sign turned."""
        return 1.0 if self.rm.higher_is_better else -1.0

    @property
    def on_server(self) -> bool:
        return asks_a_server(self.rm)

    @property
    def gives_steps(self) -> bool:
        """Whether it scores each step."""
        return self.rm.kind == "process" and gives_steps(self.rm)


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
    return "process" if all(member.gives_steps for member in members) else "outcome"


def gives_steps(rm: BaseRM) -> bool:
    """Whether a process model scores each step; one of a user's may override `score` or the like alone."""
    from reward_hub.models.remote_rm import RemoteRM

    if isinstance(rm, WrapperRM):
        return gives_steps(rm.rm)
    if isinstance(rm, RemoteRM):
        return rm.info.splits_steps
    if "score_steps" in rm._own:
        return True
    return "score" not in rm._own and bool({"_score_many", "_ascore_many"} & rm._own)


def asks_a_server(rm: BaseRM) -> bool:
    """Whether a model waits for another process more than it computes; a wrapper does what its model does."""
    members = getattr(rm, "members", None)
    if isinstance(members, tuple):
        return all(asks_a_server(member) for member, _ in members)
    for inner in (getattr(rm, "rm", None), getattr(rm, "_rm", None)):
        if isinstance(inner, BaseRM):
            return asks_a_server(inner)
    engine = getattr(getattr(getattr(rm, "model", None), "backend", None), "info", None)
    if engine is not None:
        return bool(engine.name == "api")
    return bool({"_ascore_many", "ascore"} & rm._own)


def is_calibrated(rm: BaseRM) -> bool:
    """Whether its `compare` is another one than that of its scores."""
    from reward_hub.calibration.calibrated_rm import CalibratedRM

    return isinstance(rm, CalibratedRM) or (isinstance(rm, WrapperRM) and is_calibrated(rm.rm))


def score_range_of(rm: BaseRM) -> tuple[float, float] | None:
    """Between which numbers a model's scores lie, higher being better; None where that is not known."""
    low_high = _declared_range(rm)
    if low_high is None:
        return None
    low, high = low_high
    return (low, high) if rm.higher_is_better else (-high, -low)


def _declared_range(rm: BaseRM) -> tuple[float, float] | None:
    from reward_hub.registry import families

    # An ensemble says it itself; for a loaded model its family does, for a judge its form.
    for owner in (rm, getattr(rm, "model", None), getattr(rm, "form", None)):
        declared: Any = getattr(owner, "score_range", None)
        if isinstance(declared, tuple) and len(declared) == 2:
            return float(declared[0]), float(declared[1])
    return next((family.score_range for family in families() if family.name == rm.family), None)
