"""What is scored. Each file of this folder makes the texts of one kind; `ALL` are the workloads with their sizes."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.speed.checkpoints import Shape
from benchmarks.speed.workloads import beam_search, best_of_n, pairs, process
from benchmarks.speed.workloads.workload import Workload

PEERS = ("one at a time", "RewardBench, batch 8", "CrossEncoder", "pipeline, batch 8", "TRL, batch 8", "vLLM")
OURS = ("ours", "ours, tuned")

BEST_OF_16_P1200 = Workload(
    name="best-of-16-p1200",
    title="best of 16, prompt of 1,200 tokens, answers of about 200",
    texts=best_of_n.texts(16, prompt=1200, answer=200),
    methods=(*OURS, *PEERS[:3], "vLLM"),
    goals={
        "ours": {"one at a time": 4.5, "RewardBench, batch 8": 6.5},
        "ours, tuned": {"one at a time": 6.0, "RewardBench, batch 8": 9.0, "CrossEncoder": 9.5, "vLLM": 1.4},
    },
    seconds=50.0,
    roofline=0.47,
)
ALL = (
    BEST_OF_16_P1200,
    Workload(
        name="best-of-16-p1200-short",
        title="best of 16, prompt of 1,200 tokens, answers of about 30",
        texts=best_of_n.texts(16, prompt=1200, answer=30),
        methods=(*OURS, "one at a time"),
        goals={"ours": {"one at a time": 9.5}, "ours, tuned": {"one at a time": 14.0}},
    ),
    Workload(
        name="best-of-16-p400",
        title="best of 16, prompt of 400 tokens, answers of about 200",
        texts=best_of_n.texts(16, prompt=400, answer=200),
        methods=(*OURS, *PEERS[:3], "vLLM"),
        goals={
            "ours": {"one at a time": 2.6, "RewardBench, batch 8": 3.0},
            "ours, tuned": {"one at a time": 3.4, "RewardBench, batch 8": 4.2, "CrossEncoder": 4.5, "vLLM": 1.3},
        },
    ),
    Workload(
        name="best-of-16-p50",
        title="best of 16, prompt of 50 tokens, answers of about 120",
        texts=best_of_n.texts(16, prompt=50, answer=120),
        methods=(*OURS, *PEERS[:3]),
        repeats=5,
        goals={
            "ours": {"one at a time": 1.7, "RewardBench, batch 8": 1.6},
            "ours, tuned": {"one at a time": 2.3, "RewardBench, batch 8": 2.2, "CrossEncoder": 2.4},
        },
    ),
    Workload(
        name="pairs-64",
        title="64 conversations of mixed lengths, chosen and rejected",
        texts=pairs.texts(64),
        methods=(*OURS, *PEERS),
        seconds=60.0,
        goals={
            "ours": {"one at a time": 1.6, "RewardBench, batch 8": 2.9},
            "ours, tuned": {"one at a time": 2.0, "RewardBench, batch 8": 3.6, "CrossEncoder": 3.8, "vLLM": 1.1},
        },
    ),
    Workload(
        name="process-10-steps",
        title="process model, 2 responses of 10 steps, all 24 layers, vocabulary of 152k",
        shape=Shape("process", n_layers=24, vocabulary=151_936),
        texts=process.texts(2, n_steps=10),
        methods=(*OURS, "K passes"),
        baseline="K passes",
        repeats=2,
        in_float32=False,
        seconds=45.0,
        goals={"ours": {"K passes": 7.0}, "ours, tuned": {"K passes": 8.0}},
    ),
    Workload(
        name="beam-search",
        title="beam search with a process model, 4 beams of 8 steps scored after each step, 8 layers",
        shape=Shape("process", n_layers=8, vocabulary=16_000),
        texts=beam_search.texts(4, n_steps=8),
        methods=("ours", "ours, prompt kept", "ours, prompt kept, tuned", "K passes"),
        baseline="K passes",
        repeats=1,
        in_float32=False,
        seconds=50.0,
        goals={"ours, prompt kept": {"K passes": 15.0}, "ours, prompt kept, tuned": {"K passes": 18.0}},
    ),
    Workload(
        name="float32-p50",
        title="float32: best of 16, prompt of 50 tokens, answers of about 120",
        dtype="float32",
        texts=best_of_n.texts(16, prompt=50, answer=120),
        methods=("ours", "one at a time"),
        goals={"ours": {"one at a time": 1.6}},
    ),
    Workload(
        name="float32-p1200",
        title="float32: best of 16, prompt of 1,200 tokens, answers of about 200",
        dtype="float32",
        texts=best_of_n.texts(16, prompt=1200, answer=200),
        methods=("ours", "one at a time"),
        repeats=2,
        seconds=30.0,
        goals={"ours": {"one at a time": 3.8}},
    ),
)
GEMMA2 = Workload(
    name="gemma2-p1200",
    title="soft-capped attention (Gemma-2-2B, 2 layers): best of 16, prompt of 1,200 tokens, answers of about 200",
    shape=Shape(architecture="gemma2"),
    texts=best_of_n.texts(16, prompt=1200, answer=200),
    methods=(*OURS, *PEERS[:2]),
    repeats=1,
    in_float32=False,
)


def in_float32() -> tuple[Workload, ...]:
    """The same for a processor whose bfloat16 is slower than its float32: each text once, with float32's goals."""
    by_name = {workload.name: workload for workload in ALL}
    chosen = []
    for workload in ALL:
        if workload.dtype != "float32":
            twin = by_name.get(workload.name.replace("best-of-16", "float32"))
            goals = twin.goals if twin not in (None, workload) else {}
            chosen.append(replace(workload, dtype="float32", goals=goals))
    return tuple(chosen)
