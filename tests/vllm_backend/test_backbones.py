"""Every decoder that the plan says vLLM can run, on random weights, against transformers in float32."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_sets import OWN
from vllm_engines import IN_PROCESS

from reward_hub.backends.base import Backend, EngineOptions
from reward_hub.backends.vllm.plan import STEMS
from reward_hub.checkpoints.files import TOKENIZER_FILES, open_checkpoint
from reward_hub.reads import Read, TokenLogits, TokenLogprobs
from reward_hub.tokenizer import load_tokenizer
from reward_hub.types import Array, TokenInput

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 640,
    "max_position_embeddings": 512,
    "sliding_window": 24,
    "pad_token_id": 0,
    # Large enough that attention, caps and scales show in the outputs.
    "initializer_range": 0.15,
}
# What the classes do behind their LM heads, at values that show.
BEHIND: dict[str, dict[str, Any]] = {
    "cohere": {"logit_scale": 0.25},
    "gemma2": {"final_logit_softcapping": 2.0},
    "gemma3_text": {"final_logit_softcapping": 2.0},
    "granite": {"logits_scaling": 3.0},
}
CHOSEN = (5, 9, 600)
INPUTS = [
    TokenInput([(7 * i * i + 3 * n) % 600 + 3 for i in range(n)], sorted({1, n // 2, n - 1})) for n in (12, 40, 150)
]


def make(model_type: str, folder: Path) -> Path:
    import torch
    import transformers

    torch.manual_seed(3)
    config = transformers.CONFIG_MAPPING[model_type](**SIZES, **BEHIND.get(model_type, {}))
    transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (source := OWN / "seqcls-qwen2" / name).is_file():
            shutil.copyfile(source, folder / name)
    return folder


def answers(backend: type[Backend], folder: Path, read: Read, **options: Any) -> list[Array]:
    engine = backend.load(
        open_checkpoint(str(folder)),
        read,
        backbone=None,
        tokenizer=load_tokenizer(folder),
        options=EngineOptions(torch_dtype="float32", many_positions=True, **options),
    )
    try:
        return engine.read(INPUTS)
    finally:
        engine.close()


@pytest.mark.parametrize("read", [TokenLogits(CHOSEN), TokenLogprobs()], ids=["logits", "logprobs"])
@pytest.mark.parametrize("model_type", STEMS)
def test_a_backbone_answers_as_transformers_does(model_type: str, read: Read, tmp_path: Path) -> None:
    from reward_hub.backends.transformers import TransformersBackend
    from reward_hub.backends.vllm.engine import VllmBackend

    folder = make(model_type, tmp_path / model_type)
    expected = answers(TransformersBackend, folder, read)
    found = answers(VllmBackend, folder, read, extra=IN_PROCESS)
    scale = max(float(np.abs(output).max()) for output in expected)
    assert scale > 0.1, "the comparison would show nothing"
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours - theirs).max() < 2e-5 * max(1.0, scale)
