"""The report page: one HTML file that needs no network, made from the folders of finished runs.

What the page shows is put together here as plain data, which the plots in PNG files show too (`plots.py`); layout
and charts are in `assets/`. Texts of the data reach the page as JSON alone and are only ever set as text.
"""

from __future__ import annotations

import datetime
import html
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from reward_hub.bench.report.figures import curves_of, histogram_of, is_graded, scatter_of, steps_of
from reward_hub.bench.report.items import item_entries, value_name
from reward_hub.bench.report.runs import Run, marks_of
from reward_hub.bench.statistics import compare_runs
from reward_hub.version import __version__

# Told apart by colour-blind readers too (Okabe and Ito), the darker ones first.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#999933")
MAX_ITEMS = 2000

# In the order in which they are looked for: PRMBench has an F1 beside its PRM-Score, and the interval is the latter's.
_MAIN = {"accuracy": "Accuracy", "prm_score": "PRM-Score", "f1": "F1", "mean": "Mean score"}
_SHARES = (
    "easy",
    "normal",
    "hard",
    "prompt_weighted_accuracy",
    "error_accuracy",
    "correct_accuracy",
    "first_error_acc",
)

# Of preference data.
_BESIDE = {
    "ECE": ("calibration", "ece"),
    "length gap": ("bias", "length", "accuracy_gap"),
    "markdown gap": ("bias", "markdown", "accuracy_gap"),
    "prefers first": ("bias", "position", "prefers_first"),
}
# How to read a column whose name does not say it.
_MEANINGS = {
    "ties": "Items with equal scores where one should be the higher.",
    "failed": "Items without a score; they count as wrong unless the suite's rule says otherwise.",
    "ECE": "Expected calibration error of the probability that the chosen response is the better one; 0 is best.",
    "length gap": "Accuracy where the chosen response is the longer one, less that where it is the shorter one; "
    "0 without a bias.",
    "markdown gap": "The same of markdown: where the chosen response has more of it, less where it has less.",
    "prefers first": "The share of verdicts that are for the response shown first; 50 % without a bias.",
    "truncated": "The share of scored items of which the model did not see everything.",
    "cost": "In the currency of the prices that the judge was given.",
}


def page_groups(runs: Sequence[Run], *, max_items: int = MAX_ITEMS) -> list[dict[str, Any]]:
    """What the page shows, a group for each set of runs on the same data, as JSON-serialisable data.

    Args:
        runs: in the order in which they are shown.
        max_items: most items in a group's table.
    """
    together: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        # Files of one name may hold other data; a suite's are the same ones wherever they come from.
        data = "" if run.results["suite"] else str(run.results["run"]["data"]["sha256"])
        together.setdefault((run.title, str(run.results["form"]), data), []).append(run)
    places = [Path(str(members[0].results["run"]["data"]["name"])).parent for members in together.values()]
    marks = marks_of([title for title, _, _ in together], places)
    return [
        _group(title + mark, form, members, max_items)
        for ((title, form, _), members), mark in zip(together.items(), marks, strict=True)
    ]


