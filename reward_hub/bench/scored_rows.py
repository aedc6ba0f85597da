"""Reading scored rows: what a rule needs of a row, checked; a failed row is told from a malformed one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from reward_hub.data.rows import RowFormatError
from reward_hub.numerics import is_finite

ItemRow: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class ScoredRow:
    """One row. Either it has `scores`, or `error` says why there are none."""

    id: Any
    subset: str | None
    scores: Mapping[str, Any]
    error: str | None
    row: ItemRow

    @property
    def failed(self) -> bool:
        return self.error is not None

    def values(self, name: str) -> tuple[float | None, ...]:
        """The scores of that name, at least one; None where the rule lets one be missing.

        Raises:
            RowFormatError: there are none of that name.
        """
        numbers = self.scores.get(name)
        if not _is_list(numbers) or not numbers:
            raise RowFormatError(f"item {self.id!r} has no scores {name!r}; it has {', '.join(self.scores) or 'none'}.")
        return tuple(None if value is None else float(value) for value in numbers)

    def numbers(self, name: str) -> tuple[float, ...]:
        """As `values`, where none may be missing."""
        return tuple(value for value in self.values(name) if value is not None)


def read(rows: Iterable[ItemRow], *, may_miss: Sequence[str] = ()) -> list[ScoredRow]:
    """Check rows and tell failed ones: those with an error, and those with a score that is not a finite number.

    Args:
        rows: rows as they stand in items.jsonl, at least one.
        may_miss: names of scores in which None is a result (a judge without a verdict) and not a failure.

    Raises:
        RowFormatError: no rows, a row without an id, or one with neither scores nor an error.
    """
    scored = [_read(row, may_miss) for row in rows]
    if not scored:
        raise RowFormatError("there are no items to compute a metric of.")
    return scored


def _read(row: ItemRow, may_miss: Sequence[str]) -> ScoredRow:
    if "id" not in row:
        raise RowFormatError(f"a scored item has no id: {str(dict(row))[:80]}.")
    subset = None if row.get("subset") is None else str(row["subset"])
    error, scores = row.get("error"), row.get("scores")
    if error is None:
        if not isinstance(scores, Mapping):
            raise RowFormatError(f"item {row['id']!r} has neither 'scores' nor an 'error'.")
        error = _fault(scores, may_miss)
    if error is not None:
        return ScoredRow(row["id"], subset, {}, _told(error), row)
    return ScoredRow(row["id"], subset, scores or {}, None, row)


def _told(error: Any) -> str:
    """An error as text: as it is, or `{"type": ..., "message": ...}`."""
    return f"{error['type']}: {error['message']}" if isinstance(error, Mapping) else str(error)


def _fault(scores: Mapping[str, Any], may_miss: Sequence[str]) -> str | None:
    """Why scores are not a result: the first of them that is missing or not finite."""
    for name, values in scores.items():
        for i, value in enumerate(values if _is_list(values) else ()):
            if value is None and name not in may_miss:
                return f"score {name}[{i}] is missing"
            if isinstance(value, (int, float)) and not is_finite(value):
                return f"score {name}[{i}] is {value if isinstance(value, float) else 'too large'}"
    return None


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


@dataclass(frozen=True)
class PairScores:
    """What a preference row says: scores of both sides, or a comparing model's probabilities per order."""

    row: ScoredRow
    chosen: tuple[float | None, ...] = ()
    rejected: tuple[float | None, ...] = ()
    probabilities: tuple[float | None, ...] = ()

    @property
    def compared(self) -> bool:
        return bool(self.probabilities)

    @property
    def probability(self) -> float | None:
        """That the chosen response is better: the mean over the orders that gave a verdict; None if none did."""
        known = [p for p in self.probabilities if p is not None]
        return math.fsum(known) / len(known) if known else None

    @property
    def duels(self) -> list[tuple[float, float]]:
        """Scores of every chosen response against every rejected one, where both have one."""
        return [(c, r) for c in self.chosen for r in self.rejected if c is not None and r is not None]

    def result(self) -> tuple[float, bool]:
        """(share of the duels won with a strictly greater score, whether any was equal)."""
        if self.compared:
            p = self.probability
            return float(p is not None and p > 0.5), p == 0.5
        return math.fsum(c > r for c, r in self.duels) / len(self.duels), any(c == r for c, r in self.duels)


def read_pairs(rows: Iterable[ItemRow], *, may_miss_ratings: bool = False) -> list[PairScores]:
    """Preference rows. Ratings may be None where `may_miss_ratings`; probabilities always may.

    Raises:
        RowFormatError: a row holds neither both sides' scores nor probabilities in [0, 1].
    """
    may_miss = ("probabilities", "chosen", "rejected") if may_miss_ratings else ("probabilities",)
    return [pair_of(row) for row in read(rows, may_miss=may_miss)]


def pair_of(row: ScoredRow) -> PairScores:
    """The pair of one preference row; without scores where the row failed."""
    if row.failed:
        return PairScores(row)
    if "probabilities" not in row.scores:
        return PairScores(row, row.values("chosen"), row.values("rejected"))
    probabilities = row.values("probabilities")
    if any(p is not None and not 0 <= p <= 1 for p in probabilities):
        raise RowFormatError(f"item {row.id!r} has probabilities {list(probabilities)}; they must lie in [0, 1].")
    return PairScores(row, probabilities=probabilities)
