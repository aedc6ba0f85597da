"""What a row says: its columns as a conversation, as a response in steps, as a pair, as responses to rank.

A row is a mapping: a row of a file (see `rows`), of a `datasets.Dataset`, of a pandas frame (also as a Series). It has

- a prompt: `messages`, `conversation` or `conversations` (a list of messages, with the response or without it), or
  `prompt`, `instruction` (with `input`), `question`, `problem` or `input` (a text, or a list of messages);
- what stands before it: `system` or `system_prompt`, and `history` (a list of [user, assistant] pairs);
- what the chat template takes besides: `tools` and `chat_template_kwargs`;
- a response: `response` or `completion` (a text, a message, or a list of messages); or two, as `chosen` and `rejected`
  or `a` and `b`; or several, as `responses`. Each may be a whole conversation, which begins with the prompt.

Messages are dicts of `role` and `content`, or of `from` (human, gpt, system) and `value`. Several of these forms are
read where they agree and refused where they do not, and so is what no model here reads (`context`, `images`): nothing
that changes a prompt is ignored. Every other column is plain data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from reward_hub import messages as border
from reward_hub.data.column_names import (
    CONVERSATIONS,
    HISTORY,
    INPUT,
    INSTRUCTION,
    LABELLED_PAIR,
    NOT_READ,
    PAIR,
    PROMPTS,
    RESPONSES,
    STEPS,
    SYSTEMS,
    TEMPLATE_ARGUMENTS,
    TOOLS,
    listed,
)
from reward_hub.data.rows import plain
from reward_hub.errors import InvalidConversationError
from reward_hub.types import Conversation, Message

CONVERSATION_COLUMNS = "'messages', 'conversation', 'prompt' and 'response', or 'instruction' and 'response'"
"""The columns of a conversation that messages name."""

# What `from` of a message says, as a role.
_FROM = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_OPENERS = ("system", "developer")
_REPLIERS = ("assistant", "tool")

T = TypeVar("T")
Turns: TypeAlias = tuple[Message, ...]


def conversation_of(row: Any) -> Conversation:
    """The conversation of a row that holds a prompt and its response.

    Raises:
        InvalidConversationError: it holds none, or several that do not agree.
    """
    record = _record_of(row)
    prompt = _Prompt.of(record)
    response = _response(record)
    if response is not None:
        return prompt.answered({response[0]: response[1]})[response[0]]
    if prompt.whole is None:
        raise _missing(record, f"the row has no {CONVERSATION_COLUMNS}")
    name, turns = prompt.whole
    return _conversation(prompt.opened(turns), name)


def stepwise_of(row: Any) -> dict[str, Any]:
    """The messages of a row and, where it has them, the steps of its response, as `score_steps_batch` takes them.

    Raises:
        InvalidConversationError: the row holds no conversation, or `steps` is not a list of texts.
    """
    record = _record_of(row)
    steps = record.get(STEPS)
    if steps is None:
        return {"messages": conversation_of(record).to_dicts()}
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise InvalidConversationError(f"{STEPS!r} is {shown(steps)}; a list of texts is read.", field=STEPS)
    prompt = _Prompt.of(record)
    response = _response(record)
    if response is not None:
        turns = prompt.answered({response[0]: response[1]})[response[0]].messages
    elif prompt.head is None:
        raise _missing(record, "there is no prompt beside 'steps', as of a column 'prompt', 'messages' or 'problem'")
    else:
        turns = prompt.opened(prompt.head[1])
    return {"messages": [turn.to_dict() for turn in turns], "steps": steps}


def responses_of(row: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The prompt of a row as messages, and the responses to rank.

    Raises:
        InvalidConversationError: the row has no prompt, or `responses` is not a list of at least one text.
    """
    record = _record_of(row)
    responses = record.get("responses")
    if responses is None:
        raise _missing(record, "there are no 'responses'")
    if not isinstance(responses, list) or not responses:
        raise InvalidConversationError(
            f"'responses' is {shown(responses)}; a list of at least one text is read.", field="responses"
        )
    named = {f"responses[{place}]": response for place, response in enumerate(responses)}
    return texts_of(answered(record, named))


