"""its_hub 1.2.0's own searches over a scripted language model pick what the built-in models' scores say."""

from __future__ import annotations

import math
import random

import pytest
from golden_sets import GoldenSet
from its_hub import BestOfN
from its_hub.api import AbstractLanguageModel, AbstractOutcomeRewardModel, AbstractProcessRewardModel
from its_hub.api.types import ChatMessage, ChatMessages
from its_hub.core.algorithms.beam_search import BeamSearch
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering
from its_hub.core.lms.step_generation import StepGeneration

from reward_hub import AutoRM, BaseRM, InvalidConversationError, UnsupportedError
from reward_hub.integrations.its_hub import RewardHubORM, RewardHubPRM

PROMPT = "At first, Omar has 12 coins. Then Omar gets 15 more. Omar gives away 6. How many coins are there now?"
RIGHT = "12 + 15 = 27\n\n27 - 6 = 21\n\nThe answer is 21."
WRONG = ["12 + 15 = 26\n\n26 - 6 = 20\n\nThe answer is 20.", "12 + 15 = 27\n\n27 - 6 = 22\n\nThe answer is 22."]
# The steps that may follow each partial answer.
NEXT = {
    "": ["12 + 15 = 26", "12 + 15 = 27"],
    "12 + 15 = 26": ["26 - 6 = 20", "26 - 6 = 21"],
    "12 + 15 = 27": ["27 - 6 = 22", "27 - 6 = 21"],
}


class ScriptedLM(AbstractLanguageModel):
    """Gives the responses of a list in turn; of a partial answer, the steps of `NEXT` in turn."""

    def __init__(self, responses=()):
        self.responses = iter(responses)
        self.turns = {partial: 0 for partial in NEXT}

    async def agenerate_single(self, messages, stop=None, **options):
        response = next(self.responses)
        return response if isinstance(response, dict) else {"role": "assistant", "content": response}

    async def agenerate(self, messages, stop=None, **options):
        return [{"role": "assistant", "content": self.step(conversation)} for conversation in messages]

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


def test_best_of_n_picks_the_response_with_the_best_score(orm):
    responses = [WRONG[0], RIGHT, WRONG[1], RIGHT]
    result = BestOfN(RewardHubORM(orm)).infer(ScriptedLM(responses), PROMPT, budget=4, return_response_only=False)
    assert result.scores == [orm.score(prompt=PROMPT, response=text) for text in responses]
    assert result.selected_index == 1
    assert result.the_one["content"] == RIGHT


def test_best_of_n_scores_the_whole_conversation(orm):
    conversation = [
        ChatMessage("system", "You do arithmetic."),
        ChatMessage("user", "Hello"),
        ChatMessage("assistant", "Hello, what shall I count?"),
        ChatMessage("user", PROMPT),
    ]
    result = BestOfN(RewardHubORM(orm)).infer(ScriptedLM([*WRONG, RIGHT]), conversation, 3, return_response_only=False)
    turns = [turn.to_dict() for turn in conversation]
    expected = [orm.score([*turns, {"role": "assistant", "content": text}]) for text in (*WRONG, RIGHT)]
    assert result.scores == expected
    assert expected != [orm.score(prompt=PROMPT, response=text) for text in (*WRONG, RIGHT)]


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
    assert texts[result.selected_index] == RIGHT == texts[probabilities.index(max(probabilities))]


def test_the_adapters_are_its_hubs_own_kinds_of_model(orm, prm):
    assert isinstance(RewardHubORM(orm), AbstractOutcomeRewardModel)
    assert isinstance(RewardHubPRM(prm), AbstractProcessRewardModel)


@pytest.mark.parametrize(
    "prompt",
    [
        PROMPT,
        [{"role": "user", "content": PROMPT}],
        [ChatMessage("user", PROMPT)],
        [ChatMessage("user", [{"type": "text", "text": PROMPT}])],
        ChatMessages(PROMPT),
        ChatMessages([ChatMessage("user", PROMPT)]),
    ],
    ids=["text", "dicts", "messages", "parts", "wrapped text", "wrapped messages"],
)
async def test_every_form_of_a_prompt_gives_the_same_scores(orm, prm, prompt):
    texts = [*WRONG, RIGHT]
    assert await RewardHubORM(orm).ascore(prompt, texts) == orm.score_batch([_said(text) for text in texts])
    probabilities = prm.score_batch([_said(text) for text in texts])
    assert await RewardHubPRM(prm).ascore(prompt, texts) == probabilities
    assert await RewardHubPRM(prm).ascore(prompt, RIGHT) == probabilities[2]


async def test_one_conversation_gives_one_float_in_both_forms(orm):
    adapter = RewardHubORM(orm)
    expected = orm.score(prompt=PROMPT, response=RIGHT)
    assert await adapter.ascore([ChatMessage("user", PROMPT), ChatMessage("assistant", RIGHT)]) == expected
    assert await adapter.ascore(PROMPT, RIGHT) == expected
    # Also from synchronous code inside a running event loop, as in a notebook.
    assert adapter.score(PROMPT, RIGHT) == expected
    assert adapter.score([_said(RIGHT)]) == [expected]


