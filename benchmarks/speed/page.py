"""docs/speed.md and its plot, from a result file. No number on that page is written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.speed import results

DOCS = Path(__file__).parents[2] / "docs"
PLOT = "speed.svg"
REACHED = 0.9  # a goal counts as reached within 10 %
INTRODUCTION = """# Speed

How long this package takes to score conversations, beside the ways in which others score them. This page is written by
`python -m benchmarks.speed --write-docs` from the newest file in `benchmarks/results/`, which `make bench` makes.

{machine}

Everything runs in one process on one thread, by turns, in a new order in each repeat and on new texts. Times are CPU
seconds of the process, for rendering, tokenising, the forwards and the readout together. "x" is how many times as fast
as that method: the median of the ratios within a repeat, with the smallest and the largest. Models have the shapes of
published ones and random weights; where few layers stand, all methods gain or lose alike by that. "From the baseline"
is the largest difference of a score to the first method's in the same dtype, "from float32" to its scores in float32.
The other methods are written anew after what their authors publish; `benchmarks/speed/methods/` has them, a file each.

![times as fast as one at a time](speed.svg)
"""


def write(folder: Path = results.RESULTS, docs: Path = DOCS) -> Path:
    """Write the page and its plot from the newest result."""
    result = results.newest(folder)
    _plot(result, docs / PLOT)
    path = docs / "speed.md"
    path.write_text(f"{INTRODUCTION.format(machine=_machine(result))}\n{tables(result)}", encoding="utf-8")
    return path


def tables(result: dict[str, Any]) -> str:
    """A table for each workload, in Markdown."""
    parts = [_table(row) for row in result["workloads"]]
    parts += [_short(result["short"])] if "short" in result else []
    parts += [_memory(result["memory"])] if "memory" in result else []
    parts += [_many(result["many"])] if "many" in result else []
    return "\n".join(parts)


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    sentences = [
        f"Measured on {result['date']} with `{result['command'].strip()}` on {machine['cpu']}, "
        f"{machine['cores']} cores, Python {machine['python']}, {packages}."
    ]
    if result["workloads"] and all(row["dtype"] == "float32" for row in result["workloads"]):
        sentences.append("This processor has no fast bfloat16, so that everything is measured in float32.")
    disturbed = [row["name"] for row in result["workloads"] if row["disturbed"]]
    if disturbed:
        sentences.append(f"The machine was not calm during {', '.join(disturbed)}: read those with care.")
    return " ".join(sentences)


def _table(row: dict[str, Any]) -> str:
    baseline = row["baseline"]
    # By each of these the table says how many times as fast the others are.
    others = [name for name in row["methods"] if not name.startswith("ours")]
    n = len(row["methods"][baseline]["cpu_s"])
    before, after = row["calibration_gflops"]
    calm = "" if not row["disturbed"] else " (not calm)"
    lines = [
        f"## {row['title'][0].upper()}{row['title'][1:]}",
        "",
        f"`{row['name']}`, {row['dtype']}, {row['layers']} layers: {row['tokens']:,} tokens, "
        f"{row['unique_tokens']:,} of them unique; {n} repeat{'s' if n > 1 else ''}. "
        f"One matrix product made {before:,.0f} GFLOP/s before and {after:,.0f} after{calm}.",
        "",
        "| method | CPU s | tokens/s | of that product | "
        + " | ".join(f"x {name}" for name in others)
        + " | from the baseline | from float32 |",
        "|---" * (6 + len(others)) + "|",
    ]
    for name, figures in row["methods"].items():
        seconds = figures["median_cpu_s"]
        share = row["gflops_of_unique_tokens"] / seconds / max(before, after)
        cells = [name, f"{seconds:.3g}", f"{row['tokens'] / seconds:,.0f}", f"{share:.2f}"]
        cells += [_ratio(figures["times_as_fast"][other]) if other != name else "" for other in others]
        exact = figures.get("largest_difference_to_float32")
        cells += [f"{figures['largest_difference']:.1e}", "" if exact is None else f"{exact:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"Left out: {name} ({why})." for name, why in row["skipped"].items())]
    return "\n".join(lines) + "\n"


def _short(figures: dict[str, Any]) -> str:
    lines = ["## Short conversations on a tiny model", "", f"{figures['conversations']:,} conversations, float32.", ""]
    for name in ("score_batch", "command line"):
        of = figures[name]
        line = f"- {name}: {of['us_here']:,.0f} us a conversation"
        if "times_as_fast" in of:
            line += f"; {of['times_as_fast']:.2f} times as fast as the other checkout ({of['us_against']:,.0f} us), "
            line += f"scores differ by at most {of['largest_difference']:.1e}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _memory(figures: dict[str, Any]) -> str:
    return (
        "## Memory\n\nBest of 64 with a prompt of 4,000 tokens, float32: "
        f"{figures['peak_mib']:,.0f} MiB beyond the loaded model at most, {figures['grown_mib']:,.0f} MiB afterwards.\n"
    )


def _many(rows: list[dict[str, Any]]) -> str:
    lines = [
        "## Many conversations",
        "",
        "| call | conversations | a CPU second | grown by, MiB |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['call']} | {row['conversations']:,} | {row['per_second']:,.0f} | {row['grown_mib']:,.0f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _ratio(ratio: dict[str, Any]) -> str:
    shown = f"{ratio['median']:.2f}"
    if ratio["min"] != ratio["max"]:
        shown += f" [{ratio['min']:.2f}-{ratio['max']:.2f}]"
    if ratio["goal"] is not None:
        reached = ratio["median"] >= REACHED * ratio["goal"]
        shown += f" (goal {ratio['goal']:g}{'' if reached else ', missed'})"
    return shown


def _plot(result: dict[str, Any], path: Path) -> None:
    """A bar for each method of each workload: how many times as fast as the baseline."""
    import matplotlib

    matplotlib.use("svg")
    # Text as text, and nothing of the moment: the file is small and changes with the numbers alone.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "speed", "font.size": 9})
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for row in result["workloads"] for name in row["methods"]))
    colours = dict(zip(names, pyplot.get_cmap("tab20").colors, strict=False))
    n_bars = sum(len(row["methods"]) + 1 for row in result["workloads"])
    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.17 * n_bars))
    place, ticks = 0, []
    for row in result["workloads"]:
        ticks.append((place + (len(row["methods"]) - 1) / 2, row["name"]))
        for name, figures in row["methods"].items():
            ratio = figures["times_as_fast"][row["baseline"]]["median"]
            axes.barh(place, ratio, color=colours[name], height=0.85)
            axes.text(ratio * 1.02, place, f"{ratio:.2f}", va="center", fontsize=7)
            place += 1
        place += 1
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_xlabel("times as fast as one at a time (process models: as a forward for each step)")
    axes.legend([pyplot.Rectangle((0, 0), 1, 1, color=colours[name]) for name in names], names, fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
