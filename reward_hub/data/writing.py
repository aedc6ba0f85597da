"""Rows into a file of the format that its ending names; `rows.read_rows` reads it back.

Columns stand in the order in which rows bring them. Cells of CSV and TSV are texts: lists and objects as JSON, nothing
where a row does not have the column. A column of Parquet has one type: numbers, texts, lists of numbers and errors stay
what they are; all else (details, ids of several types) is text, as JSON where it is not one.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeAlias

from reward_hub.data.rows import RowFormatError, endings, format_of
from reward_hub.errors import missing_dependency

Binary: TypeAlias = IO[bytes] | gzip.GzipFile
Rows: TypeAlias = Callable[[], Iterable[Mapping[str, Any]]]
"""Gives the rows from the first on, as often as it is asked."""

_LINES = ("", ".jsonl", ".ndjson")
_BATCH = 4096
_LARGEST = 2**63


def is_lines(path: Path) -> bool:
    """Whether rows can be appended to such a file as they come: it holds JSON lines, also where it has no ending."""
    return path.suffix.lower() in _LINES


def require_format(path: Path) -> None:
    """Refuse a file that could not be written.

    Raises:
        RowFormatError: its ending names no format of rows.
        MissingDependencyError: Parquet without pyarrow.
    """
    if path.suffix and not path.name.lower().endswith(endings()):
        raise RowFormatError(f"{path}: rows are written to {', '.join(endings())}; the ending says which.")
    if format_of(path) == ".parquet":
        _import_pyarrow()


def write_rows(path: Path, rows: Rows) -> None:
    """Write the whole of a file, or leave what was there.

    Raises:
        RowFormatError, MissingDependencyError: see `require_format`.
        OSError: it cannot be written.
    """
    require_format(path)
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            write = _WRITERS[format_of(path)]
            if path.suffix.lower() == ".gz":
                # Without name and time: the same rows give the same file.
                with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                    write(packed, rows)
            else:
                write(file, rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def _write_jsonl(file: Binary, rows: Rows) -> None:
    for row in rows():
        file.write(f"{_json(row)}\n".encode())


def _write_json(file: Binary, rows: Rows) -> None:
    separator = "[\n"
    for row in rows():
        file.write(f"{separator}{_json(row)}".encode())
        separator = ",\n"
    file.write(b"[]\n" if separator == "[\n" else b"\n]\n")


def _write_csv(file: Binary, rows: Rows) -> None:
    _write_table(file, rows, ",")


def _write_tsv(file: Binary, rows: Rows) -> None:
    _write_table(file, rows, "\t")


def _write_table(file: Binary, rows: Rows, delimiter: str) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.DictWriter(text, list(_kinds_of(rows())), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _text(value) for name, value in row.items()} for row in rows())
    text.detach()


def _write_parquet(file: Binary, rows: Rows) -> None:
    pyarrow = _import_pyarrow()
    types = {
        "bool": pyarrow.bool_(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "ints": pyarrow.list_(pyarrow.int64()),
        "floats": pyarrow.list_(pyarrow.float64()),
        "error": pyarrow.struct([("type", pyarrow.string()), ("message", pyarrow.string())]),
    }
    found = {name: next(iter(kinds)) if len(kinds) == 1 else "text" for name, kinds in _kinds_of(rows()).items()}
    schema = pyarrow.schema([(name, types.get(kind, pyarrow.string())) for name, kind in found.items()])
    left = iter(rows())
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(left, _BATCH)):
            cells = [{name: _cell(row.get(name), kind) for name, kind in found.items()} for row in batch]
            writer.write_table(pyarrow.Table.from_pylist(cells, schema))


def _kinds_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Every column, and the kinds of what it holds."""
    kinds: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            held = kinds.setdefault(name, set())
            if value is not None:
                held.add(_kind(value))
    return kinds


def _kind(value: Any) -> str:
    if isinstance(value, list) and value:
        items = {_kind(item) for item in value}
        return f"{items.pop()}s" if items in ({"int"}, {"float"}) else "text"
    if isinstance(value, dict):
        texts = all(isinstance(item, str) for item in value.values())
        return "error" if texts and value.keys() == {"type", "message"} else "text"
    if isinstance(value, int) and not isinstance(value, bool):
        return "int" if -_LARGEST <= value < _LARGEST else "text"
    return type(value).__name__ if isinstance(value, bool | float) else "text"


def _cell(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "error":
        return {name: _text(text) for name, text in value.items()}
    return _text(value) if kind == "text" else value


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else _json(value)
    # Half a surrogate pair, which an id may hold, is written as its escape.
    return text.encode("utf-8", "backslashreplace").decode()


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _import_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_dependency("pyarrow", "bench", "writing Parquet") from error
    return pyarrow


_WRITERS: dict[str, Callable[[Binary, Rows], None]] = {
    "": _write_jsonl,
    ".jsonl": _write_jsonl,
    ".ndjson": _write_jsonl,
    ".json": _write_json,
    ".csv": _write_csv,
    ".tsv": _write_tsv,
    ".parquet": _write_parquet,
}
