"""Statistics of an evaluation: bootstrap intervals, comparison of two runs, correlation, calibration, summaries.

Every function is deterministic: resampling is seeded, and values are sorted before, so that neither the order of the
items nor which other subsets are there moves an interval.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

N_RESAMPLES = 2000
SEED = 0

# How many drawn indices are held at once: 4 million of 8 bytes.
_DRAWN_AT_ONCE = 4_000_000
_QUANTILES = (("p05", 0.05), ("p25", 0.25), ("median", 0.5), ("p75", 0.75), ("p95", 0.95))


def resampled_means(
    values: npt.ArrayLike, *, key: str = "", n_resamples: int = N_RESAMPLES, seed: int = SEED
) -> Floats:
    """Means of bootstrap resamples (as many items as there are, drawn with replacement).

    Args:
        values: [n] or [n, k]; the k values of one item are drawn together. At least one item.
        key: what the values are (the name of a subset); it enters the seed, so that subsets are drawn independently.
        n_resamples: how often all items are drawn anew.
        seed: the same seed and key give the same resamples.

    Returns:
        [n_resamples] or [n_resamples, k].
    """
    table = np.asarray(values, dtype=np.float64)
    columns = table[:, None] if table.ndim == 1 else table
    columns = columns[np.lexsort(columns.T[::-1])]
    n = len(columns)
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    means = np.empty((n_resamples, columns.shape[1]))
    step = max(1, _DRAWN_AT_ONCE // n)
    for start in range(0, n_resamples, step):
        rows = min(step, n_resamples - start)
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        times_drawn = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        means[start : start + rows] = times_drawn @ columns / n
    return means[:, 0] if table.ndim == 1 else means


def interval(samples: npt.ArrayLike, *, level: float = 0.95) -> list[float]:
    """The percentile interval of bootstrap samples, as [low, high]."""
    tail = (1.0 - level) / 2
    low, high = np.quantile(np.asarray(samples, dtype=np.float64), [tail, 1.0 - tail])
    return [float(low), float(high)]


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test: `first_only` and `second_only` items are right in one run alone; `p_value` two-sided."""

    both: int
    first_only: int
    second_only: int
    neither: int
    p_value: float


def mcnemar(first: Sequence[float], second: Sequence[float]) -> McNemar:
    """Compare two runs item by item, where each item is right (1) or wrong (0).

    The p-value is the exact two-sided binomial one over the items on which the runs disagree; 1 if they never do.

    Raises:
        ValueError: lists of unlike length, or an item that is neither 0 nor 1; fractions need `paired_bootstrap`.
    """
    a, b = _paired(first, second)
    if not np.isin(np.concatenate([a, b]), (0.0, 1.0)).all():
        raise ValueError("McNemar's test needs items that are right (1) or wrong (0); use paired_bootstrap for others.")
    first_only, second_only = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    return McNemar(
        both=int(((a == 1) & (b == 1)).sum()),
        first_only=first_only,
        second_only=second_only,
        neither=int(((a == 0) & (b == 0)).sum()),
        p_value=_two_sided_binomial(first_only, first_only + second_only),
    )


def _two_sided_binomial(successes: int, n: int) -> float:
    """P-value of `successes` of `n` fair coin tosses; in logarithms, so that any n fits."""
    fewer = min(successes, n - successes)
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2.0 * math.fsum(math.exp(log - n * math.log(2.0)) for log in logs))


@dataclass(frozen=True)
class PairedDifference:
    """Second run's mean minus the first's, its 95 % interval, and a two-sided bootstrap p-value."""

    difference: float
    ci95: list[float]
    p_value: float
    n: int


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    *,
    strata: Sequence[Any] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> PairedDifference:
    """Bootstrap the difference of two runs' means, drawing items (both runs' results of one item together).

    Args:
        first: results of the first run, one number an item (fractions allowed).
        second: results of the second run for the same items.
        strata: a group per item; items are drawn within their group. By default all are one group.
        n_resamples: how often all items are drawn anew.
        seed: the same seed gives the same resamples.

    Returns:
        The p-value is twice the smaller share of resampled differences on either side of 0, counting those at 0 on
        both and the observed difference as one more resample; at most 1.

    Raises:
        ValueError: lists of unlike length, or no items.
    """
    a, b = _paired(first, second)
    differences = b - a
    groups = np.zeros(len(a), dtype=object) if strata is None else np.array([str(s) for s in strata], dtype=object)
    if len(groups) != len(a):
        raise ValueError(f"{len(groups)} strata for {len(a)} items; give one each.")
    samples = np.zeros(n_resamples)
    for name in sorted(set(groups), key=str):
        chosen = differences[groups == name]
        drawn = resampled_means(chosen, key=str(name), n_resamples=n_resamples, seed=seed)
        samples += drawn * (len(chosen) / len(a))
    # Sums of equal fractions in another order differ in the last bits; what is 0 must count as 0.
    samples[np.abs(samples) < 1e-12] = 0.0
    smaller = min(int((samples <= 0).sum()), int((samples >= 0).sum()))
    p_value = min(1.0, 2.0 * (smaller + 1) / (n_resamples + 1))
    return PairedDifference(float(differences.mean()), interval(samples), p_value, len(a))


