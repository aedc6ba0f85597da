"""its_hub 0.3.5's own searches with the built-in models. Its pins exclude 1.2.0's: `make test-its-hub` runs this."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import warnings

import pytest
from judge_server import judge_server, says, verdict

if importlib.util.find_spec("its_hub") is None or importlib.util.find_spec("its_hub.base") is None:
    pytest.skip("needs its_hub 0.3.5, which has an environment of its own: make test-its-hub", allow_module_level=True)

# litellm, which its_hub imports, fetches a price list unless told not to, and warns of what it uses.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
with warnings.catch_warnings(action="ignore"):
    from its_hub.algorithms import BeamSearch, BestOfN, ParticleFiltering
    from its_hub.base import AbstractLanguageModel, AbstractOutcomeRewardModel, AbstractProcessRewardModel
    from its_hub.integration.reward_hub import LLMJudgeRewardModel
    from its_hub.lms import StepGeneration
    from its_hub.types import ChatMessage

from reward_hub import AutoRM
from reward_hub.integrations.its_hub import RewardHubORM, RewardHubPRM

PROMPT = "At first, Omar has 12 coins. Then Omar gets 15 more. Omar gives away 6. How many coins are there now?"
RIGHT = "12 + 15 = 27\n\n27 - 6 = 21\n\nThe answer is 21."
WRONG = "12 + 15 = 26\n\n26 - 6 = 20\n\nThe answer is 20."
# The steps that may follow each partial answer.
NEXT = {
    "": ["12 + 15 = 26", "12 + 15 = 27"],
    "12 + 15 = 26": ["26 - 6 = 20", "26 - 6 = 21"],
    "12 + 15 = 27": ["27 - 6 = 22", "27 - 6 = 21"],
}


class ScriptedLM(AbstractLanguageModel):
    """Gives the responses of a list; without a list, the steps of `NEXT` in turn."""

    def __init__(self, responses=None):
        self.responses = responses
        self.turns = {partial: 0 for partial in NEXT}

    async def agenerate(self, messages, stop=None, **options):
        texts = self.responses or [self.step(conversation) for conversation in messages]
        assert len(texts) == len(messages)
        return [{"role": "assistant", "content": text} for text in texts]

    def generate(self, messages, stop=None, **options):
        raise AssertionError("the searches are asynchronous")

    def step(self, conversation):
        partial = conversation[-1].content.rstrip() if conversation[-1].role == "assistant" else ""
        if partial not in NEXT:
            return f"The answer is {partial.split()[-1]}."
        self.turns[partial] += 1
        return NEXT[partial][self.turns[partial] % 2]


@pytest.fixture(scope="module")
def orm():
    with AutoRM.load("builtin/arithmetic-orm", load_method="transformers") as rm:
        yield rm


@pytest.fixture(scope="module")
def prm():
    with AutoRM.load("builtin/arithmetic-prm", load_method="transformers") as rm:
        yield rm


@pytest.fixture
def steps():
    return StepGeneration(max_steps=5, step_token="\n\n", stop_token="The answer is")


@pytest.mark.parametrize("prompt", [PROMPT, [ChatMessage("system", "Count."), ChatMessage("user", PROMPT)]])
def test_best_of_n_picks_the_response_with_the_best_score(orm, prompt):
    responses = [WRONG, RIGHT, WRONG, RIGHT]
    result = BestOfN(RewardHubORM(orm)).infer(ScriptedLM(responses), prompt, budget=4, return_response_only=False)
    turns = [{"role": "user", "content": PROMPT}] if prompt is PROMPT else [turn.to_dict() for turn in prompt]
    expected = orm.score_batch([[*turns, {"role": "assistant", "content": text}] for text in (WRONG, RIGHT)])
    assert result.scores == expected * 2
    assert result.the_one["content"] == RIGHT


def test_beam_search_keeps_the_beams_that_the_process_model_prefers(prm, steps):
    search = BeamSearch(steps, RewardHubPRM(prm), beam_width=2)
    result = search.infer(ScriptedLM(), PROMPT, budget=8, return_response_only=False)
    texts = [response["content"] for response in result.responses]
    assert result.scores == pytest.approx([prm.score(prompt=PROMPT, response=text) for text in texts], abs=1e-6)
    assert texts[result.selected_index] == RIGHT


def test_particle_filtering_weighs_particles_by_the_probability_of_the_process_model(prm, steps):
    random.seed(0)
    search = ParticleFiltering(steps, RewardHubPRM(prm))
    result = search.infer(ScriptedLM(), PROMPT, budget=8, return_response_only=False)
    texts = [response["content"] for response in result.responses]
    probabilities = [prm.score(prompt=PROMPT, response=text) for text in texts]
    clipped = [min(max(p, 1e-7), 1 - 1e-7) for p in probabilities]
    assert result.log_weights_lst == pytest.approx([math.log(p / (1 - p)) for p in clipped], abs=1e-3)
    assert texts[result.selected_index] == RIGHT


def test_the_adapters_are_its_hubs_own_kinds_of_model(orm, prm):
    assert isinstance(RewardHubORM(orm), AbstractOutcomeRewardModel)
    assert isinstance(RewardHubPRM(prm), AbstractProcessRewardModel)


@pytest.mark.parametrize(
    ("judge_type", "script", "expected"),
    [
        ("pointwise", verdict(8), [8.0, 8.0]),
        ("groupwise", says(json.dumps({"reasoning": "the sum is right", "ranking": [2]})), [0.0, 1.0]),
    ],
)
def test_its_hubs_judge_is_answered_by_the_judges_of_the_old_names(judge_type, script, expected):
    with judge_server(script) as server:
        judge = LLMJudgeRewardModel(
            "hosted_vllm/judge", "overall_quality", judge_type, api_key="x", base_url=server.api_base, temperature=0.0
        )
        result = BestOfN(judge).infer(ScriptedLM([WRONG, RIGHT]), PROMPT, budget=2, return_response_only=False)
        judge.judge.close()
    assert result.scores == expected
    assert all(PROMPT in asked.text for asked in server.asked)
