"""What is written of an item's scores beside the number itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from reward_hub import BaseRM
from reward_hub.bench.items import process_item
from reward_hub.bench.rules import prmbench
from reward_hub.bench.scoring import score_items
from reward_hub.types import Conversation, ScoreDetails


class ValidityAndRedundancyRM(BaseRM):
    """Every step is valid; the steps that say "again" are redundant."""

    kind = "process"

    def __init__(self, *, tells_redundancy: bool) -> None:
        self.tells_redundancy = tells_redundancy

    def score_conversations(self, conversations: Sequence[Conversation], options: Any) -> list[Any]:
        return [self._details(conversation.steps or ()) for conversation in conversations]

    def _details(self, steps: Sequence[str]) -> ScoreDetails:
        redundancy = [0.8 if "again" in step else 0.1 for step in steps]
        return ScoreDetails(
            score=0.9,
            raw_logits=[0.0],
            normalized_score=0.9,
            tokens_scored=1,
            step_scores=[0.9] * len(steps),
            attributes={"redundancy": redundancy} if self.tells_redundancy else None,
        )


@pytest.mark.parametrize(
    ("tells_redundancy", "scores", "circular"),
    [
        (True, {"steps": [0.9, 0.9], "redundancy": [0.1, 0.8]}, 1.0),
        (False, {"steps": [0.9, 0.9]}, 0.0),
    ],
)
def test_where_a_model_has_a_number_for_redundancy_prmbench_judges_its_two_classes_by_it(
    tells_redundancy: bool, scores: dict[str, list[float]], circular: float
) -> None:
    records = [
        {"id": f"{name}_1", "prompt": "p", "steps": ["a", "a again"], "error_steps": [2], "classification": name}
        for name in ("circular", "confidence")
    ]
    items = [process_item(record) for record in records]
    results = score_items(ValidityAndRedundancyRM(tells_redundancy=tells_redundancy), items)
    assert [result["scores"] for result in results] == [scores, scores]
    rows = [
        {"id": item.id, "subset": None, **item.truth, **result} for item, result in zip(items, results, strict=True)
    ]
    subsets = prmbench.score(rows).metrics["subsets"]
    assert subsets["circular"]["wrong_step_acc"] == circular
    assert subsets["confidence"]["wrong_step_acc"] == 0.0
