"""Rows of a file: JSONL, JSON, CSV, Parquet and folders of `datasets`, read one at a time.

A row that cannot be read is a `Row` with an error, so that one torn line does not end a run over a million others.
What the columns mean is said in `columns`.
"""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from reward_hub.data.column_names import JSON_CELLS, JSON_OR_TEXT_CELLS, MESSAGES_OR_TEXT_CELLS, OPTIONAL_CELLS, Columns
from reward_hub.errors import InvalidConversationError, missing_dependency

STDIN = "-"

_GZIP = ".gz"
# What a folder of `datasets` has: of one split, and of several.
_ON_DISK = ("state.json", "dataset_dict.json")


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


def read_rows(path: str, columns: Columns | None = None) -> Iterator[Row]:
    """Read the rows of a file, whose format is known by its ending; `-` is JSONL from standard input.

    JSONL (also `.jsonl.gz`), CSV, Parquet and folders written by `Dataset.save_to_disk` are read in constant memory;
    JSON is one list, or one object a line, and read whole.

    Args:
        columns: which column is what, where their names do not say so.

    Raises:
        RowFormatError: an unknown ending, or a file that cannot be read in its format at all.
        OSError: the file cannot be opened.
        MissingDependencyError: Parquet without pyarrow, or a folder without `datasets`.
    """
    columns = columns or Columns()
    if path == STDIN:
        return named_rows(_read_jsonl(sys.stdin.buffer), columns)
    place = Path(path)
    if is_on_disk(place):
        return named_rows(rows_of_dataset(load_from_disk(path)), columns)
    rows = named_rows(_reader_of(place)(place), columns)
    return map(_with_decoded_cells, rows) if is_table(place) else rows


def endings() -> tuple[str, ...]:
    """The endings of the files that are read."""
    return (*_READERS, *(f"{ending}{_GZIP}" for ending in _READERS if ending != ".parquet"))


def is_table(path: Path) -> bool:
    """Whether the cells of a file are texts, whatever they hold."""
    return format_of(path) in (".csv", ".tsv")


def is_on_disk(path: Path) -> bool:
    """Whether this is a folder that `datasets` wrote."""
    return any((path / name).is_file() for name in _ON_DISK)


def named_rows(rows: Iterable[Row], columns: Columns) -> Iterator[Row]:
    """The rows with each column under the name that says what it is."""
    for row in rows:
        if row.record is None:
            yield row
            continue
        try:
            yield Row(row.number, columns.named(row.record))
        except InvalidConversationError as error:
            yield Row(row.number, None, error.message)


def format_of(path: Path) -> str:
    """The ending that says the format: `.jsonl` of `rows.jsonl.gz`."""
    ending = path.suffix.lower()
    return f"{Path(path.stem).suffix.lower()}" if ending == _GZIP else ending


def _reader_of(path: Path) -> Callable[[Path], Iterator[Row]]:
    if not path.name.lower().endswith(endings()):
        raise RowFormatError(
            f"{path}: rows are read from {', '.join(endings())} and from folders written by Dataset.save_to_disk; the "
            "ending says which."
        )
    reader = _READERS[format_of(path)]
    return _unpacking(reader) if path.suffix.lower() == _GZIP else reader


def _unpacking(reader: Callable[[Path], Iterator[Row]]) -> Callable[[Path], Iterator[Row]]:
    def read(path: Path) -> Iterator[Row]:
        try:
            yield from reader(path)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise RowFormatError(f"{path}: not gzip, or not the whole of it: {error}") from error

    return read


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == _GZIP else path.open("rb")  # type: ignore[return-value]


def _read_jsonl_file(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
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
        with _opened(path) as file:
            records = json.loads(file.read().decode("utf-8-sig"))
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
    with _opened(path) as packed, io.TextIOWrapper(packed, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if format_of(path) == ".tsv" else ",", strict=True)
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
    return Row(number, {name: cell for name, cell in cells.items() if cell is not None})


def _with_decoded_cells(row: Row) -> Row:
    """A row of CSV with what its cells hold, where they hold more than text."""
    if row.record is None:
        return row
    record = {name: cell for name, cell in row.record.items() if cell != "" or name not in OPTIONAL_CELLS}
    for name, cell in record.items():
        if name in JSON_CELLS:
            record[name] = decoded_cell(cell)
            if isinstance(record[name], str):
                return Row(row.number, None, f"column {name!r} is not JSON: {cell[:60]!r}")
        elif name in JSON_OR_TEXT_CELLS:
            record[name] = decoded_cell(cell)
        elif name in MESSAGES_OR_TEXT_CELLS and cell.lstrip().startswith(("[", "{")):
            value = decoded_cell(cell.strip())
            # One message is a list of one, which a prompt may be too.
            turns = [value] if isinstance(value, dict) else value
            record[name] = turns if _are_messages(turns) else cell
    return Row(row.number, record)


def decoded_cell(cell: str) -> Any:
    """What a cell holds as JSON or, as often met, as Python writes it; else its text, where it is neither."""
    with warnings.catch_warnings():
        # A text may have escapes that Python does not know, as "\\d".
        warnings.simplefilter("ignore", SyntaxWarning)
        for decode in (json.loads, ast.literal_eval):
            try:
                return decode(cell)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                continue
    return cell


def _are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and value != []
        and all(isinstance(part, dict) and ("role" in part or {"from", "value"} <= part.keys()) for part in value)
    )


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
                    yield Row(number, {name: without_nulls(value) for name, value in record.items()})
    except pyarrow.lib.ArrowInvalid as error:
        raise RowFormatError(f"{path}: not Parquet: {error}") from error


def load_from_disk(path: str, split: str | None = None) -> Any:
    """The data set in a folder that `datasets` wrote.

    Raises:
        RowFormatError: it has several splits and none of them is said, or it does not have this one.
    """
    return one_split(path, import_datasets("a data set on disk").load_from_disk(path), split)


def one_split(name: str, found: Any, split: str | None) -> Any:
    """The split that is meant of what `datasets` loaded."""
    if isinstance(found, dict):
        names = list(found)
        chosen = split if split is not None else names[0] if len(names) == 1 else None
        if chosen not in found:
            raise RowFormatError(
                f"{name} has the splits {', '.join(names)}; say which with --split, or give the folder of one."
            )
        return found[chosen]
    if split is not None and str(found.split or split).split("[")[0] != split.split("[")[0]:
        raise RowFormatError(f"{name} holds the split {found.split}, not {split!r}.")
    return found


def import_datasets(purpose: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise missing_dependency("datasets", "bench", purpose) from error
    return datasets


def rows_of_dataset(dataset: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """The rows of a `datasets.Dataset`."""
    for number, record in enumerate(dataset, start=1):
        yield Row(number, {name: without_nulls(plain(value)) for name, value in record.items()})


def without_nulls(value: Any) -> Any:
    """A column of message dicts has every key in every message, null where the message had none."""
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None or key == "content"}
    return value


def plain(value: Any) -> Any:
    """A value with numpy's arrays and numbers, tuples and mappings as Python's own lists, numbers and dicts."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
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
