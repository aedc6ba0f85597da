"""`reward-hub serve-args`: the `vllm serve` command for a server that `load_method="api"` can read from."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from reward_hub.cli.option_groups import CheckpointOptions, Json, LogOptions
from reward_hub.cli.usage import UsageError

PLACE_IN_HELP = 90


def run(
    model: Annotated[str, typer.Argument(help="A hub id or a local folder.")],
    *,
    name: Annotated[str | None, typer.Option(help="The served name; by default the model's.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Write a checkpoint here that vLLM takes without reward_hub's plug-in.")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
    as_json: Json = False,
    checkpoint: CheckpointOptions,
    log: LogOptions,
) -> None:
    """Print the `vllm serve` command that answers as this model is read; add your own options (`--port`, ...) to it."""
    from reward_hub.auto import AutoRM

    try:
        words, notes = AutoRM.serve_args(model, name=name, folder=folder, torch_dtype=dtype, **checkpoint.arguments())
    except TypeError as error:
        raise UsageError(str(error)) from error
    if as_json:
        print(json.dumps({"command": words, "notes": notes}, indent=2))
        return
    print(shlex.join(words))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    hint = f'AutoRM.load("{name or model}", load_method="api", api_base="http://HOST:8000/v1", checkpoint="{model}")'
    print(f"note: load it with {hint}", file=sys.stderr)
