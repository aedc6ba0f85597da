"""ScoreStore: texts in a diskcache directory, read as if anybody could have written them.

diskcache unpickles a row whose `mode` says so, whatever its `Disk` was asked to store (CVE-2025-69872, which holds for
its JSONDisk too); it opens and deletes files by the names that rows hold, and makes attributes and pragmas of the rows
of its table Settings. Here nothing is unpickled, no row names a file, unknown settings are refused, and every text
stands beside its checksum: what was not stored by this file, or has changed since, is a corrupt entry, never a score.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import diskcache
from diskcache.core import DBNAME, DEFAULT_SETTINGS, EVICTION_POLICY, METADATA, MODE_RAW, UNKNOWN

from reward_hub.errors import CacheError

logger = logging.getLogger(__name__)

OnCorrupt: TypeAlias = Literal["recompute", "raise"]
T = TypeVar("T")

# Seconds that a write waits for those of other processes.
TIMEOUT_S = 60.0
# Keys looked up by one query: SQLite takes 999 at least.
KEYS_A_QUERY = 256
# Entries written in one transaction: many are quicker than one, and others wait meanwhile.
ROWS_A_TRANSACTION = 256
# Settings that the file's creator chose; all others are this file's own.
_CHOSEN = ("size_limit", "eviction_policy")


class UnreadableEntry(ValueError):  # noqa: N818 - what it tells of is a row, not what went wrong here
    """A row that this file did not write. Not an OSError, which diskcache would take for a missing row."""


class TextDisk(diskcache.Disk):  # type: ignore[misc]
    """How diskcache turns keys and values into columns: texts as they are, in the row itself, and nothing else."""

    def put(self, key: object) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise TypeError(f"a key is a text, not {type(key).__name__}.")
        return key, True

    def get(self, key: object, raw: object) -> str | None:
        """The key of a row; None for one that is not a text, so that going through the keys does not end there."""
        return key if isinstance(key, str) and raw == 1 else None

    def store(self, value: object, read: bool, key: object = UNKNOWN) -> tuple[int, int, None, str]:
        if read or not isinstance(value, str):
            raise TypeError(f"a value is a text, not {type(value).__name__}.")
        return 0, MODE_RAW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> str:
        if mode != MODE_RAW or filename is not None or not isinstance(value, str):
            kind = type(value).__name__
            raise UnreadableEntry(f"mode {mode!r}, file {filename!r}, a value of type {kind}: not a text of ours")
        return value

    def filename(self, key: object = UNKNOWN, value: object = UNKNOWN) -> tuple[str, str]:
        raise TypeError("nothing is stored in files of their own.")

    def remove(self, file_path: str) -> None:
        """Nothing: we store no files, so a name in a row is not ours to delete."""


class _TextCache(diskcache.Cache):  # type: ignore[misc]
    """A cache in which a text of broken UTF-8 is one corrupt entry, in place of an error for the whole file."""

    @property
    def _con(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = super()._con
        connection.text_factory = _text
        return connection

    def rows(self, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        """Key, checksum, mode, file name and value of those keys that are there: what `get` reads of a single one."""
        query = (
            "SELECT key, tag, mode, filename, value FROM Cache WHERE raw = 1 AND (expire_time IS NULL OR "
            f"expire_time > ?) AND key IN ({', '.join('?' * len(keys))})"
        )
        found: list[tuple[Any, ...]] = self._sql(query, (time.time(), *keys)).fetchall()
        return found


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


class ScoreStore:
    """Texts by key, on disk; for any number of threads and processes.

    Args:
        directory: made, readable by its owner alone, where it is missing.
        size_limit: bytes from which old entries make room for new ones; None keeps what the directory has.
        eviction: which go first: "least-recently-stored", "least-recently-used", "least-frequently-used" (these two
            write at every hit) or "none"; None keeps what the directory has.
        on_corrupt: "recompute" warns and goes on as if nothing were stored; "raise" gives a `CacheError`.

    Raises:
        CacheError: the directory cannot be used, and `on_corrupt` is "raise".
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        size_limit: int | None = None,
        eviction: str | None = None,
        on_corrupt: OnCorrupt = "recompute",
    ) -> None:
        if on_corrupt not in ("recompute", "raise"):
            raise TypeError(f"on_corrupt={on_corrupt!r}; known: 'recompute', 'raise'.")
        if eviction is not None and eviction not in EVICTION_POLICY:
            raise TypeError(f"eviction={eviction!r}; known: {', '.join(EVICTION_POLICY)}.")
        if size_limit is not None and (type(size_limit) is not int or size_limit < 1):
            raise TypeError(f"size_limit={size_limit!r}; a number of bytes is needed.")
        self.directory = Path(os.path.expandvars(directory)).expanduser()
        self.on_corrupt = on_corrupt
        self.n_errors = 0
        given = {"size_limit": size_limit, "eviction_policy": eviction}
        self._settings = {name: value for name, value in given.items() if value is not None}
        self._warned = False
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_cache")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    @property
    def file(self) -> Path:
        return Path(self.directory, DBNAME)

    def get(self, key: str, read: Callable[[str], T]) -> T | None:
        """`read` of the text stored under a key, or None. Where it finds fault with the text, the entry is corrupt."""
        cache = self._cache
        if cache is None:
            return None
        try:
            return _read(cache, key, read)
        except _UNREADABLE as error:
            self._unreadable(key, error)
        except _FAILURES as error:
            self._failed("read", error)
        return None

    def get_many(self, keys: Iterable[str], read: Callable[[str], T]) -> dict[str, T]:
        """`get` of several keys, by key, with one query for many of them; what is not there is left out."""
        found: dict[str, T] = {}
        remaining = iter(keys)
        while part := list(itertools.islice(remaining, KEYS_A_QUERY)):
            cache = self._cache
            if cache is None:
                break
            if EVICTION_POLICY[cache.eviction_policy]["get"] is not None:  # a hit writes down that it was one
                found |= {key: value for key in part if (value := self.get(key, read)) is not None}
                continue
            try:
                rows = cache.rows(part)
            except _FAILURES as error:
                self._failed("read", error)
                continue
            for key, stored_sum, *stored in rows:
                try:
                    found[key] = read(_checked_text(key, cache.disk.fetch(*stored, False), stored_sum))
                except _UNREADABLE as error:
                    self._unreadable(key, error)
        return found

    def set_many(self, texts: Mapping[str, str]) -> None:
        """Store texts by key."""
        remaining = iter(texts.items())
        while part := list(itertools.islice(remaining, ROWS_A_TRANSACTION)):
            cache = self._cache
            if cache is None:
                return
            try:
                # Never with retry=True: diskcache would try for ever on a file that can never be written.
                with cache.transact():
                    for key, text in part:
                        cache.set(key, text, tag=checksum(key, text))
                if cache.volume() > cache.size_limit:
                    cache.cull()
            except _FAILURES as error:
                self._failed("written", error)

    def clear(self) -> int:
        """Remove every entry; how many there were."""
        return int(self._of_file(lambda cache: cache.clear(), 0))

    def stats(self) -> dict[str, Any]:
        """Directory, entries, bytes on disk and the limit."""
        numbers = self._of_file(
            lambda cache: (len(cache), cache.volume(), cache.size_limit, cache.eviction_policy),
            (0, 0, self._settings.get("size_limit"), self._settings.get("eviction_policy")),
        )
        names = ("entries", "size_bytes", "size_limit_bytes", "eviction")
        return {"directory": str(self.directory), **dict(zip(names, numbers, strict=True))}

    def export(self, path: str | Path) -> int:
        """Write every entry as a line of JSON, its key included; how many there were. Corrupt ones are left out.

        Raises:
            CacheError: the folder cannot be read to its end; nothing is written then.
            OSError: the file cannot be written.
        """
        path = Path(path)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        n = 0
        try:
            with unfinished.open("w", encoding="utf-8") as file:
                for key, entry in self._entries():
                    file.write(json.dumps({"key": key, **entry}) + "\n")
                    n += 1
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        return n

    def close(self) -> None:
        """Close this thread's connection to the file; the next call opens another."""
        if self._cache is not None:
            self._cache.close()

    def failed(self, what: str, error: Exception) -> None:
        """Note that something could not be kept: a warning, the first time, or a `CacheError`, as asked for."""
        with self._lock:
            self.n_errors += 1
            first, self._warned = not self._warned, True
        if self.on_corrupt == "raise":
            raise CacheError(f"{what}: {error}") from error
        if first:
            logger.warning("%s: %s. Scores are computed where they cannot be had from it.", what, error)

    # -- inside --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._cache: Any = None
        try:
            self._cache = self._opened()
        except _FAILURES as error:
            self._failed("opened", error)

    def _entries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        cache = self._cache
        if cache is None:
            raise CacheError(f"The cache {self.directory} could not be opened.")
        try:
            for key in cache:
                try:
                    entry = _read(cache, key, _object)
                except _UNREADABLE as error:
                    self._count_unreadable(key, error)
                    continue
                if entry is not None:  # else it was evicted meanwhile
                    yield key, entry
        except _FAILURES as error:
            raise CacheError(f"The cache {self.directory} cannot be read: {error}") from error

    def _of_file(self, ask: Callable[[Any], T], otherwise: T) -> T:
        """What is asked of the file as a whole, or what holds for a file that cannot be read."""
        if self._cache is not None:
            try:
                return ask(self._cache)
            except _FAILURES as error:
                self._failed("read", error)
        return otherwise

    def _opened(self) -> Any:
        # diskcache would make a missing directory, readable by everybody.
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_settings(self.file)
        own = {name: value for name, value in DEFAULT_SETTINGS.items() if name not in _CHOSEN}
        # diskcache would evict inside of a transaction, where the file does not shrink: all there is would have to go.
        own["cull_limit"] = 0
        cache = _TextCache(str(self.directory), timeout=TIMEOUT_S, disk=TextDisk, **{**own, **self._settings})
        if cache.eviction_policy != "none" and not len(cache) and cache.volume() >= cache.size_limit:
            logger.warning(
                "size_limit=%d: the cache %s takes %d bytes without any entry, so nothing is kept. Give it more.",
                *(cache.size_limit, self.directory, cache.volume()),
            )
        return cache

    def _failed(self, doing: str, error: Exception) -> None:
        if self.on_corrupt == "recompute" and _is_corrupt(error):
            self._start_anew(error)
        else:
            self.failed(f"The cache {self.directory} cannot be {doing}", error)

    def _unreadable(self, key: str, error: Exception) -> None:
        if self.on_corrupt == "raise":
            raise CacheError(
                f"Entry {key} of the cache {self.directory} is corrupt: {error}. clear() removes every entry; "
                "on_corrupt='recompute' replaces the corrupt ones."
            ) from error
        self._count_unreadable(key, error)

    def _count_unreadable(self, key: str, error: Exception) -> None:
        with self._lock:
            self.n_errors += 1
        logger.warning("Entry %s of the cache %s is corrupt (%s); it is not used.", key, self.directory, error)

    def _start_anew(self, error: Exception) -> None:
        """Move the broken file aside and begin another one."""
        with self._lock:
            self.n_errors += 1
            broken, self._cache = self._cache, None
            if broken is not None:
                broken.close()
            try:
                with _alone(self.directory):
                    # Another thread or process may have done so already; its new file is not touched.
                    if _is_broken(self.file):
                        aside = _set_aside(self.file)
                        logger.warning("The cache %s is corrupt (%s); it is now %s.", self.file, error, aside.name)
                    else:
                        logger.warning("The cache %s had to be opened again (%s).", self.file, error)
                self._cache = self._opened()
            except _FAILURES as again:
                logger.warning("The cache %s cannot be opened (%s); nothing is kept.", self.directory, again)


