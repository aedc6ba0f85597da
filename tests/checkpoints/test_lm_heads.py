"""Whether an LM head is tied to the input embeddings is asked of the weights, whatever the class calls them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from golden_sets import GoldenSet, score_case
from safetensors.torch import load_file, save_file

from reward_hub import CheckpointError, UnsupportedError
from reward_hub.checkpoints.files import open_checkpoint
from reward_hub.checkpoints.tensors import lm_head_rows, refuse_left_out_lm_head, stored_lm_head

SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WIDER = {**SIZES, "intermediate_size": 24, "num_key_value_heads": 1}
GPT = {"vocab_size": 60, "n_embd": 16, "n_layer": 1, "n_head": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "phi3", "olmo", "stablelm", "granite", "cohere"), WIDER),
    **{key: {**WIDER, "head_dim": 8} for key in ("gemma", "gemma2")},
    **dict.fromkeys(("gpt2", "gpt_bigcode"), GPT),
    **{key: {**GPT, "rotary_dim": 4} for key in ("gptj", "codegen")},
    "gpt_neox": {**SIZES, "intermediate_size": 24},
    "gpt_neo": {**SIZES, "num_layers": 1, "attention_types": [[["global"], 1]], "num_heads": 2},
    "falcon": SIZES,
    "bloom": {"vocab_size": 60, "hidden_size": 16, "n_layer": 1, "n_head": 2},
    "opt": {**SIZES, "ffn_dim": 24, "word_embed_proj_dim": 16},
    "mpt": {"vocab_size": 60, "d_model": 16, "n_layers": 1, "n_heads": 2},
    "xglm": {"vocab_size": 60, "d_model": 16, "num_layers": 1, "attention_heads": 2, "ffn_dim": 24},
    "biogpt": {**SIZES, "intermediate_size": 24},
    "mamba": {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4},
}
TOKENS = [3, 0, 59]


def made(model_type: str, folder: Path, *, tied: bool) -> Any:
    """A random model of the class, saved."""
    special = {name: 1 for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = transformers.AutoConfig.for_model(
        model_type, **CONFIGS[model_type], **special, tie_word_embeddings=tied, dtype="float32"
    )
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is not None:
        torch.nn.init.normal_(bias)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_rows_of_an_lm_head_are_the_classes(model_type: str, tied: bool, tmp_path: Path) -> None:
    head = made(model_type, tmp_path, tied=tied).get_output_embeddings()
    rows, bias = lm_head_rows(open_checkpoint(str(tmp_path)), TOKENS, tied=tied)
    np.testing.assert_array_equal(rows, head.weight.detach()[TOKENS].numpy())
    expected = torch.zeros(3) if getattr(head, "bias", None) is None else head.bias.detach()[TOKENS]
    np.testing.assert_array_equal(bias, expected.numpy())


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_head_of_its_own_is_read_though_the_config_calls_it_tied(model_type: str, tmp_path: Path) -> None:
    head = made(model_type, tmp_path, tied=False).get_output_embeddings()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    files = open_checkpoint(str(tmp_path))
    np.testing.assert_array_equal(lm_head_rows(files, TOKENS, tied=True)[0], head.weight.detach()[TOKENS].numpy())
    assert stored_lm_head(files) is not None
    with pytest.raises(UnsupportedError, match="tied"):
        refuse_left_out_lm_head(files, "vLLM", tied=True)


def test_a_head_stored_equal_to_the_embeddings_is_tied(tmp_path: Path) -> None:
    made("llama", tmp_path, tied=True)
    weights = load_file(tmp_path / "model.safetensors")
    head = weights["model.embed_tokens.weight"].clone()
    save_file({**weights, "lm_head.weight": head}, tmp_path / "model.safetensors")
    assert stored_lm_head(open_checkpoint(str(tmp_path))) is None
    head[59] += 1  # one trained token is enough
    save_file({**weights, "lm_head.weight": head}, tmp_path / "model.safetensors")
    files = open_checkpoint(str(tmp_path))
    assert stored_lm_head(files) == "lm_head.weight"
    assert stored_lm_head(files, [3, 4]) is None


def test_an_untied_model_without_a_head_is_an_error(tmp_path: Path) -> None:
    made("falcon", tmp_path, tied=True)
    with pytest.raises(CheckpointError, match="no LM head"):
        lm_head_rows(open_checkpoint(str(tmp_path)), TOKENS, tied=False)


@pytest.mark.parametrize("slug", ["rlhflow-prm", "dpo-implicit"])
def test_scores_do_not_change_where_a_config_calls_a_head_of_its_own_tied(slug: str, tmp_path: Path) -> None:
    golden = GoldenSet(slug, "own")
    case = golden.cases[0]
    untied = score_case(golden.load(golden.make(tmp_path / "untied")), case)[0]
    spec = copy.deepcopy(golden.spec)
    for part in spec["parts"].values() if golden.two_models else [spec]:
        part["config"]["tie_word_embeddings"] = True
    tied = golden.load(golden.make(tmp_path / "tied", spec))
    assert score_case(tied, case)[0] == pytest.approx(untied, abs=1e-6)
