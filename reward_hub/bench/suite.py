"""What a suite is made of."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from reward_hub.bench.data import Data, DataUnavailableError, HubData, read_hub, read_path
from reward_hub.bench.items import Form, Item, Reader, read_items
from reward_hub.data.rows import Row


def as_read(rows: Sequence[Row]) -> list[Row]:
    return list(rows)


@dataclass(frozen=True)
class Suite:
    """A published benchmark.

    Attributes:
        name: as it is asked for.
        form: of its items.
        read: a record as an item.
        hub: the parts of its data on the hub, all of which are scored; empty where the hub holds none that can be read.
        files: patterns of the names of its files in a folder that holds a copy of the data; the first that fits any.
        download: what to fetch by hand.
        expand: the rows that the published rule scores: more than the file holds, or fewer.
    """

    name: str
    form: Form
    read: Reader
    hub: tuple[HubData, ...]
    files: Sequence[str]
    download: str
    expand: Callable[[Sequence[Row]], list[Row]] = as_read

    def load(
        self, path: str | None = None, *, split: str | None = None, revision: str | None = None
    ) -> tuple[list[Item], Data]:
        """The items of the suite, and the data they come from.

        Args:
            path: a file or folder; by default the hub is asked.
            split: one part of data that come in several.
            revision: of the data on the hub.

        Raises:
            DataUnavailableError: no path was said and the hub has no answer; says what to download.
            RowFormatError: the data cannot be read.
        """
        if path is not None:
            data = read_path(path, split=split, files=self.files)
        else:
            data = self._read_hub(split, revision)
        return read_items(self.expand(data.rows), self.read), data

    def _read_hub(self, split: str | None, revision: str | None) -> Data:
        where = f"Download {self.download}, and say --suite {self.name} --data PATH."
        if not self.hub:
            raise DataUnavailableError(f"the hub holds no data of {self.name} that can be read. {where}")
        wanted = self.hub if split is None else (replace(self.hub[0], split=split),)
        try:
            parts = [read_hub(replace(part, revision=revision)) for part in wanted]
        except DataUnavailableError as error:
            raise DataUnavailableError(f"{error} {where}") from error
        if len(parts) == 1:
            return parts[0]
        rows = [row for part in parts for row in part.rows]
        joined = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
        return Data(parts[0].name, [Row(i, row.record, row.error) for i, row in enumerate(rows, start=1)], joined)


_MODULES = {
    "rewardbench": "rewardbench",
    "rewardbench2": "rewardbench2",
    "rm-bench": "rm_bench",
    "judgebench": "judgebench",
    "processbench": "processbench",
    "prmbench": "prmbench",
    "llmbar": "llmbar",
}
NAMES = tuple(_MODULES)


def named(name: str) -> Suite:
    """The suite of this name.

    Raises:
        LookupError: there is none.
    """
    if name not in _MODULES:
        raise LookupError(f"there is no suite {name!r}; known: {', '.join(NAMES)}.")
    suite: Suite = importlib.import_module(f"reward_hub.bench.rules.{_MODULES[name]}").SUITE
    return suite


def suite_of_hub(repo: str) -> Suite | None:
    """The suite whose data this id of the hub is."""
    suites = (named(name) for name in NAMES)
    return next((suite for suite in suites if any(data.repo == repo for data in suite.hub)), None)
