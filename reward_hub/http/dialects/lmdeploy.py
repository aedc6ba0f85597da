"""LMDeploy: `/pooling` of InternLM2 and Qwen2 reward models; `data` is one bare number, and text is not rendered.

Source: LMDeploy 0.16.0, lmdeploy/serve/openai/api_server.py (read, not run).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    in_place,
    models,
    one_number,
    prompt_tokens,
    shaped,
)
from reward_hub.types import Array


async def recognise(client: HttpClient, model: str) -> Served | None:
    entries = await models(client)
    if not entries or entries[0].get("owned_by") != "lmdeploy":
        return None
    item = entry_of(entries, model)
    root = item.get("root")
    return Served(str(item.get("id")), root=root if isinstance(root, str) else None)


def body_of(served: Served, item: ServerInput) -> dict[str, Any]:
    return {**served.name, "input": list(item.token_ids)}


def score_in(reply: Any) -> ServerScore:
    (item,) = in_place(entry(reply, "data"), 1)
    return ServerScore(one_number(item.get("data")), prompt_tokens(reply))


def _body(served: Served, inputs: Sequence[Sequence[int]]) -> dict[str, Any]:
    return {**served.name, "input": [list(ids) for ids in inputs]}


def _rows(reply: Any, inputs: Sequence[Sequence[int]], width: int) -> list[Array]:
    check_count(prompt_tokens(reply), inputs)
    return [shaped(item.get("data"), width) for item in in_place(entry(reply, "data"), len(inputs))]


SCORES = Wire("/pooling", _body, _rows)

DIALECT = Dialect(name="lmdeploy", recognise=recognise, takes="token_ids", routes={"/pooling": (body_of, score_in)})
