"""What the columns of a row mean: those of a conversation, of its steps, of a pair, of the responses to rank."""

from __future__ import annotations

import itertools
from typing import Any, cast

from reward_hub.errors import InvalidConversationError

CONVERSATION_COLUMNS = "'messages', 'conversation', 'prompt' and 'response', or 'instruction' and 'response'"


def conversation_of(record: dict[str, Any]) -> list[Any]:
    """The messages of a row that holds a prompt and its response.

    Raises:
        InvalidConversationError: the row has none of the columns that hold a conversation.
    """
    messages = _messages_column(record)
    if messages is not None:
        return messages
    response = record.get("response")
    prompt = _prompt_of(record, "prompt", "instruction")
    if prompt is None or response is None:
        raise _missing(record, CONVERSATION_COLUMNS)
    return [*prompt, {"role": "assistant", "content": response}]


def stepwise_of(record: dict[str, Any]) -> dict[str, Any]:
    """The messages of a row and, where it has them, the steps of its response.

    Raises:
        InvalidConversationError: the row holds no conversation, or `steps` is not a list.
    """
    steps = record.get("steps")
    if steps is None:
        return {"messages": conversation_of(record)}
    if not isinstance(steps, list):
        raise InvalidConversationError(f"'steps' is a {type(steps).__name__}; a list of texts is read.", field="steps")
    messages = _messages_column(record)
    if messages is None:
        prompt = _prompt_of(record, "prompt", "instruction", "problem")
        if prompt is None:
            raise _missing(record, "'messages', 'prompt' or 'problem' beside 'steps'")
        response = record.get("response")
        messages = prompt if response is None else [*prompt, {"role": "assistant", "content": response}]
    return {"messages": messages, "steps": steps}


def responses_of(record: dict[str, Any]) -> tuple[list[Any], list[str]]:
    """The prompt of a row as messages, and the responses to rank.

    Raises:
        InvalidConversationError: the row has no prompt, or `responses` is not a list of at least one text.
    """
    prompt = _messages_column(record)
    if prompt is None:
        prompt = _prompt_of(record, "prompt", "instruction", "problem")
    responses = record.get("responses")
    if prompt is None or responses is None:
        raise _missing(record, "'responses' beside 'prompt', 'messages' or 'instruction'")
    if not isinstance(responses, list) or not responses or not all(isinstance(text, str) for text in responses):
        raise InvalidConversationError("'responses' must be a list of at least one text.", field="responses")
    return prompt, cast(list[str], responses)


def pair_of(record: dict[str, Any]) -> tuple[list[Any], str, str]:
    """The prompt of a row as messages, and the two responses to compare: `a` and `b`, or `chosen` and `rejected`.

    Responses may also be whole conversations that share their prompt, as preference sets have them.

    Raises:
        InvalidConversationError: the row holds no prompt or no two responses.
    """
    names = ("a", "b") if "a" in record or "b" in record else ("chosen", "rejected")
    prompts, texts = zip(*(_response_in(record, name) for name in names), strict=True)
    prompt = _messages_column(record)
    if prompt is None:
        prompt = _prompt_of(record, "prompt", "instruction", "problem")
    if prompt is None and prompts[0] == prompts[1]:
        prompt = prompts[0]
    if not prompt:
        raise _missing(record, f"prompt beside {names[0]!r} and {names[1]!r}")
    return prompt, texts[0], texts[1]


def _response_in(record: dict[str, Any], name: str) -> tuple[list[Any] | None, str]:
    """A response of a pair, and the messages before it where it is a whole conversation."""
    response = record.get(name)
    if isinstance(response, str):
        return None, response
    if not isinstance(response, list) or not response:
        raise _missing(record, "'a' and 'b', or 'chosen' and 'rejected'")
    text = response[-1].get("content") if isinstance(response[-1], dict) else None
    if not isinstance(text, str):
        raise InvalidConversationError(f"the last message of {name!r} has no text.", field=name)
    return response[:-1], text


def _messages_column(record: dict[str, Any]) -> list[Any] | None:
    for name in ("messages", "conversation"):
        messages = record.get(name)
        if isinstance(messages, list):
            return messages
        if messages is not None:
            raise InvalidConversationError(
                f"{name!r} is a {type(messages).__name__}; a list of messages is read.", field=name
            )
    return None


def _prompt_of(record: dict[str, Any], *names: str) -> list[Any] | None:
    prompt = next((record[name] for name in names if record.get(name) is not None), None)
    if prompt is None or isinstance(prompt, list):
        return prompt
    return [{"role": "user", "content": prompt}]


def _missing(record: dict[str, Any], wanted: str) -> InvalidConversationError:
    names = ", ".join(repr(name) for name in itertools.islice(record, 8)) or "none"
    return InvalidConversationError(f"the row has no {wanted}; its columns: {names}.")
