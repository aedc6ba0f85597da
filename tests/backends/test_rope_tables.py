"""Rotary tables that depend on the length: each input has its own, as plain transformers gives it on a fresh model."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from base_models import OF_THE_CLASS, SIZES, backend_of, inputs_of
from golden_sets import GoldenSet, golden_sets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reward_hub import AutoRM
from reward_hub.backends.rope_tables import RopeTables, kept_tables

BOUND = 24
DYNAMIC = {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 1e4}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [4.0, 3.0, 2.0, 5.0],
    "original_max_position_embeddings": BOUND,
    "factor": 2.0,
    "rope_theta": 1e4,
}
PLAIN = {"rope_type": "default", "rope_theta": 1e4}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "dynamic": ("llama", {"rope_parameters": DYNAMIC}),
    "longrope": ("llama", {"rope_parameters": LONGROPE}),
    "dynamic in some layers": (
        "gemma3_text",
        {"rope_parameters": {"full_attention": DYNAMIC, "sliding_attention": PLAIN}},
    ),
    "longrope in some layers": (
        "gemma3_text",
        {"rope_parameters": {"full_attention": LONGROPE, "sliding_attention": PLAIN}},
    ),
    "dynamic, both directions": ("llama", {"rope_parameters": DYNAMIC, "is_causal": False}),
}
# Classes with tables of their own making in common use.
CLASSES = ("cohere", "gemma2", "glm", "gpt_neox", "granite", "mistral", "mixtral", "phi", "phi3", "qwen2", "qwen3")


def make(model_type: str, **values: Any) -> Any:
    """A random model in float64: batches are padded, and no rounding hides a difference."""
    torch.manual_seed(1)
    sizes = {**SIZES, **OF_THE_CLASS.get(model_type, {}), "max_position_embeddings": BOUND, **copy.deepcopy(values)}
    config = transformers.CONFIG_MAPPING[model_type](**sizes)
    if model_type == "gemma3_text":
        config.layer_types = ["full_attention", "sliding_attention"]
    return transformers.AutoModel.from_config(config, experts_implementation="eager").double().eval()


@functools.cache
def shared(name: str) -> Any:
    """A backend for many examples, whatever it has read before."""
    model_type, values = MODELS[name]
    fresh = make(model_type, **values)
    return fresh, backend_of(copy.deepcopy(fresh))


@functools.cache
def right(name: str, length: int) -> np.ndarray:
    """The input alone, by a model that has read nothing before."""
    fresh, backend = shared(name)
    (item,) = inputs_of(length)
    model = copy.deepcopy(fresh)
    with torch.inference_mode():
        states = model(torch.tensor([item.token_ids]), torch.ones(1, length, dtype=torch.long)).last_hidden_state[0]
    weight = torch.from_numpy(backend._weights["score.weight"])
    return (states[item.positions].float() @ weight.T).numpy()


@pytest.mark.parametrize("name", MODELS)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(calls=st.lists(st.lists(st.integers(BOUND - 6, BOUND + 12), min_size=1, max_size=6), min_size=1, max_size=3))
def test_each_input_has_the_table_of_its_own_length_whatever_was_read_before(name: str, calls: list[list[int]]) -> None:
    _, backend = shared(name)
    for lengths in calls:
        for length, output in zip(lengths, backend.read(inputs_of(*lengths)), strict=True):
            # transformers makes its tables in float32.
            np.testing.assert_allclose(output, right(name, length), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("model_type", "table"),
    [(name, table) for name in CLASSES for table in (DYNAMIC, LONGROPE) if (name, table) != ("phi3", DYNAMIC)],
    ids=lambda value: value if isinstance(value, str) else value["rope_type"],
)
def test_every_class_forgets_a_longer_input(model_type: str, table: dict[str, Any]) -> None:
    table = {**table, "partial_rotary_factor": 1.0}
    model = make(model_type, rope_parameters=table, original_max_position_embeddings=BOUND)
    assert RopeTables(model).change
    short, long = inputs_of(BOUND - 2), inputs_of(BOUND + 20)
    expected = [backend_of(copy.deepcopy(model)).read(items)[0] for items in (short, long)]
    backend = backend_of(model)
    for item, right in zip([*long, *short, *long], [expected[1], expected[0], expected[1]], strict=True):
        np.testing.assert_allclose(backend.read([item])[0], right, rtol=1e-5, atol=1e-5)
    for output, right in zip(backend.read([*short, *long]), expected, strict=True):
        np.testing.assert_allclose(output, right, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_what_was_read_before_changes_no_bit_in_any_dtype(name: str, dtype: torch.dtype) -> None:
    model_type, values = MODELS[name]
    backend = backend_of(make(model_type, **values).to(dtype))
    short, long = inputs_of(BOUND - 3, BOUND + 30)
    before = backend.read([short])[0]
    beside = backend.read([short, long])[0]
    np.testing.assert_array_equal(backend.read([short])[0], before)
    if dtype == torch.float32:
        np.testing.assert_array_equal(beside, before)


def test_lengths_with_the_same_table_may_share_a_batch() -> None:
    dynamic, longrope, plain = (
        RopeTables(make("llama", rope_parameters=table)) for table in (DYNAMIC, LONGROPE, PLAIN)
    )
    assert dynamic.key(3) == dynamic.key(BOUND) != dynamic.key(BOUND + 1) != dynamic.key(BOUND + 2)
    assert longrope.key(3) == longrope.key(BOUND) != longrope.key(BOUND + 1) == longrope.key(BOUND + 2)
    assert plain.key(3) == plain.key(BOUND + 2) and not plain.change
    of_its_own = RopeTables(make("llama", rope_parameters=PLAIN), foreign=True)
    assert of_its_own.key(3) != of_its_own.key(4)


def test_a_table_of_a_type_that_is_not_known_is_taken_to_change_with_every_length() -> None:
    model = make("llama", rope_parameters=PLAIN)
    model.rotary_emb.rope_type = "of next year"
    assert RopeTables(model).key(3) != RopeTables(model).key(4)


def test_a_probe_leaves_no_table_behind() -> None:
    model = make("llama", rope_parameters=DYNAMIC)
    before = model.rotary_emb.inv_freq.clone()
    with torch.inference_mode(), kept_tables(model):
        model(torch.ones(1, BOUND + 9, dtype=torch.long))
        assert not torch.equal(model.rotary_emb.inv_freq, before)
    assert torch.equal(model.rotary_emb.inv_freq, before)
    assert model.rotary_emb.max_seq_len_cached == BOUND


def test_tables_of_a_checkpoints_own_code_are_put_back_too() -> None:
    class Own(torch.nn.Module):
        """As InternLM2's code has it: the longest input so far decides."""

        def __init__(self) -> None:
            super().__init__()
            self.seen = 0
            self.register_buffer("inv_freq", torch.ones(3), persistent=False)

        def forward(self, length: int) -> torch.Tensor:
            if length > self.seen:
                self.seen = length
                self.register_buffer("inv_freq", torch.full((3,), 1.0 / length), persistent=False)
                self.late = torch.ones(1)
            return self.inv_freq

    module = Own()
    tables = RopeTables(torch.nn.Sequential(module), foreign=True)
    for length in (5, 9, 4):
        assert module(length).tolist() == pytest.approx([1.0 / length] * 3)
        tables.restore()
    assert (module.seen, module.inv_freq.tolist(), hasattr(module, "late")) == (0, [1.0, 1.0, 1.0], False)


