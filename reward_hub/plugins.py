"""What is found by name: built in, registered in this process, or an entry point of another package.

Families, backends, benchmarks, published judges and commands are all found so, each by a `Registry`. What is built in
is found by walking a folder (`walk`), one file a thing, so that there is no list to keep. Entry points are read where
no other thing has the name, because reading them runs another package's code.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Generic, TypeVar

from reward_hub.errors import RegistryError, UnknownModelError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A thing with its name and where it comes from."""

    name: str
    thing: T
    source: str


class Registry(Generic[T]):
    """All things of one kind, by name.

    Args:
        kind: what a message calls one of them.
        builtin: the built-in ones; called at the first look.
        group: the group of entry points that bring others; None where no other package does.
        entry_of: what an entry point brings.
        reserved: names that mean something else, and what.

    Attributes:
        registered: those of this process.
    """

    def __init__(
        self,
        kind: str,
        builtin: Callable[[], Iterable[Entry[T]]],
        *,
        group: str | None,
        entry_of: Callable[[EntryPoint], Entry[T]],
        reserved: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.registered: dict[str, Entry[T]] = {}
        self._make_builtin = builtin
        self._group = group
        self.entry_of = entry_of
        self._reserved = reserved or {}
        self._builtin: dict[str, Entry[T]] | None = None
        self._installed: dict[str, Entry[T]] | None = None
        # A package that is loaded for its entry point may register something while it is.
        self._lock = threading.RLock()

    def register(self, name: str, thing: T) -> None:
        """Add a thing of the caller's caller; the same one may be registered again.

        Raises:
            RegistryError: the name is another thing's.
        """
        source = f"{sys._getframe(2).f_globals.get('__name__', 'a module')} (registered)"
        with self._lock:
            known = self.builtin() | (self._installed or {}) | self.registered
            self.registered[name] = self._checked(Entry(name, thing, source), known)

    def builtin(self) -> dict[str, Entry[T]]:
        with self._lock:
            if self._builtin is None:
                self._builtin = self._joined(self._make_builtin(), {})
            return self._builtin

    def installed(self) -> dict[str, Entry[T]]:
        """What the entry points of other packages bring.

        Raises:
            RegistryError: one cannot be loaded, or brings a name that is taken.
        """
        with self._lock:
            if self._installed is None:
                points = () if self._group is None else entry_points(group=self._group)
                entries = self._joined(map(self.entry_of, points), self.builtin())
                for entry in entries.values():
                    self._checked(entry, self.registered)
                self._installed = entries
            return self._installed

    def each(self) -> Iterator[Entry[T]]:
        """All of them in turn; entry points are read where the search did not end before."""
        yield from self.builtin().values()
        yield from list(self.registered.values())
        yield from self.installed().values()

    def entries(self) -> dict[str, Entry[T]]:
        """All of them by name."""
        return {entry.name: entry for entry in self.each()}

    def names(self) -> list[str]:
        return list(self.entries())

    def find(self, name: str) -> T | None:
        """The thing of this name, if there is one; entry points are read where it is neither built in nor registered.

        Raises:
            RegistryError: an entry point cannot be loaded.
        """
        entry = self.builtin().get(name) or self.registered.get(name) or self.installed().get(name)
        return None if entry is None else entry.thing

    def get(self, name: str) -> T:
        """The thing of this name.

        Raises:
            UnknownModelError: there is none; `.near` holds similar names.
        """
        thing = self.find(name)
        if thing is None:
            names = sorted(self.names())
            raise UnknownModelError(
                f"There is no {self.kind} {name!r}.{did_you_mean(name, names)} Known: {', '.join(names)}.",
                near=nearest(name, names),
            )
        return thing

    def _joined(self, entries: Iterable[Entry[T]], known: dict[str, Entry[T]]) -> dict[str, Entry[T]]:
        joined: dict[str, Entry[T]] = {}
        for entry in entries:
            joined[entry.name] = self._checked(entry, known | joined)
        return joined

    def _checked(self, entry: Entry[T], known: dict[str, Entry[T]]) -> Entry[T]:
        other = known.get(entry.name)
        taken_by = self._reserved.get(entry.name)
        if other is not None and other.thing != entry.thing:
            taken_by = other.source
        if taken_by is not None:
            raise RegistryError(
                f"The {self.kind} name {entry.name!r} is taken by {taken_by}; {entry.source} needs another one."
            )
        return entry


def walk(package: ModuleType, attribute: str) -> Iterator[tuple[str, Any]]:
    """The name of each module in a package's folder, in order, with its attribute of that name."""
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        yield module.name, getattr(importlib.import_module(module.name), attribute)


def load_point(point: EntryPoint) -> Any:
    """What an entry point names.

    Raises:
        RegistryError: it cannot be imported.
    """
    try:
        return point.load()
    except Exception as error:
        raise RegistryError(f"{source_of(point)} cannot be loaded: {type(error).__name__}: {error}") from error


def source_of(point: EntryPoint) -> str:
    """Where an entry point comes from, for people."""
    package = "" if point.dist is None else f" of the package {point.dist.name}"
    return f"the entry point {point.name} = {point.value}{package}"


def nearest(name: str, known: list[str], *, likeness: float = 0.4) -> list[str]:
    """At most three known names that resemble `name`; case, `_` and `-` make no difference."""
    plain = {_plain(other): other for other in reversed(known)}
    return [plain[match] for match in difflib.get_close_matches(_plain(name), plain, n=3, cutoff=likeness)]


def did_you_mean(name: str, known: list[str]) -> str:
    """A question for the end of a message, where a known name is much like `name`."""
    near = nearest(name, known, likeness=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
