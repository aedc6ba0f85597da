"""The speed benchmark: other ways give the scores of one at a time; texts have the size that they are said to have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.speed import methods, page, results, workloads
from benchmarks.speed.checkpoints import Shape, made, tokenizer_of
from benchmarks.speed.measure import counted
from benchmarks.speed.methods.method import CannotRunError, Options
from benchmarks.speed.text import Writer
from benchmarks.speed.workloads import beam_search, best_of_n, pairs, process

SMALLER = 20
RESULT = {
    "date": "2026-11-30",
    "finished": "2026-11-30T12:00:00+00:00",
    "command": "python -m benchmarks.speed",
    "tiny": False,
    "machine": {"cpu": "A Processor @ 2 GHz", "cores": 2, "python": "3.11", "packages": {"torch": "2"}},
    "workloads": [
        {
            "name": "pairs",
            "title": "pairs",
            "layers": 2,
            "dtype": "bfloat16",
            "baseline": "one at a time",
            "tokens": 1000,
            "unique_tokens": 500,
            "gflops_of_unique_tokens": 10.0,
            "calibration_gflops": [100.0, 90.0],
            "disturbed": False,
            "methods": {
                "ours": {
                    "cpu_s": [0.5, 0.5],
                    "median_cpu_s": 0.5,
                    "times_as_fast": {
                        "ours": {"median": 1.0, "min": 1.0, "max": 1.0, "goal": None},
                        "one at a time": {"median": 1.9, "min": 1.8, "max": 2.0, "goal": 3.0},
                    },
                    "largest_difference": 0.01,
                    "largest_difference_to_float32": 0.02,
                },
                "one at a time": {
                    "cpu_s": [0.9, 1.0],
                    "median_cpu_s": 0.95,
                    "times_as_fast": {
                        "ours": {"median": 0.53, "min": 0.5, "max": 0.56, "goal": None},
                        "one at a time": {"median": 1.0, "min": 1.0, "max": 1.0, "goal": None},
                    },
                    "largest_difference": 0.0,
                    "largest_difference_to_float32": 0.03,
                },
            },
            "skipped": {"vLLM": "not asked for"},
        }
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def classifier(folder):
    return made(Shape().in_small(), folder)


@pytest.fixture(scope="module")
def process_model(folder):
    return made(Shape("process").in_small(), folder)


def scores(name, checkpoint, texts):
    with methods.ALL[name].loaded(checkpoint, "float32", Options()) as scorer:
        return scorer.timed(texts)[1]


@pytest.mark.parametrize("name", ["ours", "RewardBench, batch 8", "pipeline, batch 8", "TRL, batch 8"])
@pytest.mark.parametrize("kind", [pairs.texts(20), best_of_n.texts(9, prompt=400, answer=200)], ids=["pairs", "best"])
def test_each_way_gives_the_scores_of_one_at_a_time(classifier, name, kind):
    texts = kind(Writer(tokenizer_of(classifier), 0), SMALLER)
    # Other sums of the same products: float32 keeps six or seven digits.
    assert scores(name, classifier, texts) == pytest.approx(scores("one at a time", classifier, texts), abs=1e-5)


@pytest.mark.parametrize("kind", [process.texts(2, n_steps=6), beam_search.texts(3, n_steps=4)], ids=["steps", "beams"])
def test_one_pass_gives_the_step_scores_of_k_passes(process_model, kind):
    texts = kind(Writer(tokenizer_of(process_model), 0), 5)
    assert scores("ours", process_model, texts) == pytest.approx(scores("K passes", process_model, texts), abs=1e-5)


def test_a_method_that_needs_something_missing_says_what(classifier):
    with pytest.raises(CannotRunError, match="--vllm"), methods.ALL["vLLM"].loaded(classifier, "float32", Options()):
        pass


def test_texts_have_the_wanted_lengths_and_are_new_in_each_repeat(classifier):
    kind = best_of_n.texts(16, prompt=1200, answer=30)
    first, again, second = (kind(Writer(tokenizer_of(classifier), repeat), 1) for repeat in (0, 0, 1))
    assert first == again
    assert first.rounds[0][0][0] != second.rounds[0][0][0]
    n_tokens, n_unique = counted(first, classifier)
    assert n_tokens == pytest.approx(16 * (1200 + 30), rel=0.1)
    assert n_unique == pytest.approx(1200 + 16 * 30, rel=0.2)


def test_every_workload_names_methods_that_there_are():
    for workload in (*workloads.ALL, *workloads.in_float32(), workloads.GEMMA2):
        assert {*workload.methods, *workload.goals, workload.baseline} <= set(methods.ALL)
        assert all(set(goals) <= set(workload.methods) for goals in workload.goals.values())


def test_without_fast_bfloat16_the_goals_are_those_of_float32():
    chosen = {workload.name: workload for workload in workloads.in_float32()}
    assert {workload.dtype for workload in chosen.values()} == {"float32"}
    assert chosen["best-of-16-p1200"].goals == {"ours": {"one at a time": 3.8}}
    assert chosen["pairs-64"].goals == {}


def test_the_page_has_the_numbers_of_the_newest_result(tmp_path):
    older = {**RESULT, "date": "2026-11-29", "finished": "2026-11-29T12:00:00+00:00"}
    trial = {**RESULT, "tiny": True, "finished": "2026-12-01T12:00:00+00:00"}
    assert [results.write(result, tmp_path / "results").name for result in (older, RESULT, RESULT, trial)] == [
        "2026-11-29-a-processor.json",
        "2026-11-30-a-processor.json",
        "2026-11-30-a-processor-2.json",
        "2026-11-30-a-processor-3.json",
    ]
    text = page.write(tmp_path / "results", tmp_path).read_text()
    assert "Measured on 2026-11-30 with `python -m benchmarks.speed` on A Processor" in text
    assert "| ours | 0.5 | 2,000 | 0.20 | 1.90 [1.80-2.00] (goal 3, missed) | 1.0e-02 | 2.0e-02 |" in text
    assert "Left out: vLLM (not asked for)." in text
    assert "ours" in (tmp_path / "speed.svg").read_text()


def test_a_dry_run_writes_a_result_without_names_of_this_machine(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.speed",
        "--tiny",
        "--repeats",
        "2",
        "--workload",
        "best-of-16-p50",
        "--short",
    ]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, "--dtype", "float32", "--results", str(tmp_path)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("*.json")
    result = json.loads(written.read_text())
    (workload,) = result["workloads"]
    assert workload["dtype"] == "float32"
    assert len(workload["methods"]["ours"]["cpu_s"]) == 2
    assert workload["methods"]["RewardBench, batch 8"]["largest_difference"] < 1e-5
    assert str(tmp_path) not in written.read_text()
    assert "best-of-16-p50" in done.stdout
    assert {"here", "score_batch"} & set(result["short"]) == {"score_batch"}
    assert "us a conversation" in done.stdout
