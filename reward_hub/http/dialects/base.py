"""What a dialect is: how its server is recognised, how it is asked for a score, and how its reply is read.

A reply is believed only where it has the promised form: as many results as asked, each with its place, of the expected
width, made of finite numbers. Everything else is a `ServerError`.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from reward_hub.errors import InputTooLongError, ServerError
from reward_hub.http.client import HttpClient
from reward_hub.types import Array

# What a server answers that has no such route, or has it for other models.
NO_SUCH_ROUTE = frozenset({404, 405, 501})


@dataclass(frozen=True)
class Served:
    """What a server tells of the model it holds.

    Attributes:
        model: the name that requests carry; None where they carry none.
        root: the checkpoint it was started with, in the server's words.
        max_length: most tokens it takes.
    """

    model: str | None
    root: str | None = None
    max_length: int | None = None
    version: str = ""

    @property
    def name(self) -> Mapping[str, str]:
        """The `model` entry of a request."""
        return {} if self.model is None else {"model": self.model}


@dataclass(frozen=True)
class ServerInput:
    """One conversation that a server is to score.

    Attributes:
        messages: in the OpenAI form.
        text: the rendered conversation, special tokens written out; where the chat template is known here.
        token_ids: of that text.
        bos: what the text opens with and the server's tokenizer would add once more.
    """

    messages: Sequence[Mapping[str, Any]]
    text: str = ""
    token_ids: Sequence[int] = ()
    bos: str = ""

    @property
    def text_without_bos(self) -> str:
        return self.text.removeprefix(self.bos) if self.bos else self.text


@dataclass(frozen=True)
class ServerScore:
    """A server's score of one conversation."""

    score: float
    n_tokens: int | None = None
    attributes: Mapping[str, float] | None = None


Recognise: TypeAlias = Callable[[HttpClient, str], Awaitable[Served | None]]
MakeBody: TypeAlias = Callable[[Served, ServerInput], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One kind of server.

    Attributes:
        recognise: asks the server who it is; None where it is something else.
        takes: what it is given: "messages" (it renders them), "text" or "token_ids" (rendered here), or "pair" (prompt
            and response as two texts, or rendered text where the chat template is known).
        routes: routes that score, the first that exists is used; each with its request and how a reply is read.
        activation: the request's switch for an activation function: name, value for off, value for on.
        error_of: reads errors that mean more than their status.
    """

    name: str
    recognise: Recognise
    takes: Literal["messages", "text", "token_ids", "pair"]
    routes: Mapping[str, tuple[MakeBody, Callable[[Any], ServerScore]]]
    activation: tuple[str, Any, Any] | None = None
    error_of: Callable[[int, Any], Exception | None] | None = None


@dataclass(frozen=True)
class Wire:
    """How token ids are sent over one route and numbers come back.

    Attributes:
        body: (served, inputs) -> request.
        rows: (reply, inputs, width) -> for each input float32 [width] or [n_tokens, width].
        activation: as in `Dialect`.
        inputs_per_request: most of them; a request waits for all that stands in the server's queue before it.
    """

    route: str
    body: Callable[[Served, Sequence[Sequence[int]]], dict[str, Any]]
    rows: Callable[[Any, Sequence[Sequence[int]], int], list[Array]]
    activation: tuple[str, Any, Any] | None = None
    inputs_per_request: int = 8


@dataclass(frozen=True)
class Connection:
    """A server that answered."""

    client: HttpClient = field(repr=False)
    dialect: Dialect
    served: Served


# -- reading replies ---------------------------------------------------------------------------------------------------


def unusable(problem: str) -> ServerError:
    """The error for a reply that has not the promised form."""
    return ServerError(f"The server's reply cannot be used: {problem}.", status=200)


def entry(reply: Any, name: str, kind: type = list) -> Any:
    """One entry of a JSON object.

    Raises:
        ServerError: it is not there, or of another type.
    """
    value = reply.get(name) if isinstance(reply, Mapping) else None
    if not isinstance(value, kind):
        held = sorted(reply) if isinstance(reply, Mapping) else type(reply).__name__
        raise unusable(f"it has no {kind.__name__} {name!r} (found: {held})")
    return value


def in_place(items: Sequence[Any], n: int) -> list[Mapping[str, Any]]:
    """The `n` results by their `index`; without one, a result counts as the one of its place.

    Raises:
        ServerError: too few, too many, or two of one place.
    """
    if len(items) != n:
        raise unusable(f"{len(items)} results for {n} inputs")
    placed: dict[int, Mapping[str, Any]] = {}
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise unusable(f"result {i} is not an object")
        index = item.get("index", i)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < n or index in placed:
            raise unusable(f"the results of {n} inputs have the places {[x.get('index') for x in items[:8]]}")
        placed[index] = item
    return [placed[i] for i in range(n)]


def number(value: Any) -> float:
    """A finite number.

    Raises:
        ServerError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise unusable(f"{str(value)[:80]!r} stands where a number is expected")
    return float(value)


def one_number(values: Any) -> float:
    """The number itself, or the only one in (the last row of) a list: `x`, `[x]`, `[[...], [x]]`.

    Raises:
        ServerError: there are several, or none.
    """
    if isinstance(values, list) and values and isinstance(values[0], list):
        values = values[-1]
    if isinstance(values, list):
        if len(values) != 1:
            raise unusable(
                f"{len(values)} numbers for one conversation, and which of them is the score is not known. Say with "
                "checkpoint= which model this is"
            )
        values = values[0]
    return number(values)


def floats(value: Any) -> Array:
    """A (nested) list of numbers, or base64 of little-endian float32, as an array.

    Raises:
        ServerError: neither, or not finite.
    """
    try:
        if isinstance(value, str):
            array = np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float32)
        else:
            numbers = np.asarray(value)
            if numbers.dtype.kind not in "iuf" and numbers.size:
                raise TypeError(f"{str(value)[:40]!r}")
            array = numbers.astype(np.float32)
    except (ValueError, TypeError, binascii.Error) as error:
        raise unusable(f"the numbers cannot be read ({error})") from error
    if not np.isfinite(array).all():
        raise unusable("it holds NaN or infinity, which is not a score")
    return array


