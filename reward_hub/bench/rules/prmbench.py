"""PRMBench: are the wrong steps of a solution told from the right ones? PRM-Score, the mean of F1 over both.

Source: ssmisya/PRMBench (mr_eval/tasks/prmtest_classified/task.py), https://arxiv.org/abs/2501.03124. A step is
labelled valid if its score is strictly greater than the threshold; "positive" means a right step. Every ratio is -1
where its denominator is 0, and -1 enters the next formula as it is. The PRM-Score is 0.5 F1 + 0.5 F1 of the wrong
steps, at least 0; for multi_solutions, which has no wrong steps, it is F1 alone. Overall counts are pooled over all
classes but `correct`, the original solutions, which serve as partners in the similarity alone.

Data: https://huggingface.co/datasets/hitsmy/PRMBench_Preview, 6,216 solutions in nine classes with their wrong steps.
As the published code has it, an item's id is `{classification}_{idx}`, of a repeated one the first row counts, and each
row of class redundency (sic) also gives an item of class `correct`: its original solution.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_hub.bench.benchmark import Benchmark
from reward_hub.bench.data import HubData
from reward_hub.bench.items import Item, process_item
from reward_hub.bench.rule_result import BenchResult, item_result
from reward_hub.bench.scored_rows import ItemRow, ScoredRow, read
from reward_hub.bench.statistics import N_RESAMPLES, Floats, interval, resampled_means
from reward_hub.data.rows import Row, RowFormatError
from reward_hub.errors import InvalidConversationError

SECTIONS: dict[str, tuple[str, ...]] = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
"""The classes of each reported section, the plain mean of their PRM-Scores ("redundency" is their spelling)."""

CORRECT = "correct"
WITH_ORIGINALS = "redundency"
BY_REDUNDANCY = ("redundency", "circular")
WITHOUT_ERRORS = "multi_solutions"

THRESHOLD = 0.5
REDUNDANCY_THRESHOLD = 0.15
UNDEFINED = -1.0

_STEP_METRICS = ("correct_step_acc", "wrong_step_acc", "total_step_acc")


def valid_labels(scores: Sequence[float], *, threshold: float = THRESHOLD, differences: bool = False) -> list[bool]:
    """A label per step: whether its score is strictly greater than the threshold.

    Args:
        scores: step scores, at least one.
        threshold: 0.5 for probabilities; the source has 0 for Pure-PRM, MATH-Minos and critics, -0.05 for Skywork-o1.
        differences: judge the first score and then each score's difference to the one before, as for Skywork-o1.
    """
    judged = [scores[0], *(b - a for a, b in itertools.pairwise(scores))] if differences else scores
    return [score > threshold for score in judged]


@dataclass(frozen=True)
class StepCounts:
    """The labels of one item held against its error steps, or those of several items added up.

    `tp` right steps labelled valid, `fp` wrong ones labelled valid, `tn` wrong and `fn` right ones labelled invalid.
    `first_error` is whether the earliest wrong step is labelled invalid, None where no wrong step has a label.
    """

    tp: int
    fp: int
    tn: int
    fn: int
    first_error: bool | None

    @property
    def valid_share(self) -> float:
        return (self.tp + self.fp) / (self.tp + self.fp + self.tn + self.fn)


def step_counts(labels: Sequence[bool], error_steps: Sequence[int]) -> StepCounts:
    """Hold labels (True for valid) against error steps, counted from 1; those beyond the last label are ignored."""
    wrong = {step - 1 for step in error_steps} & set(range(len(labels)))
    fp = sum(bool(labels[i]) for i in wrong)
    tp = sum(map(bool, labels)) - fp
    first_error = None if not wrong or min(error_steps) - 1 not in wrong else not labels[min(wrong)]
    return StepCounts(tp, fp, len(wrong) - fp, len(labels) - len(wrong) - tp, first_error)


def score(
    rows: Iterable[ItemRow],
    *,
    threshold: float = THRESHOLD,
    differences: bool = False,
    redundancy_threshold: float = REDUNDANCY_THRESHOLD,
) -> BenchResult:
    """PRM-Scores overall, per class (as subsets) and per section, and the other published metrics.

    `similarity` is the mean of |share of valid labels in an item - share in its partner `correct_{idx}`|; low means
    that the model does not tell them apart. As published a partner whose share is exactly 0 is skipped. An item's
    result is the share of its steps that are labelled right.

    Args:
        rows: step rows with ids `{classification}_{idx}`, their `classification` (the subset, where there is none) and
            `error_steps`, and scores `steps`, or labels themselves as `{"labels": [...]}`. In the classes redundency
            and circular scores `redundancy`, or `redundancy_labels`, are read instead: not redundant is valid.
        threshold: see `valid_labels`.
        differences: see `valid_labels`.
        redundancy_threshold: a step is redundant if its redundancy score is strictly greater.

    Returns:
        Undefined metrics are -1, as published. Failed rows, and those with `validity` false, are left out of every
        metric and show in `validity_rate`.

    Raises:
        RowFormatError: no rows, no scored row outside of `correct`, or a row without step scores.
    """
    read_rows = read(rows)
    classes = [_class_of(row) for row in read_rows]
    counts: list[StepCounts | None] = []
    for row, name in zip(read_rows, classes, strict=True):
        labels = _labels(row, name, threshold, differences, redundancy_threshold)
        counts.append(None if labels is None else step_counts(labels, row.row.get("error_steps") or ()))
    similarity = _similarities(read_rows, classes, counts)
    scored = list(zip(classes, counts, similarity, strict=True))
    names = dict.fromkeys(classes)
    by_class = {n: _Class.of(n, [(c, s) for name, c, s in scored if name == n and c is not None]) for n in names}
    rated = [members for name, members in by_class.items() if name != CORRECT]
    if not any(members.n for members in rated):
        raise RowFormatError("no item of any class but 'correct' is scored; there is nothing to compute a metric of.")
    overall = _Class.pooled(rated).metric(with_errors=True)
    n_rated = sum(name != CORRECT for name in classes)
    metrics = {
        "overall": overall | {"validity_rate": sum(m.n for m in rated) / n_rated, "threshold": threshold},
        "subsets": {
            name: members.metric(with_errors=name != WITHOUT_ERRORS) for name, members in by_class.items() if name
        },
        "sections": {
            name: _section(by_class, members) for name, members in SECTIONS.items() if set(members) & set(by_class)
        },
    }
    items = tuple(item_result(row, _share_right(c)) for row, c in zip(read_rows, counts, strict=True))
    return BenchResult("prmbench", metrics, items, _notes(by_class))


def _class_of(row: ScoredRow) -> str:
    name = row.row.get("classification") or row.subset
    return "" if name is None else str(name)


def _labels(
    row: ScoredRow, name: str, threshold: float, differences: bool, redundancy_threshold: float
) -> Sequence[bool] | None:
    if row.failed or row.row.get("validity") is False:
        return None
    if name in BY_REDUNDANCY and "redundancy_labels" in row.scores:
        return [not redundant for redundant in row.scores["redundancy_labels"]]
    if name in BY_REDUNDANCY and "redundancy" in row.scores:
        return [value <= redundancy_threshold for value in row.numbers("redundancy")]
    if "labels" in row.scores:
        return [bool(label) for label in row.numbers("labels")]
    return valid_labels(row.numbers("steps"), threshold=threshold, differences=differences)


def _similarities(
    rows: Sequence[ScoredRow], classes: Sequence[str], counts: Sequence[StepCounts | None]
) -> list[float | None]:
    """Per item the distance of its share of valid labels to its partner's; None without one, and for `correct`."""
    partners = {
        str(row.id): count.valid_share
        for row, name, count in zip(rows, classes, counts, strict=True)
        if name == CORRECT and count is not None
    }
    similarities: list[float | None] = []
    for row, name, count in zip(rows, classes, counts, strict=True):
        share = partners.get(f"{CORRECT}_{str(row.id).removeprefix(f'{name}_')}")
        # As published a share of 0 is taken for none.
        similarities.append(abs(count.valid_share - share) if count is not None and name != CORRECT and share else None)
    return similarities


