"""RewardBench (allenai/reward-bench, `RewardBenchPipeline`): batches of 8 as given, padded on the left, with a mask.

Of pairs, the chosen responses are scored in forwards of their own, and the rejected ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed.methods.method import Options, Scorer, batches, stock

BATCH = 8
MAX_LENGTH = 2048


class _Loaded(Scorer):
    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    def score(self, items: list[Any]) -> list[float]:
        self._tokenizer.padding_side = "left"
        self._tokenizer.truncation_side = "left"
        texts = [self._tokenizer.apply_chat_template(conversation, tokenize=False) for conversation in items]
        if not _are_pairs(items):
            return self._scores(texts)
        both_sides = zip(self._scores(texts[::2]), self._scores(texts[1::2]), strict=True)
        return [score for pair in both_sides for score in pair]

    def _scores(self, texts: list[str]) -> list[float]:
        import torch

        scores: list[float] = []
        for batch in batches(texts, BATCH):
            inputs = self._tokenizer(batch, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt")
            with torch.no_grad():
                scores += self._model(**inputs).logits.float().flatten().tolist()
        return scores


def _are_pairs(items: list[Any]) -> bool:
    """Whether each two have a prompt of their own."""
    prompts = [conversation[0]["content"] for conversation in items]
    return prompts[::2] == prompts[1::2] and len(set(prompts)) == len(prompts) // 2 > 1


class RewardBench:
    @contextmanager
    def loaded(self, checkpoint: Path, dtype: str, options: Options) -> Iterator[Scorer]:
        yield _Loaded(*stock(checkpoint, dtype, "SequenceClassification"))
