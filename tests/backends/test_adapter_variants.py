"""An adapter means what PEFT means by it: the scores are those of PEFT's own model, whatever the adapter changes."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from golden_sets import GoldenSet, score_case
from safetensors.torch import load_file, save_file

from reward_hub import AutoRM, CheckpointError, UnknownModelError, UnsupportedError
from reward_hub.backends import adapters, transformers_loading
from reward_hub.backends.adapters import NotEqualError

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning",  # peft on transformers 5
    "ignore:.*tie_word_embeddings:UserWarning",  # peft, of the very thing that is tested
    "ignore:Setting `save_embedding_layers`:UserWarning",
)

CLASSIFIER = GoldenSet("seqcls-qwen2", "own")
FULL = "model.layers.0.self_attn.q_proj"
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["q_proj", "down_proj"]},
    "full names": {"target_modules": [FULL, "model.layers.1.mlp.up_proj"]},
    "regular expression": {"target_modules": r".*\bmodel\.layers\.[\d]+\.(self_attn|mlp)\.(q_proj|v_proj)"},
    "every linear layer": {"target_modules": "all-linear"},
    "some layers": {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    "layers of a pattern": {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"},
    "left out": {"target_modules": ["q_proj", "v_proj"], "exclude_modules": [FULL]},
    "ranks": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}},
    "alphas": {"target_modules": ["q_proj", "v_proj"], "alpha_pattern": {FULL: 64, "v_proj": 1}},
    "rank-stabilised": {"target_modules": ["q_proj"], "use_rslora": True, "rank_pattern": {FULL: 8}},
    "DoRA": {"target_modules": ["q_proj", "v_proj"], "use_dora": True},
    "biases": {"target_modules": ["q_proj"], "bias": "all"},
    "biases of its layers": {"target_modules": ["q_proj"], "bias": "lora_only"},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "embeddings in full": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "score"]},
    "LoRA on the head": {"target_modules": ["q_proj", "score"], "task_type": None},
    "a norm in full": {"target_modules": ["q_proj"], "modules_to_save": ["norm", "score"]},
}


def train(model: Any, folder: Path, *, scale: float = 0.2, **lora: Any) -> Any:
    """PEFT's model with random weights wherever the adapter would be trained, saved."""
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, **lora})
    wrapped = peft.get_peft_model(model, config)
    random = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in (w for w in wrapped.parameters() if w.requires_grad):
            weight.copy_(torch.randn(weight.shape, generator=random) * scale)
    wrapped.eval().save_pretrained(folder)
    return wrapped


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return CLASSIFIER.make(tmp_path / "base")


def classifier(base: Path) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32)


