"""The border for conversations: what callers pass -> validated `Conversation`, or `InvalidConversationError`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import pydantic

from reward_hub.errors import InvalidConversationError
from reward_hub.types import TEMPLATE_ARGUMENTS, TOOLS, Conversation, Message, Pair, is_empty

ROLES = ("system", "user", "assistant", "tool", "developer")
# Names in a chat template that are not for callers to set.
_TEMPLATE_OWN = ("messages", "conversation", "chat_template", "tokenize", "add_generation_prompt")

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
# Atomic, so that the two characters of one CRLF are never taken for two line breaks.
_ANY_LINE_BREAK = r"(?>\r\n|\r|\n)"
_REST_OF_BLANK_LINE = r"[^\S\r\n]*+"


class _TextPart(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    type: Literal["text"] = "text"
    text: str


class _Message(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="allow")
    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: str | list[_TextPart] | None = None
    tool_calls: list[dict[str, Any]] | None = None


def parse(
    messages: Any = None,
    *,
    prompt: str | None = None,
    response: str | None = None,
    require_response: bool = True,
    index: int | None = None,
) -> Conversation:
    """One conversation, from `messages` or from `prompt` and `response`.

    Args:
        require_response: False takes it as it stands, whoever speaks last; `response` may then be left out.

    Raises:
        InvalidConversationError: no messages, an unknown role, missing content, a last message that is not the
            assistant's, no user message. `.field` says where, `.index` repeats the place in the batch.
    """
    if isinstance(messages, Conversation) and prompt is None and response is None:
        _check_turns(parse_messages(messages, index), index, require_response=require_response)
        return messages
    if messages is None and response is None and isinstance(prompt, str) and not require_response:
        messages, prompt = [{"role": "user", "content": prompt}], None
    turns = parse_messages(_as_messages(messages, prompt, response, index), index)
    return conversation_of(turns, require_response=require_response, index=index)


def conversation_of(
    turns: tuple[Message, ...], *, require_response: bool = True, index: int | None = None
) -> Conversation:
    """The conversation that messages make; one must be the user's, and the last the assistant's where that is asked."""
    _check_turns(turns, index, require_response=require_response)
    return Conversation(turns)


def _check_turns(turns: tuple[Message, ...], index: int | None, *, require_response: bool) -> None:
    if require_response and turns[-1].role != "assistant":
        raise InvalidConversationError(
            f"the last message has role {turns[-1].role!r}; a response by 'assistant' is scored "
            "(require_response=False takes a conversation as it stands).",
            index=index,
            field=f"messages[{len(turns) - 1}].role",
        )
    _need_user(turns, index)


def parse_prompt(messages: Any = None, *, prompt: str | None = None, index: int | None = None) -> tuple[Message, ...]:
    """The messages before a response that is given apart (`compare`, `rank`); the last must not be the assistant's."""
    if (messages is None) == (prompt is None):
        raise InvalidConversationError("give either messages= or prompt=.", index=index, field="messages")
    if messages is None:
        if not isinstance(prompt, str):
            raise InvalidConversationError(
                f"prompt is {type(prompt).__name__}; a text is needed.", index=index, field="prompt"
            )
        messages = [{"role": "user", "content": prompt}]
    turns = parse_messages(messages, index)
    if turns[-1].role == "assistant":
        raise InvalidConversationError(
            "the last message is the assistant's; give the prompt alone, the responses come apart.",
            index=index,
            field=f"messages[{len(turns) - 1}].role",
        )
    _need_user(turns, index)
    return turns


def parse_pair(
    messages: Any = None, *, prompt: str | None = None, a: Any = None, b: Any = None, index: int | None = None
) -> Pair:
    """Two responses to one prompt; empty texts are responses too."""
    for name, text in (("a", a), ("b", b)):
        if not isinstance(text, str):
            raise InvalidConversationError(
                f"{name} is {type(text).__name__}; a response text is needed.", index=index, field=name
            )
        _check_unicode(text, index, name)
    return Pair(parse_prompt(messages, prompt=prompt, index=index), a, b)


