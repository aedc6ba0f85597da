"""Scores from a file in place of a model's, so that metrics can be computed again without it.

What such a file holds is said in `data.recorded`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reward_hub.bench.item_rows import Scored, failure
from reward_hub.bench.items import Form, Item
from reward_hub.data.recorded import COLUMNS, ScoreRow, bad_row, read_scores
from reward_hub.data.rows import RowFormatError
from reward_hub.errors import InvalidConversationError

# What is scored of the items of each form.
_SCORED: dict[Form, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"),
    "process": ("steps",),
    "best-of-n": ("candidates",),
    "instruction": ("response",),
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
    rows: dict[str, ScoreRow] = {}
    example = f"The first id of the data is {items[0].id!r}." if items else ""
    for row in read_scores(path):
        if row.id is None:
            continue
        if (name := str(row.id)) in rows:
            problem = f"the id {name!r} is that of row {rows[name].number} too; where it stands twice in the data, the"
            raise bad_row(path, row.number, f"{problem} second item's is '{name}#2'. {example}")
        rows[name] = row
    unknown = sorted(set(rows) - {item.id for item in items})
    if unknown and not partial:
        raise RowFormatError(
            f"{path} has scores of {len(unknown)} ids that the data have not, for example {unknown[0]!r}; are they of "
            f"other data? {example}"
        )
    return [_scored(item, rows.get(item.id), form, path) for item in items]


def _scored(item: Item, row: ScoreRow | None, form: Form, path: str) -> Scored:
    if item.error is not None:
        return failure(InvalidConversationError(item.error))
    if row is None:
        return failure(InvalidConversationError(f"{path} has no scores of it."))
    if row.error is not None:
        return {"error": _error(row.error)}
    scores = {name: list(row.scores[name]) for name in _names(row, form, path)}
    for name, group in item.conversations.items():
        n = len(group[0].steps or ()) if name == "steps" else len(group)
        if name in scores and len(scores[name]) != n:
            raise bad_row(path, row.number, f"{len(scores[name])} scores {name!r}; the item has {n}.")
    return {"scores": scores}


def _error(recorded: Any) -> dict[str, str]:
    """Why a line has no scores, as this package writes it or in words of another program."""
    if isinstance(recorded, dict) and {"type", "message"} <= set(recorded):
        return recorded
    return {"type": "RecordedError", "message": str(recorded)}


def _names(row: ScoreRow, form: Form, path: str) -> tuple[str, ...]:
    """What is scored of the item: what the form needs, or whatever a row of items.jsonl has."""
    if row.nested:
        return tuple(row.scores)
    if form == "preference" and "probabilities" in row.scores:
        return ("probabilities",)
    for name in _SCORED[form]:
        if name not in row.scores:
            raise bad_row(path, row.number, f"there is no {' or '.join(map(repr, COLUMNS[name]))}.")
    return _SCORED[form]
