"""The report's figures as PNG files, drawn by matplotlib from the same data as the page."""

from __future__ import annotations

import logging
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reward_hub.errors import MissingDependencyError

logger = logging.getLogger(__name__)

DPI = 150
NEUTRAL = "#8a94a6"

# For letters that matplotlib's own font lacks; those that are installed are asked in this order.
_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Hiragino Sans", "Microsoft YaHei")


def write_plots(groups: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Write a PNG file for each figure of `report.page_groups` into a folder and give their paths.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib import font_manager, rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("PNG plots need matplotlib: pip install 'reward_hub[bench]'.") from error
    folder.mkdir(parents=True, exist_ok=True)
    known = set(font_manager.get_font_names())
    fonts = ["DejaVu Sans", *(name for name in _FONTS if name in known)]
    written: list[Path] = []
    for group in groups:
        for name, size, draw in _figures(group):
            # A dollar sign in a name is one, and begins no formula.
            with rc_context({"text.parse_math": False, "font.family": fonts}):
                figure = Figure(figsize=size, dpi=DPI, layout="constrained")
                draw(figure)
                path = _free(folder / f"{_file_name(group['title'], 30)}-{_file_name(name, 50)}.png", written)
                _save(figure, path)
            written.append(path)
    return written


def _save(figure: Any, path: Path) -> None:
    with warnings.catch_warnings():
        # One line a letter, each time that it is drawn.
        warnings.filterwarnings("error", message="Glyph .* missing from")
        try:
            figure.savefig(path)
            return
        except UserWarning:
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(path)
    logger.warning("%s: no font here has all of its letters; boxes stand for some (%s would do).", path, _FONTS[0])


def _file_name(text: str, most: int) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("_").lower()[:most]


def _free(path: Path, taken: Sequence[Path]) -> Path:
    """The path, with a number where names that differ give the same one."""
    found, n = path, 1
    while found in taken:
        n += 1
        found = path.with_name(f"{path.stem}-{n}.png")
    return found


def _figures(group: dict[str, Any]) -> Iterator[tuple[str, tuple[float, float], Callable[[Any], None]]]:
    runs = group["runs"]
    for part in group["bars"]:
        height = 1.3 + 0.24 * len(part["rows"]) * max(1.6, len(runs)) + 0.22 * len(runs)
        yield part["title"], (8.0, height), partial(_draw_bars, part=part, runs=runs, title=group["title"])
    for kind, draw in (("histogram", _draw_histogram), ("scatter", _draw_scatter), ("curves", _draw_curves)):
        for run in runs:
            if run[kind]:
                yield f"{kind} {run['name']}", (7.0, 4.2), partial(_draw_one, draw=draw, run=run)


def _draw_one(figure: Any, *, draw: Callable[[Any, dict[str, Any]], None], run: dict[str, Any]) -> None:
    draw(figure.subplots(), run)


def _wrapped(text: str, width: int) -> str:
    """In lines, and readable to matplotlib as a label, which may not begin with an underscore."""
    lines = textwrap.fill(text, width)
    return f" {lines}" if lines.startswith("_") else lines


def _draw_bars(figure: Any, *, part: dict[str, Any], runs: Sequence[dict[str, Any]], title: str) -> None:
    axes = figure.subplots()
    thick = 0.8 / len(runs)
    least = 0.0
    for r, run in enumerate(runs):
        for place, row in enumerate(part["rows"]):
            if row["values"][r] is None:
                continue
            value, low, high, _ = row["values"][r]
            y = place + (r - (len(runs) - 1) / 2) * thick
            # The interval of a skewed statistic need not hold the value itself.
            errors = None if low is None else [[100 * max(0.0, value - low)], [100 * max(0.0, high - value)]]
            axes.barh(y, 100 * value, height=0.9 * thick, color=run["color"], xerr=errors, capsize=2)
            end = max(0.0, value, high or 0.0)
            axes.text(100 * end + 1, y, f"{100 * value:.1f}", va="center", fontsize=7)
            least = min(least, value, low or 0.0)
        axes.barh(0, 0, color=run["color"], label=_wrapped(run["name"], 90))
    axes.set_yticks(range(len(part["rows"])), [_wrapped(row["name"], 34) for row in part["rows"]])
    axes.set_ylim(len(part["rows"]) - 0.5, -0.5)
    # Numbers beside the longest bars have room; a PRM-Score may be negative.
    axes.set_xlim(100 * least, 108)
    axes.set_xlabel(part["note"])
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_title(_wrapped(f"{title}: {part['title'].lower()}", 80), fontsize=10)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", frameon=False, fontsize=8)


def _draw_histogram(axes: Any, run: dict[str, Any]) -> None:
    histogram = run["histogram"]
    for series, color in zip(histogram["series"], (run["color"], NEUTRAL, "#cc79a7"), strict=False):
        total = sum(series["counts"]) or 1
        shares = [count / total for count in series["counts"]]
        axes.stairs(shares, histogram["edges"], fill=True, alpha=0.45, color=color, label=series["name"])
    axes.set_xlabel(histogram["x"])
    axes.set_ylabel("share of these scores")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_title(_wrapped(run["name"], 70), fontsize=10)
    _put_legend(axes)


def _draw_scatter(axes: Any, run: dict[str, Any]) -> None:
    scatter = run["scatter"]
    for right, name in ((1, "right"), (0, "wrong"), (None, None)):
        if points := [point for point in scatter["points"] if point[2] == right]:
            look = (
                {"facecolors": "none", "edgecolors": NEUTRAL} if right == 0 else {"color": run["color"], "alpha": 0.5}
            )
            axes.scatter([p[0] for p in points], [p[1] for p in points], s=10, label=name, **look)
    bottom, top = axes.get_ylim()
    if bottom < 0 < top:
        axes.axhline(0, color=NEUTRAL, linewidth=0.8, linestyle="--")
    axes.set_xlabel(scatter["x"])
    axes.set_ylabel(scatter["y"])
    axes.set_title(f"{_wrapped(run['name'], 70)}\n{_wrapped(scatter['note'], 90)}", fontsize=9)
    _put_legend(axes)


def _draw_curves(axes: Any, run: dict[str, Any]) -> None:
    unit = 100 if run["curves"]["share"] else 1
    for line in run["curves"]["lines"]:
        n, values = [p[0] for p in line["points"]], [unit * p[1] for p in line["points"]]
        style = (0, tuple(line["dashes"])) if line["dashes"] else "-"
        axes.plot(n, values, marker="o", markersize=4, linestyle=style, color=line["color"], label=line["name"])
        if line["points"][0][2] is not None:
            low, high = ([unit * p[k] for p in line["points"]] for k in (2, 3))
            axes.fill_between(n, low, high, color=line["color"], alpha=0.15)
    axes.set_xscale("log", base=2)
    axes.set_xticks(n, list(map(str, n)))
    axes.set_xlabel("candidates (n)")
    axes.set_ylabel(run["curves"]["y"] + (" in percent" if unit == 100 else ""))
    axes.set_title(_wrapped(run["name"], 70), fontsize=10)
    axes.grid(alpha=0.3)
    _put_legend(axes)


def _put_legend(axes: Any) -> None:
    """Beside the plot, where it hides nothing."""
    if axes.get_legend_handles_labels()[0]:
        axes.figure.legend(loc="outside right upper", frameon=False, fontsize=8)
