"""What a judge is asked over: one chat request and its completion, and what a client of either kind must do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from reward_hub.judge.form import ChatMessages, ReplyToken

# As many as OpenAI and vLLM give.
TOP_LOGPROBS = 20


@dataclass(frozen=True)
class ChatRequest:
    """One request. Where the last message is the assistant's, the reply continues it."""

    messages: ChatMessages
    temperature: float
    max_tokens: int
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    """JSON schema that the reply is held to, where the server can do that."""
    logprobs: bool = False

    @property
    def continues(self) -> bool:
        return bool(self.messages) and self.messages[-1].get("role") == "assistant"

    @property
    def n_bytes(self) -> int:
        """Length of all contents in UTF-8."""
        return sum(len(str(message.get("content") or "").encode()) for message in self.messages)


@dataclass(frozen=True)
class Completion:
    """What came back."""

    text: str
    finish_reason: str | None
    """ "stop" for a complete reply; "length", "content_filter", ... otherwise."""
    tokens: tuple[ReplyToken, ...] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    refusal: str | None = None
    """The words of a model that declined, where the server gives them apart."""


class ChatClient(Protocol):
    """Sends chat requests. Nothing is opened or started before the first one."""

    @property
    def place(self) -> str:
        """Where the model is: an address without credentials, or the engine."""

    async def attempt(self, request: ChatRequest) -> Completion:
        """Send one request, once.

        Raises:
            AttemptError: it failed. What may succeed when tried again is a `ServerError` with `retryable`.
        """

    def close(self) -> None:
        """Close connections; a later request opens new ones."""
