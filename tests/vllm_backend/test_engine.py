"""The vLLM backend on real engines: native against numpy heads, foreign weights, lifetimes, refusals."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_sets import GoldenSet, expected_scores, score_case
from made_tokenizers import edit_json
from vllm_engines import engines_of, load_on_vllm

from reward_hub import BackendError, CheckpointError, InputTooLongError
from reward_hub.types import TokenInput

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

CLASSIFIER = GoldenSet("seqcls-qwen2", "own")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory):
    with load_on_vllm(CLASSIFIER, CLASSIFIER.make(tmp_path_factory.mktemp("model"))) as rm:
        yield rm


def conversations(n: int) -> list[list[dict[str, str]]]:
    return [
        [
            {"role": "user", "content": f"What is {i} + {i}?"},
            {"role": "assistant", "content": "word " * (i % 7) + "end"},
        ]
        for i in range(n)
    ]


NATIVE = (
    "seqcls-llama3",
    "qwen2-math-rm",
    "qwen2.5-math-prm",
    "trl-prm-token-classification",
    "skywork-o1-open-prm",
    "rlhflow-prm",
    "nemotron-hf",
)


@pytest.mark.parametrize("slug", NATIVE)
def test_the_engines_own_head_and_numpy_answer_alike(slug: str, tmp_path: Path, monkeypatch) -> None:
    from reward_hub.backends.vllm import engine as backend

    golden = GoldenSet(slug, "own")
    folder = golden.make(tmp_path / slug)
    with load_on_vllm(golden, folder) as rm:
        assert engines_of(rm)[0].plan.native
        native = [score_case(rm, case)[0] for case in golden.cases]
    plan = backend.plan
    monkeypatch.setattr(backend, "plan", lambda *args, **options: plan(*args, **{**options, "native": False}))
    with load_on_vllm(golden, folder) as rm:
        assert not engines_of(rm)[0].plan.native
        for case, scores in zip(golden.cases, native, strict=True):
            assert score_case(rm, case)[0] == pytest.approx(scores, abs=3e-5)


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("slug", ["armorm", "starling-7b", "skywork-o1-open-prm", "internlm2-reward", "beaver-reward"])
def test_foreign_weights_are_adapted_by_the_plugin_or_in_a_folder(
    slug: str, installed: bool, tmp_path: Path, monkeypatch
) -> None:
    from reward_hub.backends import vllm_plugin

    if installed:
        vllm_plugin.register()
    monkeypatch.setattr(vllm_plugin, "is_installed", lambda: installed)
    golden = GoldenSet(slug, "own")
    with load_on_vllm(golden, golden.make(tmp_path / slug)) as rm:
        architecture = engines_of(rm)[0]._engine.model_config.hf_config.architectures[0]
        by_plugin = installed and slug != "internlm2-reward"  # its packed tensors have to be cut
        assert architecture.startswith("RewardHub") == by_plugin
        for case in golden.cases:
            assert score_case(rm, case)[0] == pytest.approx(expected_scores(case), abs=1e-4)


@pytest.mark.parametrize("native", [True, False])
def test_a_closing_token_that_is_the_pad_token_is_not_read(native: bool, tmp_path: Path, monkeypatch) -> None:
    from reward_hub.backends.vllm import engine as backend

    golden = GoldenSet("seqcls-llama3", "own")
    folder = golden.make(tmp_path / "model")
    odd = {"pad_token_id": [golden.cases[0]["input_ids"][-1]], "bos_token_id": "<s>"}
    edit_json(folder / "config.json", **odd, problem_type="single_label_classification")
    expected = [golden.load(folder).score(case["messages"]) for case in golden.cases]
    assert all(abs(a - case["score"]) > 0.01 for a, case in zip(expected, golden.cases, strict=True))
    plan = backend.plan
    monkeypatch.setattr(backend, "plan", lambda *args, **options: plan(*args, **{**options, "native": native}))
    with load_on_vllm(golden, folder) as rm:
        assert engines_of(rm)[0].plan.native == native
        scores = rm.score_batch([case["messages"] for case in golden.cases])
    assert scores == pytest.approx(expected, abs=1e-4)


def test_a_written_folder_is_removed_with_the_engine(tmp_path: Path, monkeypatch) -> None:
    from reward_hub.backends import vllm_plugin

    monkeypatch.setattr(vllm_plugin, "is_installed", lambda: False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    golden = GoldenSet("armorm", "own")
    with load_on_vllm(golden, golden.make(tmp_path / "model")):
        assert len(list(tmp_path.glob("reward_hub-vllm-*"))) == 1
    assert list(tmp_path.glob("reward_hub-vllm-*")) == []


@pytest.mark.parametrize("name", ["model.layers.1.self_attn.k_proj.weight", "model.layers.0.mlp.gate_proj.weight"])
def test_a_missing_part_of_a_packed_tensor_is_refused_by_name(name: str, tmp_path: Path) -> None:
    spec = {**CLASSIFIER.spec, "files": {f: dict(t) for f, t in CLASSIFIER.spec["files"].items()}}
    assert any(tensors.pop(name, None) is not None for tensors in spec["files"].values())
    with pytest.raises(CheckpointError) as caught:
        load_on_vllm(CLASSIFIER, CLASSIFIER.make(tmp_path / "broken", spec))
    assert caught.value.tensor is not None and caught.value.tensor in name


def test_threads_and_tasks_get_the_scores_of_single_calls(classifier: Any) -> None:
    chats = conversations(24)
    alone = [classifier.score(chat) for chat in chats]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(classifier.score, chats)) == pytest.approx(alone, abs=1e-5)

    async def all_at_once() -> list[float]:
        return list(await asyncio.gather(*(classifier.ascore(chat) for chat in chats)))

    assert asyncio.run(all_at_once()) == pytest.approx(alone, abs=1e-5)
    assert classifier.score_batch(chats[::-1], batch_size=5) == pytest.approx(alone[::-1], abs=1e-5)


@contextmanager
def counted_calls(backend: Any) -> Iterator[list[int]]:
    """How many inputs each call to the engine has."""
    calls: list[int] = []
    encode = backend._engine.encode
    backend._engine.encode = lambda prompts, *args, **options: (
        calls.append(len(prompts)) or encode(prompts, *args, **options)
    )
    try:
        yield calls
    finally:
        del backend._engine.encode


def test_reads_of_many_tasks_are_joined(classifier: Any) -> None:
    backend = engines_of(classifier)[0]

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(backend.aread([TokenInput([i, i + 1, 7], [2])]) for i in range(1, 41)))

    with counted_calls(backend) as calls:
        answers = asyncio.run(all_at_once())
    assert sum(calls) == 40 and len(calls) < 10
    single = [backend.read([TokenInput([i, i + 1, 7], [2])])[0] for i in range(1, 41)]
    assert np.abs(np.array([a[0] for a in answers]) - np.array(single)).max() < 1e-5


def test_asynchronous_scores_are_joined_and_hold_no_thread_each(classifier: Any) -> None:
    chats = conversations(64)
    alone = [classifier.score(chat) for chat in chats]

    async def all_at_once() -> list[float]:
        return list(await asyncio.gather(*(classifier.ascore(chat) for chat in chats)))

    with counted_calls(engines_of(classifier)[0]) as calls:
        assert asyncio.run(all_at_once()) == pytest.approx(alone, abs=1e-5)
    # With a thread of the default pool for each call no more than six of them would wait together.
    assert sum(calls) == 64 and max(calls) > 6


def test_progress_counts_every_conversation_once(classifier: Any) -> None:
    seen: list[int] = []
    items = [TokenInput([1, 2, 3 + i], [0, 2]) for i in range(30)]
    engines_of(classifier)[0].read(items, progress=seen.append)
    assert sum(seen) == 30 and len(seen) > 1


def test_a_bad_token_id_fails_alone_and_leaves_the_engine_whole(classifier: Any) -> None:
    backend = engines_of(classifier)[0]
    before = backend.read([TokenInput([1, 2, 3], [2])])
    for bad in ([1, 10**6], [-1, 2]):
        with pytest.raises(BackendError, match="outside the model's vocabulary"):
            backend.read([TokenInput([1, 2], [1]), TokenInput(bad, [1])])
    assert np.array_equal(backend.read([TokenInput([1, 2, 3], [2])]), before)


def test_an_engine_that_is_interrupted_answers_the_next_question_and_not_the_last(classifier: Any, monkeypatch) -> None:
    backend = engines_of(classifier)[0]
    expected = backend.read([TokenInput([5, 6, 7], [2])])
    core = backend._engine.llm_engine
    step = core.step

    def interrupted() -> Any:
        monkeypatch.setattr(core, "step", step)
        raise KeyboardInterrupt

    monkeypatch.setattr(core, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend.read([TokenInput([1, 2, 3 + i], [2]) for i in range(5)])
    assert not core.has_unfinished_requests()
    assert np.allclose(backend.read([TokenInput([5, 6, 7], [2])]), expected, atol=1e-6)


def test_max_model_len_is_the_models_limit(tmp_path: Path) -> None:
    with load_on_vllm(CLASSIFIER, CLASSIFIER.make(tmp_path / "model"), max_model_len=64) as rm:
        assert rm.max_length == 64
        with pytest.raises(InputTooLongError):
            rm.score(prompt="1 + 1?", response="word " * 100)


def test_log_probabilities_are_read_up_to_the_last_token_that_fits(tmp_path: Path) -> None:
    golden = GoldenSet("dpo-implicit", "own")
    folder = golden.make(tmp_path / "model")
    ids = [3 + i % 50 for i in range(32)]
    item = TokenInput(ids, list(range(1, 32)))
    outputs = []
    for limit in (32, 64):
        with load_on_vllm(golden, folder, max_model_len=limit) as rm:
            outputs += engines_of(rm)[0].read([item])
    full, roomy = outputs
    assert full.shape == (31, 1)
    assert np.abs(full - roomy).max() < 1e-5


def test_a_closed_engine_says_so(tmp_path: Path) -> None:
    rm = load_on_vllm(CLASSIFIER, CLASSIFIER.make(tmp_path / "model"))
    rm.close()
    rm.close()
    with pytest.raises(BackendError, match="closed"):
        rm.score(conversations(1)[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tensor_paralel_size": 2}, "Did you mean 'tensor_parallel_size'"),
        ({"runner": "generate"}, "runner= is not for the caller to set: the family's read decides it"),
        ({"task": "embed"}, "task= is not for the caller"),
        ({"dtype": "float32"}, "Give torch_dtype= or dtype=, not both"),
        ({"device_map": "auto"}, "device_map='auto' has no meaning for vllm"),
        ({"attn_implementation": "eager"}, "has no meaning for vllm"),
        ({"device": "cuda"}, "this vLLM runs on 'cpu'"),
        ({"batch_size": 4, "max_num_seqs": 4}, "not both"),
        ({"torch_dtype": "int8"}, "vllm takes 'float32'"),
        ({"load_format": "dummy"}, "random weights"),
        ({"hf_overrides": {"architectures": ["Other"]}}, "architectures is decided"),
    ],
)
def test_an_option_that_would_be_ignored_or_do_harm_is_a_type_error(options: dict, words: str, tmp_path: Path) -> None:
    folder = CLASSIFIER.make(tmp_path / "model")
    with pytest.raises(TypeError, match=words):
        load_on_vllm(CLASSIFIER, folder, **options)


@pytest.mark.parametrize(
    ("version", "warned"), [("0.32.0", False), ("0.33.1+cu130", False), ("0.31.2", True), ("1.0", True)]
)
def test_a_vllm_outside_the_known_range_is_warned_of(version: str, warned: bool, caplog) -> None:
    from reward_hub.backends.vllm.options import check_version

    with caplog.at_level("WARNING", logger="reward_hub"):
        check_version(version)
    assert ("outside the range" in caplog.text) == warned


PROCESSES = """
    import sys, psutil
    from reward_hub import AutoRM

    if __name__ == "__main__":
        rm = AutoRM.load(sys.argv[1], "vllm", torch_dtype="float32", enforce_eager=True, max_model_len=512)
        children = psutil.Process().children(recursive=True)
        messages = [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "2"}]
        print("SCORE", rm.score(messages), "CHILDREN", *(child.pid for child in children))
        if sys.argv[2] == "close":
            rm.close()
            _, left = psutil.wait_procs(children, timeout=10)
            # Python's own tracker of shared memory stays as long as this process does.
            print("LEFT", sum("resource_tracker" not in " ".join(child.cmdline()) for child in left))
"""


def still_running(pids: list[int], timeout_s: float) -> list[int]:
    """Those that have not ended within the time; Python's own resource tracker ends a moment after its process."""
    import psutil

    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, left = psutil.wait_procs(processes, timeout=timeout_s)
    return [process.pid for process in left if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("end", ["close", "exit"])
def test_an_engine_with_processes_of_its_own_leaves_none_behind(end: str, tmp_path: Path) -> None:
    golden = GoldenSet("athene", "own")
    folder = golden.make(tmp_path / "model")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(PROCESSES), encoding="utf-8")
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder), end], env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("SCORE"))
    score, pids = float(line.split()[1]), [int(pid) for pid in line.split("CHILDREN")[1].split()]
    assert pids, "the engine ran in a process of its own"
    assert still_running(pids, timeout_s=20) == []
    if end == "close":
        assert "LEFT 0" in done.stdout
    messages = [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "2"}]
    assert score == pytest.approx(golden.load(folder).score(messages), abs=1e-4)
