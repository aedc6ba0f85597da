"""Reward models over packed rows: the scores of one conversation at a time, the work of the distinct tokens."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_classes import tiny_classifier

from reward_hub import AutoRM, BaseRM
from reward_hub.backends.packing.plan import Costs
from reward_hub.types import TokenInput

PROMPT = "How many of the seventeen boxes are full? " * 8
GROUP = [
    [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": f"There are {'many ' * i}of them."}]
    for i in range(6)
]
SHORT = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello " * i}] for i in range(1, 4)]
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
    "short_factor": [1.0] * 4,
    "long_factor": [3.0] * 4,
}


def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch, model_type: str = "llama", **values: Any) -> BaseRM:
    """A tiny classifier that shares whatever can be shared (for so small a model it would not pay)."""
    tiny_classifier(model_type, folder, **values)
    monkeypatch.setattr(Costs, "worth", lambda self, saved, n_rows: True)
    return AutoRM.load(str(folder), family="sequence-classifier")


def forwards(caplog: pytest.LogCaptureFixture) -> list[list[int]]:
    """Of each plan: conversations, their tokens, tokens that were computed, forwards."""
    pattern = re.compile(r"(\d+) conversations of (\d+) tokens are packed: (\d+) tokens in (\d+) forwards")
    return [[int(n) for n in match.groups()] for r in caplog.records if (match := pattern.search(r.message))]


def test_a_prompt_is_computed_once_for_all_its_responses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rm = loaded(tmp_path, monkeypatch)
    alone = [rm.score(messages) for messages in GROUP]
    with caplog.at_level(logging.DEBUG, "reward_hub.backends.packing.model"):
        scored = rm.score_batch(GROUP, return_details=True)
    ((n, n_tokens, n_computed, n_forwards),) = forwards(caplog)
    assert (n, n_forwards) == (6, 1)
    assert n_computed < n_tokens / 3
    assert sum(details["tokens_scored"] for _, details in scored) == n_tokens
    assert [score for score, _ in scored] == pytest.approx(alone, rel=1e-5, abs=1e-5)


def test_a_plan_holds_batch_size_conversations_and_a_forward_max_batch_tokens_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rm = loaded(tmp_path, monkeypatch)
    alone = rm.score_batch(GROUP, batch_size=1)
    with caplog.at_level(logging.DEBUG, "reward_hub.backends.packing.model"):
        few = rm.score_batch(GROUP, batch_size=4)
        cut = AutoRM.load(str(tmp_path), family="sequence-classifier", max_batch_tokens=40).score_batch(GROUP)
    plans = forwards(caplog)
    assert [n for n, *_ in plans] == [4, 2, 6]
    *_, n_computed, n_forwards = plans[-1]
    assert n_forwards >= n_computed / 40
    assert few == pytest.approx(alone, rel=1e-5, abs=1e-5)
    assert cut == pytest.approx(alone, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("model_type", "values"),
    [
        ("mistral", {"sliding_window": 32}),
        ("phi3", {"original_max_position_embeddings": 64, "rope_parameters": LONGROPE}),
        ("bloom", {}),
        ("gemma2", {"attn_logit_softcapping": 2.0}),
        ("gpt_oss", {"num_local_experts": 4, "sliding_window": 32}),
    ],
    ids=["window", "rotary tables", "alibi", "soft cap", "sinks"],
)
def test_long_and_short_conversations_together_score_as_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, values: dict[str, Any]
) -> None:
    """Packed where that is right, padded or of one length elsewhere; in one call."""
    rm = loaded(tmp_path, monkeypatch, model_type, **values)
    both = [*GROUP, *SHORT]
    alone = [rm.score(messages) for messages in both]
    assert rm.score_batch(both) == pytest.approx(alone, rel=2e-5, abs=2e-5)


def test_what_the_check_found_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rm = loaded(tmp_path, monkeypatch, "mistral", sliding_window=32)
    assert rm.model.backend.load_report["layout"] == "packed up to 32 tokens a conversation"
    eager = AutoRM.load(str(tmp_path), family="sequence-classifier", attn_implementation="eager")
    assert eager.model.backend.load_report["layout"] == "padded, as attn_implementation='eager' was asked for"


@pytest.mark.parametrize("model_type", ["llama", "gemma2"])
def test_what_overflows_behind_a_shared_beginning_does_not_reach_those_who_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    backend = loaded(tmp_path, monkeypatch, model_type).model.backend
    prompt, overflowing = list(range(5, 45)), 777
    token_ids = [[*prompt, *range(60, 60 + n)] for n in (3, 6)]
    token_ids += [[*prompt, *range(60, 65), overflowing, *range(60, 90)], prompt]
    inputs = [TokenInput(token_ids=ids, positions=[len(ids) - 1]) for ids in token_ids]
    with torch.no_grad():
        backend.model.get_input_embeddings().weight[overflowing] = torch.inf
    alone = [backend.read([item])[0] for item in inputs]
    assert [bool(np.isfinite(output).all()) for output in alone] == [True, True, False, True]
    np.testing.assert_allclose(backend.read(inputs), alone, rtol=1e-5, atol=1e-5)
