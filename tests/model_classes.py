"""Tiny random models of many of transformers' classes, each in a folder with a tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
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

# Latent attention has heads of its own sizes.
LATENT: dict[str, Any] = {
    "head_dim": None,
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "first_k_dense_replace": 1,
}


# Decoders of any class, small enough that many can be made; those fields are set that a class has.
DECODER_SIZES: dict[str, Any] = {
    **SIZES,
    "num_hidden_layers": 4,
    "vocab_size": 128,
    "pad_token_id": 0,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "n_embd": 32,
    "n_head": 4,
    "n_layer": 4,
    "n_positions": 512,
    "ffn_dim": 48,
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


def tiny_decoder(model_type: str, *, dtype: torch.dtype = torch.float32, **values: Any) -> Any:
    """A bare model without a head; None among the values leaves a field as the class has it.

    A test is skipped where transformers does not have the type.
    """
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
    config_class = transformers.CONFIG_MAPPING[model_type]
    default = config_class()
    known = {
        name: size
        for name, size in DECODER_SIZES.items()
        if hasattr(default, name) and not isinstance(getattr(config_class, name, None), property)
    }
    fields = {name: value for name, value in {**known, **values}.items() if value is not None}
    return random_weights(transformers.AutoModel.from_config(config_class(**fields))).to(dtype)


def random_weights(model: Any) -> Any:
    """The model with random weights, large enough that caps, scales and leaks show in its outputs."""
    numbers = torch.Generator().manual_seed(3)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.2, generator=numbers)
    return model.eval()


def copy_tokenizer(slug: str, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source := OWN / slug / name).is_file():
            shutil.copyfile(source, folder / name)
