"""Worked examples of published scoring rules, computed by each benchmark's own code, in ../shared; and small rows."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

FEW = settings(max_examples=30)
"""For properties of a whole rule, each example of which draws bootstrap resamples."""

DATA = Path(__file__).parents[2] / "shared" / "data"


@cache
def _examples() -> dict[str, Any]:
    return json.loads((DATA / "benchmarks" / "examples.json").read_text(encoding="utf-8"))


def examples(name: str) -> Any:
    """The examples of one benchmark; the test is skipped where there are none."""
    if not (DATA / "benchmarks" / "examples.json").exists():
        pytest.skip(f"needs the worked examples in {DATA / 'benchmarks'}")
    return _examples()[name]


def records(path: str) -> list[dict[str, Any]]:
    """The lines of a file of the shared data; the test is skipped where it is not there."""
    return [json.loads(line) for line in text(path).splitlines()]


def text(path: str) -> str:
    if not (DATA / path).exists():
        pytest.skip(f"needs {DATA / path}")
    return (DATA / path).read_text(encoding="utf-8")


def pair(name: Any, chosen: Any, rejected: Any, subset: str | None = None, **more: Any) -> dict[str, Any]:
    """A preference row; a single score stands for a list of one."""
    sides = {"chosen": chosen, "rejected": rejected}
    scores = {side: value if isinstance(value, list) else [value] for side, value in sides.items()}
    return {"id": name, "subset": subset, "scores": scores, **more}


def compared(name: Any, probabilities: list[float | None], subset: str | None = None, **more: Any) -> dict[str, Any]:
    """A row of a model that compares."""
    return {"id": name, "subset": subset, "scores": {"probabilities": probabilities}, **more}


def failed(name: Any, subset: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": name, "subset": subset, "error": {"type": "BackendError", "message": "out of memory"}, **more}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested metrics as one level, for comparisons with a tolerance."""
    if isinstance(value, dict):
        return {name: leaf for key, part in value.items() for name, leaf in flat(part, f"{path}.{key}").items()}
    if isinstance(value, list):
        return {name: leaf for i, part in enumerate(value) for name, leaf in flat(part, f"{path}[{i}]").items()}
    return {path: value}