def parse_steps(
    messages: Any = None,
    *,
    prompt: str | None = None,
    response: str | None = None,
    steps: Sequence[str] | None = None,
    step_delimiter: str,
    index: int | None = None,
) -> Conversation:
    """One conversation with its response cut into steps.

    With `steps`, `messages` ends with the assistant's message (the steps stand in it in order, nothing but white
    space between) or with the user's (the response is then the steps joined by a blank line). Without, the response
    is split as `split_steps` does it.
    """
    if steps is None:
        conversation = parse(messages, prompt=prompt, response=response, index=index)
        if conversation.steps is not None:
            return conversation
        return split_steps(conversation, step_delimiter, index=index)
    if isinstance(steps, str) or not isinstance(steps, Sequence) or not all(isinstance(s, str) for s in steps):
        raise InvalidConversationError("steps must be a list of texts.", index=index, field="steps")
    if not steps:
        raise InvalidConversationError("steps is empty; at least one step is scored.", index=index, field="steps")
    for i, step in enumerate(steps):
        _check_unicode(step, index, f"steps[{i}]")
    if messages is None and response is None and prompt is not None:
        messages, prompt = [{"role": "user", "content": prompt}], None
    turns = parse_messages(_as_messages(messages, prompt, response, index), index)
    _need_user(turns, index)
    if turns[-1].role == "assistant":
        spans = _locate_steps(turns[-1].text, steps, index)
    else:
        turns = (*turns, Message("assistant", "\n\n".join(steps)))
        spans = []
        start = 0
        for step in steps:
            spans.append((start, start + len(step)))
            start += len(step) + 2
    return Conversation(turns, steps=tuple(steps), step_spans=tuple(spans))


def split_steps(conversation: Conversation, step_delimiter: str, *, index: int | None = None) -> Conversation:
    """The conversation with its response split at `step_delimiter`; blank pieces are dropped, the others kept as is.

    A line break in the delimiter stands for any (LF, CRLF, CR), a blank line also for one that holds white space.
    """
    if not step_delimiter:
        raise InvalidConversationError("step_delimiter is empty.", index=index, field="step_delimiter")
    response = conversation.response
    spans = tuple(span for span in _pieces(response, step_delimiter) if response[slice(*span)].strip())
    if not spans:
        raise InvalidConversationError(
            f"the response has no step: nothing is left of it when split at {step_delimiter!r}.",
            index=index,
            field="response",
        )
    steps = tuple(response[start:end] for start, end in spans)
    return replace(conversation, steps=steps, step_spans=spans)


def _pieces(text: str, delimiter: str) -> Iterator[tuple[int, int]]:
    """[start, end) of what stands between the delimiters."""
    start = 0
    for found in _delimiter_pattern(delimiter).finditer(text):
        yield start, found.start()
        start = found.end()
    yield start, len(text)


@lru_cache
def _delimiter_pattern(delimiter: str) -> re.Pattern[str]:
    lines = [re.escape(line) for line in _LINE_BREAK.split(delimiter)]
    # Between two line breaks with nothing between them lies a blank line.
    lines[1:-1] = [line or _REST_OF_BLANK_LINE for line in lines[1:-1]]
    return re.compile(_ANY_LINE_BREAK.join(lines))


def n_lines(text: str) -> int:
    """How many lines there are, blank ones apart."""
    return sum(not line.isspace() for line in _LINE_BREAK.split(text) if line)


def with_template_arguments(
    turns: tuple[Message, ...], tools: Any = None, chat_template_kwargs: Any = None, *, index: int | None = None
) -> tuple[Message, ...]:
    """The messages with what the chat template takes besides in the first one, that of other messages included.

    Raises:
        InvalidConversationError: it has another form, or a message has others.
    """
    if not (tools or chat_template_kwargs or any(turn.extra for turn in turns)):
        return turns
    arguments = {TOOLS: tools or None, TEMPLATE_ARGUMENTS: chat_template_kwargs or None}
    places = [turn.extra for turn in turns if TOOLS in turn.extra or TEMPLATE_ARGUMENTS in turn.extra]
    if not places and not any(arguments.values()):
        return turns
    for name in arguments:
        for value in (extra[name] for extra in places if name in extra):
            if arguments[name] not in (None, value):
                raise InvalidConversationError(
                    f"{name!r} is {_short(arguments[name])}, and a message has others: {_short(value)}.",
                    index=index,
                    field=name,
                )
            arguments[name] = value
    first, *others = (turn.without_template_arguments() for turn in turns)
    return (replace(first, extra=_checked_extra({**first.extra, **arguments}, 0, index)), *others)


