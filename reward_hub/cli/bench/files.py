"""What `reward-hub bench` is to do, and the files of its run.

In the folder of a run, `parts/` holds for each shard the plan (one line an item), the scores as they come, and what is
known of model and speed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reward_hub.bench.data import Data
from reward_hub.bench.items import Form, Item
from reward_hub.bench.results import rule_of
from reward_hub.cli.usage import UsageError


@dataclass(frozen=True)
class BenchTask:
    """What is scored and how it is counted.

    Attributes:
        items: of one form.
        suite: the named suite, if any.
        data: where the items come from.
        rule_options: arguments of the rule.
        step_delimiter: process models on whole responses: where these are split.
        partial: the data hold further items.
    """

    items: Sequence[Item]
    form: Form
    data: Data
    suite: str | None = None
    rule_options: Mapping[str, Any] = field(default_factory=dict)
    step_delimiter: str | None = None
    partial: bool = False

    @property
    def rule(self) -> str | None:
        return rule_of(self.suite, self.form, self.items)


@dataclass(frozen=True)
class Shard:
    """Every `count`-th item, from `index` on."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(f"--shard {self.index} of --num-shards {self.count}: shards are counted from 0.")

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"

    @property
    def all(self) -> list[Shard]:
        return [Shard(index, self.count) for index in range(self.count)]

    def places(self, n_items: int) -> range:
        return range(self.index, n_items, self.count)


@dataclass(frozen=True)
class BenchRun:
    """Where a run's files are, and how it goes on.

    Attributes:
        settings: all that the scores depend on beside data and weights.
        texts: write prompts and responses into items.jsonl.
        files: local files and folders that the scores depend on.
    """

    out: Path
    settings: dict[str, Any]
    shard: Shard = Shard()
    texts: bool = True
    overwrite: bool = False
    retry_errors: bool = False
    chunk_size: int = 256
    progress: bool | None = None
    files: Sequence[Path] = ()

    def part(self, name: str, shard: Shard | None = None) -> Path:
        """`scores.jsonl` -> DIR/parts/scores-0-of-1.jsonl"""
        stem, _, ending = name.partition(".")
        return self.out / "parts" / f"{stem}-{shard or self.shard}.{ending}"

    @property
    def items_path(self) -> Path:
        return self.out / "items.jsonl"

    @property
    def results_path(self) -> Path:
        return self.out / "results.json"


def changed_since(paths: Sequence[Path], when: float) -> bool:
    """Whether a file or folder, or anything in it, was written, or put in its place, after a time."""
    inside = (part for path in paths for part in (path, *path.rglob("*")))
    # A file that is copied keeps its own time of change; `st_ctime` tells when it came here.
    stats = (part.stat() for part in inside if part.exists())
    return any(max(stat.st_mtime, stat.st_ctime) > when for stat in stats)


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a file of JSON lines."""
    _write(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file of one JSON object."""
    _write(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    """Write so that a kill leaves the whole of it or what was there; shards that end together may write the same."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a file; none where there is no such file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def n_lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
