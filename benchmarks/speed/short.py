"""What a call costs beside the model, here and in another checkout; and how memory and throughput grow."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed.checkpoints import Shape, made, tokenizer_of
from benchmarks.speed.text import Writer
from benchmarks.speed.workloads import best_of_n

WORKER = Path(__file__).with_name("short_worker.py")
HERE = Path(__file__).parents[2]
N_CONVERSATIONS = 2000
LENGTH = 25  # tokens of a prompt, and about those of a response
SHAPE = Shape(n_layers=1, vocabulary=16_000, tiny=True)
MANY = (1_000, 10_000, 100_000)


def measured(folder: Path, against: Path | None, *, repeats: int, tiny: bool = False) -> dict[str, Any]:
    """CPU microseconds a conversation of `score_batch` and of the command line, by turns with the other checkout."""
    checkpoint, rows = _prepared(folder, 50 if tiny else N_CONVERSATIONS)
    checkouts = {"here": HERE} | ({"against": against} if against is not None else {})
    names = ("score_batch", "command line", "command line, 1 row")
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in checkouts}
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in checkouts}
    n = sum(1 for _ in rows.open("rb"))
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(_worker(checkout, checkpoint, rows)) for name, checkout in checkouts.items()
        }
        for repeat in range(repeats + 1):  # the first one warms up
            for name in random.Random(repeat).sample(sorted(workers), len(workers)):
                for what in names:
                    took, found = workers[name](what)
                    scores[name][what] = found
                    if repeat:
                        seconds[name].setdefault(what, []).append(took)
                print(f"  {name}: {', '.join(f'{k} {v[-1]:.3f} s' for k, v in seconds[name].items())}", file=sys.stderr)
    figures: dict[str, Any] = {"conversations": n}
    for what, less in (("score_batch", None), ("command line", "command line, 1 row")):
        us = {
            name: [
                1e6 * (a - b) / (n - (less is not None))
                for a, b in zip(of[what], of[less] if less else [0.0] * repeats, strict=True)
            ]
            for name, of in seconds.items()
        }
        figures[what] = {f"us_{name}": statistics.median(values) for name, values in us.items()}
        if against is not None:
            ratios = [a / b for a, b in zip(us["against"], us["here"], strict=True)]
            gaps = [abs(a - b) for a, b in zip(scores["here"][what], scores["against"][what], strict=True)]
            figures[what] |= {"times_as_fast": statistics.median(ratios), "largest_difference": max(gaps)}
    return figures


def many(folder: Path, *, tiny: bool = False) -> list[dict[str, Any]]:
    """Throughput and memory from a thousand to a hundred thousand conversations, each in a process of its own."""
    checkpoint, rows = _prepared(folder, 50 if tiny else N_CONVERSATIONS)
    found = []
    for call in ("score_batch", "score_iter"):
        for n in MANY[:1] if tiny else MANY:
            with _worker(HERE, checkpoint, rows) as worker:
                seconds, n_scored, grown, peak = worker(f"{call}:{n}")
            assert n_scored == n
            found.append(
                {"call": call, "conversations": n, "per_second": n / seconds, "grown_mib": grown, "peak_mib": peak}
            )
            print(f"  {call} of {n:,}: {n / seconds:,.0f}/s, grown by {grown:,.0f} MiB", file=sys.stderr)
    return found


def memory(folder: Path, *, tiny: bool = False) -> dict[str, Any]:
    """Of best of 64 with a prompt of 4,000 tokens, in float32: how far memory grows beyond the loaded model."""
    shape = Shape().in_small() if tiny else Shape()
    checkpoint = made(shape, folder)
    texts = best_of_n.texts(64, prompt=4000, answer=200)(Writer(tokenizer_of(checkpoint), 0), 20 if tiny else 1)
    rows = folder / "best-of-64.jsonl"
    rows.write_text("".join(json.dumps({"messages": one}) + "\n" for one in texts.rounds[0]), encoding="utf-8")
    with _worker(HERE, checkpoint, rows, warm=1) as worker:
        seconds, _, grown, peak = worker("score_batch:64")
    return {"cpu_s": seconds, "grown_mib": grown, "peak_mib": peak}


def _prepared(folder: Path, n: int) -> tuple[Path, Path]:
    """The checkpoint, and a file of rows."""
    checkpoint = made(SHAPE, folder)
    writer = Writer(tokenizer_of(checkpoint), 0)
    rows = folder / "short.jsonl"
    with rows.open("w", encoding="utf-8") as file:
        for _ in range(n):
            messages = [
                {"role": "user", "content": writer.text(LENGTH)},
                {"role": "assistant", "content": writer.text(writer.about(LENGTH))},
            ]
            print(json.dumps({"messages": messages}), file=file)
    return checkpoint, rows


@contextmanager
def _worker(checkout: Path, checkpoint: Path, rows: Path, *, warm: int = 20) -> Iterator[Any]:
    """A function that runs what it is told with the package of a checkout, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), str(checkpoint), str(rows), str(warm)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def ask(what: str) -> Any:
            assert process.stdin is not None and process.stdout is not None
            print(what, file=process.stdin, flush=True)
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the worker for {checkout.name} ended at {what!r}")
            return json.loads(line)

        try:
            yield ask
        finally:
            process.terminate()
