"""Score the rows of a file into another: in chunks, in order, resumable, a bad row costing that row alone.

`score`, `steps` and `rank` are each a `RowCommand` run by `run_rows`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from reward_hub.cli.option_groups import LoadOptions, RowOptions, load_model
from reward_hub.cli.rows.out_file import Out, OutFile, StandardOut
from reward_hub.cli.tables import print_pairs
from reward_hub.cli.usage import UsageError
from reward_hub.data.rows import STDIN, Row, RowFormatError, read_rows
from reward_hub.errors import BackendError, InvalidConversationError, RewardHubError

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

N_REPORTED = 20  # bad rows named on stderr; the out file has them all
_N_DEAD = 16  # so many rows in a row failed by the engine: it is gone, and the rows are not to blame
_ENGINE_ERRORS = (
    "BackendError",
    "BudgetExceededError",
    "CheckpointError",  # as of a checkpoint without the chat template that its family renders
    "ServerError",
    "ServerTimeoutError",
    "UnsupportedError",
)


@dataclass(frozen=True)
class RowCommand:
    """What one command does with rows.

    Attributes:
        item_of: a row's record as what `score` takes; raises `InvalidConversationError`.
        score: one result per item: `details` and the columns to write, or `error` (type and message).
        numbers: the figures of a result that the summary is about.
        figure: what these are called.
    """

    name: str
    item_of: Callable[[dict[str, Any]], Any]
    score: Callable[[BaseRM, list[Any]], list[dict[str, Any]]]
    numbers: Callable[[dict[str, Any]], Sequence[float]]
    figure: str


@dataclass(frozen=True)
class RowRun:
    """One run of a row command, as the options of the command line say."""

    source: str
    out: str | None
    settings: dict[str, Any]
    details: bool = False
    overwrite: bool = False
    retry_errors: bool = False
    chunk_size: int = 256
    progress: bool | None = None
    n_rows: int | None = None
    """How many rows the input has, where that is known. A chunk that a kill tore is then scored anew as a whole, so
    that a resumed run has the batches, and to the last digit the scores, of one that was never killed."""
    called: Callable[[Row], str] | None = None
    """How a bad row is called on stderr; by default by file and line."""


@dataclass
class Summary:
    """The figures of a run, rows of earlier runs included.

    `n_tokens`, `seconds`, `n_fresh` (rows scored) and `n_reported` (rows named on stderr) are of this run alone.
    """

    rows: int = 0
    failed: int = 0
    resumed: int = 0
    n_numbers: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    n_tokens: int = 0
    seconds: float = 0.0
    n_fresh: int = 0
    n_reported: int = 0

    @property
    def scored(self) -> int:
        return self.rows - self.failed

    def add(self, result: dict[str, Any], numbers: Callable[[dict[str, Any]], Sequence[float]]) -> None:
        self.rows += 1
        if "error" in result:
            self.failed += 1
            return
        for number in numbers(result):
            self.n_numbers += 1
            self.total += number
            self.low = min(self.low, number)
            self.high = max(self.high, number)

    def to_dict(self) -> dict[str, Any]:
        known = self.n_numbers > 0
        return {
            "rows": self.rows,
            "scored": self.scored,
            "failed": self.failed,
            "resumed": self.resumed,
            "mean": self.total / self.n_numbers if known else None,
            "min": self.low if known else None,
            "max": self.high if known else None,
            "seconds": round(self.seconds, 3),
            "tokens": self.n_tokens,
            "tokens_per_second": round(self.n_tokens / self.seconds, 1) if self.n_tokens and self.seconds else None,
        }


def results_of(column: str, scored: Sequence[tuple[Any, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The results of a batch scored with `on_error="none"`, where None says that the details hold the error."""
    return [_result_of(column, place, value, details) for place, (value, details) in enumerate(scored)]


def _result_of(column: str, place: int, value: Any, details: dict[str, Any]) -> dict[str, Any]:
    if value is not None:
        return {column: value, "details": details}
    error = details["error"]
    # The place in the batch is the chunk's affair; a resumed run cuts other chunks.
    return {"error": {"type": error["type"], "message": error["message"].removeprefix(f"conversation {place}: ")}}


def error_result(error: RewardHubError) -> dict[str, Any]:
    """The result of an item that raised."""
    # Not str(error): that counts places in the chunk at hand.
    return {"error": {"type": type(error).__name__, "message": error.message}}


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
    run = RowRun(
        source=source,
        out=rows.out,
        settings={"command": command.name, "model": model, "details": rows.details, **settings},
        details=rows.details,
        overwrite=rows.overwrite,
        retry_errors=rows.retry_errors,
        chunk_size=rows.chunk_size,
        progress=rows.progress,
    )
    summary = run_rows(command, run, load)
    # Where the rows go to standard output, what is said about them does not.
    stream = sys.stderr if run.out in (None, STDIN) else sys.stdout
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


def run_rows(command: RowCommand, run: RowRun, load: Callable[[], BaseRM]) -> Summary:
    """Score every row that is not done yet.

    Args:
        command: what is done with a row.
        run: from where to where.
        load: gives the model; called only if a row is left to score.

    Raises:
        UsageError: the input cannot be read, or the out file was made by another run.
        RewardHubError: the model cannot be loaded, or the engine failed on everything.
    """
    try:
        with _opened(run) as out:
            return _score_into(out, command, run, load)
    except RowFormatError as error:
        raise UsageError(str(error)) from error


