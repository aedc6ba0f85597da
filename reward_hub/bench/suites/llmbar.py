"""LLMBar: 419 pairs in five sets. https://github.com/princeton-nlp/LLMBar, arXiv 2310.07641

The hub holds a loading script alone, so the data are the repository's JSON files: `Dataset/LLMBar/Natural/dataset.json`
and `Dataset/LLMBar/Adversarial/{Neighbor,GPTInst,GPTOut,Manual}/dataset.json`. The sets bear the names that they have
as subsets of RewardBench; those of the case study keep theirs.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from reward_hub.bench.items import Item, responses_item
from reward_hub.bench.suite import Suite
from reward_hub.errors import InvalidConversationError

SUBSETS = {
    "Natural": "llmbar-natural",
    "Neighbor": "llmbar-adver-neighbor",
    "GPTInst": "llmbar-adver-GPTInst",
    "GPTOut": "llmbar-adver-GPTOut",
    "Manual": "llmbar-adver-manual",
}


def _read(record: dict[str, Any]) -> Item:
    folder = PurePosixPath(record.get("file", "")).parent.name or None
    subset = record.get("subset", None if folder is None else SUBSETS.get(folder, folder))
    name = record["id"] if subset is None or "file" not in record else f"{subset}-{record['id']}"
    if "chosen" in record and "rejected" in record:
        pair = {"chosen": record["chosen"], "rejected": record["rejected"]}
        return responses_item({**record, "id": name, "subset": subset}, pair)
    label = record.get("label")
    if label not in (1, 2):
        raise InvalidConversationError(f"'label' is {label!r}; 1 or 2, the better output, is read.", field="label")
    pair = {"chosen": record.get(f"output_{label}"), "rejected": record.get(f"output_{3 - label}")}
    return responses_item({"id": name, "subset": subset, "prompt": record.get("input")}, pair)


SUITE = Suite(
    name="llmbar",
    form="preference",
    read=_read,
    hub=(),
    files=("dataset.json",),
    download="the folder Dataset/LLMBar of https://github.com/princeton-nlp/LLMBar",
)
