"""Plain preference pairs: how often the chosen response scores strictly higher than the rejected one.

Overall is the mean over all items, so subsets weigh by their size. With several chosen or rejected responses an
item's result is the share of its chosen-rejected pairs that are won. A model that compares wins with a probability
above 0.5, averaged over the orders it was asked in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from reward_hub.bench.benchmark import Benchmark
from reward_hub.bench.items import preference_item
from reward_hub.bench.rule_result import BenchResult, ItemResult, groups_by_subset, item_result, pooled, subset_metrics
from reward_hub.bench.scored_rows import ItemRow, PairScores, read_pairs


def score(rows: Iterable[ItemRow], *, ties: Literal["wrong", "half"] = "wrong") -> BenchResult:
    """Accuracy over pairs, overall and per subset.

    Args:
        rows: preference rows.
        ties: what an equal score counts; "half" gives it 0.5, as a coin would.

    Raises:
        RowFormatError: no rows, or a row without the scores of both sides.
    """
    items = tuple(_item(pair, ties) for pair in read_pairs(rows))
    groups = groups_by_subset(items)
    metrics = {"overall": pooled(list(groups.values())).metric(), "subsets": subset_metrics(groups), "sections": {}}
    return BenchResult("preference", metrics, items)


def _item(pair: PairScores, ties: str) -> ItemResult:
    if pair.row.failed:
        return item_result(pair.row, 0.0)
    won, tie = pair.result()
    return item_result(pair.row, won + _half_of_ties(pair) if ties == "half" else won, tie=tie)


def _half_of_ties(pair: PairScores) -> float:
    if pair.compared:
        return 0.5 * (pair.probability == 0.5)
    return 0.5 * sum(c == r for c, r in pair.duels) / len(pair.duels)


BENCHMARK = Benchmark(name="preference", form="preference", read=preference_item, score=score)
