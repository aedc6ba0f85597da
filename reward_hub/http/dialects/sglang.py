"""SGLang: the native `/classify`, whose `embedding` holds the raw scores; no chat template is applied there.

`/v1/classify` is never used: it answers a softmax over the labels, which is 1.0 for every one-label reward model.
Source: SGLang 0.5.23, sglang/srt/entrypoints/http_server.py (read, not run).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    get_or_none,
    models,
    one_number,
    shaped,
    unusable,
)
from reward_hub.types import Array


async def recognise(client: HttpClient, model: str) -> Served | None:
    entries = await models(client) or []
    if entries and entries[0].get("owned_by") != "sglang":
        return None
    info = await get_or_none(client, "/model_info") or await get_or_none(client, "/get_model_info")
    if not isinstance(info, Mapping) or "model_path" not in info:
        return None
    limit = entries[0].get("max_model_len") if entries else None
    # The native route takes no model's name: there is one.
    return Served(None, root=str(info["model_path"]), max_length=limit if isinstance(limit, int) else None)


def body_of(served: Served, item: ServerInput) -> dict[str, Any]:
    return {"input_ids": list(item.token_ids)}


def score_in(reply: Any) -> ServerScore:
    return ServerScore(one_number(entry(reply, "embedding")), _n_tokens(reply))


def _n_tokens(reply: Any) -> int | None:
    meta = reply.get("meta_info") if isinstance(reply, Mapping) else None
    count = meta.get("prompt_tokens") if isinstance(meta, Mapping) else None
    return count if isinstance(count, int) else None


def _wire(name: str, more: Mapping[str, Any]) -> Wire:
    def body(served: Served, inputs: Sequence[Sequence[int]]) -> dict[str, Any]:
        return {"input_ids": [list(ids) for ids in inputs], **more}

    def rows(reply: Any, inputs: Sequence[Sequence[int]], width: int) -> list[Array]:
        items = [reply] if isinstance(reply, Mapping) else reply
        if not isinstance(items, list) or len(items) != len(inputs):
            raise unusable(f"{len(items) if isinstance(items, list) else 'no'} results for {len(inputs)} inputs")
        # Results have no place but the one they stand at; the token counts are what tells them apart.
        for item, ids in zip(items, inputs, strict=True):
            check_count(_n_tokens(item), [ids])
        return [shaped(item.get(name) if isinstance(item, Mapping) else None, width) for item in items]

    return Wire("/classify", body, rows)


SCORES = _wire("embedding", {})
HIDDEN = _wire("pooled_hidden_state", {"return_pooled_hidden_states": True})

DIALECT = Dialect(name="sglang", recognise=recognise, takes="token_ids", routes={"/classify": (body_of, score_in)})
