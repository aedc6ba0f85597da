"""Logits and log-probabilities are those of the model's class: tiny random models against the class's own forward."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from golden_sets import OWN
from local_servers import VllmLike, local_server

from reward_hub import AutoRM, UnsupportedError
from reward_hub.backends.base import EngineOptions
from reward_hub.backends.class_logits import PLAIN, ClassLogits, class_logits
from reward_hub.backends.stock_config import stock_config
from reward_hub.backends.transformers import TransformersBackend
from reward_hub.checkpoints.files import TOKENIZER_FILES, open_checkpoint
from reward_hub.reads import Read, TokenLogits, TokenLogprobs
from reward_hub.types import TokenInput

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 640,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    # Large enough that caps and scales show in the outputs.
    "initializer_range": 0.4,
}
# What stands behind the LM head; a value of each class's own where it has one.
BEHIND: dict[str, dict[str, Any]] = {
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 4.0},
    "gemma2": {"final_logit_softcapping": 2.0},
    "gemma3_text": {"final_logit_softcapping": 2.0},
    "granite": {"logits_scaling": 5.0},
    "granitemoe": {"logits_scaling": 0.2, "num_local_experts": 4, "num_experts_per_tok": 2},
    "hyperclovax": {"logits_scaling": 3.0},
    "minicpm3": {
        "num_key_value_heads": 4,
        "dim_model_base": 8,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_nope_head_dim": 4,
        "qk_rope_head_dim": 4,
    },
    "nanochat": {"final_logit_softcapping": 2.0},
}
UNCHANGED: dict[str, dict[str, Any]] = {
    **{name: {} for name in (*PLAIN, "gpt_neox", "gpt2", "glm", "olmo2", "opt", "phi", "starcoder2")},
    "gemma2": {"final_logit_softcapping": None},
    "granite": {"logits_scaling": 1.0},
}
CHOSEN = (5, 9, 600)
INPUTS = [TokenInput([(7 * i * i + 3 * n) % 600 + 3 for i in range(n)], [1, n // 2, n - 1]) for n in (5, 12, 40)]


def require(model_type: str) -> None:
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")


def make(model_type: str, folder: Path, **values: Any) -> Path:
    """A tiny random language model with a tokenizer beside it."""
    torch.manual_seed(3)
    config = transformers.CONFIG_MAPPING[model_type](**{**SIZES, **values})
    transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (source := OWN / "rlhflow-prm" / name).is_file():
            shutil.copyfile(source, folder / name)
    return folder


def read(folder: Path, question: Read) -> list[np.ndarray]:
    backend = TransformersBackend.load(
        open_checkpoint(str(folder)),
        question,
        backbone=None,
        tokenizer=None,  # type: ignore[arg-type]
        options=EngineOptions(torch_dtype="float32"),
    )
    return backend.read(INPUTS)


def own_logits(folder: Path) -> list[torch.Tensor]:
    """[n_tokens, vocabulary] of each input, by the class itself; sdpa skips Gemma-2's cap on attention before 5.23."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.inference_mode():
        return [model(torch.tensor([item.token_ids])).logits[0] for item in INPUTS]


@pytest.mark.parametrize(("model_type", "values"), [*BEHIND.items(), *sorted(UNCHANGED.items())])
def test_logits_are_those_of_the_class(model_type: str, values: dict[str, Any], tmp_path: Path) -> None:
    require(model_type)
    folder = make(model_type, tmp_path, **values)
    own = own_logits(folder)
    # Two orders of summing thirty-two float32 products.
    close = {"rtol": 1e-5, "atol": 2e-5 * max(float(table.abs().max()) for table in own)}
    for item, table, logits in zip(INPUTS, own, read(folder, TokenLogits(CHOSEN)), strict=True):
        np.testing.assert_allclose(logits, table[item.positions][:, CHOSEN].numpy(), **close)
    for item, table, logprobs in zip(INPUTS, own, read(folder, TokenLogprobs()), strict=True):
        ids = torch.tensor(item.token_ids)
        expected = torch.log_softmax(table, -1)[:-1].gather(1, ids[1:, None])
        np.testing.assert_allclose(logprobs, expected[[p - 1 for p in item.positions]].numpy(), **close)


@pytest.mark.parametrize("model_type", sorted(BEHIND))
def test_what_stands_behind_the_head_is_seen(model_type: str) -> None:
    require(model_type)
    config = stock_config({"model_type": model_type, **SIZES, **BEHIND[model_type]})
    assert not class_logits(config).plain


@pytest.mark.parametrize("model_type", sorted(PLAIN))
def test_the_types_known_without_torch_are_plain_whatever_their_config_says(model_type: str) -> None:
    every = {name: value for values in BEHIND.values() for name, value in values.items()}
    assert class_logits(stock_config({"model_type": model_type, **SIZES, **every})).plain


