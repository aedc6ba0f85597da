"""Tiny random models of many of transformers' classes, each in a folder with a tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from golden_sets import OWN

from reward_hub.checkpoints.files import TOKENIZER_FILES

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 960,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "initializer_range": 0.4,
}
# What classes need besides, or call otherwise.
OWN_SIZES: dict[str, dict[str, Any]] = {
    "bloom": {"n_head": 4},
    "deepseek_v2": {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 8},
    "mixtral": {"num_local_experts": 4},
}


def tiny_config(model_type: str, **values: Any) -> Any:
    return transformers.CONFIG_MAPPING[model_type](**{**SIZES, **OWN_SIZES.get(model_type, {}), **values})


def tiny_classifier(model_type: str, folder: Path, *, tokenizer: str = "seqcls-llama3", **values: Any) -> Any:
    """A stock classifier of one label, saved in a folder with the tokenizer of one of the project's golden sets."""
    torch.manual_seed(3)
    config = tiny_config(model_type, num_labels=1, **values)
    model = transformers.AutoModelForSequenceClassification.from_config(config).float().eval()
    model.save_pretrained(folder)
    copy_tokenizer(tokenizer, folder)
    return model


def copy_tokenizer(slug: str, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source := OWN / slug / name).is_file():
            shutil.copyfile(source, folder / name)
