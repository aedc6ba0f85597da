"""One conversation after the other, as `reward_hub` 0.1 and most examples of a model's page do it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed.methods.method import Options, Scorer, stock


class _Loaded(Scorer):
    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    def score(self, items: list[Any]) -> list[float]:
        import torch

        scores = []
        with torch.no_grad():
            for conversation in items:
                token_ids = self._tokenizer.apply_chat_template(
                    conversation, tokenize=True, return_tensors="pt", return_dict=False
                )
                scores.append(self._model(token_ids).logits[0][0].item())
        return scores


class OneAtATime:
    @contextmanager
    def loaded(self, checkpoint: Path, dtype: str, options: Options) -> Iterator[Scorer]:
        yield _Loaded(*stock(checkpoint, dtype, "SequenceClassification"))
