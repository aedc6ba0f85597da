"""Items of a benchmark: one row of a data set, validated, with the responses to score and the truth about them.

Four forms: pairs of chosen and rejected responses ("preference"), responses cut into labelled steps ("process"),
graded candidates ("best-of-n"), and conversations without a label ("instruction").
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from reward_hub import messages as border
from reward_hub.data import columns
from reward_hub.data.column_names import CANDIDATES, CONVERSATIONS, PROMPTS, RESPONSES
from reward_hub.data.column_turns import shown
from reward_hub.data.rows import Row, RowFormatError
from reward_hub.errors import InvalidConversationError
from reward_hub.numerics import is_finite
from reward_hub.types import Conversation, Message

Form: TypeAlias = Literal["preference", "process", "best-of-n", "instruction"]
FORMS: tuple[Form, ...] = ("preference", "process", "best-of-n", "instruction")

COLUMNS = {
    "preference": "'chosen' and 'rejected' beside 'prompt'",
    "process": "'steps' with 'label' or 'error_steps' beside 'prompt' or 'problem'",
    "best-of-n": "'candidates' with 'correct' or 'grades' beside 'prompt'",
    "instruction": "'messages', or 'prompt' and 'response'",
}
_GRADES = ("correct", "grades", "grade")
_CANDIDATE_TEXTS = ("response", "text", "output", "content", "completion")
# What a candidate says of itself besides its response.
_OF_CANDIDATE = ("correct", "grade", "answer")


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        id: unique in its data set.
        subset: the group it is counted in, where the data name one.
        conversations: by name ("chosen" and "rejected", "candidates", "response", "steps") what is to be scored.
        truth: what is known of it, as it goes into the row: `label`, `error_steps`, `classification`, `grades`, ...
        error: why the row gives no item; it then has neither conversations nor truth.
    """

    id: str
    subset: str | None = None
    conversations: Mapping[str, tuple[Conversation, ...]] = field(default_factory=dict)
    truth: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before every response; none where the responses do not share them."""
        prompts = {_canonical([m.to_dict() for m in c.prompt]): c.prompt for c in self._all()}
        return next(iter(prompts.values())) if len(prompts) == 1 else ()

    @property
    def digest(self) -> str:
        """Changes with anything a score or a metric may depend on."""
        content = {
            "id": self.id,
            "subset": self.subset,
            "truth": dict(self.truth),
            "error": self.error,
            "conversations": {
                name: [[[m.to_dict() for m in c.messages], list(c.steps or ())] for c in conversations]
                for name, conversations in self.conversations.items()
            },
        }
        return hashlib.sha256(_canonical(content).encode()).hexdigest()

    def _all(self) -> list[Conversation]:
        return [conversation for group in self.conversations.values() for conversation in group]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


Reader: TypeAlias = Callable[[dict[str, Any]], Item]
"""A record as an item; raises `InvalidConversationError` for a row that is none."""


def read_items(rows: Iterable[Row], read: Reader) -> list[Item]:
    """The items of rows, in order; a row that gives none is an item with an error.

    Ids are made unique: a repeated one gets `#2`, `#3`, ... behind it.
    """
    items = [_read_row(row, read) for row in rows]
    seen: dict[str, int] = {}
    return [_with_unique_id(item, seen) for item in items]


def _read_row(row: Row, read: Reader) -> Item:
    subset = None if row.record is None else subset_of(row.record)
    if row.record is None:
        return Item(str(row.id), subset, error=f"row {row.number}: {row.error}")
    record = {name: value for name, value in row.record.items() if value is not None} | {"id": row.id}
    try:
        return read(record)
    except InvalidConversationError as error:
        return Item(str(row.id), subset, error=f"row {row.number}: {error.message}")


def _with_unique_id(item: Item, seen: dict[str, int]) -> Item:
    seen[item.id] = seen.get(item.id, 0) + 1
    if seen[item.id] == 1:
        return item
    return _with_unique_id(
        Item(f"{item.id}#{seen[item.id]}", item.subset, item.conversations, item.truth, item.error), seen
    )


def subset_of(record: Mapping[str, Any]) -> str | None:
    subset = record.get("subset")
    return None if subset is None else str(subset)


def form_of(rows: Sequence[Row]) -> Form:
    """The form of a data set by the columns of its rows.

    Raises:
        RowFormatError: there is no row, none can be read, no form fits, or several do.
    """
    if not rows:
        raise RowFormatError("there are no rows.")
    if all(row.record is None for row in rows):
        raise RowFormatError(f"no row can be read; row {rows[0].number}: {rows[0].error}")
    found = {form for row in rows if row.record is not None for form in _forms_of(row.record)}
    labelled = [form for form in FORMS if form in found and form != "instruction"]
    if len(labelled) > 1:
        raise RowFormatError(
            f"the columns fit {' and '.join(labelled)} data; say which is meant with --form {' or '.join(labelled)}."
        )
    if labelled or "instruction" in found:
        return labelled[0] if labelled else "instruction"
    columns = sorted({name for row in rows[:8] if row.record is not None for name in row.record})
    forms = "; ".join(f"{form}: {columns_of}" for form, columns_of in COLUMNS.items())
    raise RowFormatError(f"the columns ({', '.join(columns) or 'none'}) fit no form of data. Known are {forms}.")


def _forms_of(record: Mapping[str, Any]) -> set[Form]:
    has = {name for name, value in record.items() if value is not None}
    forms: set[Form] = set()
    if {"chosen", "rejected"} <= has:
        forms.add("preference")
    if "steps" in has and has & {"label", "error_steps"}:
        forms.add("process")
    if "candidates" in has or ("responses" in has and has & set(_GRADES)):
        forms.add("best-of-n")
    if has & {*CONVERSATIONS} or (has & {*RESPONSES} and has & {*PROMPTS}):
        forms.add("instruction")
    return forms


def preference_item(record: Mapping[str, Any]) -> Item:
    """`chosen` and `rejected`, each a text, a list of texts, messages or a list of messages, after `prompt`."""
    return responses_item(record, {name: record.get(name) for name in ("chosen", "rejected")})


def responses_item(
    record: Mapping[str, Any], groups: Mapping[str, Any], truth: Mapping[str, Any] | None = None
) -> Item:
    """An item whose responses stand in named groups after the record's prompt."""
    conversations = columns.groups_of(record, groups)
    return Item(str(record["id"]), subset_of(record), conversations, truth or {})