def is_single(messages: Any) -> bool:
    """Whether this is one conversation (a list of messages) rather than a list of conversations."""
    if isinstance(messages, str) or not isinstance(messages, Sequence) or not messages:
        return True
    return not isinstance(messages[0], (list, tuple, Conversation))


def parse_messages(messages: Any, index: int | None = None) -> tuple[Message, ...]:
    """Validate roles and contents; which role must stand last is the caller's matter."""
    if isinstance(messages, Conversation):
        messages = messages.messages
    if type(messages) is not list and (isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence)):
        raise InvalidConversationError(
            f"messages is {type(messages).__name__}; a list of {{'role', 'content'}} dicts is needed "
            "(for plain texts use prompt= and response=).",
            index=index,
            field="messages",
        )
    if not messages:
        raise InvalidConversationError("there are no messages.", index=index, field="messages")
    return tuple(_message(raw, place, index) for place, raw in enumerate(messages))


def _message(raw: Any, place: int, index: int | None) -> Message:
    parts = _plain_parts(raw)
    if parts is None:
        if isinstance(raw, Message):
            return _checked_message(raw, f"messages[{place}]", index)
        parts = _checked_parts(raw, f"messages[{place}]", index)
    role, text, tool_calls, extra = parts
    if text is None:
        if role != "assistant" or not tool_calls:
            where = f"messages[{place}]"
            raise InvalidConversationError(f"{where} has no content.", index=index, field=f"{where}.content")
    elif not text.isascii():
        _check_unicode(text, index, f"messages[{place}].content")
    return Message(role, text, tool_calls, _checked_extra(extra, place, index) if extra else extra)


def _checked_message(message: Message, where: str, index: int | None) -> Message:
    if message.media:
        raise InvalidConversationError(
            f"{where} has content that is neither a text nor a list of text parts.",
            index=index,
            field=f"{where}.content",
        )
    return message if message.content is None else replace(message, content=message.text)


_Parts: TypeAlias = tuple[str, str | None, tuple[dict[str, Any], ...], dict[str, Any]]
"""A message's role, its content as text, its tool calls, and its other keys."""


def _plain_parts(raw: Any) -> _Parts | None:
    """The parts of a message of plain types; None for what `_checked_parts` has to decide, or to name as wrong.

    It says the same of these messages and takes several times as long.
    """
    if type(raw) is not dict:
        return None
    role, content, calls = raw.get("role"), raw.get("content"), raw.get("tool_calls")
    if type(role) is not str or role not in ROLES:
        return None
    text = content if content is None or type(content) is str else _joined_texts(content)
    if text is None and content is not None:
        return None
    if len(raw) == 2 and text is not None:
        return role, text, (), {}
    if (calls is not None and not _are_calls(calls)) or not all(type(name) is str for name in raw):
        return None
    extra = {name: value for name, value in raw.items() if name not in ("role", "content", "tool_calls")}
    return role, text, tuple(map(dict, calls or ())), extra


def _joined_texts(content: Any) -> str | None:
    """The text of a list of text parts; None where it is not one."""
    if type(content) is not list or not all(type(part) is dict for part in content):
        return None
    texts = [part.get("text") for part in content]
    kinds = [part.get("type", "text") for part in content]
    plain = all(type(text) is str for text in texts) and all(type(kind) is str and kind == "text" for kind in kinds)
    return "".join(texts) if plain else None


def _are_calls(calls: Any) -> bool:
    return type(calls) is list and all(type(call) is dict and all(type(name) is str for name in call) for call in calls)


def _checked_parts(raw: Any, where: str, index: int | None) -> _Parts:
    """Raises InvalidConversationError: it is not a dict, or role, content or tool calls have another form."""
    if hasattr(raw, "model_dump"):
        raw = raw.model_dump(exclude_none=True)
    if not isinstance(raw, Mapping):
        raise InvalidConversationError(
            f"{where} is {type(raw).__name__}; a dict with 'role' and 'content' is needed.", index=index, field=where
        )
    try:
        parsed = _Message.model_validate(dict(raw))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "content"
        if field == "role":
            problem = f"has the unknown role {raw.get('role')!r}; known: {', '.join(ROLES)}."
            if "role" not in raw:
                problem = "has no role."
        elif field == "content":
            problem = "has content that is neither a text nor a list of text parts."
        else:
            problem = f"has a wrong {field}: {first['msg']}."
        raise InvalidConversationError(f"{where} {problem}", index=index, field=f"{where}.{field}") from error
    content = parsed.content
    text = content if content is None or isinstance(content, str) else "".join(part.text for part in content)
    return parsed.role, text, tuple(parsed.tool_calls or ()), dict(parsed.model_extra or {})


