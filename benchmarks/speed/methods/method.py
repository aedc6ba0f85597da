"""What a method is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.speed.workloads.workload import Texts


class CannotRunError(Exception):
    """The method is left out of this run; the message says why."""


@dataclass(frozen=True)
class Options:
    """What a run says to its methods.

    Attributes:
        vllm: a Python that has vLLM.
    """

    vllm: str | None = None


class Scorer:
    """A method with its model loaded."""

    def score(self, items: list[Any]) -> list[float]:
        """The scores of conversations; of `Stepwise`, those of all their steps in one list."""
        raise NotImplementedError

    def timed(self, texts: Texts) -> tuple[float, list[float]]:
        """CPU seconds of this process, and the scores."""
        started = time.process_time()
        scores = [score for items in texts.rounds for score in self.score(items)]
        return time.process_time() - started, scores


class Method(Protocol):
    """A way of scoring."""

    def loaded(self, checkpoint: Path, dtype: str, options: Options) -> AbstractContextManager[Scorer]:
        """The method with its model.

        Raises:
            CannotRunError: something that it needs is missing.
        """
        ...


class Stock:
    """Models of transformers' own classes, one for all methods that use such a model."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[Path, str, str], tuple[Any, Any]] = {}

    def __call__(self, checkpoint: Path, dtype: str, kind: str) -> tuple[Any, Any]:
        """Model and tokenizer."""
        key = (checkpoint, dtype, kind)
        if key not in self._loaded:
            import transformers

            self._loaded.clear()
            class_ = getattr(transformers, f"AutoModelFor{kind}")
            model = class_.from_pretrained(checkpoint, dtype=dtype).eval()
            self._loaded[key] = model, transformers.AutoTokenizer.from_pretrained(checkpoint)
        model, tokenizer = self._loaded[key]
        # What a method leaves set (padding=True stays in the tokenizer) is not the next one's.
        tokenizer.padding_side = "right"
        return model, tokenizer


stock = Stock()


def batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
