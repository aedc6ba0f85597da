"""The result of an item: `scores`, or `error` (type and message), with what is known of how they came to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from reward_hub.errors import RewardHubError

Scored: TypeAlias = dict[str, Any]

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
