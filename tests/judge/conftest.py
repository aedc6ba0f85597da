"""A judge and the scripted endpoint that it asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from judge_server import JudgeOn, JudgeServer, Script, judge_server

from reward_hub.judge import LLMJudge


@pytest.fixture
def judge_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeOn]:
    """`judge_on(script, **arguments)`: a judge with these arguments on an endpoint that follows the script."""
    monkeypatch.setattr("reward_hub.http.sending.delay_s", lambda n, asked_s, first_delay_s: asked_s or 0.01)
    for name in ("REWARD_HUB_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as stack:

        def make(script: Script, **arguments: Any) -> tuple[LLMJudge, JudgeServer]:
            server = stack.enter_context(judge_server(script))
            arguments = {"rubric": "Score the response from 1-5.", "api_base": server.api_base} | arguments
            if "form" in arguments:
                del arguments["rubric"]
            return stack.enter_context(LLMJudge("judge", **arguments)), server

        yield make
