"""Evaluate a model that is at hand, in memory: what `reward-hub bench` does without files, shards and resuming."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reward_hub.bench.benchmark import suite_named
from reward_hub.bench.data import Data, read_path
from reward_hub.bench.item_rows import item_row
from reward_hub.bench.items import READERS, Form, Item, form_of, read_items
from reward_hub.bench.results import JUDGE_MODES, computed, default_options, rule_of
from reward_hub.bench.scoring import require_scorable, score_items
from reward_hub.data.column_names import Columns

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

WINDOW = 256
"""Items that are scored in one batch."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics as in results.json, and the rows as in items.jsonl."""

    metrics: dict[str, Any]
    rows: list[dict[str, Any]]
    notes: list[str]

    @property
    def n_failed(self) -> int:
        return sum("error" in row for row in self.rows)


def evaluate(
    rm: BaseRM,
    data: str | None = None,
    *,
    suite: str | None = None,
    split: str | None = None,
    form: Form | None = None,
    columns: Columns | None = None,
    step_delimiter: str | None = None,
    texts: bool = True,
    rule_options: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score a data set and compute its metrics.

    Args:
        rm: any model, one of a user's own included.
        data: a file or folder; may be left out where a suite is named, whose data then come from the hub.
        suite: a published benchmark; by default plain accuracies of the data.
        split: of data that come in several.
        form: of the rows, where their columns fit several.
        columns: which column is what, where their names do not say so.
        step_delimiter: process models on whole responses: where these are split.
        texts: keep prompts and responses in the rows.
        rule_options: arguments of the rule's `score`.

    Raises:
        LookupError: there is no such suite.
        RowFormatError, OSError: the data cannot be read.
        UnsupportedError: the model cannot score such data.
        TypeError: neither data nor a suite, or an option that the rule does not have.
    """
    items, form, _ = load_items(data, suite=suite, split=split, form=form, columns=columns)
    require_scorable(form, rm, step_delimiter)
    scored = [result for window in _windows(items) for result in score_items(rm, window, step_delimiter=step_delimiter)]
    rows = [item_row(item, result, texts=texts) for item, result in zip(items, scored, strict=True)]
    rule = rule_of(suite, form, items)
    options = default_options(suite, rule, judge=JUDGE_MODES.get(rm.kind) if rm.capabilities.is_judge else None)
    found, rows = computed(rows, form=form, rule=rule, options=options | dict(rule_options or {}))
    return Evaluation(found["metrics"], rows, found["notes"])


def load_items(
    data: str | None,
    *,
    suite: str | None = None,
    split: str | None = None,
    form: Form | None = None,
    columns: Columns | None = None,
) -> tuple[list[Item], Form, Data]:
    """The items of a suite, or of data of one's own; see `evaluate`."""
    if suite is not None:
        published = suite_named(suite)
        if form not in (None, published.form):
            raise TypeError(f"form={form!r}: the data of {suite} are of the form {published.form!r}.")
        items, read = published.load(data, split=split, columns=columns)
        return items, published.form, read
    if data is None:
        raise TypeError("say data= or suite=.")
    read = read_path(data, split=split, columns=columns)
    form = form or form_of(read.rows)
    return read_items(read.rows, READERS[form]), form, read


def _windows(items: Sequence[Item]) -> Iterator[list[Item]]:
    source = iter(items)
    while window := list(itertools.islice(source, WINDOW)):
        yield window
