"""Scores of unlike models on one scale, by statistics that were fitted once and never by the batch at hand."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pydantic

from reward_hub.ensemble.reduction import Floats
from reward_hub.errors import BackendError, CheckpointError

Fitted: TypeAlias = Literal["scores", "step_scores"]
"""What statistics were fitted to."""
NORMALIZATIONS = ("zscore", "minmax", "rank", "sigmoid")
NEED_STATISTICS = ("zscore", "minmax", "rank")


@dataclass(frozen=True, eq=False)
class Statistics:
    """What one model gave on the data that was fitted: all its scores, ascending. Made by `Statistics.of`."""

    scores: Floats

    @classmethod
    def of(cls, scores: Floats, *, name: str) -> Statistics:
        """Statistics of one model's scores, in any order.

        Raises:
            BackendError: fewer than two scores, or one that is not finite.
        """
        if scores.size < 2:
            raise BackendError(f"{name}: {scores.size} scores are too few to fit statistics; give at least 2.")
        if not np.isfinite(scores).all():
            raise BackendError(f"{name}: {scores[~np.isfinite(scores)][0]} is not a score to fit statistics to.")
        return cls(np.sort(scores))

    @cached_property
    def mean(self) -> float:
        return float(self.scores.mean())

    @cached_property
    def std(self) -> float:
        """Of the population, as RewardBench's offline ensembles have it."""
        return float(self.scores.std())

    @property
    def low(self) -> float:
        return float(self.scores[0])

    @property
    def high(self) -> float:
        return float(self.scores[-1])

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.scores.tobytes()).hexdigest()[:16]

    @cached_property
    def _middle_ranks(self) -> tuple[Floats, Floats]:
        """Each different score with the share of scores below it, its equals counted half."""
        different, counts = np.unique(self.scores, return_counts=True)
        return different, (np.cumsum(counts) - counts / 2) / self.scores.size

    def ranks_of(self, values: Floats) -> Floats:
        """Where values stand among the fitted scores, in [0, 1]; linear between two of them, 0 and 1 outside."""
        different, middle = self._middle_ranks
        return np.interp(values, different, middle, left=0.0, right=1.0)

    def check_spread(self, how: str | None, *, name: str) -> None:
        """Refuse a normalisation that divides by a spread which is not there.

        Raises:
            BackendError: every score is the same, or their spread is not above 0 in floating point.
        """
        if how not in ("zscore", "minmax"):
            return
        if self.low == self.high:
            raise BackendError(
                f"{name} gave {self.low:g} for all {self.scores.size} of what was fitted: {how} needs scores that "
                "differ. Fit on other conversations, or leave this member out."
            )
        with np.errstate(over="ignore"):
            spread = self.std if how == "zscore" else float(self.scores[-1] - self.scores[0])
        # Of scores beyond 1e154 the squares overflow, and all z-scores would be 0.
        if not (math.isfinite(spread) and spread > 0):
            raise BackendError(
                f"{name} gave scores from {self.low:g} to {self.high:g}, whose spread comes out as {spread:g}: {how} "
                "cannot be computed. Use normalize='rank'."
            )


def normalized(values: Floats, how: str | None, statistics: Statistics | None) -> Floats:
    """Values of one model, any shape, on the common scale.

    Args:
        how: None leaves them; "zscore" is (s - mean) / std; "minmax" is (s - min) / (max - min), beyond [0, 1] for
            what lies beyond the fitted scores; "rank" is the place among the fitted scores, in [0, 1]; "sigmoid" is
            1 / (1 + exp(-s)) of the score itself and needs no statistics.
        statistics: of the same model; None where `how` needs none.
    """
    if how is None:
        return values
    if how == "sigmoid":
        tail = np.exp(-np.abs(values))
        return np.where(values >= 0, 1.0, tail) / (1.0 + tail)
    assert statistics is not None, f"{how} is computed from fitted statistics"
    if how == "zscore":
        return (values - statistics.mean) / statistics.std
    if how == "minmax":
        return (values - statistics.low) / (statistics.high - statistics.low)
    return statistics.ranks_of(values)


class _MemberOnDisk(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    name: str
    fingerprint: str
    scores: list[float] = pydantic.Field(min_length=2)


class _StatisticsOnDisk(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    format: Literal["reward_hub ensemble statistics"]
    version: Literal[1]
    of: Fitted
    members: list[_MemberOnDisk]


def save_statistics(
    path: Path, members: Sequence[tuple[str, str]], statistics: Sequence[Statistics], *, of: Fitted
) -> None:
    """Write statistics as JSON, each with the name and the fingerprint of the model that gave the scores."""
    stored = _StatisticsOnDisk(
        format="reward_hub ensemble statistics",
        version=1,
        of=of,
        members=[
            _MemberOnDisk(name=name, fingerprint=fingerprint, scores=fitted.scores.tolist())
            for (name, fingerprint), fitted in zip(members, statistics, strict=True)
        ],
    )
    path.write_text(stored.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load_statistics(path: Path, members: Sequence[tuple[str, str]], *, of: str) -> tuple[Statistics, ...]:
    """The statistics of these members, by their fingerprints; the file may hold further ones.

    Raises:
        CheckpointError: the file is not what `save_statistics` wrote, is of another kind of score, or lacks a member.
        OSError: it cannot be read.
    """
    try:
        stored = _StatisticsOnDisk.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"])) or "the file"
        raise CheckpointError(f"{path} holds no ensemble statistics: {place}: {problem['msg']}.") from error
    if stored.of != of:
        raise CheckpointError(f"{path} holds statistics of {stored.of}; this ensemble combines {of}.")
    known = {member.fingerprint: member for member in stored.members}
    for name, fingerprint in members:
        if fingerprint not in known:
            there = ", ".join(f"{member.name} ({member.fingerprint})" for member in stored.members)
            raise CheckpointError(
                f"{path} has no statistics of {name} ({fingerprint}); it has those of {there}. Statistics hold for the "
                "weights and settings they were fitted with: call fit again."
            )
    return tuple(Statistics.of(np.array(known[fingerprint].scores), name=name) for name, fingerprint in members)
