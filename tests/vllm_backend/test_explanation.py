"""On a real vLLM engine a score is explained, and logged, as it is on Transformers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from golden_sets import GoldenSet
from vllm_engines import load_on_vllm

from reward_hub.cli.explanation import explain

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


def test_a_process_model_is_explained_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    golden = GoldenSet("qwen2.5-math-prm", "own")
    case = golden.cases[0]
    with load_on_vllm(golden, golden.make(tmp_path / "model")) as rm:
        caplog.set_level(logging.DEBUG, logger="reward_hub")
        found = explain(rm, [{"messages": case["messages"], "steps": case["steps"]}])
        log = "\n".join(record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG)
        report = rm.load_report
    (one,) = found.explained
    (given,) = one.inputs
    assert [token.id for token in given.tokens] == case["input_ids"]
    assert [token.index for token in given.tokens if token.read] == case["positions"]
    assert one.details.step_scores == pytest.approx(case["step_scores"], abs=1e-4)
    assert report["backend"].startswith("vllm ")
    assert report["head_applied_by"] in ("vLLM", "reward_hub, of hidden vectors")
    for words in (": rendered ", ": read at ", "; ids from ", "1 inputs as ", " requests of ", " took "):
        assert words in log, words
