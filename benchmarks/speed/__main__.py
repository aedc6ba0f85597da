"""The command: chooses the workloads, measures them, writes the result and prints it."""

from __future__ import annotations

import os

# Before torch is imported: one thread each for what torch and the tokenizers start.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.speed import page, results, workloads
from benchmarks.speed.measure import has_fast_bfloat16, measured
from benchmarks.speed.methods.method import Options
from benchmarks.speed.workloads.workload import Workload

SECONDS = 330.0


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    names = [workload.name for workload in workloads.ALL]
    parser = argparse.ArgumentParser(
        "python -m benchmarks.speed", description="Measures how fast conversations are scored, beside other ways."
    )
    parser.add_argument("--workload", action="append", choices=names, help="only this one; may be given several times")
    parser.add_argument("--repeats", type=int, help="of each workload; by default its own number, as time allows")
    parser.add_argument("--layers", type=int, help="of every model, for instance 24 in place of the 2-layer slice")
    parser.add_argument("--gemma2", action="store_true", help="also a model whose attention caps its scores")
    parser.add_argument("--vllm", metavar="PYTHON", help="also vLLM, by the Python of its environment")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="begin no repeat beyond this (%(default)g)")
    parser.add_argument("--tiny", action="store_true", help="tiny models and texts: whether all of it runs")
    parser.add_argument("--results", type=Path, default=results.RESULTS, help="where the result file is written")
    parser.add_argument("--write-docs", action="store_true", help="write docs/speed.md from the newest result, no more")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    arguments = arguments_of(given)
    if arguments.write_docs:
        page.write(arguments.results)
        return
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    started = time.monotonic()
    dtype = arguments.dtype
    if dtype == "auto":
        dtype = "bfloat16" if has_fast_bfloat16() else "float32"
        if dtype == "float32":
            print("This processor has no fast bfloat16: everything is measured in float32.", file=sys.stderr)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        chosen = _chosen(arguments, dtype)
        for n, workload in enumerate(chosen):
            left = arguments.seconds - (time.monotonic() - started)
            seconds = left * workload.seconds / sum(other.seconds for other in chosen[n:])
            print(f"{workload.name}: {workload.title}", file=sys.stderr)
            options = Options(vllm=arguments.vllm)
            rows.append(measured(workload, Path(folder), options, seconds=seconds, tiny=arguments.tiny))
    result: dict[str, Any] = {
        "date": results.today(),
        "finished": results.now(),
        "command": "python -m benchmarks.speed " + " ".join(_shown(arguments)),
        "tiny": arguments.tiny,
        "seconds": time.monotonic() - started,
        "machine": results.machine(),
        "workloads": rows,
    }
    path = results.write(result, arguments.results)
    print(page.tables(result))
    print(f"{result['seconds']:.0f} s; written to {path.name}", file=sys.stderr)


def _chosen(arguments: argparse.Namespace, dtype: str) -> list[Workload]:
    everything = workloads.ALL if dtype == "bfloat16" else workloads.in_float32()
    names = arguments.workload
    chosen = [workload for workload in everything if not names or workload.name in names]
    if arguments.layers:
        chosen = [workload.with_layers(arguments.layers) for workload in chosen]
    if arguments.gemma2:
        chosen.append(replace(workloads.GEMMA2, dtype=dtype))
    if arguments.repeats:
        chosen = [replace(workload, repeats=arguments.repeats) for workload in chosen]
    return chosen


def _shown(arguments: argparse.Namespace) -> list[str]:
    """The options as they may stand in a public file: without places of this machine."""
    shown = [f"--workload {name}" for name in arguments.workload or ()]
    shown += [f"--{name} {value}" for name in ("repeats", "layers") if (value := getattr(arguments, name))]
    shown += ["--gemma2"] if arguments.gemma2 else []
    shown += ["--vllm PYTHON"] if arguments.vllm else []
    shown += [f"--dtype {arguments.dtype}"] if arguments.dtype != "auto" else []
    return shown + (["--tiny"] if arguments.tiny else [])


if __name__ == "__main__":
    main()
