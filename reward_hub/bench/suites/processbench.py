"""ProcessBench: 3,400 solutions with the first wrong step. https://huggingface.co/datasets/Qwen/ProcessBench

arXiv 2412.06559. Four splits (gsm8k, math, olympiadbench, omnimath), which the ids begin with; each is a subset.
"""

from __future__ import annotations

from typing import Any

from reward_hub.bench.data import HubData
from reward_hub.bench.items import Item, process_item
from reward_hub.bench.suite import Suite
from reward_hub.errors import InvalidConversationError

SPLITS = ("gsm8k", "math", "olympiadbench", "omnimath")


def _read(record: dict[str, Any]) -> Item:
    if "label" not in record:
        raise InvalidConversationError("the row has no 'label', the first wrong step.", field="label")
    split = str(record["id"]).rpartition("-")[0]
    subset = record.get("subset", split if split in SPLITS else None)
    return process_item({**record, "subset": subset})


SUITE = Suite(
    name="processbench",
    form="process",
    read=_read,
    hub=tuple(HubData("Qwen/ProcessBench", split=split) for split in SPLITS),
    files=("*.json", "*.jsonl", "*.parquet"),
    download="https://huggingface.co/datasets/Qwen/ProcessBench (gsm8k.json, math.json, ...)",
)