async def test_the_process_adapter_aggregates_as_asked(prm):
    low = prm.score_steps(prompt=PROMPT, response=WRONG[0])
    assert await RewardHubPRM(prm, aggregation="mean").ascore(PROMPT, WRONG[0]) == pytest.approx(sum(low) / len(low))
    whole = prm.score(prompt=PROMPT, response=WRONG[0], aggregation="model")
    assert await RewardHubPRM(prm, step_delimiter="###").ascore(PROMPT, WRONG[0]) == pytest.approx(whole)


def test_a_sum_of_step_scores_is_refused_whoever_asked_for_it(prm):
    with pytest.raises(UnsupportedError, match="not a probability"):
        RewardHubPRM(prm, aggregation="sum")
    with AutoRM.load("builtin/arithmetic-prm", load_method="transformers", aggregation="sum") as sums:
        with pytest.raises(UnsupportedError, match="not a probability"):
            RewardHubPRM(sums)
        assert RewardHubPRM(sums, aggregation="min").score(PROMPT, RIGHT) == prm.score(
            prompt=PROMPT, response=RIGHT, aggregation="min"
        )


@pytest.mark.parametrize("adapter", [RewardHubORM, RewardHubPRM])
def test_what_is_no_reward_model_is_refused_at_once(adapter):
    with pytest.raises(TypeError, match=r"rm is a str; .* AutoRM\.load"):
        adapter("builtin/arithmetic-prm")


def test_an_outcome_model_is_refused_for_partial_answers(orm):
    with pytest.raises(UnsupportedError, match="RewardHubORM takes it"):
        RewardHubPRM(orm)


class Cost(BaseRM):
    """As many as there are characters; fewer are better."""

    higher_is_better = False

    def score(self, messages):
        return float(len(messages[-1]["content"]))


def test_a_cost_is_turned_so_that_the_cheapest_response_wins():
    result = BestOfN(RewardHubORM(Cost())).infer(ScriptedLM(["four", "one", "seven"]), "?", 3, False)
    assert result.scores == [-4.0, -3.0, -5.0]
    assert result.the_one["content"] == "one"


def test_a_pairwise_model_compares_the_candidates_with_each_other(golden_models):
    rm = golden_models.load(GoldenSet("pairrm-hf", "own"))
    responses = ["one", "two words", "three words here"]
    result = BestOfN(RewardHubORM(rm)).infer(ScriptedLM(responses), "How many?", 3, return_response_only=False)
    ranking, details = rm.rank(prompt="How many?", responses=responses, return_details=True)
    assert result.scores == details["scores"]
    assert result.selected_index == ranking[0]


def test_a_pairwise_model_refuses_a_response_that_calls_tools(golden_models):
    call = {"id": "1", "type": "function", "function": {"name": "count", "arguments": "{}"}}
    lm = ScriptedLM([{"role": "assistant", "content": None, "tool_calls": [call]}, "aa"])
    with pytest.raises(InvalidConversationError, match="conversation 0: the response calls tools"):
        BestOfN(RewardHubORM(golden_models.load(GoldenSet("pairrm-hf", "own")))).infer(lm, "How many?", 2)


async def test_a_pairwise_model_has_no_score_for_one_response(golden_models):
    with pytest.raises(UnsupportedError, match="no score for one alone"):
        await RewardHubORM(golden_models.load(GoldenSet("pairrm-hf", "own"))).ascore("How many?", "one")


class ToolCounter(BaseRM):
    """How many tools the response calls, a hundredth for each message."""

    def score(self, messages):
        return len(messages[-1].get("tool_calls", ())) + len(messages) / 100


def test_tool_calls_and_tool_messages_reach_the_model():
    call = {"id": "1", "type": "function", "function": {"name": "count", "arguments": "{}"}}
    conversation = [
        ChatMessage("user", "Count."),
        ChatMessage("assistant", None, tool_calls=[call]),
        ChatMessage("tool", "3", tool_call_id="1"),
    ]
    lm = ScriptedLM(["3", {"role": "assistant", "content": None, "tool_calls": [call, call]}])
    result = BestOfN(RewardHubORM(ToolCounter())).infer(lm, conversation, 2, return_response_only=False)
    assert result.scores == [0.04, 2.04]
    assert result.selected_index == 1


class Broken(BaseRM):
    def score(self, messages):
        return float("nan")


def test_a_score_that_is_no_number_ends_the_search():
    with pytest.raises(RuntimeError, match="nan"):
        BestOfN(RewardHubORM(Broken())).infer(ScriptedLM(["a", "b"]), "?", 2)


async def test_an_image_is_refused_rather_than_left_out(orm):
    image = ChatMessage("user", [{"type": "image_url", "image_url": {"url": "file:///x.png"}}])
    with pytest.raises(InvalidConversationError, match="text parts"):
        await RewardHubORM(orm).ascore([image], "A cat.")


async def test_what_is_no_conversation_is_refused(orm):
    with pytest.raises(InvalidConversationError, match="messages is int"):
        await RewardHubORM(orm).ascore(3, "A cat.")
    with pytest.raises(InvalidConversationError, match="response is int"):
        await RewardHubORM(orm).ascore("What is it?", 3)


def _said(text):
    return [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": text}]
