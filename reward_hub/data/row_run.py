"""Score the rows of a file into another: in chunks, in order, resumable, a bad row costing that row alone.

What is done with a row is a `RowCommand`; the commands of `cli` are such, run by `run_rows`.
"""

from __future__ import annotations

import bisect
import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from reward_hub.data.column_names import Columns
from reward_hub.data.out_file import WAYS_OUT, Out, OutFile, RunError, StreamOut, lines_of
from reward_hub.data.rows import STDIN, Row, RowFormatError, is_on_disk, read_rows
from reward_hub.errors import BackendError, InvalidConversationError, RewardHubError

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

logger = logging.getLogger(__name__)

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
        refusal: why rows such as this one, the first, belong to another command; None where they do not.
    """

    name: str
    item_of: Callable[[dict[str, Any]], Any]
    score: Callable[[BaseRM, list[Any]], list[dict[str, Any]]]
    numbers: Callable[[dict[str, Any]], Sequence[float]]
    figure: str
    refusal: Callable[[dict[str, Any]], str | None] = lambda record: None


@dataclass(frozen=True)
class RowRun:
    """One run of a row command.

    Attributes:
        source: the file or folder of the rows; `-` is JSONL from standard input.
        out: the file of the results, or a stream, as of standard output.
        settings: what else the results depend on beside model and input, as plain JSON; a resumed run has the same.
        columns: which column of a row is what, where their names do not say so.
        details: write the details of each result.
        overwrite: start anew instead of going on.
        retry_errors: score again what failed.
        chunk_size: rows scored between two writes.
        n_rows: how many rows the input has, where that is known. A chunk that a kill tore is then scored anew as a
            whole, so that a resumed run has the batches of one that was never killed, and its scores to the last digit.
        warn_of_equal_ids: say where an id stands for a second time.
    """

    source: str
    out: str | Path | TextIO
    settings: dict[str, Any]
    columns: Columns | None = None
    details: bool = False
    overwrite: bool = False
    retry_errors: bool = False
    chunk_size: int = 256
    n_rows: int | None = None
    warn_of_equal_ids: bool = True


@dataclass
class Summary:
    """The figures of a run, rows of earlier runs included.

    `n_tokens`, `seconds` and `n_fresh` (rows scored) are of this run alone.
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


