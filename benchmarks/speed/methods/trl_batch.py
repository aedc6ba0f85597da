"""TRL (`GRPOTrainer` with a reward model): each batch of 8 rendered conversations padded on the right, with a mask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed.methods.method import Options, Scorer, batches, stock

BATCH = 8


class _Loaded(Scorer):
    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    def score(self, items: list[Any]) -> list[float]:
        import torch

        scores: list[float] = []
        for conversations in batches(items, BATCH):
            texts = [self._tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]
            inputs = self._tokenizer(
                text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False
            )
            with torch.inference_mode():
                scores += self._model(**inputs).logits[:, 0].float().tolist()
        return scores


class TRLBatch:
    @contextmanager
    def loaded(self, checkpoint: Path, dtype: str, options: Options) -> Iterator[Scorer]:
        yield _Loaded(*stock(checkpoint, dtype, "SequenceClassification"))
