"""A run is resumed where it stood and ends the same to the last byte; what fails is that item's alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from bench_examples import DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_server import Answer, Asked, completion, judge_server

from reward_hub import AutoRM
from reward_hub.base import BaseRM
from reward_hub.bench import evaluate
from reward_hub.bench.data import Data
from reward_hub.bench.items import preference_item, read_items
from reward_hub.cli.bench.files import BenchRun, BenchTask, Shard
from reward_hub.cli.bench.run import merged, missing_shards, score_shard
from reward_hub.cli.usage import UsageError
from reward_hub.data.rows import Row, RowFormatError
from reward_hub.errors import BackendError, ServerError


class BatchRM(BaseRM):
    """Its scores depend on the batch, as rounding makes those of real models; so a run shows how it was batched."""

    name = "batch"

    def __init__(self, *, broken: str | None = None) -> None:
        self.broken = broken
        self.n_scored = 0

    def score_conversations(self, conversations: Any, options: Any) -> list[Any]:
        self.n_scored += len(conversations)
        total = sum(len(c.response) for c in conversations)
        return [
            ServerError("gone.") if c.response == self.broken else self._own_details(len(c.response) + total / 1000)
            for c in conversations
        ]


def benchmark(n: int, *, bad: Sequence[int] = ()) -> BenchTask:
    rows = [
        Row(i, {"id": f"i{i}", "subset": "ab"[i % 2], "prompt": "p", "chosen": "x" * (i + 1), "rejected": "y" * 4})
        if i not in bad
        else Row(i, None, "torn")
        for i in range(n)
    ]
    return BenchTask(read_items(rows, preference_item), "preference", Data("rows", rows, "0" * 64))


def run_all(bench: BenchTask, run: BenchRun, rm: BatchRM) -> dict[str, Any] | None:
    score_shard(bench, run, lambda: rm)
    return None if missing_shards(bench, run) else merged(bench, run)


def written(run: BenchRun) -> tuple[bytes, Any]:
    results = json.loads(run.results_path.read_text())
    return run.items_path.read_bytes(), results["metrics"]


@settings(max_examples=25)
@given(data=st.data(), n=st.integers(1, 11), chunk=st.integers(1, 4))
def test_a_run_that_was_cut_at_any_byte_ends_as_one_that_was_not(
    data: st.DataObject, n: int, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    bench = benchmark(n, bad=(3,))
    whole, cut = (BenchRun(folder / name, {}, chunk_size=chunk) for name in ("whole", "cut"))
    run_all(bench, whole, BatchRM())
    run_all(bench, cut, BatchRM())
    path = cut.part("scores.jsonl")
    size = data.draw(st.integers(0, path.stat().st_size))
    with path.open("r+b") as file:
        file.truncate(size)
    cut.items_path.unlink()
    rm = BatchRM()
    run_all(bench, cut, rm)
    assert written(cut) == written(whole)
    n_kept = n if size == whole.part("scores.jsonl").stat().st_size else n_lines(whole, size) // chunk * chunk
    assert rm.n_scored == 2 * sum(item.error is None for item in bench.items[n_kept:])


def n_lines(run: BenchRun, size: int) -> int:
    return run.part("scores.jsonl").read_bytes()[:size].count(b"\n")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_have_every_item_once_and_the_last_to_end_writes_the_results(count: int, tmp_path: Path) -> None:
    bench = benchmark(5)
    results = []
    for index in reversed(range(count)):
        rm = BatchRM()
        results.append(run_all(bench, BenchRun(tmp_path, {}, Shard(index, count)), rm))
        assert rm.n_scored == 2 * len(range(index, 5, count))
    assert [found is None for found in results] == [True] * (count - 1) + [False]
    rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["i0", "i1", "i2", "i3", "i4"]
    assert [round(row["scores"]["chosen"][0]) for row in rows] == [1, 2, 3, 4, 5]


def test_a_shard_of_other_data_is_not_merged(tmp_path: Path) -> None:
    score_shard(benchmark(4), BenchRun(tmp_path, {}, Shard(0, 2)), BatchRM)
    other = benchmark(4, bad=(0,))
    run = BenchRun(tmp_path, {}, Shard(1, 2))
    score_shard(other, run, BatchRM)
    with pytest.raises(UsageError, match="shard 0-of-2 was scored from other data"):
        merged(other, run)


def test_shards_of_different_step_delimiters_are_not_merged(tmp_path: Path) -> None:
    """A delimiter is no part of a model's fingerprint."""
    for index in (0, 1):
        run = BenchRun(tmp_path, settings={"step_delimiter": str(index)}, shard=Shard(index, 2))
        score_shard(benchmark(5), run, BatchRM)
    with pytest.raises(UsageError, match="the step delimiter of shard 0-of-2 is '0', that of 1-of-2 '1'"):
        merged(benchmark(5), run)


def test_an_item_that_fails_costs_that_item_alone_and_is_scored_again_when_asked(tmp_path: Path) -> None:
    bench = benchmark(6, bad=(1,))
    run = BenchRun(tmp_path, {}, chunk_size=2)
    results = run_all(bench, run, BatchRM(broken="xxx"))
    assert results is not None
    rows = [json.loads(line) for line in run.items_path.read_text().splitlines()]
    errors = {row["id"]: row["error"] for row in rows if "error" in row}
    assert errors == {
        "1": {"type": "InvalidConversationError", "message": "row 1: torn"},
        "i2": {"type": "ServerError", "message": "chosen[0]: gone."},
    }
    assert rows[2]["subset"] == "a"
    assert rows[2]["responses"]["chosen"][0]["text"] == "xxx"
    # Wrong: the chosen responses of i0 to i3 are no longer than the rejected ones, two of these have failed.
    assert results["metrics"]["overall"]["accuracy"] == pytest.approx(2 / 6)
    assert (results["n"], results["n_failed"]) == (6, 2)
    again = run_all(bench, BenchRun(tmp_path, {}, chunk_size=2, retry_errors=True), BatchRM())
    assert again is not None
    assert again["n_failed"] == 1


