"""What a row says besides the response: its prompt in every form, what stands before it, what the template takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reward_hub import messages as border
from reward_hub.data.column_names import (
    CONVERSATIONS,
    HISTORY,
    INPUT,
    INSTRUCTION,
    NOT_READ,
    PROMPTS,
    SYSTEMS,
)
from reward_hub.data.column_turns import (
    Turns,
    agreed,
    begins_with,
    checked_conversation,
    joined,
    missing,
    richer,
    same,
    shown,
    text_turn,
    texts_in,
    turns_of,
    with_keys_of,
)
from reward_hub.errors import InvalidConversationError
from reward_hub.types import TEMPLATE_ARGUMENTS, TOOLS, Conversation, Message, is_empty

_OPENERS = ("system", "developer")
_REPLIERS = ("assistant", "tool")


@dataclass(frozen=True)
class RowPrompt:
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
    def of(cls, record: Mapping[str, Any]) -> RowPrompt:
        for name in NOT_READ:
            if not is_empty(record.get(name)):
                raise InvalidConversationError(
                    f"the column {name!r} is {shown(record[name])}, and no model here reads it: a score would be "
                    f"computed without it. Put it into the prompt, or leave it out (--ignore-column {name}).",
                    field=name,
                )
        several = [(name, turns_of(record[name], name)) for name in CONVERSATIONS if not is_empty(record.get(name))]
        prompts = list(_asked(record))
        arguments = _all_arguments(_template_arguments(record), [*prompts, *several])
        asked, whole = agreed(_without_arguments(prompts)), agreed(_without_arguments(several))
        if asked is not None and whole is not None:
            whole = (whole[0], joined(whole, asked))
        return cls(record, asked, whole, _system(record), _history(record.get(HISTORY)), arguments)

    @property
    def head(self) -> tuple[str, Turns] | None:
        """The column that a response goes on from."""
        return self.asked if self.whole is None else self.whole

    def answered(self, responses: Mapping[str, Turns]) -> dict[str, Conversation]:
        """The prompt with each response, which may be a whole conversation."""
        if self.head is None and any(turns[0].role in _REPLIERS for turns in responses.values()):
            beside = f"there is no prompt beside {' and '.join(map(repr, responses))}"
            raise missing(self.record, f"{beside}, as of a column 'prompt' or 'messages'")
        responses = self._with_end_of_messages(responses)
        return {
            name: checked_conversation(self.opened(self._joined(name, turns)), name)
            for name, turns in responses.items()
        }

    def _joined(self, name: str, response: Turns) -> Turns:
        if self.head is None:
            return response
        before = self._before()
        if begins_with(response, before):
            return richer(response, before)
        if response[0].role in _REPLIERS or before[-1].role != "user":
            return (*before, *response)
        for column, turns in filter(None, (self.asked, self.whole and (self.whole[0], before))):
            found = with_keys_of(response, turns)
            if found is None:
                raise InvalidConversationError(
                    f"{name!r} begins with a message by {response[0].role!r}, as whole conversations do, but "
                    f"{column!r} is not in it: {texts_in(turns)}. Leave {column!r} out (--ignore-column {column}), or "
                    "what stands before the response.",
                    field=name,
                )
            response = found
        return response

    def _before(self) -> Turns:
        """The messages before a response: those of `messages` without the one that it ends with."""
        assert self.head is not None
        turns = self.head[1]
        return turns[:-1] if self.whole is not None and turns[-1].role == "assistant" and len(turns) > 1 else turns

    def _with_end_of_messages(self, responses: Mapping[str, Turns]) -> Mapping[str, Turns]:
        """The responses; what `messages` end with adds its keys to its like, and is refused where there is none."""
        if self.whole is None or self.whole[1][-1].role != "assistant":
            return responses
        column, turns = self.whole
        ended = {name: one for name, one in responses.items() if same(turns[-1], one[-1])}
        if not ended:
            raise InvalidConversationError(
                f"{column!r} ends with the response {shown(turns[-1].text)}, which is not "
                f"{' or '.join(map(repr, responses))}. Leave one of the two out (--ignore-column {column}).",
                field=column,
            )
        last = turns[-1:]
        return {**responses, **{name: (*one[:-1], *richer(one[-1:], last)) for name, one in ended.items()}}

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
        # Without the response: a question asked again and answered as before is not the history itself.
        asked = rest[:-1] if rest and rest[-1].role == "assistant" else rest
        if self.history and not begins_with(asked, self.history):
            if self.asked is None or self.whole is not None or not self._asks_once(rest):
                raise InvalidConversationError(
                    f"{HISTORY!r} is {texts_in(self.history)}, with which the messages do not begin. Leave it out "
                    f"(--ignore-column {HISTORY}).",
                    field=HISTORY,
                )
            rest = (*self.history, *rest)
        return border.with_template_arguments((*start, *rest), **self.arguments)

    def _asks_once(self, rest: Turns) -> bool:
        """Whether the prompt is one question, before which earlier turns have a place."""
        assert self.asked is not None
        asked = [turn for turn in self.asked[1] if turn.role not in _OPENERS]
        return len(asked) == 1 and same(asked[0], rest[0])


def _asked(record: Mapping[str, Any]) -> Iterator[tuple[str, Turns]]:
    """The columns that hold a prompt."""
    names = [name for name in PROMPTS if record.get(name) is not None]
    # What is empty is a prompt only where nothing else is one.
    others = [name for name in (*names, *CONVERSATIONS) if not is_empty(record.get(name))]
    for name in names:
        if (is_empty(record[name]) and others) or (name == INPUT and not is_empty(record.get(INSTRUCTION))):
            continue
        value = record[name]
        if name == INSTRUCTION and not is_empty(record.get(INPUT)):
            if not isinstance(value, str) or not isinstance(record[INPUT], str):
                raise InvalidConversationError(
                    f"{INPUT!r} is {shown(record[INPUT])} and {INSTRUCTION!r} {shown(value)}; two texts are joined.",
                    field=INPUT,
                )
            value = f"{value}\n\n{record[INPUT]}"
        yield name, text_turn("user", value, name) if isinstance(value, str) else turns_of(value, name)


def _system(record: Mapping[str, Any]) -> tuple[str, Message] | None:
    given = [(name, record[name]) for name in SYSTEMS if not is_empty(record.get(name))]
    for name, text in given:
        if not isinstance(text, str):
            raise InvalidConversationError(f"{name!r} is {shown(text)}; a text is read.", field=name)
    system = agreed([(name, text_turn("system", text, name)) for name, text in given])
    return None if system is None else (system[0], system[1][0])


def _history(value: Any) -> Turns:
    if is_empty(value):
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
        for turn in text_turn(role, text, HISTORY)
    )


def _all_arguments(arguments: dict[str, Any], forms: list[tuple[str, Turns]]) -> dict[str, Any]:
    """What the template takes besides, in a column of its own or with the messages of one."""
    for column, (first, *_) in forms:
        for name in {TOOLS, TEMPLATE_ARGUMENTS} & first.extra.keys():
            if arguments.setdefault(name, first.extra[name]) != first.extra[name]:
                raise InvalidConversationError(
                    f"{name!r} is {shown(arguments[name])}, and a message has others: in {column!r} stands "
                    f"{shown(first.extra[name])}.",
                    field=name,
                )
    return arguments


def _without_arguments(forms: list[tuple[str, Turns]]) -> list[tuple[str, Turns]]:
    return [(column, tuple(turn.without_template_arguments() for turn in turns)) for column, turns in forms]


def _template_arguments(record: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {name: record[name] for name in (TOOLS, TEMPLATE_ARGUMENTS) if not is_empty(record.get(name))}
    for name, value in arguments.items():
        if isinstance(value, str):
            try:
                arguments[name] = json.loads(value)
            except ValueError as error:
                raise InvalidConversationError(
                    f"{name!r} is {shown(value)}, which is not JSON: {error}.", field=name
                ) from error
    return {name: value for name, value in arguments.items() if not is_empty(value)}
