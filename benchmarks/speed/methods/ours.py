"""This package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed.methods.method import CannotRunError, Options, Scorer
from benchmarks.speed.workloads.workload import Stepwise


class _Loaded(Scorer):
    def __init__(self, rm: Any) -> None:
        self._rm = rm

    def score(self, items: list[Any]) -> list[float]:
        if isinstance(items[0], Stepwise):
            rows = [{"messages": item.messages, "steps": list(item.steps)} for item in items]
            return [score for scores in self._rm.score_steps_batch(rows) for score in scores]
        scores: list[float] = self._rm.score_batch(items)
        return scores


class Ours:
    """`AutoRM.load(..., **arguments)`, then `score_batch` or `score_steps_batch`."""

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments

    @contextmanager
    def loaded(self, checkpoint: Path, dtype: str, options: Options) -> Iterator[Scorer]:
        from reward_hub import AutoRM

        family = {"family": "rlhflow-prm"} if "-process-" in checkpoint.name else {}
        try:
            rm = AutoRM.load(checkpoint, "transformers", torch_dtype=dtype, device="cpu", **family, **self._arguments)
        except TypeError as error:  # an argument that this version does not have
            raise CannotRunError(str(error)) from error
        with rm:
            yield _Loaded(rm)
