"""The arguments of `AutoRM.load`: what is refused where it has no meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reward_hub import registry

# Arguments of `load` that only servers read, with their defaults: another value beside a local engine is an error.
SERVER_ARGUMENTS: dict[str, Any] = {
    "api_base": None,
    "api_key": None,
    "dialect": None,
    "checkpoint": None,
    "timeout_s": 60.0,
    "max_retries": 4,
    "max_concurrency": 32,
}


def refuse_server_arguments(method: str, arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        if value != SERVER_ARGUMENTS[name]:
            raise TypeError(f"{name}={'...' if name == 'api_key' else repr(value)} has no meaning for {method}.")


def refuse_arguments(arguments: Mapping[str, tuple[Any, Any]], method: str, why: str) -> None:
    """Raises TypeError for the first value that is not its default: name -> (value, default)."""
    for name, (value, default) in arguments.items():
        if value is not default and value != default:
            raise TypeError(f"{name}={value!r} has no meaning for {method}: {why}.")


def check_engine_options(
    options: Mapping[str, Any], known: frozenset[str], backend: str, *, arguments: Sequence[str]
) -> None:
    for name in options:
        if name not in known:
            names = [*known, *arguments]
            near = registry.nearest(name, [n for n in names if n != "engine_options"])
            hint = f" Did you mean {near[0]!r}?" if near else f" Its own options: {', '.join(sorted(known))}."
            raise TypeError(f"{backend} has no option {name!r}.{hint}")