def test_a_cap_leaves_no_logit_beyond_it_and_orders_them_as_before() -> None:
    logits = class_logits(stock_config({"model_type": "gemma2", **SIZES, "final_logit_softcapping": 30.0}))
    outputs = np.array([[40.0, 10.0, -1000.0]], np.float32)
    np.testing.assert_allclose(logits(outputs), 30 * np.tanh(outputs / 30), rtol=1e-6)
    plain = class_logits(stock_config({"model_type": "gemma2", **SIZES, "final_logit_softcapping": None}))
    assert plain(outputs) is outputs


def test_no_position_gives_no_row() -> None:
    logits = class_logits(stock_config({"model_type": "granite", **SIZES, "logits_scaling": 4.0}))
    assert logits(np.zeros((0, 3), np.float32)).shape == (0, 3)


def test_step_scores_are_of_capped_logits(tmp_path: Path) -> None:
    """A process reward model over Gemma-2: the softmax of the class's own logits of '+' and '-'."""
    folder = make("gemma2", tmp_path, final_logit_softcapping=2.0)
    rm: Any = AutoRM.load(folder, family="rlhflow-prm", torch_dtype="float32")
    steps = ["2 + 2 is 4.", "So the answer is 4."]
    scores = rm.score_steps(prompt="What is 2 + 2?", response="\n\n".join(steps))
    tokens = rm.model.family.encode(_conversation(steps), rm.model.setup)
    # Older releases take sdpa by default, which leaves out the cap on attention.
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.inference_mode():
        table = model(torch.tensor([tokens.token_ids])).logits[0][tokens.positions]
    chosen = [rm.model.setup.tokenizer.single_id(token) for token in "+-"]
    assert scores == pytest.approx(torch.softmax(table[:, chosen], -1)[:, 0].tolist(), abs=1e-5)


def _conversation(steps: list[str]) -> Any:
    from reward_hub.messages import parse_steps

    turns = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "\n\n".join(steps)}]
    return parse_steps(turns, steps=steps, step_delimiter="\n\n")


@pytest.mark.parametrize("task", ["token_classify", "token_embed"])
def test_a_server_gives_the_head_s_outputs_and_the_class_does_the_rest(tmp_path: Path, task: str) -> None:
    """Granite behind a vLLM server, which divides nothing by itself."""
    folder = make("granite", tmp_path, logits_scaling=5.0)
    local: Any = AutoRM.load(folder, family="rlhflow-prm", torch_dtype="float32")
    asked = {"prompt": "What is 2 + 2?", "response": "2 + 2 is 4.\n\nSo 4."}
    with local_server(VllmLike(local, task)) as server:
        rm = AutoRM.load("rm", "api", api_base=server.address, checkpoint=folder, family="rlhflow-prm")
        assert rm.score_steps(**asked) == pytest.approx(local.score_steps(**asked), abs=2e-5)
        rm.close()


def test_a_class_that_does_something_before_its_head_is_refused(tmp_path: Path) -> None:
    config = transformers.BertConfig(**{**SIZES, "is_decoder": True})
    with pytest.raises(UnsupportedError, match="BertLMHeadModel"):
        class_logits(config)


@pytest.mark.parametrize("fault", ["mixes tokens", "by token id"])
def test_a_class_that_treats_tokens_differently_is_refused(fault: str) -> None:
    class Odd(transformers.LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            outputs = super().forward(*args, **kwargs)
            width = outputs.logits.shape[-1]
            shift = outputs.logits.mean(-1, keepdim=True) if fault == "mixes tokens" else torch.arange(width) * 0.1
            outputs.logits = outputs.logits + shift
            return outputs

    with torch.device("meta"):
        model = Odd(transformers.LlamaConfig(**SIZES))
    with pytest.raises(UnsupportedError, match="Odd"):
        ClassLogits(model)


def test_log_probabilities_of_such_a_class_come_from_its_whole_forward(tmp_path: Path) -> None:
    config = transformers.BertConfig(**{**SIZES, "is_decoder": True, "tie_word_embeddings": True})
    torch.manual_seed(0)
    transformers.BertLMHeadModel(config).save_pretrained(tmp_path)
    own = own_logits(tmp_path)
    for item, table, logprobs in zip(INPUTS, own, read(tmp_path, TokenLogprobs()), strict=True):
        expected = torch.log_softmax(table, -1)[[p - 1 for p in item.positions]]
        chosen = torch.tensor([[item.token_ids[p]] for p in item.positions])
        np.testing.assert_allclose(logprobs, expected.gather(1, chosen).numpy(), atol=1e-5)


def test_without_torch_only_plain_types_are_read_from_a_server() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from reward_hub.backends.class_logits import logits_of\n"
        "from reward_hub.errors import UnsupportedError\n"
        "assert logits_of({'model_type': 'llama'})([1.0]) == [1.0]\n"
        "try: logits_of({'model_type': 'granite'})\n"
        "except UnsupportedError as error: print(error)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'granite'" in printed
    assert "pip install 'reward_hub[transformers]'" in printed
