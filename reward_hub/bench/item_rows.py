"""Results of items, and the lines of items.jsonl: an item, its result, and what figures need to know of its texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from reward_hub.bench.items import Item
from reward_hub.errors import RewardHubError

_FENCED = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)
_HEADER = re.compile(r"^ {0,3}#{1,6}\s", re.MULTILINE)
_LIST_ITEM = re.compile(r"^\s*(?:[-*+]|\d{1,3}[.)])\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


Scored: TypeAlias = dict[str, Any]
"""The result of an item: `scores`, or `error` (type and message), with what is known of how they came to be."""

_USED = ("calls", "prompt_tokens", "completion_tokens")


def failure(error: Exception) -> Scored:
    """The result of an item that failed."""
    return {"error": error_of(error)}


def error_of(error: Exception) -> dict[str, str]:
    """Type and message of an error."""
    # Not str(error): that counts places in the batch at hand.
    message = error.message if isinstance(error, RewardHubError) else str(error)
    return {"type": type(error).__name__, "message": message}


def placed(error: Mapping[str, str], place: str) -> dict[str, str]:
    """The error of one response of an item, which the message then names."""
    return {"type": error["type"], "message": f"{place}: {error['message']}"}


def totals(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over the responses of an item."""
    counts = [part.get("tokens_scored") for part in parts]
    found: dict[str, Any] = {
        "tokens_scored": None if not counts or None in counts else sum(counts),
        "truncated": any(part.get("truncated") for part in parts),
    }
    usages = [usage for part in parts for usage in _usages_of(part)]
    if usages:
        used = {name: [usage.get(name) for usage in usages] for name in _USED}
        found["usage"] = {name: None if None in counts else sum(counts) for name, counts in used.items()}
        costs = [usage.get("cost") for usage in usages]
        found["cost"] = None if None in costs else sum(costs)
    return found


def _usages_of(details: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A judge's usage, or those of the judges in an ensemble."""
    if details.get("usage"):
        yield details["usage"]
        return
    for member in details.get("members", ()):
        yield from _usages_of(member)


def item_row(item: Item, scored: Mapping[str, Any], *, texts: bool = True) -> dict[str, Any]:
    """The line of an item.

    Args:
        item: what was scored.
        scored: what `score_items` gave for it.
        texts: write prompt, responses and steps too.
    """
    told = scored.get("responses", {})
    row: dict[str, Any] = {"id": item.id, "subset": item.subset}
    row |= {name: value for name, value in scored.items() if name != "responses"}
    row |= item.truth
    if texts and item.conversations:
        row["prompt"] = [message.to_dict() for message in item.prompt]
    responses = {
        name: [
            _described(c.response, texts=texts) | details
            for c, details in zip(group, told.get(name) or [{}] * len(group), strict=True)
        ]
        for name, group in item.conversations.items()
        if name != "steps"
    }
    if responses:
        row["responses"] = responses
    if texts and "steps" in item.conversations:
        row["steps"] = list(item.conversations["steps"][0].steps or ())
    return row


def _described(text: str, *, texts: bool) -> dict[str, Any]:
    described: dict[str, Any] = {"characters": len(text), "words": len(text.split()), "markdown": markdown_marks(text)}
    return described | ({"text": text} if texts else {})


def markdown_marks(text: str) -> dict[str, int]:
    """How many headers, list items, bold spans and code blocks a text has; inside of code blocks nothing counts."""
    prose, n_blocks = _FENCED.subn("", text)
    return {
        "headers": len(_HEADER.findall(prose)),
        "list_items": len(_LIST_ITEM.findall(prose)),
        "bold": len(_BOLD.findall(prose)),
        "code_blocks": n_blocks,
    }


def truncation_rate(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of scored items of which anything was cut; None where nothing was scored."""
    cut = [bool(row.get("truncated")) for row in rows if "error" not in row]
    return sum(cut) / len(cut) if cut else None
