"""Preference pairs of a file: read and checked row by row, and parted into training and held-out pairs.

A row has `chosen` and `rejected`, and the prompt before them in any form that `columns` reads.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_hub.data.column_names import Columns
from reward_hub.data.column_turns import shown
from reward_hub.data.columns import preference_of
from reward_hub.data.rows import read_rows
from reward_hub.errors import InvalidConversationError
from reward_hub.types import Conversation, Message

# Faulty rows that one error tells of.
SHOWN = 5


@dataclass(frozen=True)
class PreferencePair:
    """Two responses to one prompt, of which the first was preferred. `place` is the row in its file, for errors."""

    chosen: Conversation
    rejected: Conversation
    place: str = ""

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.chosen.prompt


def read_preferences(path: str | Path, columns: Columns | None = None) -> list[PreferencePair]:
    """Read every pair of a file; its ending says the format (see `rows.read_rows`).

    Args:
        columns: which column is what, where their names do not say so.

    Raises:
        InvalidConversationError: the file holds no pairs, or rows that are not pairs; the first five are named, each
            with its line, what is wrong and the value.
        RowFormatError, OSError: the file cannot be read at all.
    """
    unit = "row" if Path(path).suffix.lower() in (".json", ".parquet") or Path(path).is_dir() else "line"
    pairs, faults = [], []
    for row in read_rows(str(path), columns):
        place = f"{path}, {unit} {row.number}"
        try:
            if row.record is None:
                raise InvalidConversationError(f"{place}: {row.error}.")
            pairs.append(preference_pair(row.record, place))
        except InvalidConversationError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        first = "\n".join(f"  {fault.message}" for fault in faults[:SHOWN])
        more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise InvalidConversationError(f"{path}: {len(faults)} rows are not preference pairs:\n{first}{more}")
    if not pairs:
        raise InvalidConversationError(f"{path} holds no rows; each needs 'prompt', 'chosen' and 'rejected'.")
    return pairs


def preference_pair(row: Mapping[str, Any], place: str) -> PreferencePair:
    """One row as a pair; `place` (file and line) begins the message of its error."""
    try:
        chosen, rejected = preference_of(row)
    except InvalidConversationError as error:
        raise InvalidConversationError(f"{place}: {error.message}", field=error.field) from error
    if chosen == rejected:
        raise InvalidConversationError(
            f"{place}: 'chosen' and 'rejected' are the same response: {shown(chosen.response)}. Leave such rows out.",
            field="rejected",
        )
    return PreferencePair(chosen, rejected, place)


def split_by_prompt(
    pairs: Sequence[PreferencePair], share: float, *, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """The pairs to train on, and about `share` of all (at least one) that are held out; each in the file's order.

    Pairs of one prompt stay on one side, so that what is held out was not trained on.

    Raises:
        InvalidConversationError: there is only one prompt.
    """
    groups: dict[str, list[int]] = {}
    for i, pair in enumerate(pairs):
        groups.setdefault(json.dumps([turn.to_dict() for turn in pair.prompt], sort_keys=True), []).append(i)
    if len(groups) < 2:
        raise InvalidConversationError(
            f"The {len(pairs)} pairs have one prompt; pairs of another one are needed to hold out.", field="prompt"
        )
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    target = max(1, round(share * len(pairs)))
    held_out: set[int] = set()
    for group in order:
        if len(held_out) + len(group) <= target and len(held_out) + len(group) < len(pairs):
            held_out.update(group)
    if not held_out:
        held_out.update(sorted(order, key=len)[0])
    return (
        [pair for i, pair in enumerate(pairs) if i not in held_out],
        [pair for i, pair in enumerate(pairs) if i in held_out],
    )
