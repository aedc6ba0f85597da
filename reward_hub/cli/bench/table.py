"""The results of a bench run for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reward_hub.cli.tables import print_pairs, print_table


def print_results(results: Mapping[str, Any], out: Path | None) -> None:
    """Overall, sections and subsets in one table, a curve where there is one, and what the run was."""
    metrics, run = results["metrics"], results["run"]
    overall = metrics["overall"]
    rows = [("overall", overall)]
    rows += [(name, entry) for part in ("sections", "subsets") for name, entry in metrics.get(part, {}).items()]
    # The figures that all entries have; what overall has besides follows below the table.
    columns = [name for name in overall if _is_cell(name, overall) and all(name in entry for _, entry in rows)]
    print_table(("", *columns), [(name, *(_shown(entry[c]) for c in columns)) for name, entry in rows], whole=("",))
    if overall.get("curve"):
        names = [name for name, value in overall["curve"][0].items() if value is not None]
        print_table(names, [[_shown(point[name]) for name in names] for point in overall["curve"]])
    beside = {name: _shown(value) for name, value in overall.items() if _is_cell(name, overall) and name not in columns}
    pairs = {
        **beside,
        "model": results["model"],
        "data": f"{results['suite'] or results['form']}, {run['data']['name']}",
        "items": f"{results['n']:,}",
        "failed": f"{results['n_failed']:,}" if results["n_failed"] else "",
        "tokens/s": f"{run['tokens_per_second']:,.0f}" if run.get("tokens_per_second") else "",
        "truncated": f"{run['truncation_rate']:.1%}" if run.get("truncation_rate") else "",
        "cost": f"{run['cost']:.4f}" if run.get("cost") is not None else "",
        "results": str(out) if out is not None else "",
    }
    print_pairs(pairs.items())
    for note in results["notes"]:
        print(f"Note: {note}")


def _is_cell(name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a figure is one number or an interval; what is itself a table stays in results.json."""
    return name == "ci95" or not isinstance(entry[name], (Mapping, list))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(_shown(bound) for bound in value)
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else str(value)
