"""Scores from a file in place of a model's, so that metrics can be computed again without it.

A line has `id` and what the form of the data needs: `chosen_score` and `rejected_score` (or, as RewardBench's own files
have it, `scores_chosen` and `scores_rejected`), each a number or a list; `step_scores`; `scores` (of the candidates);
`score` (of one response); or `probabilities`. A line of items.jsonl is read too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reward_hub.bench.data import decoded_cell
from reward_hub.bench.items import Form, Item
from reward_hub.bench.scored import Scored, failure
from reward_hub.errors import InvalidConversationError
from reward_hub.rows import Row, RowFormatError, read_rows

_COLUMNS: dict[Form, dict[str, tuple[str, ...]]] = {
    "preference": {"chosen": ("chosen_score", "scores_chosen"), "rejected": ("rejected_score", "scores_rejected")},
    "process": {"steps": ("step_scores",)},
    "best-of-n": {"candidates": ("scores",)},
    "instruction": {"response": ("score",)},
}


def recorded(items: Sequence[Item], path: str, form: Form, *, partial: bool = False) -> list[Scored]:
    """The recorded scores of items, one result each, in order; an item without a line has failed.

    Args:
        items: of one form.
        path: the file of the scores.
        form: of the items.
        partial: the data hold further items, whose scores may stand in the file.

    Raises:
        RowFormatError: a line that cannot be read, an id twice, or one that no item has.
        OSError: the file cannot be opened.
    """
    lines: dict[str, Row] = {}
    for row in read_rows(path):
        if row.record is None or "id" not in row.record:
            raise RowFormatError(f"{path}, row {row.number}: {row.error or 'there is no id.'}")
        if (name := str(row.id)) in lines:
            raise RowFormatError(f"{path}, row {row.number}: the id {name!r} is that of row {lines[name].number} too.")
        lines[name] = row
    unknown = sorted(set(lines) - {item.id for item in items})
    if unknown and not partial:
        raise RowFormatError(
            f"{path} has scores of {len(unknown)} ids that the data have not, for example {unknown[0]!r}; are they of "
            "other data?"
        )
    return [_scored(item, lines.get(item.id), form, path) for item in items]


def _scored(item: Item, row: Row | None, form: Form, path: str) -> Scored:
    if item.error is not None:
        return failure(InvalidConversationError(item.error))
    if row is None or row.record is None:
        return failure(InvalidConversationError(f"{path} has no scores of it."))
    if row.record.get("error") is not None:
        return {"error": row.record["error"]}
    scores = {name: _numbers(values, name, row, path) for name, values in _columns(row, form, path).items()}
    for name, group in item.conversations.items():
        n = len(group[0].steps or ()) if name == "steps" else len(group)
        if name in scores and len(scores[name]) != n:
            raise RowFormatError(f"{path}, row {row.number}: {len(scores[name])} scores {name!r}; the item has {n}.")
    return {"scores": scores}


def _columns(row: Row, form: Form, path: str) -> dict[str, Any]:
    record: Mapping[str, Any] = row.record or {}
    if isinstance(record.get("scores"), dict):
        return dict(record["scores"])
    if form == "preference" and "probabilities" in record:
        return {"probabilities": record["probabilities"]}
    found = {}
    for name, columns in _COLUMNS[form].items():
        column = next((column for column in columns if record.get(column) is not None), None)
        if column is None:
            raise RowFormatError(f"{path}, row {row.number}: there is no {' or '.join(map(repr, columns))}.")
        found[name] = record[column]
    return found


def _numbers(values: Any, name: str, row: Row, path: str) -> list[float | None]:
    if isinstance(values, str):
        # A cell of CSV.
        values = decoded_cell(values)
    several = values if isinstance(values, list) else [values]
    for value in several:
        if value is None and name == "probabilities":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise RowFormatError(f"{path}, row {row.number}: {value!r} among the scores {name!r}; numbers are read.")
    return [None if value is None else float(value) for value in several]
