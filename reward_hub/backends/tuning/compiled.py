"""`kernels.c`, compiled once with the system's compiler and kept in the user's cache.

What is loaded into the process was either compiled just now or lies in a folder that nobody but the user may write, and
is what it was when it was compiled: its name holds its hash.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

# Loops become vector code by -O3; the other two say that nobody looks at errno or at floating-point exceptions. None
# of them lets the compiler change a result.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
COMPILER_S = 60.0


class NoKernelsError(Exception):
    """Why there are no kernels here."""


def cache_folder() -> Path:
    """Where what tuning finds out is kept."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "reward_hub"


def library(folder: Path) -> Path:
    """The compiled file in this folder, compiled if it is not there.

    Raises:
        NoKernelsError: there is no compiler, it fails, or the folder is not the user's alone.
    """
    require_own(folder)
    source = importlib.resources.files(__package__).joinpath("kernels.c").read_bytes()
    compiler = _compiler()
    key = hashlib.sha256(repr((source, _version(compiler), FLAGS, machine())).encode()).hexdigest()[:32]
    for file in sorted(folder.glob(f"{key}-*.so")):
        if file.is_symlink() or file.name != _name(key, file.read_bytes()):
            logger.warning("tune: %s is not what was compiled; it is compiled again.", file)
            file.unlink(missing_ok=True)
        else:
            return file
    return _compile(compiler, source, folder, key)


def require_own(folder: Path) -> None:
    """Make the folder, for the user alone.

    Raises:
        NoKernelsError: it belongs to somebody else, or others may write into it.
    """
    if not hasattr(os, "getuid"):
        raise NoKernelsError("this system does not say whose a file is")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NoKernelsError(f"{folder} is not a folder")
    if found.st_uid != os.getuid():
        raise NoKernelsError(f"{folder} belongs to another user")
    if found.st_mode & 0o077:
        raise NoKernelsError(f"{folder} is open to other users; type: chmod 700 {shlex.quote(str(folder))}")


def _compiler() -> list[str]:
    """The command: what CC says, else the system's."""
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        path = shutil.which(command[0])
        if path is not None:
            return [path, *command[1:]]
    raise NoKernelsError(f"there is no C compiler ({shlex.join(named) or 'cc, gcc, clang'})")


def _version(compiler: list[str]) -> str:
    return _run([*compiler, "--version"])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILER_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoKernelsError(f"the compiler does not run: {error}") from error
    if done.returncode:
        raise NoKernelsError(f"{shlex.join(command)} failed: {done.stderr.strip()[:500]}")
    return done.stdout


@functools.cache
def machine() -> str:
    """The processor, by all that it says of itself that bears on which instructions it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    told = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return repr((platform.system(), platform.machine(), platform.processor(), sorted(told)))


def _compile(compiler: list[str], source: bytes, folder: Path, key: str) -> Path:
    """Compiled under another name first: whoever looks finds the whole file or none."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        c_file, made = Path(own) / "kernels.c", Path(own) / "kernels.so"
        c_file.write_bytes(source)
        _run([*compiler, *FLAGS, "-o", str(made), str(c_file), "-lm"])
        file = folder / _name(key, made.read_bytes())
        made.replace(file)
    logger.info("tune: the kernels were compiled into %s.", file)
    return file


def _name(key: str, compiled: bytes) -> str:
    return f"{key}-{hashlib.sha256(compiled).hexdigest()}.so"