def _opened(run: RowRun) -> OutFile | StandardOut:
    if run.source != STDIN:
        try:
            Path(run.source).open("rb").close()
        except OSError as error:
            raise UsageError(f"{run.source} cannot be read: {error.strerror}.") from error
    if run.out is None or run.out == "-":
        if run.overwrite or run.retry_errors:
            raise UsageError("--overwrite and --retry-errors need --out FILE.")
        return StandardOut()
    path = Path(run.out)
    if run.source != STDIN and path.exists() and path.samefile(run.source):
        raise UsageError(f"{run.out} is the input; the scores need a file of their own.")
    return OutFile(
        path,
        settings=run.settings,
        source=None if run.source == STDIN else Path(run.source),
        overwrite=run.overwrite,
        retry_errors=run.retry_errors,
        chunks=None if run.n_rows is None else (run.chunk_size, run.n_rows),
    )


def _score_into(out: Out, command: RowCommand, run: RowRun, load: Callable[[], BaseRM]) -> Summary:
    summary = Summary()
    rows = read_rows(run.source)
    for result in out.done():
        _same_row(result, next(rows, None), run)
        summary.add(result, command.numbers)
    summary.resumed = summary.rows
    earlier = itertools.islice(out.earlier(), summary.rows, None)

    first = next(rows, None)
    if first is not None:
        with load() as rm, _progress_bar(run, done=summary.rows) as advance:
            out.begin(rm.fingerprint)
            started = time.monotonic()
            for chunk in _chunks(itertools.chain([first], rows), run.chunk_size):
                results = _score_chunk(chunk, earlier, command, run, rm, summary)
                out.append(results)
                advance(len(results))
            summary.seconds = time.monotonic() - started
    out.finish()
    return summary


def _chunks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def _same_row(result: dict[str, Any], row: Row | None, run: RowRun) -> Row:
    """The row that a result is of; the two must be the same."""
    if row is None:
        raise UsageError(f"{run.out} has more rows than {run.source}. Say another --out, or --overwrite to start anew.")
    if result["id"] != _id_of(row):
        raise UsageError(
            f"{run.out} has a row of id {result['id']!r} where {run.source} line {row.number} has {_id_of(row)!r}. "
            "Say another --out, or --overwrite to start anew."
        )
    return row


def _id_of(row: Row) -> Any:
    """The id as JSON gives it back (a Parquet date becomes a text)."""
    return json.loads(json.dumps(row.id, default=str))


def _score_chunk(
    chunk: Sequence[Row],
    earlier: Iterator[dict[str, Any]],
    command: RowCommand,
    run: RowRun,
    rm: BaseRM,
    summary: Summary,
) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = [{} for _ in chunk]
    items: list[Any] = []
    places: list[int] = []
    for place, row in enumerate(chunk):
        was = next(earlier, None)
        if was is not None and "error" not in was:
            _same_row(was, row, run)
            results[place] = was
            continue
        try:
            items.append(_item_of(row, command))
            places.append(place)
        except InvalidConversationError as error:
            results[place] = error_result(error)
    if items:
        scored = command.score(rm, items)
        _stop_if_dead(scored, n_scored=summary.n_fresh)
        for place, result in zip(places, scored, strict=True):
            details = result.pop("details", {})
            summary.n_fresh += "error" not in result
            summary.n_tokens += details.get("tokens_scored") or 0
            results[place] = result | ({"details": details} if run.details and "error" not in result else {})
    for row, result in zip(chunk, results, strict=True):
        if "error" in result:
            _report(row, result["error"], run, summary)
        summary.add(result, command.numbers)
    return [{"id": _id_of(row)} | result for row, result in zip(chunk, results, strict=True)]


def _item_of(row: Row, command: RowCommand) -> Any:
    if row.record is None:
        raise InvalidConversationError(row.error or "the row cannot be read")
    return command.item_of(row.record)


def _stop_if_dead(results: Sequence[dict[str, Any]], *, n_scored: int) -> None:
    """End the run where the engine failed, not the rows: they stay to be scored when the command is run again."""
    errors = [result["error"] for result in results if result.get("error", {}).get("type") in _ENGINE_ERRORS]
    if len(errors) == len(results) and (len(errors) >= _N_DEAD or not n_scored):
        raise BackendError(f"every row failed; the first with {errors[0]['type']}: {errors[0]['message']}")


def _report(row: Row, error: dict[str, Any], run: RowRun, summary: Summary) -> None:
    summary.n_reported += 1
    if summary.n_reported <= N_REPORTED:
        name = f"{run.source}:{row.number}" if run.called is None else run.called(row)
        print(f"{name}: {error['type']}: {error['message']}", file=sys.stderr)
    elif summary.n_reported == N_REPORTED + 1:
        print("further bad rows are counted, and written with their errors", file=sys.stderr)


@contextlib.contextmanager
def _progress_bar(run: RowRun, *, done: int) -> Iterator[Callable[[int], None]]:
    shown = sys.stderr.isatty() if run.progress is None else run.progress
    if not shown:
        yield lambda n: None
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
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("rows", total=_n_lines(run.source), completed=done)
        yield lambda n: progress.advance(task, n)


def _n_lines(source: str) -> int | None:
    """How many rows there are, where counting them is cheap."""
    if source == STDIN or Path(source).suffix.lower() not in (".jsonl", ".ndjson"):
        return None
    with Path(source).open("rb") as file:
        return sum(not line.isspace() for line in file)
