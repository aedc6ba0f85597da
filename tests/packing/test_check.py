"""Stock classes are packed only where that is right; and where it is, packed rows equal conversations alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from model_classes import LATENT, random_weights, tiny_decoder

from reward_hub.backends.packing import attention
from reward_hub.backends.packing.check import packing_of
from reward_hub.backends.packing.model import PackedModel
from reward_hub.backends.packing.plan import Costs

CPU = torch.device("cpu")
SLIDING = ["full_attention", "full_attention", "sliding_attention", "full_attention"]

# Packed, and held to one at a time: decoders of plain attention, with experts, few heads, latent attention, caps.
RIGHT: dict[str, dict[str, Any]] = {
    **{
        name: {}
        for name in (
            *("arcee", "biogpt", "bitnet", "cohere", "cohere2", "ctrl", "diffllama", "dots1", "ernie4_5"),
            *(
                "exaone4",
                "flex_olmo",
                "gemma",
                "gemma2",
                "gemma3_text",
                "glm",
                "glm4",
                "gpt2",
                "gpt_bigcode",
                "gpt_neox",
            ),
            *("granite", "granitemoe", "helium", "hunyuan_v1_dense", "internlm3", "llama", "ministral", "mistral"),
            *("mixtral", "nanochat", "olmo", "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "phimoe"),
            *("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "starcoder2", "vaultgemma"),
        )
    },
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "minicpm3": {**LATENT, "dim_model_base": 8},
}
# Not packed, and what is said to that.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    **{
        name: ({}, "does not ask transformers for an attention function")
        for name in ("bloom", "falcon", "mpt", "xglm", "rwkv", "mamba", "falcon_mamba", "jamba")
    },
    **{name: ({}, "layers ask transformers") for name in ("minimax", "qwen3_next", "recurrent_gemma", "nemotron_h")},
    "lfm2": ({"layer_types": ["conv", "full_attention", "conv", "full_attention"]}, "layers ask transformers"),
    "falcon_h1": (
        {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1},
        "not those of a conversation alone",
    ),
    "doge": ({}, "mask is not the causal one"),
    "llama4_text": ({}, "changes with the position"),
    "gpt_oss": ({}, "is given s_aux"),
    "nemotron": ({}, "does not hand the forward's arguments"),
    "bert": ({}, "mask is not the causal one"),
    "roberta": ({}, "mask is not the causal one"),
}
# Packed up to a length: what reaches only so far, or has another rotary table behind it.
BOUNDED: dict[str, tuple[str, dict[str, Any], int]] = {
    "a window of all layers": ("mistral", {"sliding_window": 64}, 64),
    "a window of one layer": (
        "qwen2",
        {"sliding_window": 40, "use_sliding_window": True, "layer_types": SLIDING},
        40,
    ),
    "a window that attention is not told of": ("phimoe", {"sliding_window": 48}, 48),
}


def conversations() -> tuple[list[list[int]], list[list[int]]]:
    """Two groups, steps by prefix, and one that begins another; read at their last and at a middle token."""
    numbers = random.Random(5)

    def some(n: int) -> list[int]:
        return [numbers.randrange(3, 128) for _ in range(n)]

    token_ids = []
    for n_prompt, n_responses in ((41, 4), (17, 2)):
        prompt = some(n_prompt)
        token_ids += [prompt + some(3 + 5 * i) for i in range(n_responses)]
    steps = some(60)
    token_ids += [[*steps[:20], 5, 6], [*steps[:40], 5, 6], steps, some(9)]
    return token_ids, [[len(ids) // 2, len(ids) - 1] for ids in token_ids]


def packed_vectors(model: Any, token_ids: Any, positions: Any, max_tokens: int = 1000) -> list[np.ndarray]:
    reader = PackedModel(model, CPU)
    reader.costs = ShareAll()
    with torch.inference_mode():
        answers = reader.read(token_ids, positions, lambda states, _: states.float().numpy(), max_tokens=max_tokens)
        found = {conversation: vectors for done in answers for conversation, vectors in done.items()}
    return [found[conversation] for conversation in range(len(token_ids))]


def farthest(model: Any, token_ids: Any, positions: Any, found: Any) -> float:
    """The largest difference to one conversation at a time, relative to the largest number."""
    worst = 0.0
    for ids, at, vectors in zip(token_ids, positions, found, strict=True):
        with torch.inference_mode():
            alone = model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0, at].float().numpy()
        worst = max(worst, float(np.abs(vectors - alone).max() / np.abs(alone).max()))
    return worst


class ShareAll(Costs):
    def worth(self, saved: int, n_rows: int) -> bool:
        return True


@pytest.mark.parametrize("model_type", RIGHT)
def test_packed_rows_of_stock_classes_equal_one_conversation_at_a_time(model_type: str) -> None:
    model = tiny_decoder(model_type, **RIGHT[model_type])
    packing = packing_of(model, CPU)
    assert packing.reason is None
    token_ids, positions = conversations()
    for max_tokens in (1000, 23):  # 23: prompts over the budget, whose keys and values are kept
        found = packed_vectors(model, token_ids, positions, max_tokens=max_tokens)
        assert farthest(model, token_ids, positions, found) <= 2e-5


@pytest.mark.parametrize("model_type", WRONG)
def test_classes_for_which_packing_would_be_wrong_are_not_packed(model_type: str) -> None:
    fields, reason = WRONG[model_type]
    packing = packing_of(tiny_decoder(model_type, **fields), CPU)
    assert reason in str(packing.reason)


@pytest.mark.parametrize("kind", BOUNDED)
def test_only_conversations_within_a_window_or_bound_are_packed(kind: str) -> None:
    model_type, fields, longest = BOUNDED[kind]
    model = tiny_decoder(model_type, **fields)
    packing = packing_of(model, CPU)
    assert (packing.reason, packing.longest) == (None, longest)
    token_ids = [[(7 * i + j) % 120 + 3 for i in range(min(longest, 100))] for j in range(2)]
    positions = [[len(ids) - 1] for ids in token_ids]
    found = packed_vectors(model, token_ids, positions)
    assert farthest(model, token_ids, positions, found) <= 2e-5


@pytest.mark.parametrize("fields", [{"is_causal": False}, {"use_bidirectional_attention": True}], ids=str)
def test_decoders_that_look_both_ways_are_not_packed(fields: dict[str, Any]) -> None:
    config = tiny_decoder("gemma3_text" if "use_bidirectional_attention" in fields else "qwen2").config
    for name, value in fields.items():
        setattr(config, name, value)
    assert packing_of(random_weights(transformers.AutoModel.from_config(config)), CPU).reason is not None


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "qwen3", "opt"])
def test_half_precision_is_packed_too(model_type: str) -> None:
    model = tiny_decoder(model_type, dtype=torch.bfloat16)
    assert packing_of(model, CPU).reason is None


def test_a_soft_cap_that_the_fast_kernel_skips_is_noticed_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bfloat16 drifts by more than a cap of 50 changes; so every layer is held to its class in float32."""
    model = tiny_decoder("gemma2", dtype=torch.bfloat16, attn_logit_softcapping=50.0)
    kernel = attention.cpu_kernel
    monkeypatch.setattr(attention, "cpu_kernel", lambda *x, cap, **how: kernel(*x, cap=None, **how))
    assert "not that of its class" in str(packing_of(model, CPU).reason)


def test_the_check_leaves_the_model_as_it_was() -> None:
    model = tiny_decoder("llama")
    ids = torch.arange(3, 30)[None]
    with torch.inference_mode():
        before = model(input_ids=ids).last_hidden_state
        packing_of(model, CPU)
        assert model.config._attn_implementation == "sdpa"
        assert torch.equal(model(input_ids=ids).last_hidden_state, before)
