"""sentence-transformers: `CrossEncoder.predict` on prompt and response, which sorts by length into batches of 32.

It knows no chat template: its scores are those of another text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed.methods.method import CannotRunError, Options, Scorer


class _Loaded(Scorer):
    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def score(self, items: list[Any]) -> list[float]:
        pairs = [(prompt["content"], response["content"]) for prompt, response in items]
        return [float(score) for score in self._encoder.predict(pairs, show_progress_bar=False)]


class CrossEncoderPredict:
    @contextmanager
    def loaded(self, checkpoint: Path, dtype: str, options: Options) -> Iterator[Scorer]:
        try:
            from sentence_transformers import CrossEncoder
        except ImportError as error:
            raise CannotRunError("sentence-transformers is not installed") from error
        import torch

        encoder = CrossEncoder(
            str(checkpoint), device="cpu", model_kwargs={"dtype": dtype}, activation_fn=torch.nn.Identity()
        )
        yield _Loaded(encoder)
