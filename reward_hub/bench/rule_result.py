"""What a rule returns, and how accuracies of groups of items are put together with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reward_hub.bench.scored_rows import ScoredRow
from reward_hub.bench.statistics import Floats, interval, resampled_means


@dataclass(frozen=True)
class ItemResult:
    """One item's part in the metrics.

    Attributes:
        id: the row's id.
        subset: the row's subset.
        correct: 1 right, 0 wrong, a fraction where the rule gives one; None where the rule leaves the item out.
        tie: whether two scores that decide were equal.
        error: why the item failed, if it did.
    """

    id: Any
    subset: str | None
    correct: float | None
    tie: bool = False
    error: str | None = None


@dataclass(frozen=True)
class BenchResult:
    """A benchmark's metrics, ready for results.json, and each item's part in them.

    Attributes:
        rule: the name of the rule.
        metrics: `overall`, `subsets` by name and `sections` by name. Shares are fractions in [0, 1], undefined ones
            None. `ci95` is the 95 % percentile bootstrap interval, drawn within the groups that the metric combines.
        items: in the order of the rows.
        notes: what a reader of the numbers has to know about this run.
    """

    rule: str
    metrics: dict[str, Any]
    items: tuple[ItemResult, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def n_failed(self) -> int:
        return sum(item.error is not None for item in self.items)

    def to_dict(self) -> dict[str, Any]:
        """Without the items, which have a file of their own."""
        return {
            "rule": self.rule,
            "metrics": self.metrics,
            "n": len(self.items),
            "n_failed": self.n_failed,
            "notes": list(self.notes),
        }


def item_result(row: ScoredRow, correct: float | None, *, tie: bool = False) -> ItemResult:
    return ItemResult(row.id, row.subset, correct, tie, row.error)


@dataclass(frozen=True)
class Group:
    """An accuracy over items or over groups, with its bootstrap resamples, from which an interval is read."""

    accuracy: float
    samples: Floats
    n: int
    ties: int

    def metric(self, **beside: Any) -> dict[str, Any]:
        """The entry in results.json, with further values beside."""
        ci95 = interval(self.samples) if self.n else None
        return {"accuracy": self.accuracy, "ci95": ci95, "n": self.n, "ties": self.ties} | beside


def group(items: Sequence[ItemResult], *, key: str) -> Group:
    """The mean over items, each of which has a result. `key` seeds the resamples."""
    values = [item.correct for item in items if item.correct is not None]
    accuracy = math.fsum(values) / len(values)
    return Group(accuracy, resampled_means(values, key=key), len(values), sum(item.tie for item in items))


def groups_by_subset(items: Iterable[ItemResult]) -> dict[str | None, Group]:
    """One group per subset that has items with a result, in order of appearance."""
    members: dict[str | None, list[ItemResult]] = {}
    for item in items:
        if item.correct is not None:
            members.setdefault(item.subset, []).append(item)
    return {name: group(members_of_subset, key=name or "") for name, members_of_subset in members.items()}


def combined(groups: Sequence[Group], weights: Sequence[float] | None = None) -> Group:
    """The weighted mean of groups (by default all weigh the same); its resamples are drawn within each."""
    shares = np.ones(len(groups)) if weights is None else np.asarray(weights, dtype=np.float64)
    total = float(shares.sum())
    accuracy = math.fsum(w * g.accuracy for w, g in zip(shares, groups, strict=True)) / total
    samples = np.sum([w * g.samples for w, g in zip(shares, groups, strict=True)], axis=0) / total
    return Group(accuracy, samples, sum(g.n for g in groups), sum(g.ties for g in groups))


def pooled(groups: Sequence[Group]) -> Group:
    """The mean over all items of the groups; its resamples are drawn within each."""
    return combined(groups, [g.n for g in groups])


def named(groups: Mapping[str | None, Group]) -> dict[str | None, Group]:
    """The groups with a name, if there are any: items without a subset must not weigh as one among subsets."""
    return {name: found for name, found in groups.items() if name is not None} or dict(groups)


def subset_metrics(groups: Mapping[str | None, Group]) -> dict[str, Any]:
    """Entries of the named subsets; items without a subset have none."""
    return {name: group_of_subset.metric() for name, group_of_subset in groups.items() if name is not None}
