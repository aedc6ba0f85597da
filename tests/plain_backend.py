"""A second way to answer the reads: one unpadded float64 forward a conversation, nothing batched, nothing gathered.

Golden scores are frozen with it, so that they do not come from the code that they test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from reward_hub.backends.transformers import TransformersBackend
from reward_hub.reads import HeadOutputs, TokenLogits
from reward_hub.registry import register_backend
from reward_hub.types import Array, TokenInput


class PlainBackend(TransformersBackend):
    """Loads as the Transformers backend does, and then computes by itself."""

    def read(self, inputs: Sequence[TokenInput], **options: Any) -> list[Array]:
        self._model.double()
        with torch.inference_mode():
            return [self._answer(item) for item in inputs]

    def _answer(self, item: TokenInput) -> Array:
        tensors = {"input_ids": item.token_ids, "attention_mask": [1] * len(item.token_ids)}
        if item.token_type_ids is not None:
            tensors["token_type_ids"] = item.token_type_ids
        if item.decoder_ids is not None:
            tensors["decoder_input_ids"] = item.decoder_ids
        outputs = self._model(**{name: torch.tensor([values]) for name, values in tensors.items()})
        if isinstance(self._read, (HeadOutputs, TokenLogits)):
            hidden = outputs.last_hidden_state[0][item.positions].numpy()
            if isinstance(self._read, HeadOutputs):
                return self._read.head.apply(hidden, self._weights)
            assert self._class_logits is not None
            return self._class_logits(np.asarray(hidden @ self._weights["rows"].T + self._weights["bias"]))
        ids = item.token_ids if item.decoder_ids is None else item.decoder_ids
        logprobs = torch.log_softmax(outputs.logits[0], dim=-1).numpy()
        return np.array([[logprobs[p - 1, ids[p]]] for p in item.positions]).reshape(-1, 1)


register_backend("plain", f"{__name__}:PlainBackend")