def pair_of(row: Any) -> dict[str, Conversation]:
    """The two responses to compare: `a` and `b`, or `chosen` and `rejected`, each with the prompt before it.

    Raises:
        InvalidConversationError: the row holds no prompt, no two responses, or both pairs.
    """
    record = _record_of(row)
    found = [names for names in (PAIR, LABELLED_PAIR) if all(record.get(name) is not None for name in names)]
    if len(found) > 1:
        raise InvalidConversationError(
            "the row has two pairs, 'a' and 'b', and 'chosen' and 'rejected': leave one out (--ignore-column).",
            field=PAIR[0],
        )
    if not found and not any(record.get(name) is not None for name in LABELLED_PAIR):
        raise _missing(record, "there are neither 'a' and 'b' nor 'chosen' and 'rejected'")
    return _pair(record, found[0] if found else LABELLED_PAIR)


def preference_of(row: Any) -> tuple[Conversation, Conversation]:
    """The chosen and the rejected response of a row, each with the prompt before it.

    Raises:
        InvalidConversationError: the row holds no prompt, one of them is not there or holds several, or they answer
            different prompts.
    """
    pair = _pair(_record_of(row), LABELLED_PAIR)
    return pair["chosen"], pair["rejected"]


def answered(row: Any, responses: Mapping[str, Any]) -> dict[str, Conversation]:
    """The row's prompt with each of these responses: texts, messages, or whole conversations that begin with it.

    Args:
        row: holds the prompt, unless the responses do.
        responses: by the names that errors say.

    Raises:
        InvalidConversationError: there is no prompt, or a response cannot be read or does not agree with it.
    """
    record = _record_of(row)
    return _Prompt.of(record).answered({name: _turns_of_response(value, name) for name, value in responses.items()})


def groups_of(row: Any, groups: Mapping[str, Any]) -> dict[str, tuple[Conversation, ...]]:
    """The row's prompt with the responses of each group, which may hold one or a list of them.

    Raises:
        InvalidConversationError: a group is empty, a response cannot be read, or they answer different prompts.
    """
    record = _record_of(row)
    for name, value in groups.items():
        if value is None:
            raise _missing(record, f"there is no {name!r}", field=name)
    several = {group: _several(plain(value), group) for group, value in groups.items()}
    conversations = answered(record, {name: one for named in several.values() for name, one in named.items()})
    _shared_prompt(conversations)
    return {group: tuple(conversations[name] for name in named) for group, named in several.items()}


def _several(value: Any, name: str) -> dict[str, Any]:
    """The responses that a column holds, one or a list of them, by the names that errors say."""
    if isinstance(value, (str, Mapping)):
        return {name: value}
    if not isinstance(value, list) or not value:
        raise _unreadable(name, value)
    if all(isinstance(part, Mapping) for part in value):
        return {name: value}
    return {name: value[0]} if len(value) == 1 else {f"{name}[{place}]": part for place, part in enumerate(value)}


def texts_of(conversations: Mapping[str, Conversation]) -> tuple[list[dict[str, Any]], list[str]]:
    """The prompt that conversations share, as messages, and the text that answers it in each.

    Raises:
        InvalidConversationError: they have several prompts, or a response calls tools.
    """
    for name, conversation in conversations.items():
        if conversation.messages[-1].content is None or conversation.messages[-1].tool_calls:
            raise InvalidConversationError(f"{name!r} calls tools; texts are compared.", field=name)
    prompt = _shared_prompt(conversations)
    return [turn.to_dict() for turn in prompt], [conversation.response for conversation in conversations.values()]


