"""Golden scores from a real vLLM server, started as `reward-hub serve-args` says: one set for each read and task."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from golden_sets import GoldenSet, expected_scores, score_case
from vllm_servers import served

from reward_hub import AutoRM, UnsupportedError
from reward_hub.backends import vllm_plugin
from reward_hub.errors import ServerError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

SETS = ("seqcls-qwen2", "armorm", "internlm2-reward", "qwen2.5-math-prm", "rlhflow-prm", "rlhflow-pair-pm")


def command(folder: Path, view: Path, **family: str) -> list[str]:
    """What serve-args prints; with a folder where vLLM would need the plug-in, and it is not installed."""
    try:
        words, notes = AutoRM.serve_args(folder, name="served", torch_dtype="float32", **family)
    except UnsupportedError:  # packed tensors have to be cut, which no loader's rule can say
        words, notes = [], []
    if not words or (notes and not vllm_plugin.is_installed()):
        words, _ = AutoRM.serve_args(folder, name="served", torch_dtype="float32", folder=view, **family)
    return words


def assert_golden(rm, golden: GoldenSet, table: dict) -> None:
    found = {}
    for case in golden.cases:
        scores, _ = score_case(rm, case)
        pairs = zip(scores, expected_scores(case), strict=True)
        found[str(case.get("name") or case.get("id"))] = max(abs(a - b) for a, b in pairs)
    fitting = sum(difference <= 1e-4 for difference in found.values())
    table["http", golden.slug] = (len(found), fitting, max(found.values()), 1e-4)
    assert {name: difference for name, difference in found.items() if difference > 1e-4} == {}


@pytest.mark.parametrize("slug", SETS)
def test_scores_over_a_server(slug: str, tmp_path: Path, golden_table: dict) -> None:
    golden = GoldenSet(slug, "own")
    folder = golden.make(tmp_path / "checkpoint")
    family = {} if golden.decidable else {"family": golden.family}
    with (
        served(command(folder, tmp_path / "view", **family)) as address,
        AutoRM.load("served", "api", api_base=address, checkpoint=folder, **family) as rm,
    ):
        assert_golden(rm, golden, golden_table)
        messages = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "It is 4."}]
        if rm.kind == "outcome":
            scores = rm.score_batch([messages] * 100)
            assert max(scores) - min(scores) < 1e-4 * max(1.0, abs(scores[0]))


def test_an_implicit_reward_over_two_servers(tmp_path: Path, golden_table: dict) -> None:
    golden = GoldenSet("dpo-implicit", "own")
    folder = golden.make(tmp_path)
    with ExitStack() as stack:
        addresses = [
            stack.enter_context(served(command(folder / part, tmp_path / f"{part}-view", family="implicit")))
            for part in ("policy", "reference")
        ]
        options = {"checkpoint": folder / "policy", "reference": addresses[1], "beta": golden.data["beta"]}
        rm = stack.enter_context(AutoRM.load("served", "api", api_base=addresses[0], **options))
        assert_golden(rm, golden, golden_table)


def test_a_server_started_otherwise_is_refused_or_read_rightly(tmp_path: Path) -> None:
    """Plain `vllm serve` of a process model reads step tags alone; of a classifier it answers as it should."""
    prm = GoldenSet("qwen2.5-math-prm", "own").make(tmp_path / "prm")
    plain = ["--dtype", "float32", "--max-model-len", "1024", "--served-model-name", "served"]
    with (
        served(["vllm", "serve", str(prm), *plain]) as address,
        pytest.raises(ServerError, match="reward-hub serve-args"),
    ):
        AutoRM.load("served", "api", api_base=address, checkpoint=prm)
    golden = GoldenSet("seqcls-qwen2", "own")
    folder = golden.make(tmp_path / "seqcls")
    with (
        served(["vllm", "serve", str(folder), *plain]) as address,
        AutoRM.load("served", "api", api_base=address) as known,
        AutoRM.load("served", "api", api_base=address, checkpoint=folder, max_concurrency=1) as told,
    ):
        for case in golden.cases[:3]:
            assert known.score(case["messages"]) == pytest.approx(case["score"], abs=1e-4)
            assert told.score(case["messages"]) == pytest.approx(case["score"], abs=1e-4)
