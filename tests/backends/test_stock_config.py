"""The config of a stock class: nothing that leads to code, and everything that the class reads."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import pytest
import transformers

from reward_hub.backends.stock_config import known_fields, stock_config
from reward_hub.checkpoints.remote_code import NAMES, leads_to_code

pytestmark = pytest.mark.filterwarnings("ignore:`rope_scaling` is deprecated:FutureWarning")

EVIL = {"AutoModel": "modeling_evil.Evil"}
POISON: dict[str, Any] = {
    **dict.fromkeys(NAMES - {"attribute_map"}, EVIL),
    "attribute_map": {"zz": "auto_map"},
    "zz": EVIL,
    "custom_pipelines": EVIL,
    "to_dict": "shadowed",
    "sub_configs": EVIL,
    "base_model_tp_plan": EVIL,
}


def all_types() -> list[str]:
    return sorted(transformers.CONFIG_MAPPING.keys())


@cache
def made(model_type: str) -> Any:
    """A config of the type with its own defaults."""
    if model_type == "colpali" and transformers.__version__ < "5.20":
        pytest.skip("older releases copy a field of PaliGemma's into a Gemma config, which does not read it")
    try:
        return transformers.CONFIG_MAPPING[model_type]()
    except Exception as error:
        pytest.skip(f"transformers cannot make it from its own defaults: {type(error).__name__}")


def stored_forms(config: Any) -> list[dict[str, Any]]:
    """What `to_dict` gives, and what `save_pretrained` writes."""
    return [config.to_dict(), json.loads(config.to_json_string())]


@pytest.mark.parametrize("model_type", all_types())
def test_every_stock_config_survives_with_all_that_it_holds(model_type: str) -> None:
    config = made(model_type)
    for stored in stored_forms(config):
        try:
            expected = type(config).from_dict(copy.deepcopy(stored)).to_dict()
        except Exception as error:
            pytest.skip(f"transformers cannot read what it wrote: {type(error).__name__}")
        assert type(config).from_dict(known_fields(stored, type(config))).to_dict() == expected


def poisoned(value: Any) -> Any:
    """The same JSON with the poison in every object that stands for a config."""
    if isinstance(value, dict):
        inner = {name: poisoned(part) for name, part in value.items()}
        return {**inner, **POISON} if "model_type" in value else inner
    return [poisoned(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("model_type", all_types())
def test_what_leads_to_code_passes_at_no_depth(model_type: str) -> None:
    config = made(model_type)
    stored = json.loads(config.to_json_string())
    clean = known_fields(stored, type(config))
    assert known_fields(poisoned(stored), type(config)) == clean
    assert [name for name in _keys(clean) if leads_to_code(name)] == []


def _keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for part in value.values() for key in _keys(part))]
    return [key for part in value for key in _keys(part)] if isinstance(value, list) else []


# Keys of published checkpoints that no class declares, and that its modules or the shared ones read all the same.
READ_BUT_NOT_DECLARED: list[tuple[str, dict[str, Any]]] = [
    ("deberta-v2", {"norm_rel_ebd": "layer_norm", "position_buckets": 256, "share_att_key": True}),
    ("llama", {"is_causal": False}),
    ("qwen2", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}),
    ("llama", {"rope_theta": 500000.0, "torch_dtype": "bfloat16", "num_labels": 1}),
    ("gpt_neox", {"rotary_pct": 0.25, "rotary_emb_base": 10000}),
    ("t5", {"tie_word_embeddings": False}),
    ("llama", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}),
]


@pytest.mark.parametrize(("model_type", "values"), READ_BUT_NOT_DECLARED)
def test_what_a_class_reads_without_declaring_it_is_kept(model_type: str, values: dict[str, Any]) -> None:
    stored = {"model_type": model_type, **values}
    reduced, plain = stock_config(stored), transformers.CONFIG_MAPPING[model_type].from_dict(copy.deepcopy(stored))
    assert reduced.to_dict() == plain.to_dict()
    assert set(values) <= set(known_fields(stored, type(plain)))


def test_a_key_that_nobody_reads_is_not_kept() -> None:
    config = stock_config({"model_type": "llama", "hidden_size": 32, "zz": EVIL, "base_model": "x"})
    assert config.hidden_size == 32
    assert not hasattr(config, "zz")


def test_a_value_that_published_configs_mean_otherwise_is_read_as_it_is_meant() -> None:
    # Every release reads the same, so it is looked at before transformers mends it itself.
    config_class = transformers.CONFIG_MAPPING["gemma"]
    assert known_fields({"hidden_act": "gelu"}, config_class) == {"hidden_act": "gelu_pytorch_tanh"}
    nested = {"text_config": {"model_type": "gemma", "hidden_act": "gelu"}}
    assert (
        known_fields(nested, transformers.CONFIG_MAPPING["paligemma"])["text_config"]["hidden_act"]
        == "gelu_pytorch_tanh"
    )
    assert known_fields({"hidden_act": "gelu"}, transformers.CONFIG_MAPPING["llama"]) == {"hidden_act": "gelu"}
