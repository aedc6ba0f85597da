"""Preference pairs of a file: read and checked row by row, and parted into training and held-out pairs.

A row has `prompt`, `chosen` and `rejected`: texts, or lists of messages (in a cell of CSV as JSON, or as Python writes
them). `chosen` and `rejected` may also be whole conversations that begin alike, as UltraFeedback is published; `prompt`
is then not needed, and must be some turns of theirs where it is there.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reward_hub import messages as border
from reward_hub.data.rows import Row, messages_in_cells, read_rows
from reward_hub.errors import InvalidConversationError
from reward_hub.types import Conversation, Message

# Faulty rows that one error tells of.
SHOWN = 5
# Columns that change what a model reads in other tools, and that a score here does not know.
_NOT_READ = ("tools", "images", "image", "chat_template_kwargs")


@dataclass(frozen=True)
class PreferencePair:
    """Two responses to one prompt, of which the first was preferred. `place` is the row in its file, for errors."""

    chosen: Conversation
    rejected: Conversation
    place: str = ""

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.chosen.prompt


def read_preferences(path: str | Path) -> list[PreferencePair]:
    """Read every pair of a JSONL, JSON, CSV or Parquet file; the ending says which.

    Raises:
        InvalidConversationError: the file holds no pairs, or rows that are none; the first five are told, each with
            its line, what is wrong and the value.
        RowFormatError, OSError: the file cannot be read at all.
    """
    path = Path(path)
    unit = "row" if path.suffix.lower() in (".json", ".parquet") else "line"
    pairs, faults = [], []
    for row in read_rows(str(path)):
        if row.record is not None and path.suffix.lower() in (".csv", ".tsv"):
            row = replace(row, record=messages_in_cells(row.record, "prompt", "chosen", "rejected"))
        try:
            pairs.append(pair_of_row(row, f"{path}, {unit} {row.number}"))
        except InvalidConversationError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        told = "\n".join(f"  {fault.message}" for fault in faults[:SHOWN])
        more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise InvalidConversationError(f"{path}: {len(faults)} rows are no preference pairs:\n{told}{more}")
    if not pairs:
        raise InvalidConversationError(f"{path} holds no rows; each needs 'prompt', 'chosen' and 'rejected'.")
    return pairs


def pair_of_row(row: Row, place: str) -> PreferencePair:
    """One row as a pair; `place` (file and line) begins the message of its error."""
    if row.record is None:
        raise InvalidConversationError(f"{place}: {row.error}.")
    for name in _NOT_READ:
        if row.record.get(name):
            raise InvalidConversationError(
                f"{place}: the column {name!r} cannot be honoured: scores are computed without it. Leave it out.",
                field=name,
            )
    if row.record.get("system"):
        raise InvalidConversationError(
            f"{place}: the column 'system' is not read: put it in front of the messages of 'prompt', or give it as "
            "system_prompt= where all rows have the same.",
            field="system",
        )
    prompt = _prompt(row.record, place)
    chosen, rejected = (_conversation(row.record, name, prompt, place) for name in ("chosen", "rejected"))
    if chosen.prompt != rejected.prompt:
        raise InvalidConversationError(
            f"{place}: 'chosen' and 'rejected' answer different prompts: {_shown(chosen.prompt)} and "
            f"{_shown(rejected.prompt)}.",
            field="prompt",
        )
    if chosen == rejected:
        raise InvalidConversationError(
            f"{place}: 'chosen' and 'rejected' are the same response: {_short(chosen.response)}. Leave such rows out.",
            field="rejected",
        )
    return PreferencePair(chosen, rejected, place)


def _prompt(record: dict[str, Any], place: str) -> tuple[Message, ...]:
    """The messages of the column `prompt`; none where it is absent."""
    prompt = record.get("prompt")
    if prompt is None:
        return ()
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return _parsed(messages, "prompt", place)


def _conversation(record: dict[str, Any], name: str, prompt: tuple[Message, ...], place: str) -> Conversation:
    """The prompt with the response of one column, which may repeat the prompt's messages in front."""
    response = record.get(name)
    if response is None:
        columns = ", ".join(map(repr, record)) or "none"
        raise InvalidConversationError(f"{place}: there is no {name!r}; its columns: {columns}.", field=name)
    if isinstance(response, str):
        turns = (*prompt, Message("assistant", response))
    else:
        turns = _behind(prompt, _parsed(response, name, place), name, place)
    try:
        return border.parse([turn.to_dict() for turn in turns])
    except InvalidConversationError as error:
        hint = "" if prompt else f" There is no column 'prompt'; its columns: {', '.join(map(repr, record))}."
        raise _at(error, name, place, hint) from error


def _behind(prompt: tuple[Message, ...], turns: tuple[Message, ...], name: str, place: str) -> tuple[Message, ...]:
    """A column's messages behind the prompt's, or alone where they are the whole conversation.

    Sets that give whole conversations often name one turn of them as the prompt: the user's behind a system message,
    or the last of several.
    """
    if turns[: len(prompt)] == prompt:
        return turns
    if turns[0].role in ("assistant", "tool") or prompt[-1].role != "user":
        return (*prompt, *turns)
    if any(turns[i : i + len(prompt)] == prompt for i in range(1, len(turns))):
        return turns
    raise InvalidConversationError(
        f"{place}: {name!r} begins with a message by {turns[0].role!r}, as whole conversations do, but 'prompt' is not "
        f"in it: {_shown(prompt)}. Leave 'prompt' out, or what stands before the response.",
        field=name,
    )


def _parsed(messages: Any, name: str, place: str) -> tuple[Message, ...]:
    if not isinstance(messages, list):
        raise InvalidConversationError(
            f"{place}: {name!r} is {_short(messages)}; a text or a list of messages is read.", field=name
        )
    try:
        return border.parse_messages(messages)
    except InvalidConversationError as error:
        raise _at(error, name, place) from error


def _at(error: InvalidConversationError, name: str, place: str, hint: str = "") -> InvalidConversationError:
    return InvalidConversationError(f"{place}: {name!r}: {error.message}{hint}", field=name)


def _shown(messages: Sequence[Message]) -> str:
    return _short(" / ".join(message.text for message in messages))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


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
