"""NVIDIA NIM reward models: chat completions that answer with the score.

It stands in `choices[0].logprobs.content[i]`, `token` being the attribute and `logprob` the score itself, or in the
text: `reward:-25.625` (Llama-3.1-Nemotron-70B-Reward), `helpfulness:1.61,correctness:...` (Nemotron-4-340B-Reward). Of
several attributes helpfulness is the score; all are in `details["attributes"]`.
Source: NVIDIA's API reference (documentation; not run).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    entry_of,
    models,
    number,
    prompt_tokens,
    unusable,
)

ROUTE = "/v1/chat/completions"
_PAIR = re.compile(r"\s*([A-Za-z_][\w ]*?)\s*:\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
_SCORES = ("reward", "helpfulness")


async def recognise(client: HttpClient, model: str) -> Served | None:
    """A chat model is told from a reward model by what it says."""
    entries = await models(client)
    if not entries:
        return None
    served = Served(str(entry_of(entries, model).get("id")))
    probe = ServerInput([{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}])
    try:
        score_in(await client.post(ROUTE, body_of(served, probe)))
    except ServerError as error:
        if error.status in NO_SUCH_ROUTE or error.status in (200, 400, 422):
            return None
        raise
    return served


def body_of(served: Served, item: ServerInput) -> dict[str, Any]:
    return {**served.name, "messages": list(item.messages)}


def score_in(reply: Any) -> ServerScore:
    choices = entry(reply, "choices")
    if len(choices) != 1 or not isinstance(choices[0], Mapping):
        raise unusable(f"{len(choices)} choices where one score is expected")
    values = _from_logprobs(choices[0]) or _from_text(choices[0])
    name = next((name for name in _SCORES if name in values), None)
    if name is None:
        raise unusable(f"none of the attributes {sorted(values)} is known to be the reward")
    return ServerScore(values[name], prompt_tokens(reply), values if len(values) > 1 else None)


def _from_logprobs(choice: Mapping[str, Any]) -> dict[str, float]:
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    if not isinstance(content, list) or not content:
        return {}
    values = {}
    for item in content:
        if not isinstance(item, Mapping) or not isinstance(item.get("token"), str):
            raise unusable("an entry of logprobs.content has no token")
        values[item["token"].strip()] = number(item.get("logprob"))
    if len(values) != len(content):
        raise unusable("an attribute stands twice in logprobs.content")
    # A chat model's log-probabilities have this form too; only names of attributes tell a reward.
    return values if any(name in values for name in _SCORES) else {}


def _from_text(choice: Mapping[str, Any]) -> dict[str, float]:
    message = choice.get("message")
    text = message.get("content") if isinstance(message, Mapping) else None
    values: dict[str, float] = {}
    for part in text.split(",") if isinstance(text, str) else ():
        match = _PAIR.fullmatch(part)
        if match is None or match[1] in values:
            values = {}
            break
        values[match[1]] = number(float(match[2]))
    if not values:
        raise unusable(f"its text {str(text)[:80]!r} is not a list of attribute:number")
    return values


DIALECT = Dialect(name="nim", recognise=recognise, takes="messages", routes={ROUTE: (body_of, score_in)})
