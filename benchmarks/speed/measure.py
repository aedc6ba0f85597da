"""Methods side by side on one workload: by turns, in a new order in every repeat, on texts that are new in each."""

from __future__ import annotations

import gc
import math
import random
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.speed import methods
from benchmarks.speed.checkpoints import made, tokenizer_of
from benchmarks.speed.methods.method import CannotRunError, Options, Scorer
from benchmarks.speed.text import Writer
from benchmarks.speed.workloads.workload import Stepwise, Texts, Workload

SMALL = 20  # --tiny and the warm-up divide lengths by it
CALIBRATION_S = 0.3
DISTURBED = 0.25  # a calibration that moved by more than this share says that the machine was not calm


def measured(
    workload: Workload, folder: Path, options: Options, *, seconds: float = math.inf, tiny: bool = False
) -> dict[str, Any]:
    """The figures of one workload, as they stand in the result file.

    Args:
        seconds: no further repeat is begun that would end later; the first one is always run.
    """
    shape = workload.shape.in_small() if tiny else workload.shape
    checkpoint = made(shape, folder)
    tokenizer = tokenizer_of(checkpoint)

    def texts(repeat: int, divided_by: int) -> Texts:
        return workload.texts(Writer(tokenizer, repeat), divided_by)

    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        scorers: dict[str, Scorer] = {}
        for name in workload.methods:
            try:
                scorers[name] = stack.enter_context(methods.ALL[name].loaded(checkpoint, workload.dtype, options))
            except CannotRunError as error:
                skipped[name] = str(error)
                print(f"  {name}: left out: {error}", file=sys.stderr)
        for scorer in scorers.values():
            scorer.timed(texts(-1, SMALL))
        before = calibration(workload.dtype)
        given = [texts(repeat, SMALL if tiny else 1) for repeat in range(workload.repeats)]
        times, scores = _by_turns(scorers, given, seconds)
        after = calibration(workload.dtype)
    exact = None
    if workload.in_float32:
        exact = scores[workload.baseline] if workload.dtype == "float32" else _exact(workload, checkpoint, given[:1])
    n_tokens, n_unique = counted(given[0], checkpoint)
    return {
        "name": workload.name,
        "title": workload.title,
        "layers": shape.n_layers,
        "dtype": workload.dtype,
        "baseline": workload.baseline,
        "tokens": n_tokens,
        "unique_tokens": n_unique,
        "gflops_of_unique_tokens": n_unique * shape.flops_a_token / 1e9,
        "calibration_gflops": [before, after],
        "disturbed": abs(before - after) > DISTURBED * max(before, after),
        "methods": {
            name: _figures(name, workload, times, scores, exact) for name in workload.methods if name in scorers
        },
        "skipped": skipped,
    }


def _by_turns(
    scorers: dict[str, Scorer], given: list[Texts], seconds: float
) -> tuple[dict[str, list[float]], dict[str, list[list[float]]]]:
    """CPU seconds and scores of each method in each repeat."""
    times: dict[str, list[float]] = {name: [] for name in scorers}
    scores: dict[str, list[list[float]]] = {name: [] for name in scorers}
    started = time.monotonic()
    for repeat, texts in enumerate(given):
        if repeat and (time.monotonic() - started) * (repeat + 1) / repeat > seconds:
            print(f"  {repeat} of {len(given)} repeats: the time is up", file=sys.stderr)
            break
        for name in random.Random(repeat).sample(sorted(scorers), len(scorers)):
            gc.collect()
            took, found = scorers[name].timed(texts)
            times[name].append(took)
            scores[name].append(found)
            print(f"  repeat {repeat + 1}: {name:26} {took:8.3f} s", file=sys.stderr)
    return times, scores


def _exact(workload: Workload, checkpoint: Path, given: list[Texts]) -> list[list[float]]:
    """The scores of the baseline in float32."""
    with methods.ALL[workload.baseline].loaded(checkpoint, "float32", Options()) as scorer:
        return [scorer.timed(texts)[1] for texts in given]


def _figures(
    name: str,
    workload: Workload,
    times: dict[str, list[float]],
    scores: dict[str, list[list[float]]],
    exact: list[list[float]] | None,
) -> dict[str, Any]:
    """Of one method: its times, how many times as fast as each other method it is, and how its scores differ."""
    figures: dict[str, Any] = {
        "cpu_s": times[name],
        "median_cpu_s": statistics.median(times[name]),
        "times_as_fast": {},
    }
    for other, of_other in times.items():
        ratios = [a / b for a, b in zip(of_other, times[name], strict=True)]
        figures["times_as_fast"][other] = {
            "median": statistics.median(ratios),
            "min": min(ratios),
            "max": max(ratios),
            "goal": workload.goals.get(name, {}).get(other),
        }
    figures["largest_difference"] = _largest_difference(scores[name], scores[workload.baseline])
    if exact is not None:
        figures["largest_difference_to_float32"] = _largest_difference(scores[name][: len(exact)], exact)
    return figures


def _largest_difference(scores: list[list[float]], reference: list[list[float]]) -> float:
    return max(
        abs(a - b)
        for of_repeat, expected in zip(scores, reference, strict=True)
        for a, b in zip(of_repeat, expected, strict=True)
    )


def counted(texts: Texts, checkpoint: Path) -> tuple[int, int]:
    """Tokens of all that is scored, and how many of them stand on a beginning that no other has."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    rows = [row for items in texts.rounds for item in items for row in _messages(item)]
    token_ids = [tokenizer.apply_chat_template(row, tokenize=True, return_dict=False) for row in rows]
    n_tokens = sum(map(len, token_ids))
    beginnings: set[tuple[int, int]] = set()
    for row in token_ids:
        seen = 0
        for token in row:
            seen = hash((seen, token))
            beginnings.add((seen, token))
    return n_tokens, len(beginnings)


def _messages(item: Any) -> list[list[dict[str, str]]]:
    """The conversations that are scored for an item: of steps, one that ends at each."""
    if not isinstance(item, Stepwise):
        return [item]
    grown = []
    messages: list[dict[str, str]] = []
    for n, step in enumerate(item.steps):
        content = step if n else f"{item.question} {step}"
        messages = [*messages, {"role": "user", "content": content}, {"role": "assistant", "content": "+"}]
        grown.append(messages)
    return grown


def calibration(dtype: str) -> float:
    """GFLOP/s of one product of matrices of the model's shape: what this machine does at this moment."""
    import torch

    rows = torch.randn(512, 896).to(getattr(torch, dtype))
    weight = torch.randn(4864, 896).to(getattr(torch, dtype))
    seconds = []
    torch.nn.functional.linear(rows, weight)
    while len(seconds) < 3 or (sum(seconds) < CALIBRATION_S and len(seconds) < 100):
        started = time.process_time()
        torch.nn.functional.linear(rows, weight)
        seconds.append(time.process_time() - started)
    return 2 * 512 * 896 * 4864 / statistics.median(seconds) / 1e9


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16 and does not only imitate it, at a fraction of float32's speed."""
    return calibration("bfloat16") > calibration("float32")
