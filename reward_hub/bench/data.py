"""Where the rows of a benchmark come from: a file, a `datasets` folder, a folder of files, or the hub."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_hub.data.rows import Row, RowFormatError, decoded_cell, messages_in_cells, read_rows
from reward_hub.errors import missing_dependency

logger = logging.getLogger(__name__)

# Cells of CSV are text; in these columns they may hold JSON.
_JSON_CELLS = ("candidates", "correct", "grades", "answers", "error_steps", "label")
# In these a list is a text that looks like one, unless every cell of the column is a list of texts: several responses.
_RESPONSE_CELLS = ("chosen", "rejected")
# An empty cell of these is none.
_OPTIONAL_CELLS = (*_JSON_CELLS, "subset", "classification")
# The name that `datasets` gives the only split of a file.
_ONLY_SPLIT = "train"
_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


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


def read_path(path: str, *, split: str | None = None, files: Sequence[str] = ()) -> Data:
    """The rows of a file or a folder.

    Args:
        path: JSONL, JSON, CSV or Parquet; a folder written by `Dataset.save_to_disk`; or a folder of such files, whose
            rows get a column `file` that says which one they are of.
        split: of a `DatasetDict`; in a folder of files it stands in the names of those that are meant.
        files: patterns of the names of the files that are meant where no split is said; the first that fits any.

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
        return Data(path, _decoded(read_rows(path), place.suffix), sha256_of(place))
    if any((place / name).exists() for name in ("state.json", "dataset_dict.json")):
        return _from_disk(path, split)
    found = _files_in(place, split, files)
    rows = [
        _with_file(row, file.relative_to(place).as_posix())
        for file in found
        for row in _decoded(read_rows(str(file)), file.suffix)
    ]
    return Data(path, _numbered(rows), sha256_of(*found))


def read_hub(data: HubData) -> Data:
    """The rows of a data set on the hub (or in its cache).

    Raises:
        DataUnavailableError: it cannot be reached or does not exist; says what to download.
        RowFormatError: it has several splits and none is said.
        MissingDependencyError: `datasets` is not installed.
    """
    datasets = _datasets("data from the hub")
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
    return _of_dataset(data.repo, found, data.split)


def _from_disk(path: str, split: str | None) -> Data:
    return _of_dataset(path, _datasets("a data set on disk").load_from_disk(path), split)


def _datasets(purpose: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise missing_dependency("datasets", "bench", purpose) from error
    return datasets


def _of_dataset(name: str, found: Any, split: str | None) -> Data:
    if isinstance(found, dict):
        names = list(found)
        chosen = split if split is not None else names[0] if len(names) == 1 else None
        if chosen not in found:
            raise RowFormatError(f"{name} has the splits {', '.join(names)}; say which with --split.")
        found = found[chosen]
    elif split is not None and str(found.split or split).split("[")[0] != split.split("[")[0]:
        raise RowFormatError(f"{name} holds the split {found.split}, not {split!r}.")
    rows = [Row(number, dict(record)) for number, record in enumerate(found, start=1)]
    return Data(name, rows, _sha256_of_rows(rows))


def _files_in(folder: Path, split: str | None, patterns: Sequence[str]) -> list[Path]:
    """The files of a split, else those of the first pattern that any has, else all."""
    readable = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _ENDINGS]
    if split is not None:
        found = [path for path in readable if split in path.name]
    else:
        named = ([path for path in readable if path.match(pattern)] for pattern in patterns)
        found = next(filter(None, named), readable)
    if not found:
        of_split = "" if split is None else f" with {split!r} in its name"
        raise RowFormatError(f"{folder} holds no file{of_split} that ends in {', '.join(_ENDINGS)}.")
    return found


def _with_file(row: Row, name: str) -> Row:
    return row if row.record is None else Row(row.number, {"file": name, **row.record})


def _numbered(rows: Iterable[Row]) -> list[Row]:
    return [Row(number, row.record, row.error) for number, row in enumerate(rows, start=1)]


def _decoded(rows: Iterable[Row], suffix: str) -> list[Row]:
    if suffix.lower() not in (".csv", ".tsv"):
        return list(rows)
    return _with_several_responses([_decoded_cells(row) for row in rows])


def _decoded_cells(row: Row) -> Row:
    if row.record is None:
        return row
    record = dict(row.record)
    for name in _OPTIONAL_CELLS:
        if record.get(name) == "":
            del record[name]
    for name in _JSON_CELLS:
        if name in record:
            record[name] = decoded_cell(record[name])
    return Row(row.number, messages_in_cells(record, "prompt", "chosen", "rejected"))


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


def _sha256_of_rows(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row.record, sort_keys=True, default=str).encode())
    return digest.hexdigest()
