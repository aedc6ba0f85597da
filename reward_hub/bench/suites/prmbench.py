"""PRMBench: 6,216 solutions in nine classes with their wrong steps. https://huggingface.co/datasets/hitsmy/PRMBench_Preview

arXiv 2501.03124. As the published code has it: an item's id is `{classification}_{idx}`, of a repeated one the first
row counts, and each row of class redundency (sic) also gives an item of class `correct`: its original solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reward_hub.bench.data import HubData
from reward_hub.bench.items import Item, process_item
from reward_hub.bench.rules.prmbench import CORRECT
from reward_hub.bench.suite import Suite
from reward_hub.data.rows import Row
from reward_hub.errors import InvalidConversationError

WITH_ORIGINALS = "redundency"


def _expand(rows: Sequence[Row]) -> list[Row]:
    """One row an id, and behind each redundency row the original solution."""
    expanded: list[Row] = []
    seen: set[str] = set()
    for row in rows:
        if row.record is None:
            expanded.append(row)
            continue
        record = _prepared(row.record, row.id)
        if record["id"] in seen:
            continue
        seen.add(record["id"])
        expanded.append(Row(row.number, record))
        if record["classification"] == WITH_ORIGINALS and record["original_steps"] is not None:
            expanded.append(Row(row.number, _original(record)))
    return expanded


def _prepared(record: dict[str, Any], number: Any) -> dict[str, Any]:
    """The columns as published, or those of a prepared file, under one name each."""
    classification = str(record.get("classification"))
    index = str(record.get("idx", number)).removeprefix(f"{classification}_")
    prompt = record.get("modified_question", record.get("prompt"))
    return {
        "id": f"{classification}_{index}",
        "index": index,
        "classification": classification,
        "prompt": prompt,
        "original_prompt": record.get("original_question", prompt),
        "steps": record.get("modified_process", record.get("steps")),
        "original_steps": record.get("original_process", record.get("original_steps")),
        "error_steps": record.get("error_steps"),
    }


def _original(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{CORRECT}_{record['index']}",
        "classification": CORRECT,
        "prompt": record["original_prompt"],
        "steps": record["original_steps"],
        "error_steps": [],
    }


def _read(record: dict[str, Any]) -> Item:
    for name in ("prompt", "steps", "error_steps"):
        if name not in record:
            raise InvalidConversationError(f"the row has no {name!r}.", field=name)
    return process_item({**record, "subset": record["classification"]})


SUITE = Suite(
    name="prmbench",
    form="process",
    read=_read,
    hub=(HubData("hitsmy/PRMBench_Preview", split="train"),),
    files=("*.jsonl",),
    download="https://huggingface.co/datasets/hitsmy/PRMBench_Preview (the .jsonl file)",
    expand=_expand,
)
