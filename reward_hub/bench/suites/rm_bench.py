"""RM-Bench: 1,327 prompts, each with three chosen and three rejected responses: concise, detailed, in markdown.

https://huggingface.co/datasets/THU-KEG/RM-Bench, arXiv 2410.16184. The order of the styles is that of the lists. The
repository's files per domain have no column `domain`; there the file's name tells it.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from reward_hub.bench.data import HubData
from reward_hub.bench.items import Item, preference_item
from reward_hub.bench.suite import Suite
from reward_hub.errors import InvalidConversationError

_STYLES = 3


def _read(record: dict[str, Any]) -> Item:
    subset = record.get("domain", record.get("subset"))
    if subset is None and "file" in record:
        # chat_filtered.json, safety-refuse_filtered.json
        subset = PurePosixPath(record["file"]).stem.removesuffix("_filtered")
    for name in ("chosen", "rejected"):
        if not isinstance(record.get(name), list) or len(record[name]) != _STYLES:
            raise InvalidConversationError(f"{name!r} must be a list of {_STYLES} texts, one a style.", field=name)
    return preference_item({**record, "subset": subset})


SUITE = Suite(
    name="rm-bench",
    form="preference",
    read=_read,
    hub=(HubData("THU-KEG/RM-Bench", split="train"),),
    files=("total_dataset.json", "*_filtered.json"),
    download="https://huggingface.co/datasets/THU-KEG/RM-Bench (total_dataset.json)",
)
