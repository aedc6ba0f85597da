"""Tiny random models of many transformers classes, made from their configs alone, and a backend that reads one."""

from __future__ import annotations

from typing import Any

import model_classes
import numpy as np
import pytest
import torch
import transformers
from model_classes import OWN_SIZES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from reward_hub.backends.causality import Padding, padding_of
from reward_hub.backends.packing.check import Packing
from reward_hub.backends.rope_tables import RopeTables
from reward_hub.backends.transformers import TransformersBackend
from reward_hub.heads import Linear
from reward_hub.reads import HeadOutputs
from reward_hub.types import TokenInput

PADDED = Packing("padding is tried here")
# Large enough that one token's change shows in the others, small enough that no class overflows.
SIZES: dict[str, Any] = {
    **model_classes.SIZES,
    "vocab_size": 320,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "sliding_window": 16,
    "initializer_range": 0.2,
}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
}
_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
# What a class needs besides to be made small.
OF_THE_CLASS: dict[str, dict[str, Any]] = {
    **OWN_SIZES,
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "minicpm3", "youtu"), _LATENT),
    **dict.fromkeys(("qwen2_moe", "qwen3_moe"), _EXPERTS),
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
}
# Decoders of every kind: windows, ALiBi, learned positions, several experts, state spaces. None may be left out.
DECODERS = (
    *("bloom", "cohere", "cohere2", "deepseek_v3", "gemma", "gemma2", "gemma3_text", "glm", "gpt2", "gpt_neo"),
    *("gpt_neox", "granite", "granitemoe", "llama", "mamba", "minicpm3", "mistral", "mixtral", "olmo2", "opt", "phi"),
    *("phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2"),
)
MOST_PARAMETERS = 3_000_000
WIDTH = 4  # outputs of the head that is read


def model_types() -> list[str]:
    """Every model type of which transformers has a causal language model, encoders used as decoders among them."""
    return sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) & set(transformers.CONFIG_MAPPING))


def tiny_model(model_type: str, **values: Any) -> Any:
    """A random base model in float64, where rounding hides nothing; the test is skipped where there is none.

    Args:
        values: fields of the config, also those that its class does not declare.
    """
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
    try:
        config = transformers.CONFIG_MAPPING[model_type](**{**SIZES, **OF_THE_CLASS.get(model_type, {}), **values})
        for name, value in values.items():
            setattr(config, name, value)
        config.use_cache = False
        with torch.device("meta"):
            model = transformers.AutoModel.from_config(config)
        if sum(parameter.numel() for parameter in model.parameters()) > MOST_PARAMETERS:
            raise ValueError("it is large, whatever its sizes")
        torch.manual_seed(3)
        model = (
            transformers.AutoModel.from_config(config, dtype=torch.float64, experts_implementation="eager")
            .double()
            .eval()
        )
        model(input_ids=torch.tensor([[5, 6, 7, 8]]))
    except Exception as error:
        # Each class has its own reasons: sizes that do not fit together, a package that is missing.
        if model_type in DECODERS:
            raise
        pytest.skip(f"{model_type} cannot be made small: {type(error).__name__}: {str(error)[:80]}")
    return model


def backend_of(model: Any, padding: Padding | None = None, packing: Packing = PADDED) -> TransformersBackend:
    """A backend that reads a random linear head of a model, in padded batches unless told otherwise."""
    size = model.config.get_text_config().hidden_size
    weights = {"score.weight": np.random.default_rng(0).normal(size=(WIDTH, size)).astype(np.float32)}
    return TransformersBackend(
        model,
        HeadOutputs(Linear("score", width=WIDTH, bias=False)),
        weights,
        None,
        encoder=False,
        padding=padding or padding_of(model, encoder=False),
        tables=RopeTables(model),
        packing=packing,
        batch_size=None,
        max_batch_tokens=None,
    )


def inputs_of(*lengths: int) -> list[TokenInput]:
    return [TokenInput([(7 * i * i + 3 * n) % 300 + 3 for i in range(n)], [0, n // 2, n - 1]) for n in lengths]
