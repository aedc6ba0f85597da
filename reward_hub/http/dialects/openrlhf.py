"""OpenRLHF's remote reward models: `/get_reward` with the full text, special tokens included, one sample a request.

The server tokenises as it stands, removes end-of-sequence and padding tokens at both ends and appends one.
Source: OpenRLHF 0.11, openrlhf/cli/serve_rm.py and its client (read, not run).
"""

from __future__ import annotations

from typing import Any

from reward_hub.errors import ServerError
from reward_hub.http.client import HttpClient
from reward_hub.http.dialects.base import (
    NO_SUCH_ROUTE,
    Dialect,
    Served,
    ServerInput,
    ServerScore,
    entry,
    number,
    unusable,
)

ROUTE = "/get_reward"


async def recognise(client: HttpClient, model: str) -> Served | None:
    """It has no route that tells who it is: a text is scored."""
    try:
        score_in(await client.post(ROUTE, _body("2 + 2 = 4", "2 + 2 =")))
    except ServerError as error:
        if error.status in NO_SUCH_ROUTE or error.status in (200, 400, 422):
            return None
        raise
    return Served(None)


def _body(text: str, prompt: str) -> dict[str, Any]:
    return {"query": [text], "prompts": [prompt], "labels": [""]}


def body_of(served: Served, item: ServerInput) -> dict[str, Any]:
    return _body(item.text, str(item.messages[0].get("content") or ""))


def score_in(reply: Any) -> ServerScore:
    """`rewards` is what the training uses; `scores` may be the same or another number in [0, 1]."""
    rewards = entry(reply, "rewards")
    if len(rewards) != 1:
        raise unusable(f"{len(rewards)} rewards for one text")
    value = rewards[0]
    return ServerScore(number(value[0] if isinstance(value, list) and len(value) == 1 else value))


DIALECT = Dialect(name="openrlhf", recognise=recognise, takes="text", routes={ROUTE: (body_of, score_in)})
