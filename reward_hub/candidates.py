"""Conversations that differ in their last message alone, as one prompt and its responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reward_hub.errors import InvalidConversationError


def prompt_and_responses(conversations: Sequence[Sequence[Any]]) -> tuple[list[Any], list[str]]:
    """The messages that all conversations begin with, and the text that each ends with.

    Raises:
        InvalidConversationError: there is no conversation, they have several prompts, or a response is more than text.
            `.index` is the place of the conversation.
    """
    if not conversations or not all(conversations):
        raise InvalidConversationError(
            "there is no conversation to compare, or one without messages.", field="messages"
        )
    prompt = list(conversations[0][:-1])
    responses = []
    for index, (*turns, last) in enumerate(conversations):
        if turns != prompt:
            raise InvalidConversationError(
                "it has another prompt than the first one; responses to one prompt are compared.",
                index=index,
                field="messages",
            )
        if last.get("tool_calls") or not isinstance(last.get("content"), str):
            raise InvalidConversationError(
                "the response calls tools or has parts; texts are compared.",
                index=index,
                field=f"messages[{len(turns)}].content",
            )
        responses.append(last["content"])
    return prompt, responses
