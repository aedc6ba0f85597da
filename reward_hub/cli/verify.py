"""`reward-hub verify`: the same conversations through every backend, and how far the numbers are apart."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reward_hub.cli.column_options import ColumnOptions
from reward_hub.cli.option_groups import Json, LoadOptions, LogOptions, load_model
from reward_hub.cli.tables import print_table
from reward_hub.cli.usage import UsageError

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

PLACE_IN_HELP = 110

_REFERENCE = "transformers, one at a time"


def run(
    model: Annotated[str, typer.Argument(help="A hub id, a local folder, or a built-in model.")],
    *,
    data: Annotated[
        Path | None, typer.Option(help="Rows with prompt and responses, or conversations; by default built-in ones.")
    ] = None,
    backend: Annotated[list[str] | None, typer.Option(help="Hold only these against transformers; repeatable.")] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Largest difference that passes.")] = 1e-4,
    as_json: Json = False,
    columns: ColumnOptions,
    load: LoadOptions,
    log: LogOptions,
) -> None:
    """Score the same conversations on every backend that is available, and compare.

    Transformers, one conversation at a time, is what the others are held against: its own batches, our server, vLLM
    where it is installed, and with --api-base a server. In float32 unless --dtype says otherwise. The exit code is 1
    where a difference exceeds the tolerance.
    """
    from reward_hub.bench.agreement import PROMPTS, agreement, check_groups, measure

    load = load.but(dtype="float32" if load.dtype == "auto" else load.dtype)
    groups = list(PROMPTS) if data is None else check_groups(_rows(data, columns))
    local = load.but(load_method="transformers", api_base=None, checkpoint=None, dialect=None)
    with load_model(_local_name(model, load), local.but(batch_size=1)) as rm:
        expected = measure(rm, groups)
    rows = []
    for name in _available(load, backend):
        with _opened(name, model, load, local) as rm:
            agreed = agreement(expected, measure(rm, groups))
        rows.append({"backend": name, **dataclasses.asdict(agreed), "passed": agreed.largest <= tolerance})
    if as_json:
        print(json.dumps({"model": model, "reference": _REFERENCE, "tolerance": tolerance, "backends": rows}, indent=2))
    else:
        print_table(
            ("backend", "numbers", "largest difference", "mean", "Kendall tau", "same best of n", ""),
            ([_shown(row[key]) for key in row] for row in rows),
            whole=("backend",),
        )
        print(f"Held against {_REFERENCE}; tolerance {tolerance:g}.")
    if not all(row["passed"] for row in rows):
        raise typer.Exit(1)


def _rows(path: Path, columns: ColumnOptions) -> list[Any]:
    from reward_hub.data.rows import RowFormatError, read_rows

    try:
        rows = list(read_rows(str(path), columns.columns))
    except (OSError, RowFormatError) as error:
        raise UsageError(str(error)) from error
    for row in rows:
        if row.error is not None:
            raise UsageError(f"{path}, row {row.number}: {row.error}")
    if not rows:
        raise UsageError(f"{path} holds no rows.")
    return [row.record for row in rows]


def _local_name(model: str, load: LoadOptions) -> str:
    """What is loaded here: with a server the checkpoint it holds, where that is said."""
    return load.checkpoint or model


def _available(load: LoadOptions, asked: list[str] | None) -> list[str]:
    names = ["transformers", "server"]
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        names.remove("server")
    if importlib.util.find_spec("vllm") is not None:
        names.append("vllm")
    if load.api_base is not None:
        names.append("api")
    unknown = sorted(set(asked or ()) - set(names))
    if unknown:
        raise UsageError(f"--backend {unknown[0]}: not available here; there are {', '.join(names)}.")
    return [name for name in names if not asked or name in asked]


@contextmanager
def _opened(name: str, model: str, load: LoadOptions, local: LoadOptions) -> Iterator[BaseRM]:
    """The model on one backend; our own server runs in this process for as long as it is asked."""
    if name == "api":
        with load_model(model, load.but(load_method="api")) as rm:
            yield rm
    elif name == "server":
        from reward_hub.server.run import served_in_background

        with load_model(_local_name(model, load), local) as rm, served_in_background(rm) as address:
            remote = LoadOptions(load_method="api", api_base=address)
            with load_model(rm.name, remote) as client:
                yield client
    else:
        with load_model(_local_name(model, load), local.but(load_method=name)) as rm:
            yield rm


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "ok" if value else "too far"
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)
