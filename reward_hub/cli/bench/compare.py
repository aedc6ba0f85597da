"""`reward-hub bench compare`: two runs over the same items, and whether they differ."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
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
    """Compare two runs item by item: McNemar's exact test, and a paired bootstrap of the difference in accuracy.

    The difference is that of the second run less the first: above 0 where the second one is better.
    """
    from reward_hub.bench.statistics import compare_runs

    items, others = _items(first), _items(second)
    _require_same_data(first, items, second, others)
    try:
        comparison = compare_runs(items, others, shared_only=shared_only)
    except ValueError as error:
        raise UsageError(str(error).replace("shared_only=True", "--shared-only")) from error
    if as_json:
        print(json.dumps({"first": str(first), "second": str(second), **dataclasses.asdict(comparison)}, indent=2))
        return
    difference, exact = comparison.difference, comparison.mcnemar
    low, high = difference.ci95
    margin = f"{difference.difference:+.4f} ({low:+.4f} to {high:+.4f}), p = {difference.p_value:.3g}"
    pairs = {
        "items": f"{comparison.n:,}",
        str(first): f"{comparison.first_accuracy:.4f}",
        str(second): f"{comparison.second_accuracy:.4f}",
        f"{second} less {first}": margin,
    }
    if exact is not None:
        pairs[f"right in {first} alone"] = f"{exact.first_only:,}"
        pairs[f"right in {second} alone"] = f"{exact.second_only:,}"
        pairs["McNemar's exact test"] = f"p = {exact.p_value:.3g}"
    print_pairs(pairs.items())


def _items(folder: Path) -> list[dict[str, Any]]:
    path = folder / "items.jsonl"
    if not path.exists():
        raise UsageError(f"{folder} holds no items.jsonl; is the run complete?")
    with path.open(encoding="utf-8") as file:
        try:
            items = [json.loads(line) for line in file]
        except ValueError as error:
            raise UsageError(f"{path} is not what a run wrote: {error}.") from error
    if not any(item.get("correct") is not None for item in items):
        raise UsageError(f"{path} says of no item whether it is right; there is nothing to compare.")
    return items


def _require_same_data(first: Path, items: Sequence[dict[str, Any]], second: Path, others: Sequence[Any]) -> None:
    """Rows without an id have their number for one, and so the same ids in any two data sets."""
    known = {(other["id"], other["subset"]): other for other in others}
    for item in items:
        other = known.get((item["id"], item["subset"]), {})
        for name in ("prompt", "steps", "label", "error_steps", "grades"):
            if name in item and name in other and item[name] != other[name]:
                raise UsageError(f"item {item['id']!r} has another {name} in {second} than in {first}: other data.")
        if "responses" in item and "responses" in other and _sizes(item) != _sizes(other):
            raise UsageError(f"item {item['id']!r} has other responses in {second} than in {first}: other data.")


def _sizes(item: dict[str, Any]) -> dict[str, list[int]]:
    """Of the responses, because their texts may not have been written."""
    return {name: [response["characters"] for response in group] for name, group in item["responses"].items()}