def shown(value: Any) -> str:
    """A value for messages, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# -- the prompt ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prompt:
    """What a row says besides the response. Columns are pairs of the name and what it holds.

    Attributes:
        asked: the prompt as a column of its own; `input` is joined to it.
        whole: the column of messages, whose last one may be the response.
        system, history: what stands before the prompt.
        arguments: what the chat template takes besides.
    """

    record: Mapping[str, Any]
    asked: tuple[str, Turns] | None
    whole: tuple[str, Turns] | None
    system: tuple[str, Message] | None
    history: Turns
    arguments: Mapping[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> _Prompt:
        for name in NOT_READ:
            if not _is_empty(record.get(name)):
                raise InvalidConversationError(
                    f"the column {name!r} is {shown(record[name])}, and no model here reads it: a score would be "
                    f"computed without it. Put it into the prompt, or leave it out (--ignore-column {name}).",
                    field=name,
                )
        return cls(
            record,
            _agreed(list(_asked(record))),
            _agreed([(name, _turns(record[name], name)) for name in CONVERSATIONS if not _is_empty(record.get(name))]),
            _system(record),
            _history(record.get(HISTORY)),
            _template_arguments(record),
        )

    def __post_init__(self) -> None:
        if self.asked is not None and self.whole is not None and not _is_within(self.asked[1], self.whole[1]):
            raise _differ(self.asked, self.whole)

    @property
    def head(self) -> tuple[str, Turns] | None:
        """The column that a response goes on from."""
        return self.asked if self.whole is None else self.whole

    def answered(self, responses: Mapping[str, Turns]) -> dict[str, Conversation]:
        """The prompt with each response, which may be a whole conversation."""
        if self.head is None and any(turns[0].role in _REPLIERS for turns in responses.values()):
            beside = f"there is no prompt beside {' and '.join(map(repr, responses))}"
            raise _missing(self.record, f"{beside}, as of a column 'prompt' or 'messages'")
        self._require_end_among(responses)
        return {name: _conversation(self.opened(self._joined(name, turns)), name) for name, turns in responses.items()}

    def _joined(self, name: str, response: Turns) -> Turns:
        if self.head is None:
            return response
        before = self._before()
        if _begins_with(response, before):
            return response
        if response[0].role in _REPLIERS or before[-1].role != "user":
            return (*before, *response)
        for column, turns in filter(None, (self.asked, self.whole and (self.whole[0], before))):
            if not _is_within(turns, response):
                raise InvalidConversationError(
                    f"{name!r} begins with a message by {response[0].role!r}, as whole conversations do, but "
                    f"{column!r} is not in it: {_texts(turns)}. Leave {column!r} out (--ignore-column {column}), or "
                    "what stands before the response.",
                    field=name,
                )
        return response

    def _before(self) -> Turns:
        """The messages before a response: those of `messages` without the one that it ends with."""
        assert self.head is not None
        turns = self.head[1]
        return turns[:-1] if self.whole is not None and turns[-1].role == "assistant" and len(turns) > 1 else turns

    def _require_end_among(self, responses: Mapping[str, Turns]) -> None:
        """Refuses messages that end with a response which is none of these."""
        if self.whole is None or self.whole[1][-1].role != "assistant":
            return
        column, turns = self.whole
        if not any(_same(turns[-1], response[-1]) for response in responses.values()):
            raise InvalidConversationError(
                f"{column!r} ends with the response {shown(turns[-1].text)}, which is not "
                f"{' or '.join(map(repr, responses))}. Leave one of the two out (--ignore-column {column}).",
                field=column,
            )

    def opened(self, turns: Turns) -> Turns:
        """The messages behind the row's system prompt and history, with what the template takes besides."""
        n_system = 1 if turns[0].role in _OPENERS else 0
        if self.system is not None:
            name, system = self.system
            if n_system and turns[0].text != system.text:
                raise InvalidConversationError(
                    f"{name!r} is {shown(system.text)}, and the messages begin with another system prompt: "
                    f"{shown(turns[0].text)}. Leave one of the two out (--ignore-column {name}).",
                    field=name,
                )
            if not n_system:
                turns, n_system = (system, *turns), 1
        start, rest = turns[:n_system], turns[n_system:]
        if self.history and not _begins_with(rest, self.history):
            if self.asked is None or self.whole is not None or not self._asks_once(rest):
                raise InvalidConversationError(
                    f"{HISTORY!r} is {_texts(self.history)}, with which the messages do not begin. Leave it out "
                    f"(--ignore-column {HISTORY}).",
                    field=HISTORY,
                )
            rest = (*self.history, *rest)
        return _with_arguments((*start, *rest), self.arguments)

    def _asks_once(self, rest: Turns) -> bool:
        """Whether the prompt is one question, before which earlier turns have a place."""
        assert self.asked is not None
        asked = [turn for turn in self.asked[1] if turn.role not in _OPENERS]
        return len(asked) == 1 and _same(asked[0], rest[0])


