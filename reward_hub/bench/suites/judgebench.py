"""JudgeBench: pairs of responses by one model, one right and one wrong, 350 by GPT-4o and 270 by Claude 3.5 Sonnet.

https://huggingface.co/datasets/ScalerLab/JudgeBench, arXiv 2410.12784; splits `gpt` (scored unless `--split claude` is
said) and `claude`. The subset is the category that the beginning of `source` stands for.
"""

from __future__ import annotations

from typing import Any

from reward_hub.bench.data import HubData
from reward_hub.bench.items import Item, preference_item, responses_item
from reward_hub.bench.rules.judgebench import category_of
from reward_hub.bench.suite import Suite
from reward_hub.errors import InvalidConversationError

_LABELS = ("A>B", "B>A")


def _read(record: dict[str, Any]) -> Item:
    subset = record.get("subset")
    if subset is None:
        subset = category_of(str(record["source"])) if "source" in record else None
    named = {**record, "id": record.get("pair_id", record["id"]), "subset": subset}
    if "chosen" in record and "rejected" in record:
        return preference_item(named)
    label = record.get("label")
    if label not in _LABELS:
        raise InvalidConversationError(f"'label' is {label!r}; {' or '.join(_LABELS)} is read.", field="label")
    better, worse = ("response_A", "response_B") if label == "A>B" else ("response_B", "response_A")
    # By the label the rule knows the order that was published, on which what a tie counts depends.
    return responses_item(named, {"chosen": record.get(better), "rejected": record.get(worse)}, {"label": label})


SUITE = Suite(
    name="judgebench",
    form="preference",
    read=_read,
    hub=(HubData("ScalerLab/JudgeBench", split="gpt"),),
    files=("*gpt*.jsonl", "*gpt*.parquet"),
    download="https://huggingface.co/datasets/ScalerLab/JudgeBench (the file of the GPT-4o pairs)",
)