@dataclass(frozen=True)
class _Class:
    """Items of a class: counts [n, 4] (tp, fp, tn, fn), resampled sums of them, and what is averaged over items."""

    counts: Floats
    samples: Floats
    first_errors: list[bool]
    similarities: list[float]

    @classmethod
    def of(cls, name: str, members: Sequence[tuple[StepCounts, float | None]]) -> _Class:
        table = np.array([(c.tp, c.fp, c.tn, c.fn) for c, _ in members], dtype=np.float64).reshape(-1, 4)
        samples = resampled_means(table, key=name) * len(table) if len(table) else np.zeros((N_RESAMPLES, 4))
        first_errors = [c.first_error for c, _ in members if c.first_error is not None]
        return cls(table, samples, first_errors, [s for _, s in members if s is not None])

    @classmethod
    def pooled(cls, classes: Sequence[_Class]) -> _Class:
        return cls(
            np.concatenate([members.counts for members in classes]),
            np.sum([members.samples for members in classes], axis=0),
            [value for members in classes for value in members.first_errors],
            [value for members in classes for value in members.similarities],
        )

    @property
    def n(self) -> int:
        return len(self.counts)

    def metric(self, *, with_errors: bool) -> dict[str, Any]:
        totals = self.counts.sum(axis=0)
        ratios = {name: float(value) for name, value in _ratios(totals).items()}
        return {
            "prm_score": float(_prm_score(totals, with_errors)),
            "ci95": interval(_prm_score(self.samples, with_errors)) if self.n else None,
            "n": self.n,
            **ratios,
            "first_error_acc": _mean(self.first_errors),
            "similarity": _mean(self.similarities),
        }


