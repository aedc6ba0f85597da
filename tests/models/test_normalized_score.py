"""`normalized_score` lies in [0, 1] and is higher for the better response, whatever a family's range and direction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from golden_sets import GoldenModels, GoldenSet

from reward_hub.models.model_rm import ModelRM
from reward_hub.types import Scored

MESSAGES = [{"role": "user", "content": "Is it safe?"}, {"role": "assistant", "content": "As far as I know."}]


def in_range(rm: Any, low: float, high: float, *, cost: bool) -> ModelRM:
    """The model, as if its family said between which numbers its scores lie, and which way is better."""
    family = replace(rm.model.family, score_range=(low, high), range_of=None, higher_is_better=not cost)
    return ModelRM(replace(rm.model, family=family))


# Neither is symmetric about zero: a range whose ends are turned would show.
@pytest.mark.parametrize("score_range", [(-20.0, 60.0), (-3.0, 50.0)])
@pytest.mark.parametrize("cost", [False, True])
def test_a_bounded_score_is_mapped_to_its_place_in_the_range(
    golden_models: GoldenModels, score_range: tuple[float, float], cost: bool
) -> None:
    low, high = score_range
    rm = in_range(golden_models.load(GoldenSet("seqcls-qwen2", "own")), low, high, cost=cost)
    score, details = rm.score(MESSAGES, return_details=True)
    assert low < score < high
    distance = high - score if cost else score - low
    assert details["normalized_score"] == pytest.approx(distance / (high - low), abs=1e-12)


@pytest.mark.parametrize(("score", "cost", "expected"), [(9.0, False, 1.0), (9.0, True, 0.0), (-9.0, True, 1.0)])
def test_a_score_outside_of_its_range_is_taken_for_the_nearest_end(
    golden_models: GoldenModels, score: float, cost: bool, expected: float
) -> None:
    rm = in_range(golden_models.load(GoldenSet("seqcls-qwen2", "own")), -1.0, 2.0, cost=cost)
    family = replace(rm.model.family, score=lambda outputs, setup: Scored(score))
    rm = ModelRM(replace(rm.model, family=family))
    assert rm.score(MESSAGES, return_details=True)[1]["normalized_score"] == expected


@pytest.mark.parametrize("cost", [False, True])
def test_steps_that_are_scores_of_shorter_responses_keep_the_direction(golden_models: GoldenModels, cost: bool) -> None:
    flux: Any = golden_models.load(GoldenSet("reasonflux-prm-1.5b", "own"))
    rm = in_range(flux, -40.0, 100.0, cost=cost)
    score, details = rm.score(prompt="2 + 2?", response="2 + 2 is\n\n4", aggregation="mean", return_details=True)
    assert len(details["step_scores"]) == 2
    distance = 100.0 - score if cost else score + 40.0
    assert details["normalized_score"] == pytest.approx(distance / 140.0, abs=1e-12)
