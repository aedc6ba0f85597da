"""Rows of a file: JSONL, JSON, CSV and Parquet, read one at a time.

A row that cannot be read is a `Row` with an error, so that one torn line does not end a run over a million others.
What the columns mean is said in `columns`.
"""

from __future__ import annotations

import ast
import csv
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from reward_hub.errors import missing_dependency

STDIN = "-"

# Cells of CSV are text; in these columns they hold JSON.
_JSON_COLUMNS = ("messages", "conversation", "steps", "responses")


@dataclass(frozen=True)
class Row:
    """One row: its record, or the reason why there is none. `number`, from 1, is its line in a text file."""

    number: int
    record: dict[str, Any] | None
    error: str | None = None

    @property
    def id(self) -> Any:
        """The column `id`, or the row's number where there is none."""
        found = None if self.record is None else self.record.get("id")
        return self.number if found is None else found


class RowFormatError(ValueError):
    """The file as a whole is not what its name says."""


def read_rows(path: str) -> Iterator[Row]:
    """Read the rows of a file, whose format is known by its ending; `-` is JSONL from standard input.

    JSONL, CSV and Parquet are read in constant memory; JSON is one list, or one object a line, and read whole.

    Raises:
        RowFormatError: an unknown ending, or a file that cannot be read in its format at all.
        OSError: the file cannot be opened.
    """
    if path == STDIN:
        return _read_jsonl(sys.stdin.buffer)
    return _reader_of(path)(Path(path))


def _reader_of(path: str) -> Callable[[Path], Iterator[Row]]:
    reader = _READERS.get(Path(path).suffix.lower())
    if reader is None:
        raise RowFormatError(f"{path}: rows are read from {', '.join(_READERS)}; the ending says which.")
    return reader


def _read_jsonl_file(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        yield from _read_jsonl(file)


def _read_jsonl(file: IO[bytes]) -> Iterator[Row]:
    # Bytes, so that a line in another encoding costs that line alone.
    for number, line in enumerate(file, start=1):
        if line.isspace():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            yield Row(number, None, f"not UTF-8 (byte {error.start + 1} of the line)")
        except (ValueError, RecursionError) as error:
            # Not only JSONDecodeError: Python refuses whole numbers of thousands of digits.
            yield Row(number, None, f"not JSON: {error}")
        else:
            yield _row(number, record)


def _read_json(path: Path) -> Iterator[Row]:
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            # Many data sets have one object a line under this ending.
            yield from _read_jsonl_file(path)
            return
        raise RowFormatError(f"{path}: not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise RowFormatError(f"{path}: not JSON: {error}") from error
    if not isinstance(records, list):
        raise RowFormatError(f"{path}: holds a {type(records).__name__}; a list of rows is read.")
    for number, record in enumerate(records, start=1):
        yield _row(number, record)


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        # The limit holds for the process; 131,072 characters are fewer than a long response has.
        csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
        try:
            if reader.fieldnames is None:
                return
            while True:
                # A quoted cell may span lines: the row's number is the line that it begins on.
                number = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield Row(number, None, f"not CSV: {error}")
                else:
                    yield _csv_row(number, cells)
        except UnicodeDecodeError as error:
            raise RowFormatError(f"{path}: not UTF-8, near line {reader.line_num + 1}") from error


def _csv_row(number: int, cells: dict[str | Any, str | Any]) -> Row:
    if None in cells:
        return Row(number, None, "more cells than the first line names")
    record: dict[str, Any] = {name: cell for name, cell in cells.items() if cell is not None}
    for name in _JSON_COLUMNS:
        if not record.get(name):
            record.pop(name, None)
            continue
        record[name] = decoded_cell(cell := record[name])
        if isinstance(record[name], str):
            return Row(number, None, f"column {name!r} is not JSON: {cell[:60]!r}")
    if record.get("id") == "":
        del record["id"]
    return Row(number, record)


def decoded_cell(cell: str) -> Any:
    """What a cell holds as JSON or, as often met, as Python writes it; else its text, where it is neither."""
    with warnings.catch_warnings():
        # A text may have escapes that Python does not know, as "\\d".
        warnings.simplefilter("ignore", SyntaxWarning)
        for decode in (json.loads, ast.literal_eval):
            try:
                return decode(cell)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return cell


def messages_in_cells(record: dict[str, Any], *names: str) -> dict[str, Any]:
    """A record of CSV with the cells of these columns decoded that hold lists of messages; others are text."""
    found = dict(record)
    for name in names:
        cell = record.get(name)
        value = decoded_cell(cell) if isinstance(cell, str) and cell.startswith("[{") else None
        if isinstance(value, list) and all(isinstance(part, dict) and "role" in part for part in value):
            found[name] = value
    return found


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError as error:
        raise missing_dependency("pyarrow", "bench", "reading Parquet") from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for record in batch.to_pylist():
                    number += 1
                    yield Row(number, {name: _without_nulls(value) for name, value in record.items()})
    except pyarrow.lib.ArrowInvalid as error:
        raise RowFormatError(f"{path}: not Parquet: {error}") from error


def _without_nulls(value: Any) -> Any:
    """A column of message dicts has every key in every message, null where the message had none."""
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None or key == "content"}
    return value


def _row(number: int, record: Any) -> Row:
    if isinstance(record, dict):
        return Row(number, record)
    return Row(number, None, f"a JSON {type(record).__name__}; a row is an object with columns as keys")


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl_file,
    ".ndjson": _read_jsonl_file,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
