"""What vLLM is trusted with of attention and rotary tables, told from config.json; its tables and transformers'."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from reward_hub import UnsupportedError
from reward_hub.backends.http_engine import HttpEngine
from reward_hub.backends.vllm import attention
from reward_hub.backends.vllm.options import capped_length
from reward_hub.backends.vllm.plan import STEMS, why_not
from reward_hub.backends.vllm_engine import VllmEngine
from reward_hub.family import Backbone
from reward_hub.heads import Linear
from reward_hub.reads import HeadOutputs

READ = HeadOutputs(Linear("score"))
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [4.0, 3.0, 2.0, 5.0],
    "original_max_position_embeddings": 64,
}
DYNAMIC = {"type": "dynamic", "factor": 2.0}


def config(**values: Any) -> dict[str, Any]:
    return {"model_type": "llama", "max_position_embeddings": 128, **values}


@pytest.mark.parametrize("model_type", sorted(STEMS))
@pytest.mark.parametrize("said", [{"is_causal": False}, {"use_bidirectional_attention": True}])
def test_a_decoder_in_both_directions_is_left_to_transformers(model_type: str, said: dict[str, Any]) -> None:
    stored = config(model_type=model_type, **said)
    for engine in (VllmEngine, HttpEngine):
        assert "both directions" in (engine.why_not(stored, READ) or "")
        assert engine.why_not(config(model_type=model_type), READ) is None


def test_the_stock_config_of_a_foreign_checkpoint_decides() -> None:
    backbone = Backbone(config(is_causal=False))
    assert why_not(READ, {"model_type": "internlm2"}, backbone) is not None


@pytest.mark.parametrize(
    "table",
    [
        {**DYNAMIC, "alpha": 1000.0},
        {**DYNAMIC, "max_trained_positions": 64},
        {**LONGROPE, "attention_factor": 1.0},
        {**LONGROPE, "short_mscale": 1.1},
        {**LONGROPE, "factor": 32.0},
        {"rope_type": "of next year"},
    ],
)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_a_table_that_vllm_makes_otherwise_is_refused(table: dict[str, Any], key: str) -> None:
    assert "rotary table" in (why_not(READ, config(**{key: table})) or "")
    nested = {key: {"full_attention": table, "sliding_attention": {"rope_type": "default"}}}
    assert why_not(READ, config(**nested)) is not None


@pytest.mark.parametrize(
    ("table", "longest"),
    [
        (None, None),
        ({"rope_type": "default"}, None),
        ({"type": "linear", "factor": 2.0}, None),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}, None),
        (DYNAMIC, 128),
        (LONGROPE, 64),
        ({**LONGROPE, "factor": 2.0}, 64),
        ({"full_attention": LONGROPE, "sliding_attention": DYNAMIC}, 64),
    ],
)
def test_inputs_are_held_to_where_the_table_is_right(table: dict[str, Any] | None, longest: int | None) -> None:
    stored = config(rope_scaling=table)
    assert why_not(READ, stored) is None
    assert attention.longest_input(stored) == longest


def test_an_engine_is_started_within_where_its_table_is_right(caplog: pytest.LogCaptureFixture) -> None:
    stored = config(rope_scaling=LONGROPE)
    assert capped_length({}, stored)["max_model_len"] == 64
    assert capped_length({"max_model_len": 100}, stored)["max_model_len"] == 64
    assert "longer inputs are refused" in caplog.text
    assert capped_length({"max_model_len": 32}, stored)["max_model_len"] == 32
    assert capped_length({}, config()) == {}


def test_a_server_started_for_longer_inputs_is_refused_or_held() -> None:
    longrope, dynamic = config(rope_scaling=LONGROPE), config(rope_scaling=DYNAMIC)
    assert attention.held_length(64, longrope, where="it") == 64
    for limit in (128, None):
        with pytest.raises(UnsupportedError, match="max-model-len 64"):
            attention.held_length(limit, longrope, where="it")
    assert [attention.held_length(limit, dynamic, where="it") for limit in (64, 256, None)] == [64, 128, 128]
    assert attention.held_length(256, config(), where="it") == 256


@pytest.mark.vllm
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("table", [DYNAMIC, LONGROPE], ids=["dynamic", "longrope"])
def test_vllms_table_is_transformers_up_to_there_and_another_past_it(table: dict[str, Any]) -> None:
    """The facts that the rules are made of, read from vLLM itself."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("vllm")
    import transformers
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding import get_rope

    rope = {"rope_type": table.get("type"), **table, "rope_theta": 10000.0}
    made = transformers.LlamaConfig(
        hidden_size=32, num_attention_heads=4, head_dim=8, max_position_embeddings=128, rope_parameters=dict(rope)
    )
    longest = attention.longest_input(config(rope_parameters=rope))
    assert longest is not None
    settings = VllmConfig()

    class Limited:
        max_model_len = longest

    settings.model_config = Limited()  # type: ignore[assignment]
    with set_current_vllm_config(settings):
        theirs = get_rope(8, 128, True, rope, torch.float32)
    cache = getattr(theirs, "long_short_cos_sin_cache", None)
    cache = theirs.cos_sin_cache if cache is None else cache
    module = sys.modules[transformers.LlamaModel.__module__].LlamaRotaryEmbedding
    for length, same in ((longest, True), (longest + 20, False)):
        cos, _ = module(made)(torch.zeros(1), torch.arange(length)[None])
        rows = min(length, longest)
        close = torch.allclose(cos[0, :rows, :4], cache[:rows, :4], atol=1e-5)
        assert close == same
