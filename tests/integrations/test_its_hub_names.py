"""The names that its_hub imports from reward_hub, called as its_hub calls them."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys

import pytest
from judge_server import in_turn, judge_server, says, verdict

from reward_hub import InvalidConversationError, JudgeParseError, LLMJudge, UnsupportedError
from reward_hub.base import AggregationMethod, PRMResult
from reward_hub.judge.chat.providers import PROVIDERS
from reward_hub.llm_judge import CRITERIA, CriterionRegistry, create_groupwise_judge, create_pointwise_judge
from reward_hub.llm_judge.prompts import Criterion

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 2?"}]
RESPONSES = ["5", "It is 4.", "22"]
CONVERSATIONS = [[*PROMPT, {"role": "assistant", "content": text}] for text in RESPONSES]


def ranking(*numbers):
    return says(json.dumps({"reasoning": "only one is right", "ranking": list(numbers)}))


def pointwise(server, **options):
    return create_pointwise_judge(
        model="judge", criterion="overall_quality", api_key="x", base_url=server.api_base, **options
    )


def groupwise(server, **options):
    return create_groupwise_judge(
        model="judge", criterion="overall_quality", api_key="x", base_url=server.api_base, **options
    )


def test_its_hub_imports_its_local_process_model_from_here():
    module = importlib.import_module("its_hub.core.reward_models.local_vllm_prm")
    assert module.AggregationMethod is AggregationMethod
    assert module.VllmProcessRewardModel.__module__ == "reward_hub.vllm.reward"


def test_the_names_are_there_without_vllm_and_do_not_hide_it():
    code = (
        "import reward_hub.vllm.reward, reward_hub.llm_judge, sys; print('vllm' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_full_results_and_spellings_of_0_1_are_there():
    result = PRMResult([0.5, 0.8], 0.4)
    assert (result.product, result.min, result.last, result.score) == (0.4, 0.5, 0.8, 0.4)
    assert AggregationMethod("prod") is AggregationMethod.PRODUCT


async def test_a_pointwise_judge_scores_each_conversation_with_its_reasons():
    with judge_server(in_turn(verdict(7.5, reasoning="fine"))) as server:
        judge = pointwise(server, temperature=0.0, max_tokens=300)
        result = await judge.ascore(CONVERSATIONS, return_judge_reasoning=True)
        assert result.scores == [7.5] * 3
        assert result.reasonings == ["fine"] * 3
        assert await judge.ascore(CONVERSATIONS[0]) == 7.5
        assert judge.score(CONVERSATIONS) == [7.5] * 3
        judge.close()
    first = server.asked[0]
    assert first.body["model"] == "judge"
    assert first.body["max_tokens"] == 300
    assert CRITERIA["overall_quality"] in first.text
    assert "from 0 (worst) to 10 (best)" in first.text
    assert all(any(text in asked.text for asked in server.asked) for text in ("Be brief.", *RESPONSES))


async def test_a_groupwise_judge_chooses_the_best_by_one_request():
    with judge_server(ranking(2)) as server:
        judge = groupwise(server)
        result = await judge.ascore(CONVERSATIONS, return_judge_reasoning=True, top_n=1)
        assert result.scores == [0.0, 1.0, 0.0]
        assert result.reasonings == ["only one is right"]
        assert len(server.asked) == 1
        judge.close()
    with judge_server(ranking(2, 3)) as server:
        judge = groupwise(server)
        assert judge.score(CONVERSATIONS, top_n=2) == [0.0, 1.0, 1.0]
        judge.close()


@pytest.mark.parametrize("make", [pointwise, groupwise])
async def test_a_reply_without_a_verdict_is_an_error(make):
    with judge_server(says("They are all fine.")) as server:
        judge = make(server)
        with pytest.raises(JudgeParseError):
            await judge.ascore(CONVERSATIONS)
        judge.close()


async def test_tool_calls_of_a_response_are_put_before_the_judge():
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}
    conversation = [*PROMPT, {"role": "assistant", "content": None, "tool_calls": [call]}]
    with judge_server(verdict(9)) as server:
        judge = pointwise(server)
        assert await judge.ascore(conversation) == 9.0
        assert 'Tool call: add({"a": 2, "b": 2})' in server.asked[0].text
        judge.close()


async def test_a_criterion_may_be_said_in_words_and_a_route_of_litellm_is_taken_off():
    with judge_server(verdict(3)) as server:
        judge = create_pointwise_judge("hosted_vllm/org/judge", "Is it polite?", base_url=server.api_base, api_key="x")
        assert await judge.ascore(CONVERSATIONS[0]) == 3.0
        assert server.asked[0].body["model"] == "org/judge"
        assert "Is it polite?" in server.asked[0].text
        judge.close()


async def test_a_criterion_may_be_registered_under_a_name(monkeypatch):
    monkeypatch.setattr(CriterionRegistry, "_criteria", dict(CriterionRegistry._criteria))
    CriterionRegistry.register(Criterion(name="code_quality", content="Evaluate: readability, efficiency"))
    assert CriterionRegistry.list_criteria() == [*CRITERIA, "code_quality"]
    assert CriterionRegistry.get("code_quality") == "Evaluate: readability, efficiency"
    with judge_server(verdict(3)) as server:
        judge = create_pointwise_judge("judge", "code_quality", base_url=server.api_base, api_key="x")
        assert await judge.ascore(CONVERSATIONS[0]) == 3.0
        assert "Evaluate: readability, efficiency" in server.asked[0].text
        judge.close()
    with pytest.raises(ValueError, match=r"'none' is not known; known: overall_quality, .*code_quality"):
        CriterionRegistry.get("none")
    with pytest.raises(ValueError, match="both are needed"):
        Criterion(name="empty", content="")


@pytest.mark.parametrize("prefix", sorted(PROVIDERS))
def test_a_model_of_another_provider_needs_that_providers_address(monkeypatch, prefix):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    address = re.escape(PROVIDERS[prefix].api_base)
    for make in (create_pointwise_judge, create_groupwise_judge):
        with pytest.raises(UnsupportedError, match=f"{address}.*and the model as 'name'") as caught:
            make(f"{prefix}/name", "overall_quality", api_key="topsecret")
        assert "topsecret" not in str(caught.value)
    with pytest.raises(UnsupportedError, match=address):
        LLMJudge(f"{prefix}/name", rubric="from 1-5", api_key="topsecret")
    LLMJudge(f"{prefix}/name", rubric="from 1-5", api_base="http://localhost:9/v1").close()


@pytest.mark.parametrize("model", ["bedrock/name", "azure/name", "hosted_vllm/name", "litellm_proxy/name", "org/model"])
def test_no_key_is_sent_to_openai_for_a_model_that_is_not_theirs(monkeypatch, model):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UnsupportedError, match="base_url="):
        create_pointwise_judge(model, "overall_quality", api_key="x")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:9/v1")
    create_pointwise_judge(model, "overall_quality", api_key="x").close()


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="known: overall_quality, multi_step_tool_judge"):
        create_pointwise_judge("judge", "quality")
    with pytest.raises(TypeError, match="drop_params"):
        create_pointwise_judge("judge", "overall_quality", drop_params=True)
    judge = create_groupwise_judge("judge", "overall_quality", api_key="x")
    with pytest.raises(InvalidConversationError, match="not a group"):
        judge.score(CONVERSATIONS[0])
    with pytest.raises(InvalidConversationError, match="conversation 1: it has another prompt"):
        judge.score([CONVERSATIONS[0], CONVERSATIONS[1][1:]])
    with pytest.raises(ValueError, match="top_n=0"):
        judge.score(CONVERSATIONS, top_n=0)
