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

from collections.abc import Mapping
from typing import Any

from reward_hub.data.column_names import LABELLED_PAIR, PAIR, RESPONSES, STEPS
from reward_hub.data.column_turns import (
    Turns,
    beyond_text,
    checked_conversation,
    differ,
    missing,
    response_turns,
    shown,
    texts_in,
    unreadable,
)
from reward_hub.data.row_prompt import RowPrompt
from reward_hub.data.rows import plain
from reward_hub.errors import InvalidConversationError
from reward_hub.types import Conversation

CONVERSATION_COLUMNS = "'messages', 'conversation', 'prompt' and 'response', or 'instruction' and 'response'"
"""The columns of a conversation that messages name."""


def conversation_of(row: Any, *, require_response: bool = True) -> Conversation:
    """The conversation of a row that holds a prompt and its response.

    Args:
        require_response: False also takes a prompt alone, or messages that end with the user's.

    Raises:
        InvalidConversationError: it holds none, or several that do not agree.
    """
    record = _record_of(row)
    prompt = RowPrompt.of(record)
    response = _response(record)
    if response is not None:
        return prompt.answered({response[0]: response[1]})[response[0]]
    given = prompt.whole if require_response else prompt.head
    if given is None:
        raise missing(record, f"the row has no {CONVERSATION_COLUMNS}")
    name, turns = given
    return checked_conversation(prompt.opened(turns), name, require_response=require_response)


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
    prompt = RowPrompt.of(record)
    response = _response(record)
    if response is not None:
        turns = prompt.answered({response[0]: response[1]})[response[0]].messages
    elif prompt.head is None:
        raise missing(record, "there is no prompt beside 'steps', as of a column 'prompt', 'messages' or 'problem'")
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
        raise missing(record, "there are no 'responses'")
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
    pairs = [names for names in (PAIR, LABELLED_PAIR) if all(record.get(name) is not None for name in names)]
    if len(pairs) > 1:
        raise InvalidConversationError(
            "the row has two pairs, 'a' and 'b', and 'chosen' and 'rejected': leave one out (--ignore-column).",
            field=PAIR[0],
        )
    if not pairs and not any(record.get(name) is not None for name in LABELLED_PAIR):
        raise missing(record, "there are neither 'a' and 'b' nor 'chosen' and 'rejected'")
    return _pair(record, pairs[0] if pairs else LABELLED_PAIR)


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
    return RowPrompt.of(record).answered({name: response_turns(value, name) for name, value in responses.items()})


def groups_of(row: Any, groups: Mapping[str, Any]) -> dict[str, tuple[Conversation, ...]]:
    """The row's prompt with the responses of each group, which may hold one or a list of them.

    Raises:
        InvalidConversationError: a group is empty, a response cannot be read, or they answer different prompts.
    """
    record = _record_of(row)
    for name, value in groups.items():
        if value is None:
            raise missing(record, f"there is no {name!r}", field=name)
    several = {group: _several(plain(value), group) for group, value in groups.items()}
    conversations = answered(record, {name: one for named in several.values() for name, one in named.items()})
    _shared_prompt(conversations)
    return {group: tuple(conversations[name] for name in named) for group, named in several.items()}


def _several(value: Any, name: str) -> dict[str, Any]:
    """The responses that a column holds, one or a list of them, by the names that errors say."""
    if isinstance(value, (str, Mapping)):
        return {name: value}
    if not isinstance(value, list) or not value:
        raise unreadable(name, value)
    if all(isinstance(part, Mapping) for part in value):
        return {name: value}
    return {name: value[0]} if len(value) == 1 else {f"{name}[{place}]": part for place, part in enumerate(value)}


def texts_of(conversations: Mapping[str, Conversation]) -> tuple[list[dict[str, Any]], list[str]]:
    """The prompt that conversations share, as messages, and the text that answers it in each.

    Raises:
        InvalidConversationError: they have several prompts, or a response is more than its text.
    """
    for name, conversation in conversations.items():
        more = beyond_text(conversation.messages[-1])
        if more is not None:
            raise InvalidConversationError(f"{name!r} {more}; texts are compared.", field=name)
    prompt = _shared_prompt(conversations)
    return [turn.to_dict() for turn in prompt], [conversation.response for conversation in conversations.values()]


def _response(record: Mapping[str, Any]) -> tuple[str, Turns] | None:
    """The column of the response, and what it holds."""
    given = [(name, response_turns(record[name], name)) for name in RESPONSES if record.get(name) is not None]
    if len(given) > 1 and given[0][1] != given[1][1]:
        raise differ(given[1], given[0])
    return given[0] if given else None


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
                f"{name!r} and {other!r} answer different prompts: {texts_in(first.prompt)} and "
                f"{texts_in(conversation.prompt)}.",
                field="prompt",
            )
    return first.prompt


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
