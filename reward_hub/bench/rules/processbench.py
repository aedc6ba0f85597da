"""ProcessBench: is the first wrong step found, and are right solutions left alone? F1 of the two accuracies.

Source: QwenLM/ProcessBench (code/run_eval.py), https://arxiv.org/abs/2412.06559. The prediction is the first step with
a score below the threshold, -1 if there is none (a score equal to the threshold passes). It is right if it equals the
label exactly. `error_accuracy` is over solutions with a wrong step, `correct_accuracy` over those without; F1 is their
harmonic mean per subset, and the overall F1 the plain mean of the subsets' F1. Departs from the source: F1 of two
accuracies of 0 is 0 instead of NaN, a subset without solutions of one kind is refused, and a critic's box may have
braces inside: `\\boxed{\\text{-1}}` is -1.

The threshold of 0.5 is Qwen's for probabilities. For unbounded scores the paper takes the one with the best F1 on gsm8k
for all subsets: `best_threshold`.

Data: https://huggingface.co/datasets/Qwen/ProcessBench, 3,400 solutions with the first wrong step, in four splits
(gsm8k, math, olympiadbench, omnimath), which the ids begin with; each is a subset.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_hub.bench.benchmark import Benchmark
from reward_hub.bench.data import HubData
from reward_hub.bench.items import Item, process_item
from reward_hub.bench.rule_result import BenchResult, Group, combined, group, item_result
from reward_hub.bench.scored_rows import ItemRow, ScoredRow, read
from reward_hub.bench.statistics import Floats, interval
from reward_hub.data.rows import RowFormatError
from reward_hub.errors import InvalidConversationError

SPLITS = ("gsm8k", "math", "olympiadbench", "omnimath")
THRESHOLD = 0.5
NO_ERROR = -1

# A box that opens, a character that is not to be counted, a brace.
_BRACES = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
# `\text{-1}`, `{-1}` or `$-1$`.
_WRAPPED = re.compile(r"(?:\\[A-Za-z]+\s*)?\{(.*)\}|\$(.*)\$", re.DOTALL)


def prediction(step_scores: Sequence[float], *, threshold: float = THRESHOLD) -> int:
    """The index of the first step with a score below the threshold, -1 if there is none."""
    return next((i for i, score in enumerate(step_scores) if score < threshold), NO_ERROR)


def f1(error_accuracy: float, correct_accuracy: float) -> float:
    """The harmonic mean of the two accuracies; 0 where both are 0."""
    total = error_accuracy + correct_accuracy
    return 2 * error_accuracy * correct_accuracy / total if total else 0.0


def parse_critic(text: str) -> int | None:
    """The paragraph named in the last `\\boxed{}` of a critic's reply; None without one or if it is not an integer."""
    return _integer(_last_box(text))


def vote(texts: Sequence[str]) -> int | None:
    """The most frequent content of the replies' last boxes, the first seen of equally frequent ones, as an integer.

    Replies without a box do not vote; what is not an integer does, and if it wins there is no prediction.
    """
    boxes = [box for box in map(_last_box, texts) if box is not None]
    return _integer(Counter(boxes).most_common(1)[0][0]) if boxes else None


def best_threshold(rows: Iterable[ItemRow]) -> float:
    """The threshold with the best F1 on rows with step scores (those of gsm8k in the paper), the lowest of several.

    Failed rows have no part. The candidates are the step scores, each of which then passes just so, and infinity.

    Raises:
        RowFormatError: no solution with an error, or none without.
    """
    # A row is right for the thresholds in (low, high]: above the score at its label, and not above any before it.
    bounds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    candidates = {math.inf}
    for row in read(rows):
        label = label_of(row)
        if row.failed or label is None:
            continue
        scores = row.numbers("steps")
        if label == NO_ERROR:
            low, before = -math.inf, scores
        else:
            # A label beyond the scores (a truncated solution) is right for no threshold.
            low, before = scores[label] if label < len(scores) else math.inf, scores[:label]
        bounds[label != NO_ERROR].append((low, min(before, default=math.inf)))
        candidates.update(scores)
    _both_kinds(len(bounds[True]), len(bounds[False]), None)
    thresholds = np.array(sorted(candidates))
    accuracies = [_right_at(thresholds, np.array(bounds[wrong])) for wrong in (True, False)]
    return float(thresholds[int(np.argmax(_f1s(*accuracies)))])


def _right_at(thresholds: Floats, bounds: Floats) -> Floats:
    """[n_thresholds] share of rows whose interval (low, high] holds the threshold."""
    low, high = bounds[bounds[:, 0] < bounds[:, 1]].T
    opened = np.searchsorted(np.sort(low), thresholds, side="left")
    closed = np.searchsorted(np.sort(high), thresholds, side="left")
    return np.asarray((opened - closed) / len(bounds), dtype=np.float64)


