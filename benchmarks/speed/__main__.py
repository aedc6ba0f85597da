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

from benchmarks.speed import page, results, short, workloads
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
    parser.add_argument("--short", action="store_true", help="also short conversations on a tiny model")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="the same in another checkout (with --short)")
    parser.add_argument("--memory", action="store_true", help="also memory: best of 64, prompt of 4,000 tokens")
    parser.add_argument("--many", action="store_true", help="also 1,000 to 100,000 conversations in one call")
    parser.add_argument("--no-workloads", action="store_true", help="none of the workloads, only what is asked besides")
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
        besides = _besides(arguments, Path(folder))
    result: dict[str, Any] = {
        "date": results.today(),
        "finished": results.now(),
        "command": "python -m benchmarks.speed " + " ".join(_shown(arguments)),
        "tiny": arguments.tiny,
        "seconds": time.monotonic() - started,
        "machine": results.machine(),
        "workloads": rows,
        **besides,
    }
    path = results.write(result, arguments.results)
    print(page.tables(result))
    print(f"{result['seconds']:.0f} s; written to {path.name}", file=sys.stderr)


def _besides(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What is measured where it is asked for."""
    besides: dict[str, Any] = {}
    if arguments.short or arguments.against:
        print("short conversations", file=sys.stderr)
        besides["short"] = short.measured(
            folder, arguments.against, repeats=arguments.repeats or 5, tiny=arguments.tiny
        )
    if arguments.memory:
        print("memory", file=sys.stderr)
        besides["memory"] = short.memory(folder, tiny=arguments.tiny)
    if arguments.many:
        print("many conversations", file=sys.stderr)
        besides["many"] = short.many(folder, tiny=arguments.tiny)
    return besides


def _chosen(arguments: argparse.Namespace, dtype: str) -> list[Workload]:
    everything = workloads.ALL if dtype == "bfloat16" else workloads.in_float32()
    names = arguments.workload
    chosen = [workload for workload in everything if not names or workload.name in names]
    if arguments.layers:
        chosen = [workload.with_layers(arguments.layers) for workload in chosen]
    if arguments.no_workloads:
        chosen = []
    if arguments.gemma2:
        chosen.append(replace(workloads.GEMMA2, dtype=dtype))
    if arguments.repeats:
        chosen = [replace(workload, repeats=arguments.repeats) for workload in chosen]
    return chosen


def _shown(arguments: argparse.Namespace) -> list[str]:
    """The options as they may stand in a public file: without places of this machine."""
    shown = [f"--workload {name}" for name in arguments.workload or ()]
    shown += [f"--{name} {value}" for name in ("repeats", "layers") if (value := getattr(arguments, name))]
    shown += [f"--{name}" for name in ("gemma2", "short", "memory", "many") if getattr(arguments, name)]
    shown += ["--no-workloads"] if arguments.no_workloads else []
    shown += ["--against CHECKOUT"] if arguments.against else []
    shown += ["--vllm PYTHON"] if arguments.vllm else []
    shown += [f"--dtype {arguments.dtype}"] if arguments.dtype != "auto" else []
    return shown + (["--tiny"] if arguments.tiny else [])


if __name__ == "__main__":
    main()
