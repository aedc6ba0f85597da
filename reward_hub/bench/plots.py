"""The report's figures as PNG files, drawn by matplotlib from the same data as the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reward_hub.errors import MissingDependencyError

DPI = 150
NEUTRAL = "#8a94a6"


def write_plots(groups: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Write a PNG file for each figure of `report.page_groups` into a folder and give their paths.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("PNG plots need matplotlib: pip install 'reward_hub[bench]'.") from error
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for group in groups:
        for name, size, draw in _figures(group):
            figure = Figure(figsize=size, dpi=DPI, layout="constrained")
            draw(figure)
            path = folder / f"{_file_name(group['title'])}-{_file_name(name)}.png"
            figure.savefig(path)
            written.append(path)
    return written


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("_").lower()


def _figures(group: dict[str, Any]) -> Iterator[tuple[str, tuple[float, float], Callable[[Any], None]]]:
    runs = group["runs"]
    for part in group["bars"]:
        height = 1.2 + 0.24 * len(part["rows"]) * max(1.6, len(runs))
        yield part["title"], (8.0, height), partial(_draw_bars, part=part, runs=runs)
    for kind, draw in (("histogram", _draw_histogram), ("scatter", _draw_scatter), ("curves", _draw_curves)):
        for run in runs:
            if run[kind]:
                yield f"{kind} {run['name']}", (7.0, 4.2), partial(_draw_one, draw=draw, run=run)


def _draw_one(figure: Any, *, draw: Callable[[Any, dict[str, Any]], None], run: dict[str, Any]) -> None:
    draw(figure.subplots(), run)


def _draw_bars(figure: Any, *, part: dict[str, Any], runs: Sequence[dict[str, Any]]) -> None:
    axes = figure.subplots()
    thick = 0.8 / len(runs)
    for r, run in enumerate(runs):
        for place, row in enumerate(part["rows"]):
            if row["values"][r] is None:
                continue
            value, low, high, _ = row["values"][r]
            y = place + (r - (len(runs) - 1) / 2) * thick
            # The interval of a skewed statistic need not hold the value itself.
            errors = None if low is None else [[100 * max(0.0, value - low)], [100 * max(0.0, high - value)]]
            label = run["name"] if place == 0 else None
            axes.barh(y, 100 * value, height=0.9 * thick, color=run["color"], xerr=errors, capsize=2, label=label)
    axes.set_yticks(range(len(part["rows"])), [row["name"] for row in part["rows"]])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(part["note"])
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)


def _draw_histogram(axes: Any, run: dict[str, Any]) -> None:
    found = run["histogram"]
    for series, color in zip(found["series"], (run["color"], NEUTRAL, "#cc79a7"), strict=False):
        total = sum(series["counts"]) or 1
        shares = [count / total for count in series["counts"]]
        axes.stairs(shares, found["edges"], fill=True, alpha=0.45, color=color, label=series["name"])
    axes.set_xlabel(found["x"])
    axes.set_ylabel("share")
    axes.set_title(run["name"], fontsize=10)
    axes.legend(frameon=False)


def _draw_scatter(axes: Any, run: dict[str, Any]) -> None:
    found = run["scatter"]
    for right, color in ((1, run["color"]), (0, NEUTRAL)):
        points = [point for point in found["points"] if point[2] == right]
        name = "right" if right else "wrong"
        axes.scatter([p[0] for p in points], [p[1] for p in points], s=9, alpha=0.5, color=color, label=name)
    axes.axhline(0, color=NEUTRAL, linewidth=0.8, linestyle="--")
    axes.set_xlabel(found["x"])
    axes.set_ylabel(found["y"])
    axes.set_title(f"{run['name']}\n{found['note']}", fontsize=10)
    axes.legend(frameon=False)


def _draw_curves(axes: Any, run: dict[str, Any]) -> None:
    for line in run["curves"]["lines"]:
        n, values = [p[0] for p in line["points"]], [100 * p[1] for p in line["points"]]
        axes.plot(n, values, "o--" if line["dashed"] else "o-", color=line["color"], label=line["name"])
        if line["points"][0][2] is not None:
            low, high = ([100 * p[k] for p in line["points"]] for k in (2, 3))
            axes.fill_between(n, low, high, color=line["color"], alpha=0.15)
    axes.set_xscale("log", base=2)
    axes.set_xticks(n, list(map(str, n)))
    axes.set_xlabel("candidates (n)")
    axes.set_ylabel("accuracy in percent")
    axes.set_title(run["name"], fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
