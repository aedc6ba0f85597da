"""The commands that score rows, on the terminal: bad rows are named, a bar counts, and a summary is printed."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from reward_hub.cli.option_groups import LoadOptions, RowOptions, load_model
from reward_hub.cli.tables import print_pairs
from reward_hub.cli.usage import UsageError
from reward_hub.data import row_run
from reward_hub.data.out_file import RunError
from reward_hub.data.row_run import Advance, RowCommand, RowRun, Summary
from reward_hub.data.rows import STDIN, Row

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

_STDOUT = "-"
N_REPORTED = 20
"""Bad rows named on stderr; the out file has them all."""


def run_command(
    command: RowCommand,
    source: str,
    *,
    model: str,
    rows: RowOptions,
    load: LoadOptions,
    more_settings: dict[str, Any] | None = None,
) -> None:
    """Run a row command as its options say, print the summary, and exit with 1 if a row failed."""
    settings = load.settings() | (more_settings or {})
    run_and_report(command, source, model=model, rows=rows, settings=settings, load=lambda: load_model(model, load))


def run_and_report(
    command: RowCommand,
    source: str,
    *,
    model: str,
    rows: RowOptions,
    settings: dict[str, Any],
    load: Callable[[], BaseRM],
    more_figures: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Run a row command with a model of any kind, print the summary, and exit with 1 if a row failed.

    Args:
        settings: what else a score depends on; a resumed run has the same.
        more_figures: what the summary says besides, asked for at the end.
    """
    to_stdout = rows.out in (None, _STDOUT)
    run = RowRun(
        source=source,
        out=sys.stdout if to_stdout else str(rows.out),
        settings={
            "command": command.name,
            "model": model,
            "details": rows.details,
            **settings,
            **rows.column_settings(),
        },
        columns=rows.columns,
        details=rows.details,
        overwrite=rows.overwrite,
        retry_errors=rows.retry_errors,
        chunk_size=rows.chunk_size,
    )
    summary = run_rows(command, run, load, progress=rows.progress)
    # Where the rows go to standard output, what is said about them does not.
    stream = sys.stderr if to_stdout else sys.stdout
    more = more_figures()
    if rows.json:
        print(json.dumps(summary.to_dict() | more), file=stream)
    else:
        _print_summary(summary, command.figure, more, stream)
    if summary.failed:
        raise typer.Exit(1)


def _print_summary(summary: Summary, figure: str, more: dict[str, Any], stream: TextIO) -> None:
    figures = summary.to_dict()
    counts = {name: f"{figures[name]:,}" for name in ("rows", "scored", "failed", "resumed") if figures[name]}
    scores = {
        f"{name} {figure}": f"{figures[name]:.4f}" for name in ("mean", "min", "max") if figures["mean"] is not None
    }
    speed = {"seconds": f"{figures['seconds']:.1f}"}
    if figures["tokens_per_second"]:
        speed["tokens/s"] = f"{figures['tokens_per_second']:,.0f}"
    told = {name: f"{value:,}" if isinstance(value, int) else f"{value:.6g}" for name, value in more.items()}
    print_pairs((counts | scores | speed | told).items(), file=stream)


def run_rows(
    command: RowCommand,
    run: RowRun,
    load: Callable[[], BaseRM],
    *,
    progress: bool | None = None,
    called: Callable[[Row], str] | None = None,
) -> Summary:
    """Run a row command, naming bad rows on stderr.

    Args:
        progress: a bar; by default on a terminal.
        called: how a bad row is called; by default by file and line.

    Raises:
        UsageError: the input cannot be read, or the out file was made by another run.
        RewardHubError: the model cannot be loaded, or the engine failed on everything.
    """
    n_reported = 0

    def report(row: Row, error: Mapping[str, Any]) -> None:
        nonlocal n_reported
        n_reported += 1
        if n_reported <= N_REPORTED:
            name = f"{run.source}:{row.number}" if called is None else called(row)
            print(f"{name}: {error['type']}: {error['message']}", file=sys.stderr)
        elif n_reported == N_REPORTED + 1:
            print("further bad rows are counted, and written with their errors", file=sys.stderr)

    try:
        with _progress_bar(run.source, progress) as advance:
            return row_run.run_rows(command, run, load, report=report, advance=advance)
    except RunError as error:
        raise UsageError(str(error)) from error


@contextlib.contextmanager
def _progress_bar(source: str, wanted: bool | None) -> Iterator[Callable[[Advance], None]]:
    """A bar that appears when the first rows are done; it says how fast, and how much conversations share."""
    if not (sys.stderr.isatty() if wanted is None else wanted):
        yield lambda step: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
    bar = Progress(*columns, TextColumn("{task.fields[speed]}"), console=Console(stderr=True))
    task = None
    speed = Speed()

    def advance(step: Advance) -> None:
        nonlocal task
        if task is None:
            task = bar.add_task("rows", total=_n_lines(source), speed="")
            bar.start()
        speed.add(step)
        bar.update(task, advance=step.n_rows, speed=str(speed))

    try:
        yield advance
    finally:
        bar.stop()


class Speed:
    """Rows and tokens a second of this run, and what share of the tokens was not computed again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._n_rows = self._n_tokens = 0
        self._shared: float | None = None

    def add(self, step: Advance) -> None:
        if not step.scored:  # now the model is loaded, and the first rows come
            self._started = self._clock()
            return
        self._n_rows += step.n_rows
        self._n_tokens += step.n_tokens
        self._shared = step.shared

    def __str__(self) -> str:
        seconds = self._clock() - self._started
        if not self._n_rows or seconds <= 0:
            return ""
        parts = [f"{self._n_rows / seconds:,.1f} rows/s"]
        if self._n_tokens:
            parts.append(f"{self._n_tokens / seconds:,.0f} tokens/s")
        if self._shared is not None:
            parts.append(f"{self._shared:.0%} shared")
        return ", ".join(parts)


def _n_lines(source: str) -> int | None:
    """How many rows there are, where counting them is cheap."""
    if source == STDIN or Path(source).suffix.lower() not in (".jsonl", ".ndjson"):
        return None
    with Path(source).open("rb") as file:
        return sum(not line.isspace() for line in file)
