"""The names of columns, and what a user says of them: `--column response=answer`, `--ignore-column context`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reward_hub.errors import InvalidConversationError
from reward_hub.types import TEMPLATE_ARGUMENTS, TOOLS, is_empty

# A list of messages, with the response or without it.
CONVERSATIONS = ("messages", "conversation", "conversations")
# The prompt as a text, or as a list of messages. `input` is joined to `instruction`, and without it is a prompt too.
INSTRUCTION, INPUT = "instruction", "input"
PROMPTS = ("prompt", INSTRUCTION, "question", "problem", INPUT)
# What stands before the prompt.
SYSTEMS = ("system", "system_prompt")
HISTORY = "history"
RESPONSES = ("response", "completion")
LABELLED_PAIR = ("chosen", "rejected")
PAIR = ("a", "b")
STEPS = "steps"
CANDIDATES = ("candidates", "responses")
REFERENCE = "reference"
# They change what a model reads elsewhere, and no model here reads them.
NOT_READ = ("context", "images", "image", "videos", "video", "audios", "audio")

_GRADES = ("correct", "grades", "grade", "answers", "error_steps", "label")
_SCORES = (
    *("score", "scores", "step_scores", "probabilities"),
    *("chosen_score", "rejected_score", "scores_chosen", "scores_rejected"),
)
# What a cell of CSV or TSV, which is text, holds in these columns: JSON; JSON or text; messages or text.
JSON_CELLS = (*CONVERSATIONS, STEPS, "responses", HISTORY, TOOLS, TEMPLATE_ARGUMENTS)
JSON_OR_TEXT_CELLS = ("candidates", "error", *_GRADES, *_SCORES)
MESSAGES_OR_TEXT_CELLS = (*PROMPTS, *RESPONSES, *LABELLED_PAIR, *PAIR)
# An empty cell of these is none.
OPTIONAL_CELLS = (*JSON_CELLS, *JSON_OR_TEXT_CELLS, "id", "subset", "classification")

KNOWN = (
    *("id", "subset", "classification", "error"),
    *(*CONVERSATIONS, *PROMPTS, *SYSTEMS, HISTORY, TOOLS, TEMPLATE_ARGUMENTS),
    *(*RESPONSES, *LABELLED_PAIR, *PAIR, STEPS, *CANDIDATES, REFERENCE, *_GRADES, *_SCORES),
)


@dataclass(frozen=True)
class Columns:
    """What a user says of the columns of rows.

    Attributes:
        roles: role -> the column that has it, in place of the column of that name.
        ignored: columns that are left out knowingly.
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    ignored: Sequence[str] = ()

    def __post_init__(self) -> None:
        unknown = [role for role in self.roles if role not in KNOWN]
        if unknown:
            raise ValueError(f"no column is read as {unknown[0]!r}; known are {', '.join(KNOWN)}.")
        both = sorted({*self.roles.values()} & {*self.ignored})
        if both:
            raise ValueError(f"the column {both[0]!r} is both read and ignored.")

    def named(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record with each column under the name that says what it is.

        Raises:
            InvalidConversationError: it lacks a column that has a role.
        """
        for role, name in self.roles.items():
            if name not in record:
                raise InvalidConversationError(
                    f"there is no column {name!r} to be read as {role!r}; the row's columns: {listed(record)}. Where a "
                    "row has none, write null.",
                    field=role,
                )
        moved = {*self.roles, *self.roles.values(), *self.ignored}
        named = {name: value for name, value in record.items() if name not in moved}
        return named | {role: record[name] for role, name in self.roles.items()}


def listed(record: Mapping[str, Any]) -> str:
    """The first columns of a row, for messages, and which of them hold nothing."""
    columns = [f"{name!r} (empty)" if is_empty(value) else repr(name) for name, value in record.items()]
    return ", ".join(columns[:8]) or "none"
