"""What a judge is known by: fingerprint, determinism, and a key that nobody sees."""

from __future__ import annotations

import logging
import socket

import pytest
from judge_server import Answer, Asked, JudgeOn, completion, fails, verdict

from reward_hub import LLMJudge, ServerError
from reward_hub.judge import Rubric

BASE = {"model": "judge", "rubric": "Score from 1-5.", "api_base": "http://localhost:1/v1"}


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"api_base": "http://localhost:2/v1"},
        {"rubric": "Score from 1-5, strictly."},
        {"rubric": Rubric(instructions="Score from 1-5.", levels={1: "bad"})},
        {"rubric": Rubric(instructions="Score from 1-5.", score_range=(1, 4))},
        {"mode": "stepwise"},
        {"temperature": 0.7},
        {"temperature": 0.7, "n_samples": 2},
        {"temperature": 0.7, "n_samples": 2, "reduce": "majority"},
        {"seed": 1},
        {"max_tokens": 7},
        {"structured": False},
        {"use_logprobs": True},
        {"parse_retries": 0},
        {"both_orders": False},
        {"extra_body": {"top_k": 1}},
        {"mode": "stepwise", "aggregation": "mean"},
        {"form": "prometheus-absolute", "rubric": None},
        {"form": "prometheus-relative", "rubric": None},
    ],
)
def test_whatever_may_change_a_score_changes_the_fingerprint(change: dict) -> None:
    others = [LLMJudge(**BASE), LLMJudge(**{**BASE, "mode": "stepwise"}), LLMJudge(**{**BASE, "temperature": 0.7})]
    changed = LLMJudge(**{**BASE, **change})
    assert changed.fingerprint == LLMJudge(**{**BASE, **change}).fingerprint
    assert sum(changed.fingerprint == other.fingerprint for other in others) == (
        change in ({"mode": "stepwise"}, {"temperature": 0.7})
    )


@pytest.mark.parametrize(
    "change",
    [
        {"api_key": "sk-1"},
        {"timeout_s": 5},
        {"max_concurrency": 2},
        {"prices": (1, 2), "budget": 3},
        {"requests_per_minute": 5},
        {"deadline_s": 9},
        {"max_retries": 0},
    ],
)
def test_what_only_costs_time_or_money_does_not(change: dict) -> None:
    assert LLMJudge(**{**BASE, **change}).fingerprint == LLMJudge(**BASE).fingerprint


def test_only_a_judge_that_does_not_sample_is_deterministic() -> None:
    assert LLMJudge(**BASE).deterministic
    assert not LLMJudge(**BASE, temperature=0.1).deterministic


def test_nothing_is_opened_by_a_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("reward_hub.judge.chat.openai.OpenAIChat._new_client", refuse)
    monkeypatch.setattr("reward_hub.judge.chat.vllm.VllmChat._started", refuse)
    LLMJudge(**BASE).close()
    LLMJudge("judge", rubric="from 1-5", load_method="vllm").close()


def test_the_key_is_sent_and_seen_nowhere(judge_on: JudgeOn, caplog: pytest.LogCaptureFixture) -> None:
    def repeats_it(asked: Asked) -> Answer:
        words = f"Incorrect API key provided: {asked.headers['authorization']}"
        return Answer(401, {"error": {"message": words}})

    judge, server = judge_on(repeats_it, api_key="sk-topsecret")
    with (
        caplog.at_level(logging.DEBUG, logger="reward_hub"),
        pytest.raises(ServerError, match="a key was sent") as caught,
    ):
        judge.score(prompt="q", response="r")
    assert server.asked[0].headers["authorization"] == "Bearer sk-topsecret"
    said = [str(caught.value), repr(judge), judge.fingerprint, *(record.getMessage() for record in caplog.records)]
    assert not any("topsecret" in text for text in said)


def test_the_key_comes_from_the_environment_too(judge_on: JudgeOn, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, server = judge_on(verdict(3))
    judge.score(prompt="q", response="r")
    assert "authorization" not in server.asked[0].headers
    for name in ("OPENAI_API_KEY", "REWARD_HUB_API_KEY"):
        monkeypatch.setenv(name, name.lower())
        judge, server = judge_on(verdict(3))
        judge.score(prompt="q", response="r")
        assert server.asked[0].headers["authorization"] == f"Bearer {name.lower()}"


def test_no_key_where_one_is_needed_is_said(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(fails(401))
    with pytest.raises(ServerError, match="no key was sent; give api_key="):
        judge.score(prompt="q", response="r")


@pytest.mark.parametrize("api_base", ["localhost:8000", "ftp://host/v1", "http://"])
def test_an_address_that_is_none_is_refused(api_base: str) -> None:
    with pytest.raises(ServerError, match="write http"):
        LLMJudge("judge", rubric="from 1-5", api_base=api_base)


def test_an_address_is_shown_without_its_password() -> None:
    judge = LLMJudge("judge", rubric="from 1-5", api_base="http://user:secret@host/v1")
    assert "secret" not in repr(judge) + judge.place
    assert judge.place == "http://host/v1"


def test_a_bare_host_is_asked_under_v1(judge_on: JudgeOn) -> None:
    judge, server = judge_on(lambda asked: completion('{"score": 3}'))
    bare = LLMJudge("judge", rubric="from 1-5", api_base=server.api_base.removesuffix("/v1"))
    with bare:
        assert bare.score(prompt="q", response="r") == 3
    assert [asked.path for asked in server.asked] == ["/v1/chat/completions"]
    assert bare.place == judge.place