def _checked_extra(extra: Mapping[str, Any], place: int, index: int | None) -> dict[str, Any]:
    """A message's other keys; `tools` and `chat_template_kwargs` are the conversation's, and stand in its first one."""
    checked = dict(extra)
    for name in (TOOLS, TEMPLATE_ARGUMENTS):
        if is_empty(checked.get(name)):
            checked.pop(name, None)
        elif place > 0:
            where = f"messages[{place}].{name}"
            raise InvalidConversationError(
                f"{where}: {name} belong to the whole conversation; give them with its first message.",
                index=index,
                field=where,
            )
    tools, arguments = checked.get(TOOLS), checked.get(TEMPLATE_ARGUMENTS)
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, Mapping) for tool in tools)):
        raise InvalidConversationError(
            f"tools is {_short(tools)}; a list of dicts, one a tool, is needed.", index=index, field=TOOLS
        )
    if arguments is None:
        return checked
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise InvalidConversationError(
            f"{TEMPLATE_ARGUMENTS} is {_short(arguments)}; a dict of names and values is needed.",
            index=index,
            field=TEMPLATE_ARGUMENTS,
        )
    taken = (*_TEMPLATE_OWN, *((TOOLS,) if tools else ()))
    for name in arguments:
        if name in taken:
            raise InvalidConversationError(
                f"{TEMPLATE_ARGUMENTS} holds {name!r}, which is set by other means.",
                index=index,
                field=TEMPLATE_ARGUMENTS,
            )
    return checked


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _as_messages(messages: Any, prompt: str | None, response: str | None, index: int | None) -> Any:
    if messages is not None:
        if prompt is not None or response is not None:
            raise InvalidConversationError(
                "messages= was given beside prompt= or response=; give one or the other.", index=index, field="messages"
            )
        return messages
    for name, text in (("prompt", prompt), ("response", response)):
        if not isinstance(text, str):
            problem = "missing" if text is None else f"{type(text).__name__}, not a text"
            raise InvalidConversationError(
                f"{name} is {problem}; give messages=, or prompt= and response=.", index=index, field=name
            )
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def _need_user(turns: tuple[Message, ...], index: int | None) -> None:
    if not any(turn.role == "user" for turn in turns):
        raise InvalidConversationError("there is no user message.", index=index, field="messages")


def _check_unicode(text: str, index: int | None, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidConversationError(
            f"{field} holds {text[error.start]!r}, half of a surrogate pair; no tokenizer takes it. Decode the text "
            "with errors='replace'.",
            index=index,
            field=field,
        ) from error


def _locate_steps(response: str, steps: Sequence[str], index: int | None) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    position = 0
    for i, step in enumerate(steps):
        start = position
        while not response.startswith(step, start):
            if start >= len(response) or not response[start].isspace():
                raise InvalidConversationError(
                    f"step {i} does not stand in the response after the step before it: expected {step[:60]!r} at "
                    f"character {start}, found {response[start : start + 60]!r}.",
                    index=index,
                    field=f"steps[{i}]",
                )
            start += 1
        position = start + len(step)
        spans.append((start, position))
    if response[position:].strip():
        raise InvalidConversationError(
            f"the response goes on after the last step: {response[position : position + 60]!r} is in no step.",
            index=index,
            field="steps",
        )
    return spans


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
        more = [key for key, value in last.items() if key not in ("role", "content") and not is_empty(value)]
        if more or not isinstance(last.get("content"), str):
            what = "calls tools" if "tool_calls" in more else f"has {' and '.join(more)}" if more else "is not a text"
            raise InvalidConversationError(
                f"the response {what}; texts are compared.",
                index=index,
                field=f"messages[{len(turns)}].{more[0] if more else 'content'}",
            )
        responses.append(last["content"])
    return prompt, responses
