"""`reward-hub inspect`: what would be loaded, before gigabytes move."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from reward_hub.cli.option_groups import CheckpointOptions, Json, LogOptions
from reward_hub.cli.tables import print_pairs
from reward_hub.cli.usage import UsageError

PLACE_IN_HELP = 80

_TEMPLATE_LINES = 8  # of a chat template, which may have hundreds; --json has them all


def run(
    model: Annotated[str, typer.Argument(help="A hub id, a local folder, or a built-in model.")],
    *,
    as_json: Json = False,
    checkpoint: CheckpointOptions,
    log: LogOptions,
) -> None:
    """Show what would be loaded: family, head, template, positions read, backends, memory needed."""
    from reward_hub.auto import AutoRM

    try:
        described = AutoRM.inspect(model, **checkpoint.arguments())
    except TypeError as error:
        raise UsageError(str(error)) from error
    if as_json:
        print(json.dumps(described, indent=2))
    else:
        print_pairs(
            (name.removesuffix("_bytes").replace("_", " "), _text_of(name, value)) for name, value in described.items()
        )


def _text_of(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "template":
        lines = value.splitlines()
        return "\n".join([*lines[:_TEMPLATE_LINES], *(["..."] if len(lines) > _TEMPLATE_LINES else [])])
    if name.endswith("_bytes"):
        return f"{value / 2**20:,.1f} MiB"
    if isinstance(value, dict):
        return "\n".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