def shaped(value: Any, *shape: int) -> Array:
    """Numbers of exactly this shape; base64 and one number for `(1,)` come flat.

    Raises:
        ServerError: they are of another shape.
    """
    array = floats(value)
    flat = isinstance(value, str) or array.ndim == 0
    if array.shape != shape and not (flat and array.size == math.prod(shape)):
        raise unusable(f"numbers of the shape {list(array.shape)} where {list(shape)} is expected")
    return array.reshape(shape)


def prompt_tokens(reply: Any) -> int | None:
    """The number of tokens that the server says it read."""
    usage = reply.get("usage") if isinstance(reply, Mapping) else None
    count = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    return count if isinstance(count, int) else None


def check_count(n_read: int | None, inputs: Sequence[Sequence[int]]) -> None:
    """The server read as many tokens as were sent.

    Raises:
        ServerError: it tokenised anew, added a token or cut some off.
    """
    sent = sum(len(ids) for ids in inputs)
    if n_read is not None and n_read != sent:
        raise unusable(
            f"the server read {n_read} tokens where {sent} token ids were sent: it tokenises for itself or cuts"
        )


def too_long(status: int, body: Any) -> Exception | None:
    """vLLM's refusal of what exceeds its length (and that of servers in its likeness)."""
    words = body.get("error") if isinstance(body, Mapping) else None
    text = words.get("message") if isinstance(words, Mapping) else None
    if status != 400 or not isinstance(text, str):
        return None
    match = re.search(r"maximum context length is (\d+) tokens.*?(\d+) (?:input )?tokens", text)
    if match is None:
        return None
    limit, n = int(match[1]), int(match[2])
    return InputTooLongError(f"{n} tokens, and the server takes {limit}.", n_tokens=n, max_length=limit)


async def models(client: HttpClient) -> list[Mapping[str, Any]] | None:
    """The entries of `/v1/models`; None where there is no such route or it is something else."""
    reply = await get_or_none(client, "/v1/models")
    entries = reply.get("data") if isinstance(reply, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(item, Mapping) for item in entries):
        return None
    return entries


async def get_or_none(client: HttpClient, route: str) -> Any:
    """GET; None where the server has no such route.

    Raises:
        ServerError: it cannot be reached, or refuses the key.
    """
    try:
        return await client.get(route)
    except ServerError as error:
        if error.status in NO_SUCH_ROUTE or error.status == 200:
            return None
        raise


def entry_of(entries: Sequence[Mapping[str, Any]], model: str) -> Mapping[str, Any]:
    """The entry of the model that is wanted, by its name or by the checkpoint behind it; "" is the only one.

    Raises:
        ServerError: it is not served.
    """
    for name in ("id", "root"):
        for item in entries:
            if item.get(name) == model:
                return item
    if not model and len(entries) == 1:
        return entries[0]
    names = ", ".join(repr(item.get("id")) for item in entries)
    raise ServerError(f"The server has no model {model!r}; it serves {names or 'none'}.", status=404)
