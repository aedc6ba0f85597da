"""`reward-hub bench report`: one page to look at, made from finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reward_hub.bench.report import page as report
from reward_hub.bench.report.runs import read_runs
from reward_hub.cli.option_groups import LogOptions
from reward_hub.cli.usage import UsageError
from reward_hub.data.rows import RowFormatError


def run(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `reward-hub bench --out` wrote.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page; a folder gets `report.html`.")] = Path(
        "report.html"
    ),
    png: Annotated[Path | None, typer.Option(help="A folder for the figures as PNG files.")] = None,
    title: Annotated[str | None, typer.Option(help="The page's headline.")] = None,
    max_items: Annotated[int, typer.Option(min=0, help="Most items in a table of the page.")] = report.MAX_ITEMS,
    log: LogOptions,
) -> None:
    """Write one HTML page, which needs no network, about one run or several side by side.

    Runs on the same data are shown together: bars with intervals, score distributions, length bias, best-of-n curves,
    steps coloured by score, and a table of the items.
    """
    path = out / "report.html" if out.is_dir() or not out.suffix else out
    try:
        runs = read_runs(folders)
        groups = report.page_groups(runs, max_items=max_items)
        report.write_page(runs, groups, path, title=title)
    except RowFormatError as error:
        raise UsageError(str(error)) from error
    print(path)
    if png is not None:
        from reward_hub.bench.report.plots import write_plots

        for plot in write_plots(groups, png):
            print(plot)
