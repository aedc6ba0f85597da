"""vLLM: `/classify` and `/pooling` score messages that the server renders; token ids go over `/pooling` and others.

Without `use_activation: false` a logit comes back as a sigmoid, several as a softmax, a hidden vector with length 1.
`--api-key` guards only paths that begin with /v1; the key is sent to all. `add_generation_prompt` is false by default
on these routes, as it must be for a finished conversation; it is said all the same.
Source: vLLM 0.32 (tried, ../shared/reference/captures) and 0.33 (from its source).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reward_hub.http.client import HttpClient
from reward_hub.http.dialects.base import (
    Dialect,
    Served,
    ServerInput,
    ServerScore,
    Wire,
    check_count,
    entry,
    entry_of,
    get_or_none,
    in_place,
    models,
    number,
    one_number,
    prompt_tokens,
    shaped,
    too_long,
    unusable,
)
from reward_hub.types import Array

SWITCH = ("use_activation", False, True)


async def recognise(client: HttpClient, model: str) -> Served | None:
    entries = await models(client)
    if not entries or entries[0].get("owned_by") != "vllm":
        return None
    item = entry_of(entries, model)
    reply = await get_or_none(client, "/version")
    limit = item.get("max_model_len")
    return Served(
        str(item.get("id")),
        root=item.get("root") if isinstance(item.get("root"), str) else None,
        max_length=limit if isinstance(limit, int) else None,
        version=str(reply.get("version", "")) if isinstance(reply, Mapping) else "",
    )


def body_of(served: Served, item: ServerInput) -> dict[str, Any]:
    return {
        **served.name,
        "messages": list(item.messages),
        "add_generation_prompt": False,
        "use_activation": False,
    }


def classified(reply: Any) -> ServerScore:
    (item,) = in_place(entry(reply, "data"), 1)
    return ServerScore(one_number(entry(item, "probs")), prompt_tokens(reply))


def pooled(reply: Any) -> ServerScore:
    (item,) = in_place(entry(reply, "data"), 1)
    return ServerScore(one_number(item.get("data")), prompt_tokens(reply))


# -- token ids -------------------------------------------------------------------------------------------------------


def pooling_wire(task: str, *, every_token: bool) -> Wire:
    """`/pooling` with a task: numbers of the last token, or of every token."""

    def body(served: Served, inputs: Sequence[Sequence[int]]) -> dict[str, Any]:
        return {
            **served.name,
            "input": [list(ids) for ids in inputs],
            "task": task,
            "use_activation": False,
            # A quarter of the bytes of JSON numbers, and the same float32.
            "encoding_format": "base64",
        }

    def rows(reply: Any, inputs: Sequence[Sequence[int]], width: int) -> list[Array]:
        check_count(prompt_tokens(reply), inputs)
        items = in_place(entry(reply, "data"), len(inputs))
        shapes = [(len(ids), width) if every_token else (width,) for ids in inputs]
        return [shaped(item.get("data"), *shape) for item, shape in zip(items, shapes, strict=True)]

    # Hidden vectors of every token are megabytes an input.
    return Wire("/pooling", body, rows, SWITCH, inputs_per_request=1 if task == "token_embed" else 8)


def _list_wire(route: str, name: str) -> Wire:
    """`/classify` and `/v1/embeddings`: numbers of the last token under a name."""

    def body(served: Served, inputs: Sequence[Sequence[int]]) -> dict[str, Any]:
        return {**served.name, "input": [list(ids) for ids in inputs], "use_activation": False}

    def rows(reply: Any, inputs: Sequence[Sequence[int]], width: int) -> list[Array]:
        check_count(prompt_tokens(reply), inputs)
        return [shaped(item.get(name), width) for item in in_place(entry(reply, "data"), len(inputs))]

    return Wire(route, body, rows, SWITCH)


CLASSIFY = _list_wire("/classify", "probs")
EMBEDDINGS = _list_wire("/v1/embeddings", "embedding")


def _complete(served: Served, inputs: Sequence[Sequence[int]]) -> dict[str, Any]:
    return {
        **served.name,
        "prompt": [list(ids) for ids in inputs],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
    }


def _logprobs(reply: Any, inputs: Sequence[Sequence[int]], width: int) -> list[Array]:
    """For each input [n_tokens, 1]: the log-probability of each token; the first has none, and 0 in its place."""
    check_count(prompt_tokens(reply), inputs)
    tables = []
    for item, ids in zip(in_place(entry(reply, "choices"), len(inputs)), inputs, strict=True):
        steps = entry(item, "prompt_logprobs")
        if len(steps) != len(ids):
            raise unusable(f"log-probabilities of {len(steps)} tokens where {len(ids)} were sent")
        values = [0.0]
        for token_id, step in zip(ids[1:], steps[1:], strict=True):
            entry_here = step.get(str(token_id)) if isinstance(step, Mapping) else None
            if not isinstance(entry_here, Mapping):
                raise unusable(f"no log-probability of the token {token_id} that was sent")
            values.append(_logprob(entry_here.get("logprob")))
        tables.append(np.array(values, np.float32).reshape(-1, 1))
    return tables


def _logprob(value: Any) -> float:
    logprob = number(value)
    if logprob > 1e-3:
        raise unusable(f"{logprob} stands where a log-probability is expected")
    return logprob


COMPLETIONS = Wire("/v1/completions", _complete, _logprobs, inputs_per_request=4)

DIALECT = Dialect(
    name="vllm",
    recognise=recognise,
    takes="messages",
    routes={"/classify": (body_of, classified), "/pooling": (body_of, pooled)},
    activation=SWITCH,
    error_of=too_long,
)
