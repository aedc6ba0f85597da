"""The file that a run over rows writes, and what lets a killed run go on where it stood.

Rows are appended in input order, so the number of complete lines is the number of rows done. Beside
`scores.jsonl` lies `scores.jsonl.run.json`: what made these rows. A run with other settings, another model or another
input does not append to them. A file of another format, as `scores.csv`, is written at the end, from the lines that
were appended to `scores.csv.jsonl` beside it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from reward_hub.data.writing import is_lines, require_format, write_rows

_BLOCK = 1 << 20


class RunError(ValueError):
    """A run that cannot be made as it was asked for; the message says what to ask instead."""


class Out(Protocol):
    """Where rows go: a file that resumes, or a stream."""

    def done(self) -> Iterator[dict[str, Any]]:
        """The rows that are there already."""

    def earlier(self) -> Iterator[dict[str, Any]]:
        """The rows of a run before, some of which are wanted anew; they start at the first row of the input."""

    def begin(self, fingerprint: str) -> None:
        """State the model that the following rows come from."""

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows, for good when this returns."""

    def finish(self) -> None:
        """Every row of the input is there."""


class StreamOut:
    """Rows as lines of a stream, as of standard output; nothing to resume."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> StreamOut:
        return self

    def __exit__(self, *raised: object) -> None: ...

    def done(self) -> Iterator[dict[str, Any]]:
        return iter(())

    def earlier(self) -> Iterator[dict[str, Any]]:
        return iter(())

    def begin(self, fingerprint: str) -> None: ...

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        self._stream.write("".join(map(_line, rows)))
        self._stream.flush()

    def finish(self) -> None: ...


def lines_of(path: Path) -> Path:
    """Where lines are appended: the file itself, or the one beside it that it is made of at the end."""
    return path if is_lines(path) else path.with_name(path.name + ".jsonl")


class OutFile:
    """Lines of JSON appended to a file, held by one process at a time; at the end a file of another format of them."""

    def __init__(
        self,
        path: Path,
        *,
        settings: dict[str, Any],
        source: Path | None,
        overwrite: bool = False,
        retry_errors: bool = False,
        chunks: tuple[int, int] | None = None,
    ) -> None:
        """Open the file and look at what an earlier run left.

        Args:
            path: the file; made if there is none. Its ending says the format.
            settings: what else the rows depend on beside model and input, as plain JSON.
            source: the input, None where it cannot be read again (standard input).
            overwrite: forget what is there.
            retry_errors: keep the good rows that are there, and do those with an error again.
            chunks: rows of a chunk and of the whole input; what is there of a chunk without its end is then forgotten.

        Raises:
            RunError: what is there was not made by this run.
            RowFormatError, MissingDependencyError: a file of this ending cannot be written.
        """
        require_format(path)
        if path.is_dir():
            raise RunError(f"{path} cannot be written: Is a directory.")
        self._made_at_end = None if is_lines(path) else path
        self.path = path = lines_of(path)
        self._run_path = path.with_name(path.name + ".run.json")
        self._earlier_path = path.with_name(path.name + ".earlier")
        self._settings = settings
        self._source = source
        self._chunks = chunks
        self._run: dict[str, Any] | None = None
        self._file = self._open()
        try:
            self._look(overwrite=overwrite, retry_errors=retry_errors)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> OutFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def done(self) -> Iterator[dict[str, Any]]:
        return _rows_of(self.path)

    def earlier(self) -> Iterator[dict[str, Any]]:
        return _rows_of(self._earlier_path) if self._earlier_path.exists() else iter(())

    def begin(self, fingerprint: str) -> None:
        if self._run is None:
            source = None if self._source is None else identity_of(self._source)
            _write_whole(self._run_path, {"settings": self._settings, "input": source, "fingerprint": fingerprint})
        elif self._run["fingerprint"] != fingerprint:
            raise RunError(
                f"{self.path} holds rows of another model: its fingerprint was {self._run['fingerprint']}, "
                f"this one's is {fingerprint}. {WAYS_OUT}"
            )

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        left = memoryview("".join(map(_line, rows)).encode())
        while left:
            left = left[self._file.write(left) :]
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        self._earlier_path.unlink(missing_ok=True)
        if self._made_at_end is not None and self._size():
            write_rows(self._made_at_end, self.done)

    def _open(self) -> io.FileIO:
        try:
            file = io.FileIO(self.path, "ab")
        except OSError as error:
            raise RunError(f"{self.path} cannot be written: {error.strerror}.") from error
        if not _lock(file):
            file.close()
            raise RunError(f"{self.path} is being written by another run.")
        return file

    def _close(self) -> None:
        # A run that ended before its first row (an unknown model, say) leaves no empty file behind.
        if not self._size() and not self._run_path.exists():
            self.path.unlink(missing_ok=True)
        self._file.close()

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _look(self, *, overwrite: bool, retry_errors: bool) -> None:
        if overwrite:
            if self._made_at_end is not None:
                self._made_at_end.unlink(missing_ok=True)
            self._file.truncate(0)
            self._earlier_path.unlink(missing_ok=True)
            self._run_path.unlink(missing_ok=True)
            return
        if not self._size() and not self._earlier_path.exists():
            if self._made_at_end is not None and self._made_at_end.exists():
                raise RunError(
                    f"{self._made_at_end} exists, and without {self.path.name} beside it no run can go on with it. "
                    f"{WAYS_OUT}"
                )
            self._run_path.unlink(missing_ok=True)
            return
        self._run = self._same_run()
        self._file.truncate(_end_of_last_line(self.path))
        if self._chunks is not None:
            self._file.truncate(_end_of_whole_chunks(self.path, *self._chunks))
        # The presence of the earlier file is what says that a retry is under way, so that a killed retry goes on.
        if retry_errors and not self._earlier_path.exists() and any("error" in row for row in self.done()):
            self._file.close()
            os.replace(self.path, self._earlier_path)
            self._file = self._open()

    def _same_run(self) -> dict[str, Any]:
        """What made the rows that are there, which must be what would make more of them."""
        run = self._read_run()
        for name in sorted({*run["settings"], *self._settings}):
            was, now = run["settings"].get(name), self._settings.get(name)
            if was != now:
                raise RunError(f"{self.path} was made with {name} = {was!r}; this run has {now!r}. {WAYS_OUT}")
        if self._source is None or run["input"] is None:
            raise RunError(f"{self.path} exists, and rows from standard input cannot be resumed. {WAYS_OUT}")
        if identity_of(self._source, n_bytes=run["input"]["bytes"]) != run["input"]:
            raise RunError(f"{self.path} was made from other input: {self._source} has changed. {WAYS_OUT}")
        return run

    def _read_run(self) -> dict[str, Any]:
        try:
            run = json.loads(self._run_path.read_text(encoding="utf-8"))
            return {"settings": dict(run["settings"]), "input": run["input"], "fingerprint": run["fingerprint"]}
        except FileNotFoundError:
            raise RunError(
                f"{self.path} exists, and without {self._run_path.name} beside it no run can go on with it. {WAYS_OUT}"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self._run_path} is not what a run wrote: {error!r}. {WAYS_OUT}") from error


WAYS_OUT = "Give another out file (--out), or start anew (--overwrite)."


def identity_of(path: Path, *, n_bytes: int | None = None) -> dict[str, Any]:
    """Size and hash of a file, or of its first bytes: an input that has only grown since is still the same.

    Those of a folder are of all its files.
    """
    digest = hashlib.sha256()
    size = 0
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_dir():
            continue
        digest.update(b"" if part is path else part.relative_to(path).as_posix().encode())
        with part.open("rb") as file:
            while block := file.read(_BLOCK if n_bytes is None else min(_BLOCK, n_bytes - size)):
                digest.update(block)
                size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RunError(f"{path}: line {number} is not a row of an earlier run: {error}. {WAYS_OUT}") from error
            if not isinstance(row, dict) or "id" not in row:
                raise RunError(f"{path}: line {number} is not a row of an earlier run. {WAYS_OUT}")
            yield row


def _end_of_last_line(path: Path) -> int:
    """Where the last complete line ends; what follows was torn by a kill."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def _end_of_whole_chunks(path: Path, chunk_size: int, n_rows: int) -> int:
    """Where the last chunk ends that is there to its end; the last chunk of all may be shorter."""
    ends = [0]
    with path.open("rb") as file:
        for line in file:
            ends.append(ends[-1] + len(line))
    n_done = len(ends) - 1
    return ends[n_done if n_done >= n_rows else n_done - n_done % chunk_size]


def _write_whole(path: Path, value: dict[str, Any]) -> None:
    """Write a small file so that a kill leaves the whole of it or nothing."""
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def _line(row: dict[str, Any]) -> str:
    # ASCII, because an id may hold half a surrogate pair, which no encoding writes.
    return json.dumps(row, allow_nan=False) + "\n"


def _lock(file: io.FileIO) -> bool:
    """Hold the file until this process ends; false where another one does."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # some network file systems have no locks
    return True