def _asked(record: Mapping[str, Any]) -> Iterator[tuple[str, Turns]]:
    """The columns that hold a prompt."""
    names = [name for name in PROMPTS if record.get(name) is not None]
    # What is empty is a prompt only where nothing else is one.
    others = [name for name in (*names, *CONVERSATIONS) if not _is_empty(record.get(name))]
    for name in names:
        if (_is_empty(record[name]) and others) or (name == INPUT and INSTRUCTION in names):
            continue
        value = record[name]
        if name == INSTRUCTION and not _is_empty(record.get(INPUT)):
            if not isinstance(value, str) or not isinstance(record[INPUT], str):
                raise InvalidConversationError(
                    f"{INPUT!r} is {shown(record[INPUT])} and {INSTRUCTION!r} {shown(value)}; two texts are joined.",
                    field=INPUT,
                )
            value = f"{value}\n\n{record[INPUT]}"
        yield name, _text("user", value, name) if isinstance(value, str) else _turns(value, name)


def _system(record: Mapping[str, Any]) -> tuple[str, Message] | None:
    found = [(name, record[name]) for name in SYSTEMS if not _is_empty(record.get(name))]
    for name, text in found:
        if not isinstance(text, str):
            raise InvalidConversationError(f"{name!r} is {shown(text)}; a text is read.", field=name)
    agreed = _agreed([(name, _text("system", text, name)) for name, text in found])
    return None if agreed is None else (agreed[0], agreed[1][0])


def _history(value: Any) -> Turns:
    if _is_empty(value):
        return ()
    pairs: list[Any] = value if isinstance(value, list) else [None]
    if not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) for t in pair) for pair in pairs):
        raise InvalidConversationError(
            f"{HISTORY!r} is {shown(value)}; a list of pairs is read, each the user's text and the assistant's.",
            field=HISTORY,
        )
    return tuple(
        turn
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
        for turn in _text(role, text, HISTORY)
    )


def _template_arguments(record: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: record[name] for name in (TOOLS, TEMPLATE_ARGUMENTS) if not _is_empty(record.get(name))}
    for name, value in found.items():
        if isinstance(value, str):
            try:
                found[name] = json.loads(value)
            except ValueError as error:
                raise InvalidConversationError(
                    f"{name!r} is {shown(value)}, which is not JSON: {error}.", field=name
                ) from error
    return {name: value for name, value in found.items() if not _is_empty(value)}


def _with_arguments(turns: Turns, arguments: Mapping[str, Any]) -> Turns:
    """The messages with what the template takes besides in the first one, that of other messages included."""
    for turn in turns:
        for name in (TOOLS, TEMPLATE_ARGUMENTS):
            value = turn.extra.get(name)
            if value is None:
                continue
            if arguments.get(name, value) != value:
                raise InvalidConversationError(
                    f"{name!r} is {shown(arguments[name])}, and a message has others: {shown(value)}.", field=name
                )
            arguments = {**arguments, name: value}
    if not arguments:
        return turns
    first, *others = (turn.without_template_arguments() for turn in turns)
    return (*border.parse_messages([{**first.to_dict(), **arguments}]), *others)


# -- messages and responses ------------------------------------------------------------------------------------------


def _response(record: Mapping[str, Any]) -> tuple[str, Turns] | None:
    """The column of the response, and what it holds."""
    found = [(name, _turns_of_response(record[name], name)) for name in RESPONSES if record.get(name) is not None]
    if len(found) > 1 and found[0][1] != found[1][1]:
        raise _differ(found[1], found[0])
    return found[0] if found else None


def _pair(record: Mapping[str, Any], names: tuple[str, str]) -> dict[str, Conversation]:
    pair = groups_of(record, {name: record.get(name) for name in names})
    for name, responses in pair.items():
        if len(responses) > 1:
            raise InvalidConversationError(f"{name!r} holds {len(responses)} responses; one is read here.", field=name)
    return {name: responses[0] for name, responses in pair.items()}


