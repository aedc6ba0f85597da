"""The names that its_hub imports from reward_hub.vllm, called as its_hub calls them, on a real engine."""

from __future__ import annotations

import asyncio

import pytest
from vllm_engines import IN_PROCESS

from reward_hub import AutoRM, UnsupportedError
from reward_hub.base import AggregationMethod, PRMResult
from reward_hub.vllm.reward import VllmProcessRewardModel

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

PROMPT = "At first, Omar has 12 coins. Then Omar gets 15 more. Omar gives away 6. How many coins are there now?"
RESPONSES = ["12 + 15 = 27\n\n27 - 6 = 21\n\nThe answer is 21.", "12 + 15 = 26\n\n26 - 6 = 20\n\nThe answer is 20."]
MESSAGES = [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": text}] for text in RESPONSES]


@pytest.fixture(scope="module")
def old():
    model = VllmProcessRewardModel(
        model_name="builtin/arithmetic-prm", device="cpu", torch_dtype="float32", **IN_PROCESS
    )
    yield model
    model.close()


@pytest.fixture(scope="module")
def step_scores():
    """Of the same model on Transformers."""
    with AutoRM.load("builtin/arithmetic-prm", load_method="transformers", torch_dtype="float32") as rm:
        return [rm.score_steps(messages) for messages in MESSAGES]


def test_its_hubs_call_gives_one_aggregated_score_a_conversation(old, step_scores):
    scores = asyncio.run(_as_its_hub_calls(old, AggregationMethod.PRODUCT))
    expected = [steps[0] * steps[1] * steps[2] for steps in step_scores]
    assert scores == pytest.approx(expected, abs=1e-5)


async def _as_its_hub_calls(model, method):
    return await asyncio.to_thread(
        model.score, messages=MESSAGES, aggregation_method=method, return_full_prm_result=False
    )


def test_the_last_step_counts_unless_something_else_is_said(old, step_scores):
    assert old.score(MESSAGES) == pytest.approx([steps[-1] for steps in step_scores], abs=1e-5)
    assert old.score(MESSAGES, aggregation_method="min") == pytest.approx(list(map(min, step_scores)), abs=1e-5)


def test_one_conversation_gives_a_list_too_and_full_results_hold_the_steps(old, step_scores):
    (result,) = old.score(MESSAGES[0], aggregation_method="prod", return_full_prm_result=True)
    assert isinstance(result, PRMResult)
    assert result.step_scores == pytest.approx(step_scores[0], abs=1e-5)
    assert result.score == result.product


def test_an_outcome_model_is_refused():
    with pytest.raises(UnsupportedError, match="not a process reward model"):
        VllmProcessRewardModel("builtin/arithmetic-orm", torch_dtype="float32", **IN_PROCESS)
