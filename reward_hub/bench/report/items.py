"""The rows of the report page's item table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reward_hub.bench.report.figures import margin_of, prompt_text
from reward_hub.bench.report.runs import Run

MAX_TEXT = 1500
MAX_RESPONSES = 6

_VALUES = {
    "preference": "margin",
    "process": "lowest step score",
    "best-of-n": "highest score",
    "instruction": "score",
}


def value_name(form: str) -> str:
    """What the table's number is, for data of this form."""
    return _VALUES[form]


def item_entries(runs: Sequence[Run], most: int) -> list[dict[str, Any]]:
    """One entry an item, in the order of the data: id, subset, texts, and each run's value, verdict and scores."""
    by_id = [{(row.get("subset"), str(row["id"])): row for row in run.rows} for run in runs]
    keys = list(dict.fromkeys(key for rows in by_id for key in rows))[:most]
    entries = []
    for subset, name in keys:
        rows = [found.get((subset, name)) for found in by_id]
        first = next(row for row in rows if row is not None)
        entries.append(
            {
                "id": name,
                "subset": subset,
                "texts": [[title, text] for title, text in _texts(first)],
                "runs": [_entry(row) for row in rows],
            }
        )
    return entries


def _texts(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if prompt := prompt_text(row):
        yield "prompt", _shortened(prompt)
    for name, responses in (row.get("responses") or {}).items():
        for i, response in enumerate(responses[:MAX_RESPONSES]):
            if "text" in response:
                yield name if len(responses) == 1 else f"{name} {i}", _shortened(response["text"])
        if len(responses) > MAX_RESPONSES:
            yield name, f"({len(responses) - MAX_RESPONSES} more responses stand in items.jsonl)"
    for i, step in enumerate(row.get("steps") or ()):
        yield f"step {i}", _shortened(step)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … ({len(text) - MAX_TEXT} characters more)"


def _entry(row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"value": None, "correct": None, "error": "not in this run", "detail": ""}
    if "scores" not in row:
        error = row.get("error") or {}
        return {"value": None, "correct": row.get("correct"), "error": _reason(error), "detail": ""}
    return {"value": _value(row), "correct": row.get("correct"), "error": None, "detail": _detail(row)}


def _reason(error: Any) -> str:
    return f"{error.get('type')}: {error.get('message')}" if isinstance(error, Mapping) else str(error)


def _value(row: Mapping[str, Any]) -> float | None:
    scores = row["scores"]
    if "steps" in scores:
        return min(scores["steps"]) if scores["steps"] else None
    for name in ("candidates", "response"):
        if name in scores:
            return float(max(scores[name]))
    return margin_of(row)


def _detail(row: Mapping[str, Any]) -> str:
    lines = [f"{name}: {', '.join(_shown(value) for value in values)}" for name, values in row["scores"].items()]
    for name in ("label", "error_steps", "grades", "reasoning"):
        if name in row:
            lines.append(f"{name}: {row[name]}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "no verdict" if value is None else str(value)
