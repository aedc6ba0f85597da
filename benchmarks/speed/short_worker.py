"""What one version of the package takes for short conversations; stands alone, so that any checkout can be asked.

    PYTHONPATH=CHECKOUT python short_worker.py CHECKPOINT ROWS WARM

The first WARM rows are scored before anything is measured. A line of standard input names what to run; a line of
standard output is JSON: CPU seconds, and the scores or how many.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(1)
    checkpoint, rows, n_warm = sys.argv[1:]
    from reward_hub import AutoRM

    conversations = [json.loads(line)["messages"] for line in Path(rows).read_text(encoding="utf-8").splitlines()]
    with AutoRM.load(checkpoint, torch_dtype="float32") as rm:
        rm.score_batch(conversations[: int(n_warm)])
        runs: dict[str, Callable[[], Any]] = {
            "score_batch": lambda: rm.score_batch(conversations),
            "command line": lambda: _command_line(checkpoint, rows),
            "command line, 1 row": lambda: _command_line(checkpoint, rows, n_rows=1),
        }
        for line in sys.stdin:
            name, _, number = line.strip().partition(":")
            if number:
                answer = _many(rm, name, conversations, int(number))
            else:
                started = time.process_time()
                scores = runs[name]()
                answer = [time.process_time() - started, scores]
            print(json.dumps(answer), file=answers, flush=True)


def _command_line(checkpoint: str, rows: str, n_rows: int | None = None) -> list[float]:
    """The scores that `reward-hub score` writes, in float32; run here, so that importing torch is not counted."""
    from reward_hub.cli import main as reward_hub

    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "rows.jsonl", Path(folder) / "out.jsonl"
        lines = Path(rows).read_text(encoding="utf-8").splitlines(keepends=True)[:n_rows]
        source.write_text("".join(lines), encoding="utf-8")
        arguments = ["score", str(source), "--model", checkpoint, "--torch-dtype", "float32", "--out", str(out)]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            reward_hub(arguments)
        return [json.loads(line)["score"] for line in out.read_text(encoding="utf-8").splitlines()]


def _many(rm: Any, name: str, conversations: list[Any], n: int) -> list[float]:
    """CPU seconds, conversations, and MiB that the process grew by while so many were scored."""

    def stream() -> Iterator[Any]:
        for i in range(n):
            yield conversations[i % len(conversations)]

    before = _resident_mib()
    started = time.process_time()
    if name == "score_iter":
        n_scored = sum(1 for _ in rm.score_iter(stream()))
    else:
        n_scored = len(rm.score_batch(list(stream())))
    return [time.process_time() - started, n_scored, _resident_mib() - before, _peak_mib() - before]


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()
