"""Ensembles of recorded scores: what RewardBench's offline script does, with every reduction and normalisation.

Its three modes are z-scores with "mean" (Mean), "min" (Worst) and "mean_minus_std" (Uncertainty). The statistics of a
model are those of all scores of its file, rows that other files lack included. Each response is combined by itself:
"min" takes each response's own worst model, not the worst margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from reward_hub.data.recorded import Recorded, RecordedRow, RowId
from reward_hub.data.rows import RowFormatError
from reward_hub.ensemble.normalization import Statistics, normalized
from reward_hub.ensemble.reduction import Floats, Reduction, ranks

# Means of ranks are often equal, and then their last bits are not to decide. It is a share of the scores themselves: a
# process model's products may all be below 1e-12.
_ROUNDING = 1e-14


@dataclass(frozen=True)
class Accuracy:
    """Share of pairs whose chosen response has the strictly greater score, beyond rounding: of all, and by subset."""

    overall: float
    subsets: dict[str, float]


class RecordedMember:
    """One model's file, with its weight; of a cost the sign is turned."""

    def __init__(self, recorded: Recorded, *, name: str, weight: float = 1.0, cost: bool = False) -> None:
        self.recorded = recorded
        self.name = name
        self.weight = weight
        self.sign = -1.0 if cost else 1.0
        self.statistics = Statistics.of(self.sign * recorded.scores, name=recorded.path)

    def scores_of(self, rows: Sequence[RecordedRow], normalize: str | None) -> Floats:
        """The scores of rows one after the other, on the scale of this file."""
        self.statistics.check_spread(normalize, name=self.recorded.path)
        flat = self.sign * np.array([score for row in rows for score in row.scores])
        return normalized(flat, normalize, self.statistics)


class RecordedEnsemble:
    """Several files of scores of the same rows: those of the first file, found in the others by their ids.

    Args:
        subsets: id -> subset, in place of the files' own.

    Raises:
        RowFormatError: forms or numbers of scores differ, an id is missing in a file, or files differ in a subset.
    """

    def __init__(self, members: Sequence[RecordedMember], *, subsets: dict[RowId, str] | None = None) -> None:
        self.members = tuple(members)
        first = self.members[0].recorded
        self.form = first.form
        self.ids = list(first.rows)
        self._rows = [_aligned(first, member.recorded) for member in self.members]
        self._lengths = [len(row.scores) for row in self._rows[0]]
        self._subsets = subsets
        self._scaled: dict[tuple[str | None, bool], Floats] = {}

    @cached_property
    def subsets(self) -> list[str | None]:
        """The subset of each row, where there is one."""
        if self._subsets is not None:
            missing = [id_ for id_ in self.ids if id_ not in self._subsets]
            if missing:
                raise RowFormatError(
                    f"The data have no row with the id {missing[0]!r} ({len(missing)} missing in all)."
                )
            return [self._subsets[id_] for id_ in self.ids]
        return [_common_subset(rows) for rows in zip(*self._rows, strict=True)]

    def combined(self, reduction: Reduction, normalize: str | None, places: Sequence[int] | None = None) -> Floats:
        """The scores of all rows one after the other, of all members or of those at `places`."""
        chosen = list(range(len(self.members))) if places is None else list(places)
        weights = np.array([self.members[place].weight for place in chosen])
        return reduction(self._scaled_scores(normalize, votes=reduction.name == "vote")[chosen], weights)

    def by_row(self, flat: Floats) -> list[list[float]]:
        """The scores of each row."""
        ends = np.cumsum(self._lengths)
        return [part.tolist() for part in np.split(flat, ends[:-1])]

    def accuracy(self, flat: Floats) -> Accuracy:
        """How often the chosen response of a pair wins, as a fraction.

        Raises:
            RowFormatError: the rows are not pairs.
        """
        if self.form != "pair":
            raise RowFormatError(f"The files hold {self.form!r}; pairs have an accuracy.")
        pairs = flat.reshape(-1, 2)
        won = pairs[:, 0] - pairs[:, 1] > _ROUNDING * np.abs(pairs).max(axis=1)
        named = np.array([subset or "" for subset in self.subsets])
        names = dict.fromkeys(subset for subset in self.subsets if subset is not None)
        return Accuracy(float(won.mean()), {name: float(won[named == name].mean()) for name in names})

    def _scaled_scores(self, normalize: str | None, *, votes: bool) -> Floats:
        """[n_members, n_scores]; computed once, for a sweep asks for it again and again."""
        key = (normalize, votes)
        if key not in self._scaled:
            self._scaled[key] = self._voted(normalize) if votes else self._on_scale(normalize)
        return self._scaled[key]

    def _on_scale(self, normalize: str | None) -> Floats:
        pairs = zip(self.members, self._rows, strict=True)
        return np.stack([member.scores_of(rows, normalize) for member, rows in pairs])

    def _voted(self, normalize: str | None) -> Floats:
        """Ranks among the responses of a row; of steps and of single responses among all scores of the file."""
        if self.form not in ("pair", "scores"):
            return self._on_scale("rank")
        scaled = self._scaled_scores(normalize, votes=False)
        parts = np.split(scaled, np.cumsum(self._lengths)[:-1], axis=1)
        return np.concatenate([ranks(part) for part in parts], axis=1)


def names_of(paths: Sequence[str]) -> list[str]:
    """The files' names without endings, or whole paths where two would be alike."""
    stems = [Path(path).stem.removeprefix("scores_") for path in paths]
    return stems if len(set(stems)) == len(stems) else list(paths)


def _aligned(first: Recorded, other: Recorded) -> list[RecordedRow]:
    if other.form != first.form:
        raise RowFormatError(f"{other.path} holds {other.form!r}, {first.path} holds {first.form!r}.")
    rows = other.of(first.rows)
    for row, like in zip(rows, first.rows.values(), strict=True):
        if len(row.scores) != len(like.scores):
            raise RowFormatError(
                f"{other.path}, row {row.number}: {len(row.scores)} scores; {first.path} has {len(like.scores)} for "
                f"the id {row.id!r}."
            )
    return rows


def _common_subset(rows: Sequence[RecordedRow]) -> str | None:
    subsets = {row.subset for row in rows if row.subset is not None}
    if len(subsets) > 1:
        raise RowFormatError(f"The files differ in the subset of the id {rows[0].id!r}: {', '.join(sorted(subsets))}.")
    return next(iter(subsets), None)