def score_by_peft(model: Any, token_ids: list[int]) -> float:
    model.config.pad_token_id = -1
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([token_ids])).logits[0, 0])


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_scores_are_those_of_peft(
    name: str, merged: bool, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = train(classifier(base), tmp_path / "adapter", **{"task_type": "SEQ_CLS", **VARIANTS[name]})
    if not merged:
        apply = transformers_loading.apply_adapter
        monkeypatch.setattr(
            transformers_loading,
            "apply_adapter",
            lambda *args, merge: apply(*args, merge=False),
        )
    rm = AutoRM.load(base, "transformers", adapter=tmp_path / "adapter", torch_dtype="float32")
    for case in CLASSIFIER.cases[:2]:
        expected = score_by_peft(model, case["input_ids"])
        assert rm.score(case["messages"]) == pytest.approx(expected, abs=1e-4)


SMALL = 0.05  # as large as trained ones are beside the base's weights


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["plain", "regular expression", "rank-stabilised", "DoRA", "embeddings"])
def test_an_ordinary_adapter_is_merged(
    name: str, dtype: str, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(classifier(base), tmp_path / "adapter", scale=SMALL, **{"task_type": "SEQ_CLS", **VARIANTS[name]})
    with caplog.at_level("INFO", logger="reward_hub"):
        AutoRM.load(base, "transformers", adapter=tmp_path / "adapter", torch_dtype=dtype)
    assert "is merged into the weights" in caplog.text


@pytest.mark.parametrize("name", VARIANTS)
def test_half_precision_is_no_farther_from_float32_than_with_the_adapter_beside_it(
    name: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Merged or not: the distance that the probe allows, plus what other tokens than the probe's may differ by."""
    model = train(classifier(base), tmp_path / "adapter", **{"task_type": "SEQ_CLS", **VARIANTS[name]})
    trained = ("lora_", "modules_to_save")
    with torch.no_grad():
        for part, weight in model.named_parameters():
            if not any(word in part for word in trained):
                weight.copy_(weight.bfloat16())  # the base as it is loaded

    def hidden(backbone: Any) -> torch.Tensor:
        with torch.no_grad():
            rows = [backbone(input_ids=torch.tensor([case["input_ids"]]))[0][0].float() for case in CLASSIFIER.cases]
        return torch.cat(rows)

    exact = hidden(model.base_model.model.model)
    apply = transformers_loading.apply_adapter
    loaded = AutoRM.load(base, "transformers", adapter=tmp_path / "adapter", torch_dtype="bfloat16")
    monkeypatch.setattr(transformers_loading, "apply_adapter", lambda *args, merge: apply(*args, merge=False))
    beside = AutoRM.load(base, "transformers", adapter=tmp_path / "adapter", torch_dtype="bfloat16")
    far = [float((hidden(rm.model.backend.model) - exact).square().mean().sqrt()) for rm in (loaded, beside)]
    assert far[0] <= 1.25 * far[1]


def test_an_adapter_that_rounding_would_eat_is_kept_in_half_precision(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Changes of every layer that are as large as its weights lose a bit of either in the sum."""
    train(classifier(base), tmp_path / "adapter", task_type="SEQ_CLS", target_modules="all-linear")
    with caplog.at_level("INFO", logger="reward_hub"):
        AutoRM.load(base, "transformers", adapter=tmp_path / "adapter", torch_dtype="bfloat16")
    assert "standard deviations from float32, kept adapters" in caplog.text
    assert "is kept beside the weights" in caplog.text


def test_a_probe_in_float32_leaves_the_model_as_it_was() -> None:
    small = {"vocab_size": 64, "num_layers": 1, "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48}
    heads = {"num_heads": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    t5 = transformers.T5Config(**small, **heads, d_model=32, d_kv=16, d_ff=48, decoder_start_token_id=0)
    qwen = transformers.Qwen2Config(**small, **heads)
    for model in (transformers.T5ForConditionalGeneration(t5), transformers.Qwen2ForCausalLM(qwen)):
        model.to(torch.bfloat16).eval()
        adapters._probe(model)
        before = {name: (weight, weight.clone()) for name, weight in model.named_parameters()}
        hooks = [(list(m._forward_pre_hooks), list(m._forward_hooks)) for m in model.modules()]
        found = adapters._probe_in_float32(model)
        for name, weight in model.named_parameters():
            assert weight is before[name][0]
            assert weight.dtype == torch.bfloat16
            assert torch.equal(weight, before[name][1])
        assert [(list(m._forward_pre_hooks), list(m._forward_hooks)) for m in model.modules()] == hooks
        expected = adapters._probe(copy.deepcopy(model).float())
        assert len(found) == len(expected) == 2  # the vectors that the LM head is given, and its logits
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_an_adapter_is_kept_where_merged_weights_give_other_numbers(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = train(classifier(base), tmp_path / "adapter", task_type="SEQ_CLS", target_modules=["q_proj"])

    def never_equal(*_: Any) -> None:
        raise NotEqualError("they differ")

    monkeypatch.setattr("reward_hub.backends.adapters._require_equal", never_equal)
    rm = AutoRM.load(base, "transformers", adapter=tmp_path / "adapter", torch_dtype="float32")
    case = CLASSIFIER.cases[0]
    assert rm.score(case["messages"]) == pytest.approx(score_by_peft(model, case["input_ids"]), abs=1e-5)
    assert rm.load_report["adapter"] == "kept beside the weights"


@pytest.mark.parametrize("renamed", ["score.modules_to_save.weight", "score.modules_to_save.default.weight"])
def test_old_names_of_a_trained_head_are_read(renamed: str, base: Path, tmp_path: Path) -> None:
    model = train(classifier(base), tmp_path / "adapter", task_type="SEQ_CLS", target_modules=["q_proj"])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    head = tensors.pop("base_model.model.score.weight")
    untrained = {"base_model.model.score.original_module.weight": torch.zeros_like(head)}
    save_file({**tensors, **untrained, f"base_model.model.{renamed}": head}, file, metadata={"format": "pt"})
    rm = AutoRM.load(base, "transformers", adapter=tmp_path / "adapter", torch_dtype="float32")
    case = CLASSIFIER.cases[0]
    assert rm.score(case["messages"]) == pytest.approx(score_by_peft(model, case["input_ids"]), abs=1e-4)


@pytest.mark.parametrize("change", ["no head", "a LoRA weight missing", "a weight of no layer", "no such layers"])
def test_an_adapter_that_does_not_fit_is_an_error(change: str, base: Path, tmp_path: Path) -> None:
    train(classifier(base), tmp_path / "adapter", task_type="SEQ_CLS", target_modules=["q_proj"])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    lora = next(name for name in tensors if "lora_A" in name)
    if change == "no head":
        del tensors["base_model.model.score.weight"]
    elif change == "a LoRA weight missing":
        del tensors[lora]
    elif change == "a weight of no layer":
        tensors[lora.replace("q_proj", "k_proj")] = tensors[lora].clone()
    else:
        tensors = {name.replace("self_attn", "attention"): tensor for name, tensor in tensors.items()}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="adapter"):
        AutoRM.load(base, "transformers", adapter=tmp_path / "adapter", torch_dtype="float32")


# Language models


LM_VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["q_proj", "v_proj"]},
    "LoRA on the LM head": {"target_modules": ["q_proj", "lm_head"]},
    "LoRA on the embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "the LM head in full": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "the embeddings in full": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
}


def language_model(golden: GoldenSet, folder: Path, *, tied: bool) -> Path:
    """The set's checkpoint (its policy, of two models), its LM head tied to the embeddings or not."""
    spec = copy.deepcopy(golden.spec)
    golden.make(folder, spec)
    place = folder / "policy" if golden.two_models else folder
    config = json.loads((place / "config.json").read_text())
    if tied:
        file = place / "model.safetensors"
        tensors = load_file(file)
        del tensors["lm_head.weight"]
        save_file(tensors, file, metadata={"format": "pt"})
    (place / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": tied}))
    return place


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", LM_VARIANTS)
@pytest.mark.parametrize("slug", ["rlhflow-prm", "dpo-implicit"])
def test_a_language_models_adapter_is_read_as_peft_reads_it(slug: str, name: str, tied: bool, tmp_path: Path) -> None:
    golden = GoldenSet(slug, "own")
    place = language_model(golden, tmp_path / "base", tied=tied)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    model = train(model, tmp_path / "adapter", task_type="CAUSAL_LM", **LM_VARIANTS[name])
    # What PEFT makes of it, as one plain model: the LM head and the embeddings each by themselves.
    whole = model.base_model.model
    untied = copy.deepcopy(whole)
    untied.lm_head = copy.deepcopy(untied.lm_head)
    plain = peft_merged(untied)
    case = golden.cases[0]
    with torch.no_grad():
        ids = torch.arange(1, 40)[None]
        assert torch.allclose(plain(input_ids=ids).logits, model(input_ids=ids).logits, atol=2e-4)
    plain.config.tie_word_embeddings = False
    merged = tmp_path / "merged"
    shutil.copytree(place, merged)
    save_file(
        {n: t.contiguous().clone() for n, t in plain.state_dict().items()},
        merged / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((merged / "config.json").read_text())
    (merged / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))

    def score(folder: Path, **options: Any) -> Any:
        if golden.two_models:
            options |= {"reference": str(tmp_path / "base" / "reference"), "beta": 1.0}
        rm = AutoRM.load(folder, "transformers", family=golden.family, torch_dtype="float32", **options)
        return score_case(rm, case)[0]

    assert score(place, adapter=str(tmp_path / "adapter")) == pytest.approx(score(merged), abs=1e-3)


def peft_merged(whole: Any) -> Any:
    """PEFT's layers as plain ones, each merged by itself."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    for name, module in list(whole.named_modules()):
        if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)):
            if isinstance(module, ModulesToSaveWrapper):
                plain = copy.deepcopy(module.modules_to_save["default"])
            else:
                alone = copy.deepcopy(module)
                alone.merge()
                plain = alone.get_base_layer()
            parent, _, last = name.rpartition(".")
            setattr(whole.get_submodule(parent), last, plain)
    return whole


def test_a_base_that_an_adapter_names_is_opened_at_the_revision_it_names(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(classifier(base), tmp_path / "adapter", task_type="SEQ_CLS", target_modules=["q_proj"])
    file = tmp_path / "adapter" / "adapter_config.json"
    stored = {**json.loads(file.read_text()), "base_model_name_or_path": "org/base", "revision": "v1.2"}
    file.write_text(json.dumps(stored))
    asked = []

    def no_hub(name: str, *, revision: str | None = None, **_: Any) -> Any:
        asked.append((name, revision))
        raise UnknownModelError("not here")

    monkeypatch.setattr("reward_hub.checkpoints.hub.resolve", no_hub)
    with pytest.raises(UnknownModelError):
        AutoRM.load(tmp_path / "adapter", "transformers")
    assert asked == [("org/base", "v1.2")]


def test_an_adapter_that_opens_others_by_their_place_is_refused(golden_models: Any, tmp_path: Path) -> None:
    base = golden_models.checkpoint(CLASSIFIER)
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")
    config = {"peft_type": "XLORA", "adapters": {"0": str(tmp_path)}, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UnsupportedError, match="made of further adapters"):
        AutoRM.load(base, "transformers", adapter=folder)