def _ratios(counts: Floats) -> dict[str, Floats]:
    """[..., 4] counts -> the published ratios by name, [...] each."""
    tp, fp, tn, fn = np.moveaxis(counts, -1, 0)
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    negative_precision, negative_recall = _ratio(tn, tn + fn), _ratio(tn, tn + fp)
    return {
        "correct_step_acc": recall,
        "wrong_step_acc": negative_recall,
        "total_step_acc": _ratio(tp + tn, tp + fp + tn + fn),
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * precision * recall, precision + recall),
        "negative_precision": negative_precision,
        "negative_recall": negative_recall,
        "negative_f1": _ratio(2 * negative_precision * negative_recall, negative_precision + negative_recall),
    }


def _prm_score(counts: Floats, with_errors: bool) -> Floats:
    ratios = _ratios(counts)
    score = 0.5 * ratios["f1"] + 0.5 * ratios["negative_f1"] if with_errors else ratios["f1"]
    return np.maximum(score, 0.0)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, -1 where the denominator is 0. Adding 0 turns a quotient of -0 into 0."""
    defined = denominator != 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), UNDEFINED) + 0.0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else UNDEFINED


def _share_right(counts: StepCounts | None) -> float | None:
    if counts is None:
        return None
    return (counts.tp + counts.tn) / (counts.tp + counts.fp + counts.tn + counts.fn)


def _section(by_class: Mapping[str, _Class], names: Sequence[str]) -> dict[str, Any]:
    present = [name for name in names if name in by_class]
    scores = [_prm_score(by_class[n].counts.sum(axis=0), n != WITHOUT_ERRORS) for n in present]
    samples = [_prm_score(by_class[n].samples, n != WITHOUT_ERRORS) for n in present]
    return {
        "prm_score": float(np.mean(scores)),
        "ci95": interval(np.mean(samples, axis=0)),
        "n": sum(by_class[name].n for name in present),
    }


def _notes(by_class: Mapping[str, _Class]) -> tuple[str, ...]:
    absent = [name for names in SECTIONS.values() for name in names if name not in by_class]
    partly = absent and len(absent) < sum(map(len, SECTIONS.values()))
    return (f"Sections are means of the classes present; absent: {', '.join(absent)}.",) if partly else ()


def _expand(rows: Sequence[Row]) -> list[Row]:
    """One row an id, and behind each redundency row the original solution."""
    expanded: list[Row] = []
    seen: set[str] = set()
    for row in rows:
        if row.record is None:
            expanded.append(row)
            continue
        record = _prepared(row.record, row.id)
        if record["id"] in seen:
            continue
        seen.add(record["id"])
        expanded.append(Row(row.number, record))
        if record["classification"] == WITH_ORIGINALS and record["original_steps"] is not None:
            expanded.append(Row(row.number, _original(record)))
    return expanded


def _prepared(record: dict[str, Any], number: Any) -> dict[str, Any]:
    """The columns as published, or those of a prepared file, under one name each."""
    classification = str(record.get("classification"))
    index = str(record.get("idx", number)).removeprefix(f"{classification}_")
    prompt = record.get("modified_question", record.get("prompt"))
    return {
        "id": f"{classification}_{index}",
        "index": index,
        "classification": classification,
        "prompt": prompt,
        "original_prompt": record.get("original_question", prompt),
        "steps": record.get("modified_process", record.get("steps")),
        "original_steps": record.get("original_process", record.get("original_steps")),
        "error_steps": record.get("error_steps"),
    }


def _original(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{CORRECT}_{record['index']}",
        "classification": CORRECT,
        "prompt": record["original_prompt"],
        "steps": record["original_steps"],
        "error_steps": [],
    }


def _read(record: dict[str, Any]) -> Item:
    for name in ("prompt", "steps", "error_steps"):
        if name not in record:
            raise InvalidConversationError(f"the row has no {name!r}.", field=name)
    return process_item({**record, "subset": record["classification"]})


BENCHMARK = Benchmark(
    name="prmbench",
    form="process",
    read=_read,
    score=score,
    hub=(HubData("hitsmy/PRMBench_Preview", split="train"),),
    files=("*.jsonl",),
    download="https://huggingface.co/datasets/hitsmy/PRMBench_Preview (the .jsonl file)",
    expand=_expand,
)
