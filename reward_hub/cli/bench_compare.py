"""`reward-hub bench compare`: two runs over the same items, and whether they differ."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from reward_hub.cli.option_groups import Json, LogOptions
from reward_hub.cli.tables import print_pairs
from reward_hub.cli.usage import UsageError


def run(
    first: Annotated[Path, typer.Argument(help="The folder of a run.")],
    second: Annotated[Path, typer.Argument(help="The folder of another one over the same data.")],
    *,
    shared_only: Annotated[
        bool, typer.Option("--shared-only", help="Compare the items that both hold, where they differ.")
    ] = False,
    as_json: Json = False,
    log: LogOptions,
) -> None:
    """Compare two runs item by item: McNemar's exact test, and a paired bootstrap of the difference in accuracy."""
    from reward_hub.bench.statistics import compare_runs

    try:
        found = compare_runs(_items(first), _items(second), shared_only=shared_only)
    except ValueError as error:
        raise UsageError(str(error).replace("shared_only=True", "--shared-only")) from error
    if as_json:
        print(json.dumps({"first": str(first), "second": str(second), **dataclasses.asdict(found)}, indent=2))
        return
    difference, exact = found.difference, found.mcnemar
    low, high = difference.ci95
    pairs = {
        "items": f"{found.n:,}",
        str(first): f"{found.first_accuracy:.4f}",
        str(second): f"{found.second_accuracy:.4f}",
        "difference": f"{difference.difference:+.4f} ({low:+.4f} to {high:+.4f}), p = {difference.p_value:.3g}",
    }
    if exact is not None:
        pairs["right in one alone"] = f"{exact.first_only} and {exact.second_only}"
        pairs["McNemar's exact test"] = f"p = {exact.p_value:.3g}"
    print_pairs(pairs.items())


def _items(folder: Path) -> list[dict[str, Any]]:
    path = folder / "items.jsonl"
    if not path.exists():
        raise UsageError(f"{folder} holds no items.jsonl; is the run complete?")
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
