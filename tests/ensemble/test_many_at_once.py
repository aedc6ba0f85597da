"""Many responses are combined in one go, to the last digit as each by itself."""

from __future__ import annotations

from typing import Any

import pytest
from ensemble_models import Scaled, conversation
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_hub import BaseRM, EnsembleRM
from reward_hub.ensemble.combination import Combination
from reward_hub.ensemble.normalization import NORMALIZATIONS
from reward_hub.ensemble.reduction import REDUCTIONS
from reward_hub.reward_model import CallOptions, Result
from reward_hub.types import Conversation, ScoreDetails
from reward_hub.work import Work, in_thread

NUMBERS = st.floats(-50, 50) | st.sampled_from([0.1, 0.2, 0.3, 1 / 3, 0.0, float("nan"), float("inf"), 1e100, None])


class Table(BaseRM):
    """Scores by the place in a table; None is a failure."""

    def __init__(self, scores: list[float | None], *, cost: bool) -> None:
        self.name, self.scores, self.higher_is_better = "table", scores, not cost

    def scoring_of(self, conversations: Any, options: CallOptions) -> Work[list[Result]]:
        return in_thread(lambda: [self._one(conversation) for conversation in conversations])

    def _one(self, conversation: Conversation) -> Result:
        score = self.scores[int(conversation.response)]
        if score is None:
            return ValueError("no score")
        attributes = {"a": score} if score > 0 else None
        return ScoreDetails(score, [score], 0.5, 3, read_tokens=[{"id": 1}], attributes=attributes, extra={"cached": 1})


@pytest.mark.parametrize("reduce", REDUCTIONS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_scores_and_details_are_those_of_each_response_by_itself(reduce: str, data: st.DataObject) -> None:
    n_members, n = data.draw(st.integers(1, 18)), data.draw(st.integers(1, 9))
    columns = st.lists(NUMBERS, min_size=n, max_size=n)
    members = [(Table(data.draw(columns), cost=place % 3 == 2), 0.1 * (place + 1)) for place in range(n_members)]
    rm = EnsembleRM(
        [(Scaled(), weight) for _, weight in members],
        reduce=reduce,
        normalize=data.draw(st.sampled_from([None, *NORMALIZATIONS])),
        on_member_error=data.draw(st.sampled_from(["raise", "skip"])),
    )
    rm.fit([conversation("x" * length) for length in range(1, 40)])
    for member, (table, _) in zip(rm._members, members, strict=True):
        object.__setattr__(member, "rm", table)
    batch = [conversation(str(i)) for i in range(n)]
    at_once = shown(rm, batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Combination, "_of_all_members", lambda self, by_member: {})
        assert shown(rm, batch) == at_once
    assert [shown(rm, [one])[0] for one in batch] == at_once


def shown(rm: EnsembleRM, batch: list[Any]) -> list[str]:
    """Texts, for NaN is not equal to itself."""
    return [repr(result) for result in rm.score_batch(batch, return_details=True, on_error="none")]
