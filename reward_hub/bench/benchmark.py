"""What a benchmark is made of, and how one is found by its name.

A benchmark is one file of `bench/rules/`: where its data are and how its rows are read (its suite), and how scored rows
become metrics (its rule).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from typing import Any, Literal, TypeAlias

from reward_hub.bench.data import Data, DataUnavailableError, HubData, read_hub, read_path
from reward_hub.bench.items import Form, Item, Reader, read_items
from reward_hub.bench.rule_result import BenchResult
from reward_hub.data.column_names import Columns
from reward_hub.data.rows import Row
from reward_hub.errors import RegistryError
from reward_hub.plugins import Entry, Registry, load_point, source_of, walk

JudgeMode: TypeAlias = Literal["rating", "comparison"]
"""How a judge answers: it rates responses one by one, or says which of two is the better one."""


def as_read(rows: Sequence[Row]) -> list[Row]:
    return list(rows)


def as_a_model(judge: JudgeMode) -> dict[str, Any]:
    """No further arguments: a judge is counted as a model is."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A published benchmark; or the rule alone for data of one form, wherever they come from.

    Attributes:
        name: as it is asked for.
        form: of its items.
        read: a record as an item.
        score: the rule, from rows as they stand in items.jsonl to metrics.
        hub: the parts of its data on the hub, all of which are scored; empty where the hub holds none that can be read.
        files: patterns of the names of its files in a folder that holds a copy of the data; the first that fits any.
        download: what to fetch by hand.
        expand: the rows that the published rule scores: more than the file holds, or fewer.
        options_for_judge: arguments of the rule where a judge answers.
        options_for_part: arguments of the rule where the items are not all of the benchmark's.
    """

    name: str
    form: Form
    read: Reader
    score: Callable[..., BenchResult]
    hub: tuple[HubData, ...] = ()
    files: Sequence[str] = ()
    download: str = ""
    expand: Callable[[Sequence[Row]], list[Row]] = as_read
    options_for_judge: Callable[[JudgeMode], dict[str, Any]] = as_a_model
    options_for_part: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_data(self) -> bool:
        """Whether it can be asked for as a suite."""
        return bool(self.hub or self.files or self.download)

    def load(
        self,
        path: str | None = None,
        *,
        split: str | None = None,
        revision: str | None = None,
        columns: Columns | None = None,
    ) -> tuple[list[Item], Data]:
        """The items of the suite, and the data they come from.

        Args:
            path: a file or folder; by default the hub is asked.
            split: one part of data that come in several.
            revision: of the data on the hub.
            columns: which column is what, where their names do not say so.

        Raises:
            DataUnavailableError: no path was said and the hub has no answer; says what to download.
            RowFormatError: the data cannot be read.
        """
        if path is not None:
            data = read_path(path, split=split, files=self.files, columns=columns)
        else:
            data = self._read_hub(split, revision, columns)
        return read_items(self.expand(data.rows), self.read), data

    def _read_hub(self, split: str | None, revision: str | None, columns: Columns | None) -> Data:
        where = f"Download {self.download}, and say --suite {self.name} --data PATH."
        if not self.hub:
            raise DataUnavailableError(f"the hub holds no data of {self.name} that can be read. {where}")
        wanted = self.hub if split is None else (replace(self.hub[0], split=split),)
        try:
            parts = [read_hub(replace(part, revision=revision), columns=columns) for part in wanted]
        except DataUnavailableError as error:
            raise DataUnavailableError(f"{error} {where}") from error
        if len(parts) == 1:
            return parts[0]
        rows = [row for part in parts for row in part.rows]
        joined = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
        return Data(parts[0].name, [Row(i, row.record, row.error) for i, row in enumerate(rows, start=1)], joined)


def _builtin() -> Iterator[Entry[Benchmark]]:
    import reward_hub.bench.rules as package

    return (
        Entry(benchmark.name, benchmark, f"{module} (built in)") for module, benchmark in walk(package, "BENCHMARK")
    )


def _installed(point: EntryPoint) -> Entry[Benchmark]:
    benchmark = load_point(point)
    if not isinstance(benchmark, Benchmark):
        raise RegistryError(f"{source_of(point)} is {type(benchmark).__name__}; a Benchmark is needed.")
    return Entry(benchmark.name, benchmark, source_of(point))


BENCHMARKS = Registry("benchmark", _builtin, group="reward_hub.benchmarks", entry_of=_installed)


def register_benchmark(benchmark: Benchmark) -> None:
    """Make a benchmark of your own known to `reward-hub bench --suite` and `evaluate` in this process.

    Raises:
        RegistryError: the name is taken.
    """
    BENCHMARKS.register(benchmark.name, benchmark)


def suite_names() -> list[str]:
    """The benchmarks that have data of their own."""
    return [name for name, entry in BENCHMARKS.entries().items() if entry.thing.has_data]


def suite_named(name: str) -> Benchmark:
    """The benchmark of this name that has data of its own.

    Raises:
        LookupError: there is none.
    """
    benchmark = BENCHMARKS.find(name)
    if benchmark is None or not benchmark.has_data:
        raise LookupError(f"there is no suite {name!r}; known: {', '.join(suite_names())}.")
    return benchmark


def suite_of_hub(repo: str) -> Benchmark | None:
    """The benchmark whose data this id of the hub is."""
    known = (entry.thing for entry in BENCHMARKS.each())
    return next((suite for suite in known if any(data.repo == repo for data in suite.hub)), None)