def process_item(record: Mapping[str, Any]) -> Item:
    """`steps` with `label` (first wrong step from 0, -1 for none) or `error_steps` (counted from 1)."""
    if record.get("steps") is None:
        raise InvalidConversationError("the row has no 'steps'.", field="steps")
    conversation = border.parse_steps(**columns.stepwise_of(record), step_delimiter="\n\n")
    truth: dict[str, Any] = {}
    if "label" in record:
        truth["label"] = _integer(record["label"], "label", least=-1, most=len(conversation.steps or ()) - 1)
    if "error_steps" in record:
        wrong = record["error_steps"]
        if not isinstance(wrong, list):
            raise InvalidConversationError(f"'error_steps' is {shown(wrong)}; a list is read.", field="error_steps")
        truth["error_steps"] = [_integer(step, f"error_steps[{i}]", least=1) for i, step in enumerate(wrong)]
    if not truth:
        raise InvalidConversationError("the row has neither 'label' nor 'error_steps'.", field="label")
    if "classification" in record:
        truth["classification"] = str(record["classification"])
    return Item(str(record["id"]), subset_of(record), {"steps": (conversation,)}, truth)


def candidates_item(record: Mapping[str, Any]) -> Item:
    """`candidates`, with `correct` or `grades` beside them or `correct` or `grade` in each of them."""
    name = next((name for name in CANDIDATES if name in record), "candidates")
    candidates = record.get(name)
    if not isinstance(candidates, list) or not candidates:
        raise InvalidConversationError(f"{name!r} must be a list of at least one candidate.", field=name)
    texts = candidates
    grades, answers = next((record[key] for key in _GRADES if key in record), None), record.get("answers")
    if all(isinstance(candidate, dict) for candidate in candidates):
        texts = [_candidate_response(candidate, f"{name}[{i}]") for i, candidate in enumerate(candidates)]
        columns = {key: [candidate.get(key) for candidate in candidates] for key in _OF_CANDIDATE}
        grades = next((columns[key] for key in ("correct", "grade") if None not in columns[key]), grades)
        answers = columns["answer"] if any(answer is not None for answer in columns["answer"]) else answers
    truth: dict[str, Any] = {"grades": _grades(grades, len(candidates))}
    if answers is not None:
        if not isinstance(answers, list) or len(answers) != len(candidates):
            raise InvalidConversationError("'answers' must hold one text a candidate.", field="answers")
        truth["answers"] = [None if answer is None else str(answer) for answer in answers]
    return responses_item(record, {"candidates": texts}, truth)


def instruction_item(record: Mapping[str, Any]) -> Item:
    """`messages` or `conversation`, or a prompt and its `response`."""
    return Item(str(record["id"]), subset_of(record), {"response": (columns.conversation_of(record),)})


READERS: dict[Form, Reader] = {
    "preference": preference_item,
    "process": process_item,
    "best-of-n": candidates_item,
    "instruction": instruction_item,
}


def _candidate_response(candidate: Mapping[str, Any], place: str) -> Any:
    """The text of a candidate, or its message where it has a role."""
    # In a table all candidates have the columns of each, null where they had none.
    given = {name: value for name, value in candidate.items() if value is not None}
    texts = [(name, given[name]) for name in _CANDIDATE_TEXTS if name in given]
    for (name, text), (other, another) in itertools.pairwise(texts):
        if text != another:
            raise InvalidConversationError(
                f"{place} has {name!r}, {shown(text)}, and {other!r}, {shown(another)}; leave out one.",
                field=place,
            )
    if "role" in given:
        own = {name: value for name, value in given.items() if name not in (*_CANDIDATE_TEXTS, *_OF_CANDIDATE)}
        return [{**own, "content": texts[0][1] if texts else None}]
    if not texts:
        raise InvalidConversationError(f"{place} has none of {', '.join(map(repr, _CANDIDATE_TEXTS))}.", field=place)
    return texts[0][1]


def _grades(grades: Any, n: int) -> list[float]:
    if not isinstance(grades, list) or len(grades) != n:
        raise InvalidConversationError(
            f"there must be one 'correct' or grade for each of the {n} candidates; found {grades!r}.", field="grades"
        )
    for i, grade in enumerate(grades):
        if not isinstance(grade, (bool, int, float)) or not is_finite(grade):
            raise InvalidConversationError(
                f"the grade of candidate {i} is {repr(grade)[:40]}; a number is read.", field="grades"
            )
    return [float(grade) for grade in grades]


def _integer(value: Any, name: str, *, least: int, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidConversationError(f"{name!r} is {value!r}; a whole number is read.", field=name)
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidConversationError(f"{name!r} is {value}; it must be {bounds}.", field=name)
    return value
