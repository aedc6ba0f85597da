"""Result files: what a run measured, on what machine, with what versions. No names of hosts, users or folders."""

from __future__ import annotations

import json
import os
import platform
import re
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = ("torch", "transformers", "tokenizers", "sentence-transformers", "numpy")


def machine() -> dict[str, Any]:
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def cpu() -> str:
    """The processor's name."""
    told = Path("/proc/cpuinfo")
    if told.exists():
        names = re.findall(r"^model name\s*:\s*(.+)$", told.read_text(encoding="utf-8"), re.MULTILINE)
        if names:
            return str(names[0]).replace("(R)", "").replace("(TM)", "").strip()
    return platform.processor() or platform.machine()


def write(result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """A new file, named by date and processor."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", result["machine"]["cpu"].split("@")[0].lower()).strip("-")
    stem = f"{result['date']}-{name}"
    path = folder / f"{stem}.json"
    n = 1
    while path.exists():
        n += 1
        path = folder / f"{stem}-{n}.json"
    path.write_text(json.dumps(_rounded(result), indent=1) + "\n", encoding="utf-8")
    return path


def newest(folder: Path = RESULTS) -> dict[str, Any]:
    """The last run of workloads that was not a trial.

    Raises:
        FileNotFoundError: there is none.
    """
    read = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    real = [result for result in read if result["workloads"] and not result["tiny"]]
    if not real:
        raise FileNotFoundError(f"{folder.name} has no result yet; run python -m benchmarks.speed first.")
    return max(real, key=lambda result: result["finished"])


def today() -> str:
    return date.today().isoformat()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _rounded(value: Any) -> Any:
    """Five digits are more than any of these figures has."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
