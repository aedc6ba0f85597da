"""Padding is never assumed to be invisible: what a model is sent is held to the conversation alone, over many classes.

Models compute in float64 here: their batches are padded as in half precision, and no rounding hides a difference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from base_models import DECODERS, SIZES, backend_of, inputs_of, model_types, tiny_model
from golden_sets import GoldenSet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reward_hub import AutoRM
from reward_hub.backends.causality import padding_of
from reward_hub.backends.packing.check import packing_of
from reward_hub.types import TokenInput

NOT_CAUSAL = {"is_causal": False}
BOTH_DIRECTIONS = {"use_bidirectional_attention": True}
# The last is read by few classes.
FORMS = [
    *((name, values) for values in ({}, NOT_CAUSAL) for name in model_types()),
    *((name, BOTH_DIRECTIONS) for name in DECODERS),
]


def sees_behind(model: Any) -> bool:
    """Whether a token's vector changes with what follows: the beginning alone against the whole."""
    ids = torch.tensor([inputs_of(20)[0].token_ids])
    with torch.inference_mode():
        whole = model(input_ids=ids).last_hidden_state[:, :9]
        beginning = model(input_ids=ids[:, :9]).last_hidden_state
    return not torch.allclose(whole, beginning, atol=1e-3)


@pytest.mark.parametrize(("model_type", "values"), FORMS, ids=lambda value: str(value))
def test_a_conversation_beside_longer_ones_is_what_it_is_alone(model_type: str, values: dict[str, Any]) -> None:
    model = tiny_model(model_type, **values)
    if model.config.is_encoder_decoder:
        pytest.skip("it is sent masks in any case")
    padding = padding_of(model, encoder=False)
    assert padding.masked == sees_behind(model), padding.reason
    backend = backend_of(model, padding)
    inputs = inputs_of(5, 23, 9, 30)
    for together, item in zip(backend.read(inputs), inputs, strict=True):
        # Classes compute some parts in float32 whatever their dtype.
        np.testing.assert_allclose(together, backend.read([item])[0], rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", model_types())
def test_a_packed_conversation_is_what_it_is_alone(model_type: str) -> None:
    model = tiny_model(model_type).float()
    packing = packing_of(model, torch.device("cpu"))
    if packing.reason is not None or model.config.is_encoder_decoder or padding_of(model, encoder=False).masked:
        pytest.skip(f"it is not packed: {packing.reason}")
    alone = backend_of(model)
    shared = inputs_of(40)[0].token_ids
    inputs = inputs_of(5, 23, 9)
    for n in (40, 33):
        inputs += [TokenInput([*shared[:n], *item.token_ids], [n, n + 4]) for item in inputs_of(5, 7)]
    for together, item in zip(backend_of(model, packing=packing).read(inputs), inputs, strict=True):
        np.testing.assert_allclose(together, alone.read([item])[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_decoder_is_shown_to_be_causal_in_every_dtype_and_mixes_lengths(model_type: str) -> None:
    model = tiny_model(model_type)
    for dtype in (torch.float32, torch.bfloat16):
        padding = padding_of(model.to(dtype), encoder=False)
        assert (padding.masked, padding.mixed, padding.reason) == (False, True, "causal: shown at load")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3", "mixtral"])
def test_a_decoder_that_attends_in_both_directions_is_sent_masks(model_type: str, dtype: torch.dtype) -> None:
    padding = padding_of(tiny_model(model_type, is_causal=False).to(dtype), encoder=False)
    assert padding.masked and "looks ahead" in padding.reason


@pytest.mark.parametrize("block", [2, 3, 4, 7, 8, 11, 16, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_decoder_that_sees_to_the_end_of_its_block_is_not_causal(block: int, dtype: torch.dtype) -> None:
    class Blocks(transformers.LlamaModel):
        def forward(self, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
            place = torch.arange(input_ids.shape[1]) // block
            allowed = place[:, None] >= place[None, :]
            mask = torch.zeros(allowed.shape, dtype=self.dtype).masked_fill(~allowed, torch.finfo(self.dtype).min)
            return super().forward(input_ids=input_ids, attention_mask=mask[None, None], **kwargs)

    Blocks.__module__ = transformers.LlamaModel.__module__
    torch.manual_seed(0)
    model = Blocks(transformers.LlamaConfig(**SIZES)).eval().to(dtype)
    padding = padding_of(model, encoder=False)
    assert padding.masked and not padding.mixed, padding.reason


def test_code_of_a_checkpoints_own_is_sent_masks_and_batches_of_one_length() -> None:
    class Own(transformers.LlamaModel):
        pass

    padding = padding_of(Own(transformers.LlamaConfig(**SIZES)).eval(), encoder=False)
    assert padding.masked and not padding.mixed


def test_a_model_whose_weights_lie_elsewhere_is_sent_masks() -> None:
    with torch.device("meta"):
        model = transformers.LlamaModel(transformers.LlamaConfig(**SIZES))
    padding = padding_of(model.eval(), encoder=False)
    assert padding.masked and padding.mixed


def test_a_model_that_cannot_be_probed_is_sent_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    monkeypatch.setattr(model, "forward", lambda **_: 1 / 0)
    padding = padding_of(model, encoder=False)
    assert padding.masked and not padding.mixed and "not shown to be causal" in padding.reason


def test_fewer_positions_than_the_probe_has_tokens_do_not_break_it() -> None:
    assert not padding_of(tiny_model("gpt2", max_position_embeddings=12), encoder=False).masked


@pytest.mark.parametrize("slug", ["seqcls-qwen2", "seqcls-llama3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_classifier_in_both_directions_scores_as_its_class_alone(slug: str, dtype: str, tmp_path: Path) -> None:
    golden = GoldenSet(slug, "own")
    folder = golden.make(tmp_path / "m")
    config = transformers.AutoConfig.from_pretrained(folder)
    config.is_causal = False
    config.save_pretrained(folder)
    rm: Any = AutoRM.load(folder, torch_dtype=dtype)
    long = [{"role": "user", "content": "How many legs do two cats have? " * 9}, {"role": "assistant", "content": "8"}]
    short = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    stock = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    tokens = rm.model.family.encode(_conversation(short), rm.model.setup)
    with torch.inference_mode():
        right = float(stock(torch.tensor([tokens.token_ids]), torch.ones(1, len(tokens.token_ids))).logits[0, 0])
    # In bfloat16 a batch of another shape rounds otherwise; what padding does if it is seen is 20 times that.
    close = {"float32": 1e-5, "bfloat16": 0.1}[dtype]
    assert rm.score(short) == pytest.approx(right, abs=close)
    assert rm.score_batch([short, long])[0] == pytest.approx(right, abs=close)
    assert "masks are sent" in rm.load_report["padding"]


def _conversation(messages: list[dict[str, str]]) -> Any:
    from reward_hub.messages import parse

    return parse(messages)


def test_the_log_says_what_was_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = GoldenSet("seqcls-qwen2", "own").make(tmp_path / "m")
    with caplog.at_level("DEBUG", logger="reward_hub"):
        rm: Any = AutoRM.load(folder)
    assert "causal: shown at load" in caplog.text
    assert rm.load_report["padding"] == "causal: shown at load"


@pytest.mark.parametrize("odd", [{"use_cache": True, "return_dict": False}, {"return_dict": False}])
@pytest.mark.parametrize("slug", ["seqcls-llama3", "rlhflow-prm", "dpo-implicit"])
def test_how_a_config_wants_its_outputs_changes_nothing(slug: str, odd: dict[str, Any], tmp_path: Path) -> None:
    import json

    golden = GoldenSet(slug, "own")
    scores = []
    for place, changes in (("plain", {}), ("odd", odd)):
        folder = golden.make(tmp_path / place)
        for path in folder.rglob("config.json"):
            path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        rm: Any = golden.load(folder)
        asked = {"prompt": "What is 2 + 2?", "response": "It is 4."}
        scores.append(rm.score(**asked))
    assert scores[0] == scores[1]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(2, 60), min_size=1, max_size=8), st.sampled_from(["gemma", "gemma3_text", "llama"]))
def test_no_mix_of_lengths_changes_a_score(lengths: list[int], model_type: str) -> None:
    """Gemma with `use_bidirectional_attention` is causal where a mask hides something, and not where none does."""
    values = {"is_causal": False} if model_type == "llama" else {"use_bidirectional_attention": True}
    backend = backend_of(tiny_model(model_type, **values))
    inputs = inputs_of(*lengths)
    for together, item in zip(backend.read(inputs), inputs, strict=True):
        np.testing.assert_allclose(together, backend.read([item])[0], rtol=1e-4, atol=1e-3)