class UnreadableFile(Exception):  # noqa: N818 - as UnreadableEntry
    """A cache whose settings are not ours."""


# What may be wrong with one entry, and with the folder.
_UNREADABLE = (UnreadableEntry, ValueError, TypeError, LookupError, RecursionError)
# The last two are what diskcache stumbles over where the table Settings lost rows or has others under its hands, and
# what Python makes of SQLite's message where that quotes bytes of a broken file.
_FAILURES = (sqlite3.Error, diskcache.Timeout, OSError, UnreadableFile, TypeError, ValueError)


def checksum(key: str, text: str) -> str:
    """Tells an entry that was stored so from one that was changed, or moved to another key."""
    return hashlib.blake2b(f"{key} {text}".encode(), digest_size=8).hexdigest()


def _read(cache: Any, key: str, read: Callable[[str], T]) -> T | None:
    text, stored_sum = cache.get(key, tag=True)
    return None if text is None else read(_checked_text(key, text, stored_sum))


def _checked_text(key: str, text: str, stored_sum: object) -> str:
    if stored_sum != checksum(key, text):
        raise UnreadableEntry("it is not what was stored")
    return text


def check_settings(file: Path) -> None:
    """Read the settings of a cache before diskcache does, which makes pragmas and attributes of whatever it finds.

    Raises:
        UnreadableFile: there is one that diskcache does not have, or with a value that it could not have.
    """
    if not file.exists():
        return
    with closing(sqlite3.connect(file, timeout=TIMEOUT_S)) as connection:
        connection.text_factory = _text
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'Settings'").fetchall()
        rows = connection.execute("SELECT key, value FROM Settings").fetchall() if tables else []
    for name, value in rows:
        if name not in DEFAULT_SETTINGS and name not in METADATA:
            raise UnreadableFile(f"unknown setting {name!r}")
        kind = str if name in ("eviction_policy", "sqlite_journal_mode") else int
        known = value in EVICTION_POLICY if name == "eviction_policy" else re.fullmatch(r"-?\w+", str(value))
        if not isinstance(value, kind) or not known:
            raise UnreadableFile(f"setting {name!r} is {value!r:.80}")


def _is_corrupt(error: Exception) -> bool:
    """Whether the file itself is broken; the subclasses of DatabaseError tell of locks, space and permissions."""
    return type(error) is sqlite3.DatabaseError or isinstance(error, (UnreadableFile, TypeError, ValueError))


def _is_broken(file: Path) -> bool:
    try:
        check_settings(file)
        if not file.exists():
            return False
        with closing(sqlite3.connect(file, timeout=TIMEOUT_S)) as connection:
            return bool(connection.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)])
    except _FAILURES as error:
        return _is_corrupt(error)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """While no other process that asks for the same is at it; by a lock of SQLite's, which dies with its holder."""
    with closing(sqlite3.connect(directory / "repair.lock", timeout=TIMEOUT_S, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def _set_aside(file: Path) -> Path:
    aside = file.with_name(f"{file.name}.corrupt-{time.time_ns()}")
    # The file itself last: as long as it stands there, nobody begins another one with these beside it.
    for suffix in ("-wal", "-shm", ""):
        part = Path(f"{file}{suffix}")
        if part.exists():
            part.replace(f"{aside}{suffix}")
    return aside


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise UnreadableEntry("it is not a JSON object")
    return value
