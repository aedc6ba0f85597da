"""Finished runs of `reward-hub bench`, read back from their folders and named so that they can be told apart."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reward_hub.data.rows import RowFormatError


@dataclass(frozen=True)
class Run:
    """A finished run: what its two files hold.

    Attributes:
        name: the model's, made unique among the runs on the same data.
        results: results.json.
        rows: items.jsonl.
    """

    name: str
    results: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]

    @property
    def title(self) -> str:
        """What was evaluated on: the suite, else the name of the data."""
        return str(self.results["suite"] or Path(str(self.results["run"]["data"]["name"])).name)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in folders that `reward-hub bench` wrote.

    Raises:
        RowFormatError: a folder holds no finished run.
    """
    runs = [_read_run(folder) for folder in folders]
    # Runs on other data are shown apart.
    marks = marks_of([(run.title, run.name) for run in runs], [folder.resolve() for folder in folders])
    return [replace(run, name=run.name + mark) for run, mark in zip(runs, marks, strict=True)]


def marks_of(names: Sequence[Hashable], paths: Sequence[Path]) -> list[str]:
    """What tells equal names apart: as many of the last parts of their paths as are needed, else a number."""
    return [_mark(i, [k for k, other in enumerate(names) if other == name], paths) for i, name in enumerate(names)]


def _mark(i: int, alike: Sequence[int], paths: Sequence[Path]) -> str:
    if len(alike) == 1:
        return ""
    for depth in range(1, len(paths[i].parts)):
        tails = ["/".join(paths[k].parts[-depth:]) for k in alike]
        if len(set(tails)) == len(alike):
            return f" ({tails[alike.index(i)]})"
    return f" ({alike.index(i) + 1})"


def _read_run(folder: Path) -> Run:
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        lines = (folder / "items.jsonl").read_text(encoding="utf-8").split("\n")
        return Run(_shown_name(str(results["model"])), results, [json.loads(line) for line in lines if line])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RowFormatError(f"{folder} holds no finished run of `reward-hub bench`: no {error.filename}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RowFormatError(f"{folder} holds no run of `reward-hub bench`: {error!r}.") from error


def _shown_name(model: str) -> str:
    """Recorded scores are named after their file; a folder on this machine by its last two parts."""
    path = Path(model)
    return path.stem if path.suffix == ".jsonl" else "/".join(path.parts[-2:]) if path.is_absolute() else model