def _shared_prompt(conversations: Mapping[str, Conversation]) -> Turns:
    (name, first), *others = conversations.items()
    for other, conversation in others:
        if conversation.prompt != first.prompt:
            raise InvalidConversationError(
                f"{name!r} and {other!r} answer different prompts: {_texts(first.prompt)} and "
                f"{_texts(conversation.prompt)}.",
                field="prompt",
            )
    return first.prompt


def _turns_of_response(value: Any, name: str) -> Turns:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str):
        return _text("assistant", value, name)
    return _turns([value] if isinstance(value, Mapping) else value, name)


def _turns(value: Any, name: str) -> Turns:
    """The messages of a column."""
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise _unreadable(name, value)
    return _at(name, lambda: border.parse_messages([_with_role(turn) for turn in value]))


def _text(role: str, text: str, name: str) -> Turns:
    return _at(name, lambda: border.parse_messages([{"role": role, "content": text}]))


def _with_role(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message of `from` and `value` as one of `role` and `content`."""
    if "role" in turn or not {"from", "value"} <= turn.keys():
        return turn
    if turn["from"] not in _FROM:
        raise InvalidConversationError(f"a message is from {turn['from']!r}; known are {', '.join(_FROM)}.")
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    return {"role": _FROM[turn["from"]], "content": turn["value"], **rest}


def _conversation(turns: Turns, name: str) -> Conversation:
    return _at(name, lambda: border.conversation_of(turns))


def _at(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except InvalidConversationError as error:
        raise InvalidConversationError(f"{name!r}: {error.message}", field=name) from error


# -- whether several forms agree -------------------------------------------------------------------------------------


def _agreed(forms: list[tuple[str, Turns]]) -> tuple[str, Turns] | None:
    """The longest of several forms, of which the others must be turns."""
    if not forms:
        return None
    longest = max(forms, key=lambda form: len(form[1]))
    for form in forms:
        if not _is_within(form[1], longest[1]):
            raise _differ(form, longest)
    return longest


def _is_within(turns: Turns, others: Turns) -> bool:
    """Whether messages are some of the others, one after the other."""
    return any(_begins_with(others[start:], turns) for start in range(len(others) - len(turns) + 1))


def _begins_with(turns: Turns, others: Turns) -> bool:
    return len(turns) >= len(others) and all(map(_same, turns, others))


def _same(turn: Message, other: Message) -> bool:
    return (turn.role, turn.content, turn.tool_calls) == (other.role, other.content, other.tool_calls)


def _differ(form: tuple[str, Turns], other: tuple[str, Turns]) -> InvalidConversationError:
    return InvalidConversationError(
        f"{form[0]!r} and {other[0]!r} do not agree: {_texts(form[1])} and {_texts(other[1])}. Leave one of them out "
        f"(--ignore-column {form[0]}).",
        field=form[0],
    )


def _texts(turns: Sequence[Message]) -> str:
    return shown(" / ".join(turn.text for turn in turns))


# -- values ----------------------------------------------------------------------------------------------------------


def _record_of(row: Any) -> dict[str, Any]:
    """A row as a plain dict; what a table has for nothing (NaN, NaT, NA) is None."""
    if not isinstance(row, Mapping) and hasattr(row, "to_dict"):
        row = row.to_dict()
    if not isinstance(row, Mapping):
        raise InvalidConversationError(f"a row is {type(row).__name__}; a mapping of columns is read.")
    return {name: _some(plain(value)) for name, value in row.items()}


def _some(value: Any) -> Any:
    nothing = (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")
    return None if nothing else value


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def _unreadable(name: str, value: Any) -> InvalidConversationError:
    what = "a list of messages is read" if name in CONVERSATIONS else "a text or a list of messages is read"
    return InvalidConversationError(f"{name!r} is {shown(value)}; {what}.", field=name)


def _missing(record: Mapping[str, Any], problem: str, *, field: str | None = None) -> InvalidConversationError:
    return InvalidConversationError(
        f"{problem}; its columns: {listed(record)}. A column of another name is said with --column NAME=COLUMN.",
        field=field,
    )
