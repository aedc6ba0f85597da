"""Pairs of a right and a wrong answer; a pair is won where the right one leads by a margin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reward_hub.bench.benchmark import Benchmark
from reward_hub.bench.items import Item, responses_item
from reward_hub.bench.rule_result import BenchResult, group, item_result
from reward_hub.bench.scored_rows import ItemRow, read_pairs


def _read(record: Mapping[str, Any]) -> Item:
    named = {"id": record["id"], "prompt": record["question"]}
    return responses_item(named, {"chosen": record["right"], "rejected": record["wrong"]})


def score(rows: Iterable[ItemRow], *, margin: float = 0.0) -> BenchResult:
    """Accuracy over pairs.

    Args:
        margin: by how much the right answer must lead.
    """
    items = tuple(
        item_result(pair.row, float(not pair.row.failed and all(c > r + margin for c, r in pair.duels)))
        for pair in read_pairs(rows)
    )
    metrics = {"overall": group(items, key="my-benchmark").metric(), "subsets": {}, "sections": {}}
    return BenchResult("my-benchmark", metrics, items)


BENCHMARK = Benchmark(
    name="my-benchmark",
    form="preference",
    read=_read,
    score=score,
    files=("answers.jsonl",),
    download="https://example.org/my-benchmark",
)
