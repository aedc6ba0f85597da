"""Process models as RLHFlow's script and `reward_hub` 0.1 run them: a forward of the whole text after each step.

The whole language model is run; the logits of "+" and "-" are read three tokens before the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed.methods.method import Options, Scorer, stock
from benchmarks.speed.workloads.workload import Stepwise


class _Loaded(Scorer):
    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._candidates = [tokenizer.encode(sign, add_special_tokens=False)[-1] for sign in "+-"]

    def score(self, items: list[Any]) -> list[float]:
        return [score for item in items for score in self._steps(item)]

    def _steps(self, item: Stepwise) -> list[float]:
        import torch

        scores = []
        messages: list[dict[str, str]] = []
        for n, step in enumerate(item.steps):
            content = step if n else f"{item.question} {step}"
            messages += [{"role": "user", "content": content}, {"role": "assistant", "content": "+"}]
            token_ids = self._tokenizer.apply_chat_template(
                messages, tokenize=True, return_tensors="pt", return_dict=False
            )
            with torch.no_grad():
                logits = self._model(token_ids).logits[:, -3, self._candidates]
                scores.append(logits.float().softmax(dim=-1)[0, 0].item())
        return scores


class KPasses:
    @contextmanager
    def loaded(self, checkpoint: Path, dtype: str, options: Options) -> Iterator[Scorer]:
        yield _Loaded(*stock(checkpoint, dtype, "CausalLM"))
