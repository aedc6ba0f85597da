"""Scores from a file in place of a model's, so that metrics can be computed again without it.

A line has `id` and what the form of the data needs: `chosen_score` and `rejected_score` (or, as RewardBench's own files
have it, `scores_chosen` and `scores_rejected`), each a number or a list; `step_scores`; `scores` (of the candidates);
`score` (of one response); or `probabilities`. A line of items.jsonl is read too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reward_hub.bench.item_rows import Scored, failure
from reward_hub.bench.items import Form, Item
from reward_hub.bench.scored_rows import is_finite
from reward_hub.data.rows import Row, RowFormatError, decoded_cell, read_rows
from reward_hub.errors import InvalidConversationError

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
    example = f"The first id of the data is {items[0].id!r}." if items else ""
    for row in read_rows(path):
        if row.record is None or "id" not in row.record:
            raise RowFormatError(f"{path}, row {row.number}: {row.error or 'there is no id.'}")
        if (name := str(row.id)) in lines:
            raise RowFormatError(
                f"{path}, row {row.number}: the id {name!r} is that of row {lines[name].number} too; where it stands "
                f"twice in the data, the second item's is '{name}#2'. {example}"
            )
        lines[name] = row
    unknown = sorted(set(lines) - {item.id for item in items})
    if unknown and not partial:
        raise RowFormatError(
            f"{path} has scores of {len(unknown)} ids that the data have not, for example {unknown[0]!r}; are they of "
            f"other data? {example}"
        )
    return [_scored(item, lines.get(item.id), form, path) for item in items]


def _scored(item: Item, row: Row | None, form: Form, path: str) -> Scored:
    if item.error is not None:
        return failure(InvalidConversationError(item.error))
    if row is None or row.record is None:
        return failure(InvalidConversationError(f"{path} has no scores of it."))
    if row.record.get("error") is not None:
        return {"error": _error(row.record["error"])}
    scores = {name: _numbers(values, name, row, path) for name, values in _columns(row, form, path).items()}
    for name, group in item.conversations.items():
        n = len(group[0].steps or ()) if name == "steps" else len(group)
        if name in scores and len(scores[name]) != n:
            raise RowFormatError(f"{path}, row {row.number}: {len(scores[name])} scores {name!r}; the item has {n}.")
    return {"scores": scores}


def _error(recorded: Any) -> dict[str, str]:
    """Why a line has no scores, as this package writes it or in words of another program."""
    if isinstance(recorded, dict) and {"type", "message"} <= set(recorded):
        return recorded
    return {"type": "RecordedError", "message": str(recorded)}


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
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_finite(value):
            told = f"{repr(value)[:40]} among the scores {name!r}; finite numbers are read."
            raise RowFormatError(f"{path}, row {row.number}: {told}")
    return [None if value is None else float(value) for value in several]