def _paired(first: Sequence[float], second: Sequence[float]) -> tuple[Floats, Floats]:
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"A paired comparison needs two lists of one length, got {len(first)} and {len(second)} items."
        )
    return np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)


@dataclass(frozen=True)
class RunComparison:
    """Two runs over the same items. `mcnemar` is None where results are fractions."""

    n: int
    first_accuracy: float
    second_accuracy: float
    difference: PairedDifference
    mcnemar: McNemar | None


def compare_runs(
    first: Iterable[Mapping[str, Any]], second: Iterable[Mapping[str, Any]], *, shared_only: bool = False
) -> RunComparison:
    """Compare two runs by their items, each with `id`, `subset` and `correct`; drawn within subsets.

    Args:
        first: the items of one run, as they stand in items.jsonl; those with `correct` None have no part in it.
        second: the items of the other run.
        shared_only: compare the items that both hold, where they do not hold the same ones.

    Raises:
        ValueError: an item twice in a run, items that only one run holds, or none in both.
    """
    a, b = _by_item(first), _by_item(second)
    alone = a.keys() ^ b.keys()
    if alone and not shared_only:
        subset, name = min(alone, key=str)
        raise ValueError(
            f"{len(alone)} items are in one run alone, for example {name!r} of subset {subset!r}; "
            "compare runs over the same data, or the shared items alone (shared_only=True)."
        )
    shared = sorted(a.keys() & b.keys(), key=str)
    left, right = [a[item] for item in shared], [b[item] for item in shared]
    difference = paired_bootstrap(left, right, strata=[subset for subset, _ in shared])
    binary = all(value in (0, 1) for value in (*left, *right))
    n = len(shared)
    exact = mcnemar(left, right) if binary else None
    return RunComparison(n, math.fsum(left) / n, math.fsum(right) / n, difference, exact)


def _by_item(items: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, Any], float]:
    correct_of: dict[tuple[Any, Any], float] = {}
    for item in items:
        if item.get("correct") is None:
            continue
        key = (item.get("subset"), item["id"])
        if key in correct_of:
            raise ValueError(f"Item {key[1]!r} of subset {key[0]!r} stands twice in a run; ids must be unique.")
        correct_of[key] = float(item["correct"])
    return correct_of


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson's correlation in [-1, 1]; None where it is undefined (fewer than two points, or a constant side)."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(a) != len(b):
        raise ValueError(f"A correlation needs two lists of one length, got {len(a)} and {len(b)}.")
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    # Scaled first, so that sums and squares neither overflow nor vanish.
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    a, b = (a - a.mean()) / np.ptp(a), (b - b.mean()) / np.ptp(b)
    return float(np.clip((a @ b) / math.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation in [-1, 1], equal values sharing their mean rank; None where it is undefined."""
    return pearson(_ranks(x).tolist(), _ranks(y).tolist())


def _ranks(values: Sequence[float]) -> Floats:
    """Ranks from 1; equal values get the mean of the ranks they take up."""
    _, where, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[where.reshape(-1)], dtype=np.float64)


def summary(values: Sequence[float]) -> dict[str, float | int]:
    """Number, mean, standard deviation (population), extremes and quantiles of values; `{"n": 0}` for none."""
    table = np.asarray(values, dtype=np.float64)
    if not len(table):
        return {"n": 0}
    # Scaled, so that sums and squares do not overflow; by a power of two, so that nothing is rounded by it.
    scale = math.ldexp(1.0, math.frexp(np.abs(table).max())[1] - 1)
    scaled = table / scale
    moments = {"mean": scaled.mean() * scale, "std": scaled.std() * scale, "min": table.min(), "max": table.max()}
    quantiles = {name: np.quantile(table, share) for name, share in _QUANTILES}
    return {"n": len(table), **{name: float(value) for name, value in (moments | quantiles).items()}}


def histograms(groups: Mapping[str, Sequence[float]], *, n_bins: int = 40) -> dict[str, list[float] | list[int]]:
    """Counts of each group's values in bins shared by all groups: `edges` [n_bins + 1] and a list per group.

    The bins span all values; the last one holds its upper edge. A single value gets bins around it.
    """
    tables = {name: np.asarray(values, dtype=np.float64) for name, values in groups.items()}
    everything = np.concatenate(list(tables.values()))
    low, high = float(everything.min()), float(everything.max())
    # Values too close for edges between them stand in the middle of wider bins.
    least = 2 * n_bins * float(np.spacing(max(abs(low), abs(high))))
    if high - low < least:
        low, high = low - max(0.5, least), high + max(0.5, least)
    edges = np.linspace(low, high, n_bins + 1)
    counted = {name: np.histogram(table, bins=edges)[0].tolist() for name, table in tables.items()}
    return {"edges": edges.tolist(), **counted}
