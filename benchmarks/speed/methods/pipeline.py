"""transformers: `pipeline("text-classification", batch_size=8)` on rendered conversations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed.methods.method import Options, Scorer, stock

BATCH = 8


class _Loaded(Scorer):
    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def score(self, items: list[Any]) -> list[float]:
        self._pipe.tokenizer.padding_side = "right"
        texts = [self._pipe.tokenizer.apply_chat_template(conversation, tokenize=False) for conversation in items]
        return [answer["score"] for answer in self._pipe(texts, batch_size=BATCH, function_to_apply="none")]


class Pipeline:
    @contextmanager
    def loaded(self, checkpoint: Path, dtype: str, options: Options) -> Iterator[Scorer]:
        from transformers import pipeline

        model, tokenizer = stock(checkpoint, dtype, "SequenceClassification")
        yield _Loaded(pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu"))
