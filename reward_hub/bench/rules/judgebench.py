"""JudgeBench: share of pairs judged right, in one game or in two with the responses exchanged.

Source: ScalerLab/JudgeBench (utils/metrics.py, utils/judges.py), https://arxiv.org/abs/2410.12784. Overall is over all
pairs (micro); papers that average the four categories report another figure, which stands beside it.

One game: the decision is `A>B` if s(A) > s(B) and otherwise `B>A`, so that a tie is right wherever the label is `B>A`.
Two games: each verdict votes +1 for the label and -1 against it; `A=B`, no verdict, a failed call and any other text
have no vote. The pair is right if the sum is positive; two votes that cancel, or none, are a tie and score nothing.

Data: https://huggingface.co/datasets/ScalerLab/JudgeBench, pairs of responses by one model, one right and one wrong:
350 by GPT-4o (split `gpt`, scored unless `--split claude` is said), 270 by Claude 3.5 Sonnet (`claude`). The subset is
the category that the beginning of `source` stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

from reward_hub.bench.benchmark import Benchmark
from reward_hub.bench.data import HubData
from reward_hub.bench.items import Item, preference_item, responses_item
from reward_hub.bench.rule_result import (
    BenchResult,
    ItemResult,
    combined,
    groups_by_subset,
    named,
    pooled,
    subset_metrics,
)
from reward_hub.bench.scored_rows import ItemRow, ScoredRow, pair_of, read
from reward_hub.data.rows import RowFormatError
from reward_hub.errors import InvalidConversationError

CATEGORIES = {
    "mmlu-pro": "knowledge",
    "livebench-reasoning": "reasoning",
    "livebench-math": "math",
    "livecodebench": "coding",
}
"""The category of each prefix of `source`."""

Outcome: TypeAlias = Literal["correct", "incorrect", "tie"]

_VERDICT = re.compile(r"\[\[([AB<>=]+)\]\]")
_TURNED = {"A>B": "B>A", "B>A": "A>B"}


def category_of(source: str) -> str:
    """The category of a pair's `source` (`mmlu-pro-law` is knowledge); a source of no known prefix is its own."""
    return next((category for prefix, category in CATEGORIES.items() if source.startswith(prefix)), source)


def parse_verdict(text: str) -> str | None:
    """The one label that a judge's reply holds in double brackets, with `>>` read as `>`.

    None where there is no label or where there are two different ones (`[[A>>B]]` and `[[A>B]]` differ). Without any
    label the published runs ask once more and then read both replies together.
    """
    labels = set(_VERDICT.findall(text))
    return labels.pop().replace(">>", ">") if len(labels) == 1 else None


def two_games(label: str, game1: str | None, game2: str | None) -> Outcome:
    """The outcome of a pair from both games' verdicts as the judge gave them, game 2 with the responses exchanged.

    Args:
        label: `A>B` or `B>A`.
        game1: the verdict; None without one or where the call failed.
        game2: the same for the second game.
    """
    return _outcome([_vote(label, game1), _vote(label, _turned(game2))])


def single_game(label: str, score_a: float, score_b: float) -> bool:
    """Whether the decision from two scores is right; equal scores decide `B>A`."""
    return ("A>B" if score_a > score_b else "B>A") == label


def score(rows: Iterable[ItemRow]) -> BenchResult:
    """Share of right pairs, overall and per category.

    Args:
        rows: preference rows with the source or category in `subset`. With `label`, the published order of the two
            responses, a tie of scores counts as published; without it a tie is wrong. Probabilities are games: one of
            above 0.5 is a verdict for the chosen response, 0.5 and None no vote. Recorded verdicts stand as
            `{"scores": {"verdicts": [game 1, game 2]}, "label": ...}`.

    Raises:
        RowFormatError: no rows, a row without such scores, or a label other than `A>B` and `B>A`.
    """
    items = tuple(_item(row) for row in read(rows, may_miss=("probabilities", "verdicts")))
    groups = groups_by_subset(items)
    overall = pooled(list(groups.values()))
    macro = combined(list(named(groups).values())).accuracy
    metrics = {
        "overall": overall.metric(macro_accuracy=macro),
        "subsets": subset_metrics(groups),
        "sections": {},
    }
    notes = ("Ties count as right where the label is B>A, as published.",) if _ties_won(items) else ()
    return BenchResult("judgebench", metrics, items, notes)


def _ties_won(items: Iterable[ItemResult]) -> bool:
    return any(item.tie and item.correct for item in items)


def _item(row: ScoredRow) -> ItemResult:
    correct, tie = (0.0, False) if row.failed else _outcome_of(row)
    category = None if row.subset is None else category_of(row.subset)
    return ItemResult(row.id, category, correct, tie, row.error)


def _outcome_of(row: ScoredRow) -> tuple[float, bool]:
    """(right or wrong, tie) of a row that did not fail."""
    if "verdicts" in row.scores:
        outcome = two_games(_label(row), *_two(row.scores["verdicts"], row))
        return float(outcome == "correct"), outcome == "tie"
    pair = pair_of(row)
    if pair.compared:
        outcome = _outcome([0 if p is None else (p > 0.5) - (p < 0.5) for p in pair.probabilities])
        return float(outcome == "correct"), outcome == "tie"
    won, tie = pair.result()
    if tie and row.row.get("label") is not None:
        return float(_label(row) == "B>A"), tie
    return won, tie


def _label(row: ScoredRow) -> str:
    label = row.row.get("label")
    if label not in _TURNED:
        raise RowFormatError(f"item {row.id!r} has the label {label!r}; known are {' and '.join(_TURNED)}.")
    return str(label)


def _two(verdicts: Sequence[str | None], row: ScoredRow) -> Sequence[str | None]:
    if len(verdicts) != 2:
        raise RowFormatError(f"item {row.id!r} has {len(verdicts)} verdicts; two games have two.")
    return verdicts


def _turned(verdict: str | None) -> str | None:
    return None if verdict is None else _TURNED.get(verdict.replace(">>", ">"), verdict)


def _vote(label: str, verdict: str | None) -> int:
    plain = None if verdict is None else verdict.replace(">>", ">")
    return (plain == label) - (plain == _TURNED[label])


def _outcome(votes: Sequence[int]) -> Outcome:
    total = sum(votes)
    return "correct" if total > 0 else "incorrect" if total < 0 else "tie"


def _read(record: dict[str, Any]) -> Item:
    subset = record.get("subset")
    if subset is None:
        subset = category_of(str(record["source"])) if "source" in record else None
    named = {**record, "id": record.get("pair_id", record["id"]), "subset": subset}
    if "chosen" in record and "rejected" in record:
        return preference_item(named)
    label = record.get("label")
    if label not in _TURNED:
        raise InvalidConversationError(f"'label' is {label!r}; {' or '.join(_TURNED)} is read.", field="label")
    better, worse = ("response_A", "response_B") if label == "A>B" else ("response_B", "response_A")
    # By the label the rule knows the order that was published, on which what a tie counts depends.
    return responses_item(named, {"chosen": record.get(better), "rejected": record.get(worse)}, {"label": label})


BENCHMARK = Benchmark(
    name="judgebench",
    form="preference",
    read=_read,
    score=score,
    hub=(HubData("ScalerLab/JudgeBench", split="gpt"),),
    files=("*gpt*.jsonl", "*gpt*.parquet"),
    download="https://huggingface.co/datasets/ScalerLab/JudgeBench (the file of the GPT-4o pairs)",
)
