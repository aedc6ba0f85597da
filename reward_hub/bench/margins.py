"""How far chosen and rejected responses lie apart, and whether the margin is an honest probability."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from reward_hub.bench.scored_rows import ItemRow, read_pairs
from reward_hub.bench.statistics import histograms, summary
from reward_hub.calibration.fitting import expected_calibration_error
from reward_hub.calibration.maps import sigmoids


def margins(rows: Iterable[ItemRow]) -> dict[str | None, list[float]]:
    """Score of every chosen response less that of every rejected one of its item, by subset.

    Rows of models that compare, and failed rows, have none.
    """
    found: dict[str | None, list[float]] = {}
    for pair in read_pairs(rows):
        if pair.duels:
            found.setdefault(pair.row.subset, []).extend(c - r for c, r in pair.duels)
    return found


def margin_summary(rows: Iterable[ItemRow]) -> dict[str, Any]:
    """`overall` and per subset: number, mean, deviation, extremes and quantiles of the margins."""
    by_subset = margins(rows)
    everything = [margin for found in by_subset.values() for margin in found]
    named = {name: summary(found) for name, found in by_subset.items() if name is not None}
    return {"overall": summary(everything), "subsets": named}


def score_distributions(rows: Iterable[ItemRow], *, n_bins: int = 40) -> dict[str, Any] | None:
    """Histograms of the scores of chosen and rejected responses over shared bins, and a summary of each.

    Returns:
        `{edges, chosen, rejected, summaries: {chosen, rejected}}`, or None where no row has scores of both sides.
    """
    pairs = list(read_pairs(rows))
    sides = {
        "chosen": [score for pair in pairs for score in pair.chosen if score is not None],
        "rejected": [score for pair in pairs for score in pair.rejected if score is not None],
    }
    if not all(sides.values()):
        return None
    return {**histograms(sides, n_bins=n_bins), "summaries": {name: summary(found) for name, found in sides.items()}}


def calibration(rows: Iterable[ItemRow], *, n_bins: int = 10) -> dict[str, Any] | None:
    """The expected calibration error of the probability that the chosen response is the better one.

    That is what a comparing model says itself, in each order; for scores it is the sigmoid of the margin, as the
    Bradley-Terry model reads them. Each probability p is taken with its counterpart 1 - p, since which response is
    named first means nothing.

    Returns:
        `{ece, read_from: "probabilities" | "margins", n, bins}`, where a bin is `{low, high, mean, share_right, n}`;
        None where there is neither.
    """
    pairs = list(read_pairs(rows))
    probabilities = [p for pair in pairs for p in pair.probabilities if p is not None]
    from_margins = np.array([c - r for pair in pairs for c, r in pair.duels], dtype=np.float64)
    p = np.array(probabilities) if probabilities else sigmoids(from_margins)
    if not len(p):
        return None
    both, outcomes = np.concatenate([p, 1.0 - p]), np.repeat([1.0, 0.0], len(p))
    places = np.minimum((both * n_bins).astype(int), n_bins - 1)
    bins = [
        {
            "low": k / n_bins,
            "high": (k + 1) / n_bins,
            "mean": float(both[places == k].mean()),
            "share_right": float(outcomes[places == k].mean()),
            "n": int((places == k).sum()),
        }
        for k in np.unique(places).tolist()
    ]
    ece = expected_calibration_error(both, outcomes, n_bins=n_bins)
    return {"ece": ece, "read_from": "probabilities" if probabilities else "margins", "n": len(p), "bins": bins}
