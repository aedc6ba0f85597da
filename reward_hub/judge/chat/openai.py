"""A chat model behind an OpenAI-compatible endpoint, asked by the `openai` package; one request at a time is sent once.

Limits, retries and their waits are `LimitedChat`'s, because every attempt counts against the limits. Replies are read
here as JSON rather than by that package's types, which are filled in unchecked.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any

import httpx

from reward_hub.errors import BackendError, ServerError, ServerTimeoutError, missing_dependency
from reward_hub.http.client import (
    UnusableNumberError,
    api_key_from,
    parse_json,
    refused,
    require_sendable_key,
    shown_address,
)
from reward_hub.http.sending import AttemptError
from reward_hub.judge.chat.client import TOP_LOGPROBS, ChatRequest, Completion
from reward_hub.judge.chat.providers import require_openai_model
from reward_hub.judge.form import ReplyToken
from reward_hub.loops import PerLoop

logger = logging.getLogger(__name__)

DEFAULT_BASE = "https://api.openai.com/v1"
_QUOTED = 300


def address_given(api_base: str | None) -> bool:
    """Whether an endpoint is named, by an argument or by OPENAI_BASE_URL; else OpenAI's own is meant."""
    return bool(api_base or os.environ.get("OPENAI_BASE_URL"))


class OpenAIChat:
    """An OpenAI-compatible endpoint.

    Args:
        structured: True sends `response_format` with every request that has a schema; "auto" until the server refuses
            it; False never.
        timeout_s: for one attempt, from its first byte to the last of the reply.
        extra_body: further fields of every request, as the server knows them.
    """

    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        api_key: str | None = None,
        timeout_s: float,
        structured: bool | str = "auto",
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if timeout_s <= 0:
            raise TypeError(f"timeout_s={timeout_s}: it must be positive.")
        self.model = model
        if not address_given(api_base):
            require_openai_model(model)
        self._base = (api_base or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE).rstrip("/")
        url = _url(self._base)
        if url is None or url.scheme not in ("http", "https") or not url.host:
            raise ServerError(f"api_base={self.place!r}: write http://host:port/v1 or https://host/v1.")
        if url.path in ("", "/"):
            self._base += "/v1"
        self._key = api_key_from(api_key)
        require_sendable_key(self._key)
        self._timeout_s = timeout_s
        self._structured = structured
        self._extra_body = dict(extra_body or {})
        self._max_tokens_name = "max_tokens"
        self._clients: PerLoop[Any] = PerLoop(self._new_client, lambda client: client.close())

    def __repr__(self) -> str:
        return f"OpenAIChat({self.model!r}, {self.place!r})"

    @property
    def place(self) -> str:
        return shown_address(self._base)

    def close(self) -> None:
        self._clients.close()

    async def attempt(self, request: ChatRequest) -> Completion:
        client = await self._clients.get()
        structured = request.schema is not None and self._structured in (True, "auto")
        name = self._max_tokens_name
        try:
            return await self._send(client, request, structured=structured)
        except AttemptError as failed:
            error = failed.error
            if not isinstance(error, ServerError) or not (error.status in (400, 422) or _names_schema(error)):
                raise
            if name == "max_tokens" and "max_completion_tokens" in error.message:
                # OpenAI's newer models refuse the old name and say the new one; they may refuse more than that.
                self._max_tokens_name = "max_completion_tokens"
                return await self.attempt(request)
            # Not `!= "auto"`: another request may have been refused meanwhile, and have said so.
            if not structured or self._structured is True:
                raise
        completion = await self._send(client, request, structured=False)
        if self._structured == "auto":
            self._structured = False
            logger.info("%s refuses response_format; JSON is asked for in words from here on.", self.place)
        return completion

    async def _send(self, client: Any, request: ChatRequest, *, structured: bool) -> Completion:
        import openai

        where = f"POST {self.place}/chat/completions"
        try:
            async with asyncio.timeout(self._timeout_s):
                raw = await client.chat.completions.with_raw_response.create(**self._body(request, structured))
                content = raw.content
        except (TimeoutError, openai.APITimeoutError) as error:
            raise AttemptError(ServerTimeoutError(f"{where}: no answer within {self._timeout_s:g} s.")) from error
        except openai.APIStatusError as error:
            raise self._refused(where, error) from None
        except openai.APIConnectionError as error:
            problem = f"the connection failed ({error.__cause__ or error}). Is the server running?"
            raise AttemptError(ServerError(f"{where}: {self._keyless(problem)}", retryable=True)) from error
        try:
            return _completion_of(parse_json(content), logprobs=request.logprobs)
        except UnusableNumberError as error:
            raise AttemptError(ServerError(f"{where}: the reply holds {error}.", status=200)) from None
        except ServerError as error:
            error.message = f"{where}: {self._keyless(error.message)}"
            raise AttemptError(error) from None
        except BackendError as error:
            raise AttemptError(error) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            quoted = self._keyless(repr(content[:_QUOTED].decode(errors="replace")))
            problem = f"{where}: the reply is not a chat completion: {quoted}."
            raise AttemptError(ServerError(problem, status=200, retryable=True)) from None

    def _body(self, request: ChatRequest, structured: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": request.messages,
            "temperature": request.temperature,
            self._max_tokens_name: request.max_tokens,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = list(request.stop)
        if structured:
            schema = {"name": "verdict", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        extra = dict(self._extra_body)
        if request.continues:
            # vLLM's way of letting the model go on with a message that is begun.
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        if extra:
            body["extra_body"] = extra
        if not self._key:
            from openai import Omit

            body["extra_headers"] = {"Authorization": Omit()}
        return body

    def _refused(self, where: str, error: Any) -> AttemptError:
        """The failure of a reply with another status than 200."""
        text = self._keyless(str(error.message))[:_QUOTED]
        return refused(where, error.status_code, error.response.headers, text, key_sent=bool(self._key))

    def _keyless(self, text: str) -> str:
        """A text of others without the key, should they repeat it."""
        return text.replace(self._key, "***") if self._key else text

    def _new_client(self) -> Any:
        try:
            import openai
        except ImportError as error:
            raise missing_dependency("openai", "judge", "LLMJudge over an endpoint") from error
        # The client wants a key in any case; where there is none, the header is left out with each request.
        return openai.AsyncOpenAI(base_url=self._base, api_key=self._key or "none", max_retries=0, timeout=None)


def _completion_of(body: Any, *, logprobs: bool) -> Completion:
    """A reply as JSON -> what it says. Raises KeyError and its like where it has another form.

    Raises:
        BackendError: log-probabilities were asked for, and there are none.
        ServerError: the reply is an error, though its status said otherwise.
    """
    if isinstance(body, dict) and body.get("error") and not body.get("choices"):
        raise ServerError(
            f"the server answered with an error: {str(body['error'])[:_QUOTED]}", status=200, retryable=True
        )
    choice = body["choices"][0]
    message = choice["message"]
    text, refusal = _text_of(message.get("content")), message.get("refusal")
    if not isinstance(text, str | None) or not isinstance(refusal, str | None):
        raise TypeError("content is not text")
    usage = body.get("usage") or {}
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt_tokens, completion_tokens = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    return Completion(
        text=text or "",
        finish_reason=choice.get("finish_reason"),
        tokens=_tokens_of(choice.get("logprobs"), text) if logprobs else None,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        refusal=refusal,
    )


def _names_schema(error: ServerError) -> bool:
    """Whether a server without structured output says so, whatever status it chose (500, 501)."""
    return any(name in error.message for name in ("response_format", "json_schema"))


def _text_of(content: Any) -> Any:
    """The text of a reply in parts, its thinking (Mistral's) left out; anything else as it is."""
    if not isinstance(content, list):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def _tokens_of(logprobs: Any, text: str | None) -> tuple[ReplyToken, ...]:
    tokens = (logprobs or {}).get("content")
    if tokens is None and text:
        raise BackendError(
            "The server gave no log-probabilities, which this judge reads its score from (use_logprobs, or its form). "
            "Ask a server that gives them (vLLM, OpenAI), or set use_logprobs=False."
        )
    return tuple(
        ReplyToken(
            one["token"],
            {**{way["token"]: float(way["logprob"]) for way in one.get("top_logprobs") or ()}}
            | {one["token"]: float(one["logprob"])},
        )
        for one in tokens or ()
    )


def _url(address: str) -> httpx.URL | None:
    try:
        return httpx.URL(address)
    except httpx.InvalidURL:
        return None
