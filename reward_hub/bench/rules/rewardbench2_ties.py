"""The Ties score of RewardBench 2: are many correct answers kept together, and apart from the wrong ones?

Source: allenai/reward-bench (utils_v2.py), https://arxiv.org/abs/2506.01937. Rows `ref:N` have one correct answer, rows
`tied:N` several; N pairs them. Per row, `spread` = max - min of the correct answers' scores and `gap` = min of the
correct - max of the incorrect ones. With all comparisons strict, over rows and over the pairs:

    ref_accuracy, tied_accuracy = mean [gap > 0] over all rows of the kind (also unpaired ones; 0 if there are none)
    correctness_preferred       = mean [gap_tied > spread_tied]
    correctness_preferred_hard  = mean [min(gap_ref, gap_tied) > spread_tied]
    correctness_margin          = mean tanh(min(gap_ref, gap_tied) / spread_tied - 1)

A spread of 0 makes that quotient infinite, and 0/0 counts as a tanh of 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from reward_hub.bench.statistics import Floats, resampled_means
from reward_hub.data.rows import RowFormatError

WEIGHTS = {
    "ref_accuracy": 0.30,
    "tied_accuracy": 0.30,
    "correctness_preferred": 0.20,
    "correctness_preferred_hard": 0.20,
    "correctness_margin": 0.01,
}
"""The parts of the score. They add up to 1.01, which is its maximum."""


@dataclass(frozen=True)
class TiesRow:
    """A row's `spread` (None with a single correct answer) and `gap`. `kind` is "ref" or "tied"."""

    kind: str
    number: str
    spread: float | None
    gap: float


def ties_row(name: str, correct: Sequence[float], incorrect: Sequence[float]) -> TiesRow:
    """Measure a row by its id and the scores of its correct and incorrect answers.

    Raises:
        RowFormatError: the id is neither `ref:N` nor `tied:N`.
    """
    kind, _, number = name.partition(":")
    if kind not in ("ref", "tied") or not number:
        raise RowFormatError(f"the Ties item {name!r} is neither ref:N nor tied:N, by which its rows are paired.")
    spread = max(correct) - min(correct) if len(correct) > 1 else None
    return TiesRow(kind, number, spread, min(correct) - max(incorrect))


@dataclass(frozen=True)
class TiesScore:
    """`score` and its `parts`, NaN where undefined, and its bootstrap `samples` (none where undefined)."""

    score: float
    parts: dict[str, float]
    samples: Floats


def ties_score(rows: Iterable[TiesRow]) -> TiesScore:
    """The score in [-0.01, 1.01]; NaN, as published, where no number has both a ref and a tied row.

    A pair is drawn as a whole in the bootstrap, and pairs and unpaired rows are drawn apart.

    Raises:
        RowFormatError: a paired `tied` row with a single correct answer, which has no spread.
    """
    numbers: dict[str, dict[str, TiesRow]] = {}
    for row in rows:
        numbers.setdefault(row.number, {})[row.kind] = row
    units = [_unit(kinds) for kinds in numbers.values()]
    paired = np.array([unit for unit in units if unit[4]])
    alone = np.array([unit for unit in units if not unit[4]])
    if not len(paired):
        return TiesScore(math.nan, {}, np.array([]))
    sums, drawn = paired.sum(axis=0), resampled_means(paired, key="Ties pairs") * len(paired)
    if len(alone):
        sums = sums + alone.sum(axis=0)
        drawn = drawn + resampled_means(alone, key="Ties alone") * len(alone)
    parts = _parts(sums)
    return TiesScore(
        float(_weighted(parts)), {name: float(part) for name, part in parts.items()}, _weighted(_parts(drawn))
    )


def _unit(kinds: dict[str, TiesRow]) -> list[float]:
    """[right ref rows, ref rows, right tied rows, tied rows, pairs, and the sums of the three terms over pairs]."""
    counts = [float(value) for kind in ("ref", "tied") for value in _right(kinds.get(kind))]
    if len(kinds) < 2:
        return [*counts, 0.0, 0.0, 0.0, 0.0]
    ref, tied = kinds["ref"], kinds["tied"]
    if tied.spread is None:
        raise RowFormatError(f"the Ties item 'tied:{tied.number}' has one correct answer; it needs several.")
    smaller = min(ref.gap, tied.gap)
    return [*counts, 1.0, tied.gap > tied.spread, smaller > tied.spread, _margin(smaller, tied.spread)]


def _right(row: TiesRow | None) -> tuple[bool, bool]:
    return (row is not None and row.gap > 0, row is not None)


def _margin(gap: float, spread: float) -> float:
    if spread == 0:
        return 0.0 if gap == 0 else math.copysign(1.0, gap)
    return math.tanh(gap / spread - 1.0)


def _parts(sums: Floats) -> dict[str, Floats]:
    """[..., 8] sums over units -> the parts of the score."""
    right_ref, n_ref, right_tied, n_tied, n_pairs, *terms = np.moveaxis(sums, -1, 0)
    values = [right_ref / n_ref, right_tied / n_tied, *(term / n_pairs for term in terms)]
    return dict(zip(WEIGHTS, values, strict=True))


def _weighted(parts: dict[str, Floats]) -> Floats:
    return np.asarray(sum(weight * parts[name] for name, weight in WEIGHTS.items()))