def rotary_sets() -> list[GoldenSet]:
    """Every golden set whose config names rotary positions."""
    return [g for g in golden_sets("own") if '"rope_theta"' in json.dumps(g.spec)]


@pytest.mark.parametrize("golden", rotary_sets(), ids=str)
def test_every_family_scores_a_short_conversation_after_a_long_one_as_before_it(
    golden: GoldenSet, tmp_path: Path
) -> None:
    folder = golden.make(tmp_path / "m")
    for path in folder.rglob("config.json"):
        stored = json.loads(path.read_text())
        stored.pop("rope_parameters", None)
        # Sixteen tokens: every conversation is beyond them, a longer one further.
        stored |= {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 16}
        path.write_text(json.dumps(stored))
    rm: Any = golden.load(folder, max_length=4096)
    score = rm.score if rm.kind != "pairwise" else lambda **asked: rm.compare(prompt=asked["prompt"], a="4", b="5")
    short = {"prompt": "What is 2 + 2?", "response": "It is 4."}
    long = {"prompt": "What is 2 + 2? " * 9, "response": "It is 4.\n\nIt is."}
    before = score(**short)
    score(**long)
    assert score(**short) == before


def test_a_classifier_past_its_positions_scores_as_its_class_does(tmp_path: Path) -> None:
    folder = GoldenSet("seqcls-llama3", "own").make(tmp_path / "m")
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    stored.pop("rope_parameters", None)
    stored |= {"rope_scaling": {"type": "dynamic", "factor": 4.0}, "max_position_embeddings": 32}
    path.write_text(json.dumps(stored))
    rm: Any = AutoRM.load(folder, torch_dtype="float32", max_length=4096)
    conversations = [
        [{"role": "user", "content": "What is 2 + 2? " * n}, {"role": "assistant", "content": "4"}] for n in (9, 1, 4)
    ]
    from reward_hub.messages import parse

    for conversation, ours in zip(conversations, rm.score_batch(conversations), strict=True):
        tokens = rm.model.family.encode(parse(conversation), rm.model.setup)
        stock = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.inference_mode():
            expected = float(stock(torch.tensor([tokens.token_ids])).logits[0, 0])
        assert ours == pytest.approx(expected, abs=1e-5)
        assert rm.score(conversation) == pytest.approx(expected, abs=1e-5)
    assert rm.load_report["rotary_tables"] == "of each conversation's own length"


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_over_a_dynamic_table_forgets_a_longer_conversation(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    folder = GoldenSet("seqcls-qwen2", "own").make(tmp_path / "base")
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    stored.pop("rope_parameters", None)
    stored |= {"rope_scaling": {"type": "dynamic", "factor": 4.0}, "max_position_embeddings": 16}
    path.write_text(json.dumps(stored))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"]))
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.2)
    wrapped.save_pretrained(tmp_path / "adapter")
    merged = tmp_path / "merged"
    wrapped.merge_and_unload().save_pretrained(merged)
    for file in folder.glob("*token*"):
        shutil.copyfile(file, merged / file.name)
    # The probes that compare merged with kept adapters are longer than sixteen tokens themselves.
    rm: Any = AutoRM.load(folder, adapter=tmp_path / "adapter", torch_dtype="float32", max_length=4096)
    expected: Any = AutoRM.load(merged, torch_dtype="float32", max_length=4096)
    short = {"prompt": "2 + 2?", "response": "4"}
    before = expected.score(**short)
    assert rm.score(**short) == pytest.approx(before, abs=1e-4)
    rm.score(prompt="2 + 2? " * 30, response="4")
    assert rm.score(**short) == pytest.approx(before, abs=1e-4)