def score(rows: Iterable[ItemRow], *, threshold: float = THRESHOLD, allow_one_sided: bool = False) -> BenchResult:
    """F1, error accuracy and correct accuracy, per subset and overall.

    Args:
        rows: step rows, with `label` (first wrong step from 0, -1 for none) or `error_steps` (from 1). A critic's row
            holds `{"scores": {"prediction": [index, -1 or None]}}` instead of step scores; None is wrong.
        threshold: a step with a score below it is wrong.
        allow_one_sided: where a subset has no solutions of one kind, give None for what is undefined instead of
            refusing; the overall values are then None too where they are undefined in one subset.

    Returns:
        A failed row is wrong; one whose label is unknown has no part and is counted in `n_failed`.

    Raises:
        RowFormatError: no rows, a row without step scores or label, or solutions of one kind alone.
    """
    read_rows = read(rows, may_miss=("prediction",))
    items = tuple(item_result(row, _correct(row, threshold)) for row in read_rows)
    sides: dict[str | None, dict[bool, list[Any]]] = {}
    for row, item in zip(read_rows, items, strict=True):
        if item.correct is not None:
            sides.setdefault(row.subset, {True: [], False: []})[label_of(row) != NO_ERROR].append(item)
    subsets = {name: _Subset.of(name, side[True], side[False], allow_one_sided) for name, side in sides.items()}
    if not subsets:
        raise RowFormatError("every item failed and none has a label; there is nothing to compute a metric of.")
    metrics = {
        "overall": _overall(list(subsets.values())) | {"threshold": threshold},
        "subsets": {name: subset.metric() for name, subset in subsets.items() if name is not None},
        "sections": {},
    }
    unknown = sum(item.correct is None for item in items)
    notes = (f"{unknown} failed items have no label and no part in the accuracies.",) if unknown else ()
    return BenchResult("processbench", metrics, items, notes)


def label_of(row: ScoredRow) -> int | None:
    """The first wrong step from 0, -1 for none; None for a failed row that does not say.

    Raises:
        RowFormatError: a scored row with neither `label` nor `error_steps`.
    """
    label, error_steps = row.row.get("label"), row.row.get("error_steps")
    if label is not None:
        return int(label)
    if error_steps is not None:
        return min(error_steps) - 1 if error_steps else NO_ERROR
    if row.failed:
        return None
    raise RowFormatError(f"item {row.id!r} has neither 'label' nor 'error_steps'.")


def _correct(row: ScoredRow, threshold: float) -> float | None:
    label = label_of(row)
    if row.failed:
        return None if label is None else 0.0
    if "prediction" in row.scores:
        return float(row.values("prediction")[0] == label)
    return float(prediction(row.numbers("steps"), threshold=threshold) == label)


@dataclass(frozen=True)
class _Subset:
    """The accuracies of both kinds of solutions; None for a kind that is not there."""

    error: Group | None
    correct: Group | None

    @classmethod
    def of(cls, name: str | None, error: list[Any], correct: list[Any], allow_one_sided: bool) -> _Subset:
        if not allow_one_sided:
            _both_kinds(len(error), len(correct), name)
        return cls(
            group(error, key=f"{name} error") if error else None,
            group(correct, key=f"{name} correct") if correct else None,
        )

    @property
    def f1_samples(self) -> Floats | None:
        if self.error is None or self.correct is None:
            return None
        return _f1s(self.error.samples, self.correct.samples)

    def metric(self) -> dict[str, Any]:
        return _overall([self])


def _overall(subsets: Sequence[_Subset]) -> dict[str, Any]:
    """Plain means over subsets; those of one subset are its own values."""
    errors = [subset.error for subset in subsets if subset.error is not None]
    corrects = [subset.correct for subset in subsets if subset.correct is not None]
    f1_samples = [subset.f1_samples for subset in subsets if subset.f1_samples is not None]
    whole = len(f1_samples) == len(subsets)
    scores = [f1(s.error.accuracy, s.correct.accuracy) for s in subsets if s.error and s.correct]
    n_error, n_correct = sum(found.n for found in errors), sum(found.n for found in corrects)
    return {
        "f1": math.fsum(scores) / len(scores) if whole else None,
        "ci95": interval(np.mean(f1_samples, axis=0)) if whole else None,
        "error_accuracy": combined(errors).accuracy if len(errors) == len(subsets) else None,
        "correct_accuracy": combined(corrects).accuracy if len(corrects) == len(subsets) else None,
        "n": n_error + n_correct,
        "n_error": n_error,
        "n_correct": n_correct,
    }


def _f1s(error: Floats, correct: Floats) -> Floats:
    total = error + correct
    return np.asarray(2 * error * correct / np.where(total == 0, 1.0, total), dtype=np.float64)


def _both_kinds(n_error: int, n_correct: int, subset: str | None) -> None:
    if not n_error or not n_correct:
        where = "" if subset is None else f" of subset {subset!r}"
        raise RowFormatError(
            f"F1 needs solutions with an error and solutions without; the items{where} have {n_error} and {n_correct}."
        )


def _last_box(text: str) -> str | None:
    """What stands in the box that ends last, without what sets it in other letters."""
    box = None
    opened: list[tuple[int, bool]] = []
    for found in _BRACES.finditer(text):
        if found[0].endswith("{") and found[0] != r"\{":
            opened.append((found.end(), found[0] != "{"))
        elif found[0] == "}" and opened:
            start, is_box = opened.pop()
            box = text[start : found.start()] if is_box else box
    return None if box is None else _unwrapped(box.strip())


def _unwrapped(text: str) -> str:
    while wrapped := _WRAPPED.fullmatch(text):
        text = (wrapped[1] if wrapped[1] is not None else wrapped[2]).strip()
    return text


def _integer(box: str | None) -> int | None:
    return int(box) if box is not None and re.fullmatch(r"[+-]?\d+", box) else None


def _read(record: dict[str, Any]) -> Item:
    if "label" not in record:
        raise InvalidConversationError("the row has no 'label', the first wrong step.", field="label")
    split = str(record["id"]).rpartition("-")[0]
    subset = record.get("subset", split if split in SPLITS else None)
    return process_item({**record, "subset": subset})


BENCHMARK = Benchmark(
    name="processbench",
    form="process",
    read=_read,
    score=score,
    hub=tuple(HubData("Qwen/ProcessBench", split=split) for split in SPLITS),
    files=("*.json", "*.jsonl", "*.parquet"),
    download="https://huggingface.co/datasets/Qwen/ProcessBench (gsm8k.json, math.json, ...)",
    # They may be wrong solutions alone.
    options_for_part={"allow_one_sided": True},
)