def test_a_model_that_fails_on_everything_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="every row failed"):
        score_shard(benchmark(1), BenchRun(tmp_path, {}), lambda: BatchRM(broken="x"))


def test_in_memory_the_rows_and_metrics_are_those_of_the_files(tmp_path: Path) -> None:
    bench = benchmark(7)
    run = BenchRun(tmp_path / "run", {})
    run_all(bench, run, BatchRM())
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row.record) + "\n" for row in bench.data.rows))
    found = evaluate(BatchRM(), str(path))
    items, metrics = written(run)
    assert found.rows == [json.loads(line) for line in items.splitlines()]
    assert json.loads(json.dumps(found.metrics)) == metrics
    with pytest.raises(TypeError, match=r"say data= or suite="):
        evaluate(BatchRM())
    with pytest.raises(TypeError, match="of the form 'process'"):
        evaluate(BatchRM(), str(path), suite="prmbench", form="preference")


def test_in_memory_ones_own_solutions_may_be_wrong_alone(tmp_path: Path) -> None:
    """As on the command line; of a whole suite it is an error."""
    path = tmp_path / "solutions.jsonl"
    path.write_text(json.dumps({"problem": "1 + 1?", "steps": ["1 + 1", "= 3"], "label": 1}) + "\n")
    with AutoRM.load("builtin/arithmetic-prm") as rm:
        overall = evaluate(rm, str(path)).metrics["overall"]
        assert (overall["n"], overall["correct_accuracy"], overall["f1"]) == (1, None, None)
        with pytest.raises(RowFormatError, match="F1 needs solutions with an error and solutions without"):
            evaluate(rm, str(path), suite="processbench")


def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longer response is the chosen one in two of three pairs."""
    page = (Path(__file__).parents[2] / "docs" / "bench.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    pairs = [("long", "no"), ("longer", "no"), ("no", "long")]
    rows = [{"prompt": "p", "chosen": chosen, "rejected": rejected} for chosen, rejected in pairs]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["found"].metrics["overall"]["accuracy"] == pytest.approx(2 / 3)


def longer_is_better(asked: Asked) -> Answer:
    """A judge that rates by how much it has to read."""
    return completion(json.dumps({"reasoning": "r", "score": 1 + len(asked.text) % 5}))


def test_a_run_killed_by_sigkill_at_three_points_and_resumed_gives_the_same_files(tmp_path: Path) -> None:
    """12 pairs in chunks of 4: a judge, which kills the run at its first, its 14th and its last but one request."""
    path = tmp_path / "pairs.jsonl"
    pairs = [{"id": i, "prompt": "p", "chosen": "x" * i, "rejected": "y" * (12 - i)} for i in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    running: list[subprocess.Popen[bytes]] = []
    n_left = [0]

    def deadly(asked: Asked) -> Answer:
        n_left[0] -= 1
        if not n_left[0]:
            running[0].send_signal(signal.SIGKILL)
        return longer_is_better(asked)

    with judge_server(deadly) as server:

        def started(out: str, n_requests: int) -> int:
            arguments = ["--data", str(path), "--judge", "--model", "judge", "--api-base", server.api_base]
            arguments += ["--rubric", "Rate it from 1 to 5.", "--max-concurrency", "1", "--chunk-size", "4"]
            command = [sys.executable, "-m", "reward_hub", "bench", *arguments, "--out", str(tmp_path / out)]
            n_left[0] = n_requests
            environment = os.environ | {"OPENAI_API_KEY": "none"}
            with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
                running[:] = [process]
            return process.returncode

        killed = BenchRun(tmp_path / "killed", {})
        # In the first run the first chunk, in the second the second one, in the third the last one is torn.
        for n_requests, n_rows in ((1, 0), (14, 4), (15, 8)):
            assert started("killed", n_requests) == -signal.SIGKILL
            assert killed.part("scores.jsonl").read_bytes().count(b"\n") == n_rows
            assert not killed.results_path.exists()
        assert started("killed", 0) == 0
        assert started("whole", 0) == 0
    assert written(killed) == written(BenchRun(tmp_path / "whole", {}))
    assert killed.items_path.read_bytes().count(b"\n") == 12


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not DATA.exists(), reason=f"needs {DATA}")
def test_real_pairs_killed_at_three_points_and_resumed_are_the_same_to_the_last_byte(tmp_path: Path) -> None:
    """LLMBar with the built-in outcome model, killed after the first, the third and the last chunk."""
    data = str(DATA / "llmbar" / "llmbar.jsonl")

    def command(out: str) -> list[str]:
        arguments = ["--suite", "llmbar", "--data", data, "--model", "builtin/arithmetic-orm", "--truncation", "left"]
        arguments += ["--limit", "96", "--chunk-size", "24", "--out", str(tmp_path / out)]
        return [sys.executable, "-m", "reward_hub", "bench", *arguments]

    subprocess.run(command("whole"), check=True, capture_output=True)
    path = BenchRun(tmp_path / "killed", {}).part("scores.jsonl")
    for n_rows in (1, 60, 90):
        kill_when(command("killed"), lambda n=n_rows: path.exists() and path.read_bytes().count(b"\n") >= n)  # type: ignore[misc]
    subprocess.run(command("killed"), check=True, capture_output=True)
    assert written(BenchRun(tmp_path / "killed", {})) == written(BenchRun(tmp_path / "whole", {}))


def kill_when(command: list[str], reached: Callable[[], bool]) -> None:
    import time

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not reached() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
