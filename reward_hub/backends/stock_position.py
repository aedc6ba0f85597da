"""Where a stock classifier of transformers reads: at the last token that is not the pad token of its config.

That is the rule of nearly all classes; one that is not known to follow it has its own forward asked: on an instance
without weights whose hidden vectors are the numbers of their positions, and whose head passes them on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from reward_hub.backends.odd_fields import is_id, the_only_one
from reward_hub.errors import CheckpointError, UnsupportedError, missing_dependency
from reward_hub.types import Config, last_position

# Known without torch: model types that follow the rule, and their pad token where config.json does not name one.
KNOWN: dict[str, int | None] = {
    "cohere": 0,
    "gemma": 0,
    "gemma2": 0,
    "gemma3_text": 0,
    "granite": None,
    "llama": None,
    "mistral": None,
    "phi3": 32000,
    "qwen2": None,
    "qwen3": None,
}


def pad_token_of(config: Config) -> int | None:
    """The token that the classifier's class passes over at the end; None: it reads the last one, whatever that is.

    Raises:
        CheckpointError: config.json names something else than a token there, or is not one of its model type.
        UnsupportedError: the class reads elsewhere.
    """
    model_type = config.get("model_type")
    default = KNOWN[model_type] if model_type in KNOWN else _pad_token_of_class(json.dumps(config, sort_keys=True))
    text = config.get("text_config") or config
    pad = the_only_one(text.get("pad_token_id", default))
    if pad is not None and not is_id(pad):
        raise CheckpointError(
            f"config.json has pad_token_id {pad!r}. A sequence classifier is read at the last token that is not its "
            "pad token: write that token's id there, or null where there is none."
        )
    return None if pad is None else int(pad)


@lru_cache
def _pad_token_of_class(config: str) -> int | None:
    """The pad token in the class's own config, the class having been asked where it reads."""
    try:
        import torch
        import transformers

        from reward_hub.backends.stock_config import stock_config
    except ImportError as error:
        raise missing_dependency("torch and transformers", "transformers", "This model type") from error
    stored = json.loads(config)
    if stored.get("model_type") not in transformers.CONFIG_MAPPING:
        return None
    try:
        made = stock_config(stored)
    except Exception as error:  # each class checks its fields in its own way
        raise CheckpointError(f"config.json is not one of {stored['model_type']}: {error}") from error
    pad: int | None = getattr(made.get_text_config(), "pad_token_id", None)
    classifier: Any = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(made), None)
    if classifier is None:
        return pad
    other = 1 if pad == 0 else 0
    texts = [[other] * 4] if pad is None else [[other, pad, other], [other, pad, other, pad, pad], [pad, pad]]
    try:
        with torch.device("meta"):
            model = classifier(made).eval()
        positions = [position_read(model, ids) for ids in texts]
    except Exception as error:  # whatever a class raises, it means the same
        raise UnsupportedError(
            f"Where {classifier.__name__} reads its score cannot be told ({type(error).__name__}: {error})."
        ) from error
    if positions != [last_position(ids, pad) for ids in texts]:
        raise UnsupportedError(
            f"{classifier.__name__} does not read its score at the last token with this config.json (pooling, an "
            "encoder's first token?), and no family here reads it so."
        )
    return pad


def position_read(model: Any, token_ids: Sequence[int]) -> float:
    """Where a classifier's class reads: its forward with positions in place of hidden vectors.

    Args:
        model: on the device "meta"; it is of no use for anything else then.
    """
    import torch

    from reward_hub.backends.class_logits import Decoded

    class First(torch.nn.Module):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return states[..., :1]

    states = torch.arange(len(token_ids), dtype=torch.float32)[None, :, None]
    model.base_model.forward = lambda *_, **__: Decoded(states)
    model.score = First()
    with torch.inference_mode():
        return float(model(input_ids=torch.tensor([list(token_ids)])).logits)
