"""The report page: one HTML file that needs no network, made from the folders of finished runs.

What the page shows is put together here as plain data, which the plots in PNG files show too (`bench.plots`); layout
and charts are in `bench/page/`. Texts of the data reach the page as JSON alone and are only ever set as text.
"""

from __future__ import annotations

import datetime
import html
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import reward_hub
from reward_hub.bench.report_figures import curves_of, histogram_of, scatter_of, steps_of
from reward_hub.bench.report_items import item_entries, value_name
from reward_hub.bench.statistics import compare_runs
from reward_hub.rows import RowFormatError

# Told apart by colour-blind readers too (Okabe and Ito), the darker ones first.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
MAX_ITEMS = 2000

_MAIN = {"accuracy": "Accuracy", "f1": "F1", "prm_score": "PRM-Score", "mean": "Mean score"}
_SHARES = (
    "easy",
    "normal",
    "hard",
    "prompt_weighted_accuracy",
    "error_accuracy",
    "correct_accuracy",
    "first_error_acc",
)

# Of preference data: the error of the probabilities, and the accuracy where the chosen response is the longer one (has
# more markdown) less that where it is not.
_BESIDE = {
    "ECE": ("calibration", "ece"),
    "length gap": ("bias", "length", "accuracy_gap"),
    "markdown gap": ("bias", "markdown", "accuracy_gap"),
}


@dataclass(frozen=True)
class Run:
    """A finished run: what its two files hold.

    Attributes:
        name: the model's, made unique among the runs on the same data.
        results: results.json.
        rows: items.jsonl.
    """

    name: str
    results: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]

    @property
    def title(self) -> str:
        """What was evaluated on: the suite, else the name of the data."""
        return str(self.results["suite"] or Path(str(self.results["run"]["data"]["name"])).name)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in folders that `reward-hub bench` wrote.

    Raises:
        RowFormatError: a folder holds no finished run.
    """
    found = [_read_run(folder) for folder in folders]
    # Runs on other data are shown apart.
    names = [(run.title, run.name) for run in found]
    return [
        run if names.count((run.title, run.name)) == 1 else replace(run, name=f"{run.name} ({folder.name})")
        for run, folder in zip(found, folders, strict=True)
    ]


def _read_run(folder: Path) -> Run:
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        lines = (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()
        return Run(_shown_name(str(results["model"])), results, [json.loads(line) for line in lines])
    except FileNotFoundError as error:
        raise RowFormatError(f"{folder} holds no finished run of `reward-hub bench`: no {error.filename}.") from error
    except (ValueError, KeyError) as error:
        raise RowFormatError(f"{folder} holds no run of `reward-hub bench`: {error!r}.") from error


def _shown_name(model: str) -> str:
    """Recorded scores are named after their file; a folder on this machine by its last two parts."""
    path = Path(model)
    return path.stem if path.suffix == ".jsonl" else "/".join(path.parts[-2:]) if path.is_absolute() else model


def page_groups(runs: Sequence[Run], *, max_items: int = MAX_ITEMS) -> list[dict[str, Any]]:
    """What the page shows, a group for each set of runs on the same data, as JSON-serialisable data.

    Args:
        runs: in the order in which they are shown.
        max_items: most items in a group's table.
    """
    together: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        together.setdefault((run.title, str(run.results["form"])), []).append(run)
    return [_group(title, form, members, max_items) for (title, form), members in together.items()]


def write_page(
    runs: Sequence[Run], groups: Sequence[Mapping[str, Any]], path: Path, *, title: str | None = None
) -> None:
    """Write the page of runs and their `page_groups` to `path`."""
    shown = title or "Evaluation: " + ", ".join(dict.fromkeys(group["title"] for group in groups))
    data = json.dumps({"groups": list(groups)}, allow_nan=False)
    parts = {
        "title": html.escape(shown),
        "subtitle": html.escape(_subtitle(runs)),
        "footer": html.escape(f"reward_hub {reward_hub.__version__}"),
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
    return (resources.files("reward_hub.bench") / "page" / name).read_text(encoding="utf-8")


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
        "measures": [{"name": name, "share": share} for name, share, _ in _measures(runs[0], main, runs)],
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
        ("cut", "truncation_rate", True),
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
    """The bars of sections and of subsets, where there are any; none for a figure that is no share."""
    if main in ("mean", "n"):
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
    """Every two runs on the items that both hold a result for."""
    for i, first in enumerate(runs):
        for second in runs[i + 1 :]:
            shared = {row["id"] for row in first.rows if row.get("correct") is not None} & {
                row["id"] for row in second.rows if row.get("correct") is not None
            }
            if not shared:
                continue
            found = compare_runs(second.rows, first.rows, shared_only=True)
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
    return " ".join(["The range beside a figure is its 95 % bootstrap interval.", *notes])


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