def _say_nothing(row: Row, error: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Advance:
    """How far a run has come since it was last said.

    Attributes:
        scored: whether the rows were scored now, and not by an earlier run.
        n_tokens: of those that were scored.
        shared: what part of the tokens so far the model did not compute again, as conversations share it; None: not
            known.
    """

    n_rows: int
    scored: bool = True
    n_tokens: int = 0
    shared: float | None = None


def _count_nothing(step: Advance) -> None: ...


def run_rows(
    command: RowCommand,
    run: RowRun,
    load: Callable[[], BaseRM],
    *,
    report: Callable[[Row, Mapping[str, Any]], None] = _say_nothing,
    advance: Callable[[Advance], None] = _count_nothing,
) -> Summary:
    """Score every row that is not done yet.

    Args:
        command: what is done with a row.
        run: from where to where.
        load: gives the model; called only if a row is left to score.
        report: told of each row that failed, with its error.
        advance: told of the rows that are done, first of those of earlier runs; not called where no row is left.

    Raises:
        RunError: the input cannot be read, or is of another command, or the out file was made by another run.
        RewardHubError: the model cannot be loaded, or the engine failed on everything.
    """
    try:
        with _opened(run) as out:
            return _score_into(out, command, run, load, report, advance)
    except RowFormatError as error:
        raise RunError(str(error)) from error


def _opened(run: RowRun) -> OutFile | StreamOut:
    if run.source != STDIN and not is_on_disk(Path(run.source)):
        try:
            Path(run.source).open("rb").close()
        except OSError as error:
            raise RunError(f"{run.source} cannot be read: {error.strerror}.") from error
    if not isinstance(run.out, (str, Path)):
        if run.overwrite or run.retry_errors:
            raise RunError("--overwrite and --retry-errors need --out FILE.")
        return StreamOut(run.out)
    path = Path(run.out)
    for written in {path, lines_of(path)}:
        if run.source != STDIN and written.exists() and written.samefile(run.source):
            raise RunError(f"{written} is the input; the scores need a file of their own.")
    return OutFile(
        path,
        settings=run.settings,
        source=None if run.source == STDIN else Path(run.source),
        overwrite=run.overwrite,
        retry_errors=run.retry_errors,
        chunks=None if run.n_rows is None else (run.chunk_size, run.n_rows),
    )


def _score_into(
    out: Out,
    command: RowCommand,
    run: RowRun,
    load: Callable[[], BaseRM],
    report: Callable[[Row, Mapping[str, Any]], None],
    advance: Callable[[Advance], None],
) -> Summary:
    summary = Summary()
    rows = read_rows(run.source, run.columns)
    if run.warn_of_equal_ids:
        rows = _with_ids_watched(rows, run.source)
    for result in out.done():
        _same_row(result, next(rows, None), run)
        summary.add(result, command.numbers)
    summary.resumed = summary.rows
    earlier = itertools.islice(out.earlier(), summary.rows, None)

    chunks = _chunks(rows, run.chunk_size)
    first = next(chunks, None)
    if first is not None:
        _refuse_rows_of_another_command(first, command, run)
        with load() as rm:
            advance(Advance(summary.rows, scored=False))
            out.begin(rm.fingerprint)
            started = time.monotonic()
            for chunk in itertools.chain([first], chunks):
                n_tokens = summary.n_tokens
                results = _score_chunk(chunk, earlier, command, run, rm, summary)
                for row, result in zip(chunk, results, strict=True):
                    if "error" in result:
                        report(row, result["error"])
                out.append(results)
                advance(Advance(len(results), n_tokens=summary.n_tokens - n_tokens, shared=rm.shared_share))
            summary.seconds = time.monotonic() - started
    out.finish()
    return summary


def _chunks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def _same_row(result: dict[str, Any], row: Row | None, run: RowRun) -> Row:
    """The row that a result is of; the two must be the same."""
    if row is None:
        raise RunError(f"{run.out} has more rows than {run.source}. {WAYS_OUT}")
    there, here = ({"id": result["id"], "line": result.get("line")}, {"line": None} | _named(row))
    if there != here:
        raise RunError(
            f"{run.out} has a row of id {there['id']!r} where {run.source} line {row.number} has {here['id']!r}. "
            f"{WAYS_OUT}"
        )
    return row


def _named(row: Row) -> dict[str, Any]:
    """How the row's result names it: by its id as JSON gives it back (a Parquet date becomes a text).

    What cannot be read has no id, and its line might be the id of another row.
    """
    if row.record is None:
        return {"id": None, "line": row.number}
    return {"id": json.loads(json.dumps(row.id, default=str))}


def _refuse_rows_of_another_command(rows: Sequence[Row], command: RowCommand, run: RowRun) -> None:
    first = next((row for row in rows if row.record is not None), None)
    why = None if first is None or first.record is None else command.refusal(first.record)
    if first is not None and why is not None:
        raise RunError(f"{run.source}, row {first.number}: {why}")


def _with_ids_watched(rows: Iterator[Row], source: str) -> Iterator[Row]:
    """The rows; once, a word on an id that stands for a second time."""
    ids = _Ids()
    watching = True
    for row in rows:
        if watching and row.record is not None and not ids.add(row):
            logger.warning(
                "%s, row %d: the id %r is that of an earlier row too. Results stand in the order of the rows.",
                source,
                row.number,
                row.id,
            )
            watching = False
        yield row


class _Ids:
    """Which ids were there, in little memory: hashes, and of rows without an id, whose id is their number, ranges."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, row: Row) -> bool:
        """Whether the row's id is a new one."""
        assert row.record is not None
        hashed = hash(json.dumps(row.id, default=str))
        new = hashed not in self._hashes and not self._is_number(row.id)
        if row.record.get("id") is not None:
            self._hashes.add(hashed)
        elif self._ends and self._ends[-1] == row.number - 1:
            self._ends[-1] = row.number
        else:
            self._starts.append(row.number)
            self._ends.append(row.number)
        return new

    def _is_number(self, row_id: Any) -> bool:
        """Whether it is the number of a row without an id."""
        if not isinstance(row_id, int) or isinstance(row_id, bool):
            return False
        place = bisect.bisect_right(self._starts, row_id) - 1
        return place >= 0 and row_id <= self._ends[place]


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
    for result in results:
        summary.add(result, command.numbers)
    return [_named(row) | result for row, result in zip(chunk, results, strict=True)]


def _item_of(row: Row, command: RowCommand) -> Any:
    if row.record is None:
        raise InvalidConversationError(row.error or "the row cannot be read")
    return command.item_of(row.record)


def _stop_if_dead(results: Sequence[dict[str, Any]], *, n_scored: int) -> None:
    """End the run where the engine failed, not the rows: they stay to be scored when the command is run again."""
    errors = [result["error"] for result in results if result.get("error", {}).get("type") in _ENGINE_ERRORS]
    if len(errors) == len(results) and (len(errors) >= _N_DEAD or not n_scored):
        raise BackendError(f"every row failed; the first with {errors[0]['type']}: {errors[0]['message']}")