def write_page(
    runs: Sequence[Run], groups: Sequence[Mapping[str, Any]], path: Path, *, title: str | None = None
) -> None:
    """Write the page of runs and their `page_groups` to `path`."""
    shown = title or "Evaluation: " + ", ".join(dict.fromkeys(group["title"] for group in groups))
    data = json.dumps({"groups": list(groups)}, allow_nan=False)
    parts = {
        "title": html.escape(shown),
        "subtitle": html.escape(_subtitle(runs)),
        "footer": html.escape(f"reward_hub {__version__}"),
        "style": _asset("style.css"),
        "charts": _asset("charts.js"),
        "script": _asset("page.js"),
        # Inside of a script element only "<" can end it or open a comment.
        "data": data.replace("<", "\\u003c"),
    }
    page = _asset("page.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_filled(page, parts), encoding="utf-8")


def _filled(page: str, parts: Mapping[str, str]) -> str:
    """The template with its places filled; what is filled in is not looked at again."""
    pieces = page.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _asset(name: str) -> str:
    return (resources.files("reward_hub.bench.report") / "assets" / name).read_text(encoding="utf-8")


def _subtitle(runs: Sequence[Run]) -> str:
    n_models = len({run.name for run in runs})
    ended = [run.results["run"]["ended"] for run in runs if run.results["run"].get("ended")]
    day = f", last run {datetime.datetime.fromisoformat(max(ended)).date()}" if ended else ""
    return f"{n_models} model{'s' if n_models > 1 else ''}, {sum(len(run.rows) for run in runs)} items scored{day}"


def _group(title: str, form: str, runs: Sequence[Run], max_items: int) -> dict[str, Any]:
    main = _main_of(runs)
    entries = item_entries(runs, max_items)
    return {
        "title": title,
        "form": form,
        "about": _about(runs),
        "share": not any(is_graded(run) for run in runs),
        "measures": [
            {"name": name, "share": share, "title": _MEANINGS.get(name)}
            for name, share, _ in _measures(runs[0], main, runs)
        ],
        "runs": [_run_entry(run, i, main, runs) for i, run in enumerate(runs)],
        "bars": list(_bars(runs, main)),
        "steps": steps_of(runs),
        "comparisons": list(_comparisons(runs)),
        "item_value": value_name(form),
        "items": entries,
        "items_left_out": max(len(run.rows) for run in runs) - len(entries),
    }


def _run_entry(run: Run, place: int, main: str, runs: Sequence[Run]) -> dict[str, Any]:
    color = COLORS[place % len(COLORS)]
    return {
        "name": run.name,
        "color": color,
        "measures": [value for _, _, value in _measures(run, main, runs)],
        "histogram": histogram_of(run),
        "scatter": scatter_of(run),
        "curves": curves_of(run, color),
        "facts": [[name, value] for name, value in _facts(run)],
    }


def _main_of(runs: Sequence[Run]) -> str:
    """The key of the suite's own figure in `metrics.overall`."""
    overall = runs[0].results["metrics"]["overall"]
    return next((key for key in _MAIN if key in overall), "n")


def _measures(run: Run, main: str, runs: Sequence[Run]) -> list[tuple[str, bool, Any]]:
    """(name, whether it is a share, value or [value, low, high]) of the summary table's columns."""
    overall, facts = run.results["metrics"]["overall"], run.results["run"]
    low, high = overall.get("ci95") or (None, None)
    found: list[tuple[str, bool, Any]] = [
        (_MAIN.get(main, "Items"), main != "mean" and main != "n", [overall.get(main), low, high])
    ]
    if any(is_graded(other) for other in runs):
        found = [("Mean grade", False, found[0][2])]
    for name in _SHARES:
        if any(name in other.results["metrics"]["overall"] for other in runs):
            value = overall.get(name)
            value = value.get("accuracy") if isinstance(value, Mapping) else value
            found.append((name.replace("_", " "), True, value))
    found.append(("items", False, run.results["n"]))
    if any("ties" in other.results["metrics"]["overall"] for other in runs):
        found.append(("ties", False, overall.get("ties")))
    found.append(("failed", False, run.results["n_failed"]))
    for name, path in _BESIDE.items():
        if any(_at(other.results["metrics"], path) is not None for other in runs):
            found.append((name, True, _at(run.results["metrics"], path)))
    for name, key, share in (
        ("truncated", "truncation_rate", True),
        ("tokens/s", "tokens_per_second", False),
        ("cost", "cost", False),
    ):
        if any(other.results["run"].get(key) is not None for other in runs):
            found.append((name, share, facts.get(key)))
    return found


def _at(metrics: Mapping[str, Any], path: Sequence[str]) -> Any:
    """What stands at a path of keys; None where it ends before."""
    found: Any = metrics
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _bars(runs: Sequence[Run], main: str) -> Iterator[dict[str, Any]]:
    """The bars of sections and of subsets, where there are any; none for a figure that is not a share."""
    if main in ("mean", "n") or any(is_graded(run) for run in runs):
        return
    for part, title in (("sections", "Sections"), ("subsets", "Subsets")):
        names = dict.fromkeys(name for run in runs for name in run.results["metrics"].get(part, {}))
        if not names:
            continue
        rows = [{"name": name, "values": [_bar(run, part, name, main) for run in runs]} for name in names]
        yield {"title": title, "note": f"{_MAIN[main]} in percent, with 95 % bootstrap intervals", "rows": rows}


def _bar(run: Run, part: str, name: str, main: str) -> list[Any] | None:
    """[value, low, high, n]; None where this run has no such part."""
    entry = run.results["metrics"].get(part, {}).get(name)
    if entry is None or entry.get(main) is None:
        return None
    low, high = entry.get("ci95") or (None, None)
    return [entry[main], low, high, entry.get("n")]


def _comparisons(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Every two runs on the items that both hold a result for; the difference is second less first, as `compare`'s."""
    for i, first in enumerate(runs):
        for second in runs[i + 1 :]:
            shared = {row["id"] for row in first.rows if row.get("correct") is not None} & {
                row["id"] for row in second.rows if row.get("correct") is not None
            }
            if not shared:
                continue
            found = compare_runs(first.rows, second.rows, shared_only=True)
            low, high = found.difference.ci95
            yield {
                "first": first.name,
                "second": second.name,
                "difference": found.difference.difference,
                "low": low,
                "high": high,
                "p": None if found.mcnemar is None else found.mcnemar.p_value,
            }


def _about(runs: Sequence[Run]) -> str:
    """The notes of the rules, and what every reader asks first."""
    notes = dict.fromkeys(note for run in runs for note in run.results.get("notes") or ())
    ranged = any(run.results["metrics"]["overall"].get("ci95") for run in runs)
    return " ".join([*(["The range beside a figure is its 95 % bootstrap interval."] if ranged else []), *notes])


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    facts = dict(run.results["run"])
    for name, value in facts.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            text = ", ".join(f"{key} {inner}" for key, inner in value.items() if inner is not None)
        elif isinstance(value, list):
            text = " ".join(map(str, value))
        elif isinstance(value, float):
            text = f"{value:.6g}" if math.isfinite(value) else str(value)
        else:
            text = str(value)
        yield name.replace("_", " "), text
