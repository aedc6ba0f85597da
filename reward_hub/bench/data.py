"""Where the rows of a benchmark come from: a file, a `datasets` folder, a folder of files, or the hub."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_hub.data.column_names import Columns
from reward_hub.data.rows import (
    Row,
    RowFormatError,
    decoded_cell,
    endings,
    import_datasets,
    is_on_disk,
    is_table,
    load_from_disk,
    named_rows,
    one_split,
    read_rows,
    rows_of_dataset,
)

logger = logging.getLogger(__name__)

# A list in these cells of CSV is a text, unless every cell of the column is a list of texts: several responses.
_RESPONSE_CELLS = ("chosen", "rejected")
# The name that `datasets` gives the only split of a file.
_ONLY_SPLIT = "train"


class DataUnavailableError(OSError):
    """The data can be had neither here nor from the hub."""


@dataclass(frozen=True)
class Data:
    """Rows and what identifies them.

    Attributes:
        name: a path, or a hub id.
        sha256: of the file; of the rows where there is no single file.
    """

    name: str
    rows: list[Row]
    sha256: str


@dataclass(frozen=True)
class HubData:
    """A data set on the hub, or a part of it."""

    repo: str
    split: str | None = None
    config: str | None = None
    revision: str | None = None

    @property
    def address(self) -> str:
        part = "".join(
            f", {name} {value!r}" for name, value in (("config", self.config), ("split", self.split)) if value
        )
        return f"https://huggingface.co/datasets/{self.repo}{part}"


def read_path(
    path: str, *, split: str | None = None, files: Sequence[str] = (), columns: Columns | None = None
) -> Data:
    """The rows of a file or a folder.

    Args:
        path: JSONL, JSON, CSV or Parquet; a folder written by `Dataset.save_to_disk`; or a folder of such files, whose
            rows get a column `file` that says which one they are of.
        split: of a `DatasetDict`; in a folder of files it stands in the names of those that are meant.
        files: patterns of the names of the files that are meant where no split is said; the first that fits any.
        columns: which column is what, where their names do not say so.

    Raises:
        RowFormatError: what is there cannot be read.
        OSError: nothing is there.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if not place.is_dir():
        if split not in (None, _ONLY_SPLIT):
            raise RowFormatError(f"{path} is one file and has no split {split!r}.")
        return Data(path, _read_file(place, columns), sha256_of(place))
    if is_on_disk(place):
        return _of_dataset(path, load_from_disk(path, split), columns)
    found = _files_in(place, split, files)
    rows = [_with_file(row, file.relative_to(place).as_posix()) for file in found for row in _read_file(file, columns)]
    return Data(path, _numbered(rows), sha256_of(*found))


def read_hub(data: HubData, *, columns: Columns | None = None) -> Data:
    """The rows of a data set on the hub (or in its cache).

    Raises:
        DataUnavailableError: it cannot be reached or does not exist; says what to download.
        RowFormatError: it has several splits and none is said.
        MissingDependencyError: `datasets` is not installed.
    """
    datasets = import_datasets("data from the hub")
    try:
        found = datasets.load_dataset(data.repo, data.config, split=data.split, revision=data.revision)
    except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        # `datasets` and the libraries below have no error in common for a hub that is away, or data they cannot read.
        reason = next(iter(str(error).splitlines()), "")[:300].rstrip(".")
        raise DataUnavailableError(
            f"{data.repo} cannot be had from the hub: {type(error).__name__}: {reason}. "
            f"Where there is no way to the hub, download {data.address} elsewhere, copy the file or folder here, and "
            "say --data PATH."
        ) from error
    return _of_dataset(data.repo, one_split(data.repo, found, data.split), columns)


def _of_dataset(name: str, dataset: Any, columns: Columns | None) -> Data:
    # The hash is of the rows as they stand in the data set, whatever becomes of their nulls.
    digest = _sha256_of_rows(dataset)
    return Data(name, list(named_rows(rows_of_dataset(dataset), columns or Columns())), digest)


def _files_in(folder: Path, split: str | None, patterns: Sequence[str]) -> list[Path]:
    """The files of a split, else those of the first pattern that any has, else all."""
    readable = [path for path in sorted(folder.rglob("*")) if path.name.lower().endswith(endings())]
    if split is not None:
        found = [path for path in readable if split in path.name]
    else:
        named = ([path for path in readable if path.match(pattern)] for pattern in patterns)
        found = next(filter(None, named), readable)
    if not found:
        of_split = "" if split is None else f" with {split!r} in its name"
        raise RowFormatError(f"{folder} holds no file{of_split} that ends in {', '.join(endings())}.")
    return found


def _with_file(row: Row, name: str) -> Row:
    return row if row.record is None else Row(row.number, {"file": name, **row.record})


def _numbered(rows: Iterable[Row]) -> list[Row]:
    return [Row(number, row.record, row.error) for number, row in enumerate(rows, start=1)]


def _read_file(path: Path, columns: Columns | None) -> list[Row]:
    rows = list(read_rows(str(path), columns))
    return _with_several_responses(rows) if is_table(path) else rows


def _with_several_responses(rows: list[Row]) -> list[Row]:
    for name in _RESPONSE_CELLS:
        lists = [_texts(row.record.get(name)) for row in rows if row.record is not None]
        if not lists or None in lists:
            continue
        logger.warning("Every cell of the column %r is a list of texts; each is read as several responses.", name)
        found = iter(lists)
        rows = [
            row if row.record is None else Row(row.number, {**row.record, name: next(found)}, row.error) for row in rows
        ]
    return rows


def _texts(cell: Any) -> list[str] | None:
    """The list of texts that a cell holds, if it does."""
    value = decoded_cell(cell) if isinstance(cell, str) and cell.lstrip().startswith("[") else None
    return value if isinstance(value, list) and value and all(isinstance(text, str) for text in value) else None


def sha256_of(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _sha256_of_rows(records: Iterable[Mapping[str, Any]]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(dict(record), sort_keys=True, default=str).encode())
    return digest.hexdigest()
