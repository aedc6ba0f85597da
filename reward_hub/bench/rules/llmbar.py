"""LLMBar: accuracy of an evaluator that sees every pair in both orders, per set and averaged over the sets.

Source: princeton-nlp/LLMBar (LLMEvaluator/evaluate.py), https://arxiv.org/abs/2310.07641. A comparing judge's accuracy
is (right in order 1 + right in order 2) / 2; an order without a verdict is wrong. Where responses are scored alone
(ratings, reward models) the higher score wins and equal scores are half right. The adversarial average is the plain
mean of the four adversarial sets, overall the plain mean of all five.

Data: 419 pairs in five sets. The hub holds a loading script alone, so they are read from the repository's JSON files:
`Dataset/LLMBar/Natural/dataset.json` and `Dataset/LLMBar/Adversarial/{Neighbor,GPTInst,GPTOut,Manual}/dataset.json`.
The sets have the names that they have as subsets of RewardBench; those of the case study keep theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, TypeAlias

from reward_hub.bench.benchmark import Benchmark
from reward_hub.bench.items import Item, responses_item
from reward_hub.bench.rule_result import (
    BenchResult,
    Group,
    ItemResult,
    combined,
    groups_by_subset,
    item_result,
    pooled,
    subset_metrics,
)
from reward_hub.bench.scored_rows import ItemRow, PairScores, read_pairs
from reward_hub.errors import InvalidConversationError

SUBSETS = {
    "Natural": "llmbar-natural",
    "Neighbor": "llmbar-adver-neighbor",
    "GPTInst": "llmbar-adver-GPTInst",
    "GPTOut": "llmbar-adver-GPTOut",
    "Manual": "llmbar-adver-manual",
}

NATURAL = "natural"
ADVERSARIAL = ("neighbor", "gptinst", "gptout", "manual")

Judge: TypeAlias = Literal["comparison", "rating"]


def score(rows: Iterable[ItemRow], *, judge: Judge | None = None) -> BenchResult:
    """Accuracy per set, of the natural and the adversarial sets, and overall.

    Comparisons with two orders also report, overall and per set, `both_orders_correct` and `agreement` (both orders
    prefer the same response, or neither has a verdict).

    Args:
        rows: preference rows with the set in `subset` (`Natural`, `llmbar-adver-GPTOut`, ...).
        judge: "rating": a missing rating (None) or a failed row is half right, as published. By default, and for
            "comparison", a failed row is wrong.

    Raises:
        RowFormatError: no rows, or a row without the scores of both sides.
    """
    pairs = read_pairs(rows, may_miss_ratings=judge == "rating")
    items = tuple(_item(pair, judge) for pair in pairs)
    groups = groups_by_subset(items)
    sections = {"natural": [n for n in groups if set_of(n) == NATURAL]}
    sections["adversarial"] = [n for n in groups if set_of(n) in ADVERSARIAL]
    published = [name for names in sections.values() for name in names]
    # Sets outside of the five (the case study, the user's own) are averaged where there are no others.
    overall = combined([groups[name] for name in published or groups])
    per_set = {name: [pair for pair in pairs if pair.row.subset == name] for name in groups}
    averaged = [pair for name in published or groups for pair in per_set[name]]
    subsets = subset_metrics(groups)
    metrics = {
        "overall": overall.metric(micro_accuracy=_micro(groups, published), **_orders(averaged)),
        "subsets": {name: entry | _orders(per_set[name]) for name, entry in subsets.items()},
        "sections": {name: combined([groups[n] for n in names]).metric() for name, names in sections.items() if names},
    }
    return BenchResult("llmbar", metrics, items, _notes(groups, published))


def set_of(subset: str | None) -> str:
    """The set's short name in lower case: `llmbar-adver-GPTOut` and `GPTOut` are `gptout`."""
    return (subset or "").lower().removeprefix("llmbar-").removeprefix("adver-")


def rating_result(chosen: float | None, rejected: float | None) -> float:
    """1, 0, or 0.5 where the ratings are equal or one is missing."""
    if chosen is None or rejected is None or chosen == rejected:
        return 0.5
    return float(chosen > rejected)


def parse_rating(text: str) -> int | None:
    """The rating of a reply that is an integer and nothing else; None otherwise."""
    return int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text) else None


def _item(pair: PairScores, judge: Judge | None) -> ItemResult:
    if pair.row.failed:
        return item_result(pair.row, 0.5 if judge == "rating" else 0.0)
    if pair.compared:
        right = [p is not None and p > 0.5 for p in pair.probabilities]
        return item_result(pair.row, sum(right) / len(right), tie=0.5 in pair.probabilities)
    results = [rating_result(c, r) for c in pair.chosen for r in pair.rejected]
    return item_result(pair.row, sum(results) / len(results), tie=any(c == r for c, r in pair.duels))


def _micro(groups: Mapping[str | None, Group], published: list[str | None]) -> float:
    return pooled([groups[name] for name in published or groups]).accuracy


def _orders(pairs: Sequence[PairScores]) -> dict[str, Any]:
    """Shares over the pairs asked in two orders, failed ones among them; nothing where there are none."""
    both_orders = [pair.probabilities for pair in pairs if len(pair.probabilities) == 2]
    if not both_orders:
        return {}
    # A pair that failed as a whole has no verdict in either order.
    both_orders += [(None, None) for pair in pairs if pair.row.failed]
    winners = [[_winner(p) for p in probabilities] for probabilities in both_orders]
    return {
        "both_orders_correct": sum(a == b == 1 for a, b in winners) / len(winners),
        "agreement": sum(a == b for a, b in winners) / len(winners),
    }


def _winner(probability: float | None) -> int:
    """1 for the chosen response, -1 for the rejected one, 0 without a verdict."""
    return 0 if probability is None else (probability > 0.5) - (probability < 0.5)


def _notes(groups: Mapping[str | None, Group], published: list[str | None]) -> tuple[str, ...]:
    notes = []
    absent = sorted({NATURAL, *ADVERSARIAL} - {set_of(name) for name in groups})
    if absent:
        notes.append(f"The overall score is the mean of the sets present; absent: {', '.join(absent)}.")
    outside = [name or "items without a subset" for name in groups if name not in published]
    if published and outside:
        notes.append(f"Not in the overall score: {', '.join(outside)}.")
    return tuple(notes)


def _read(record: dict[str, Any]) -> Item:
    folder = PurePosixPath(record.get("file", "")).parent.name or None
    subset = record.get("subset", None if folder is None else SUBSETS.get(folder, folder))
    name = record["id"] if subset is None or "file" not in record else f"{subset}-{record['id']}"
    if "chosen" in record and "rejected" in record:
        pair = {"chosen": record["chosen"], "rejected": record["rejected"]}
        return responses_item({**record, "id": name, "subset": subset}, pair)
    label = record.get("label")
    if label not in (1, 2):
        raise InvalidConversationError(f"'label' is {label!r}; 1 or 2, the better output, is read.", field="label")
    pair = {"chosen": record.get(f"output_{label}"), "rejected": record.get(f"output_{3 - label}")}
    return responses_item({"id": name, "subset": subset, "prompt": record.get("input")}, pair)


BENCHMARK = Benchmark(
    name="llmbar",
    form="preference",
    read=_read,
    score=score,
    files=("dataset.json",),
    download="the folder Dataset/LLMBar of https://github.com/princeton-nlp/LLMBar",
    options_for_judge=lambda judge: {"judge": judge},
)
