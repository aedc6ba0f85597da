"""Recipes that look alike on disk: told by their mark, refused by name, or taken with a warning."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from golden_sets import GoldenModels, GoldenSet, golden_sets
from hub_server import HubServer
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from reward_hub import AutoRM, RewardHubError, UnknownModelError, registry
from reward_hub.loading.lookalikes import LOOKALIKES

INTERNLM2 = GoldenSet("internlm2-reward", "own")
QWEN3 = GoldenSet("seqcls-qwen3", "own")
ONE_MODEL = [golden for golden in golden_sets("own") if golden.registered and not golden.two_models]
DECIDABLE = [golden for golden in ONE_MODEL if golden.decidable]
PAIR = [{"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "4"}]
# Heads of one linear layer, as training tools and families call them.
HEADS = ("score", "v_head", "value_head", "regression_head", "reward_head", "rm_head", "score_head", "classifier")


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Ours alone: transformers has some that it says once a process."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("reward_hub")]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# -- internlm2-reward and POLAR --------------------------------------------------------------------------------------


def with_reward_token(folder: Path, token: str) -> Path:
    """The golden checkpoint with its reward token under another name."""
    INTERNLM2.make(folder)
    path = folder / "tokenizer_config.json"
    tokens = json.loads(path.read_text())["added_tokens_decoder"]
    tokens[str(INTERNLM2.spec["config"]["reward_token_id"])]["content"] = token
    edit(path, added_tokens_decoder=tokens)
    return folder


def test_the_name_of_the_reward_token_tells_internlm2_reward(tmp_path: Path) -> None:
    found = AutoRM.inspect(with_reward_token(tmp_path / "m", "<|reward|>"))
    assert found["family"] == "internlm2-reward"
    assert "<|reward|>" in found["why"]


def test_a_polar_checkpoint_is_refused_by_name_until_a_family_is_said(tmp_path: Path) -> None:
    folder = with_reward_token(tmp_path / "m", "[UNUSED_TOKEN_130]")
    with pytest.raises(UnknownModelError, match=r"POLAR.*demonstration.*family=") as caught:
        AutoRM.load(str(folder))
    assert "[UNUSED_TOKEN_130]" in str(caught.value)
    assert caught.value.near == ("internlm2-reward", "polar")
    assert AutoRM.inspect(folder, family="internlm2-reward")["why"] == "family= said so"


@pytest.mark.parametrize("changes", [{"reward_token_id": 5}, {"reward_token_id": 10**6}, {"reward_token_id": None}])
def test_a_value_head_on_internlm2_with_neither_token_names_both(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = INTERNLM2.make(tmp_path / "m")
    edit(folder / "config.json", **changes)
    with pytest.raises(UnknownModelError, match="internlm2-reward or polar") as caught:
        AutoRM.inspect(folder)
    assert caught.value.near == ("internlm2-reward", "polar")
    assert "reward" in str(caught.value) and "family=" in str(caught.value)


def test_the_mark_is_looked_for_in_the_tokenizer_that_is_given(tmp_path: Path) -> None:
    folder = with_reward_token(tmp_path / "m", "[UNUSED_TOKEN_130]")
    assert AutoRM.load(str(folder), tokenizer=str(INTERNLM2.tokenizer)).family == "internlm2-reward"


def test_a_recipe_of_the_table_is_taken_as_soon_as_there_is_a_family_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = registry.family_named("internlm2-reward")
    monkeypatch.setattr(registry.FAMILIES, "registered", {})
    registry.register_family(replace(known, name="polar", checkpoints=(), matches=lambda *_: False))
    assert AutoRM.inspect(with_reward_token(tmp_path / "m", "[UNUSED_TOKEN_130]"))["family"] == "polar"


# -- Qwen3 classifiers and rerankers made into one -------------------------------------------------------------------


def reranker(
    folder: Path, *, rows: int = 1, dtype: torch.dtype = torch.float32, drift: float = 0.0, **config: Any
) -> Path:
    """A Qwen3 classifier whose head is made of the rows of "yes" and "no", moved by `drift` of its length."""
    spec = copy.deepcopy(QWEN3.spec)
    size = spec["config"]["vocab_size"] + 2
    spec["config"]["vocab_size"] = size
    spec["files"]["model.safetensors"]["model.embed_tokens.weight"]["shape"][0] = size
    QWEN3.make(folder, spec)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens(["no", "yes"])
    tokenizer.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    no, yes = tensors["model.embed_tokens.weight"][tokenizer.convert_tokens_to_ids(["no", "yes"])]
    made = torch.stack([no, yes]) if rows == 2 else (yes - no)[None]
    random = torch.randn(made.shape, generator=torch.Generator().manual_seed(1))
    tensors["score.weight"] = made + drift * random * made.norm() / random.norm()
    stored = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", id2label={str(i): f"LABEL_{i}" for i in range(rows)}, **config)
    return folder


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"dtype": torch.bfloat16},
        {"dtype": torch.float16, "rows": 2},
        {"drift": 0.1},
        {"drift": 9.0, "rows": 2, "labels": {"0": "no", "1": "yes"}},
        {"drift": 9.0, "labels": {"0": "Yes"}},
        {"drift": 9.0, "is_original_qwen3_reranker": True},
        {"drift": 9.0, "classifier_from_token": ["no", "yes"]},
    ],
    ids=str,
)
def test_a_reranker_made_into_a_classifier_is_refused_by_name(form: dict[str, Any], tmp_path: Path) -> None:
    labels = form.pop("labels", None)
    folder = reranker(tmp_path / "m", **form)
    if labels:
        edit(folder / "config.json", id2label=labels)
    for load in (AutoRM.inspect, AutoRM.load):
        with pytest.raises(UnknownModelError, match=r"qwen3-reranker.*(yes|Yes).*family=") as caught:
            load(str(folder))
        assert caught.value.near == ("sequence-classifier", "qwen3-reranker")


def test_a_reranker_loads_as_the_family_that_is_said(tmp_path: Path) -> None:
    assert AutoRM.load(str(reranker(tmp_path / "m")), family="sequence-classifier").family == "sequence-classifier"


@pytest.mark.parametrize("config", [{}, {"classifier_from_token": [["no"], ["yes"]]}], ids=str)
def test_a_qwen3_classifier_with_a_head_of_its_own_loads_as_such(config: dict[str, Any], tmp_path: Path) -> None:
    assert AutoRM.load(str(reranker(tmp_path / "m", drift=1.0, **config))).family == "sequence-classifier"


def test_a_reranker_of_the_hub_is_refused_once_its_weights_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        server.add("org/model", reranker(tmp_path / "m"))
        with pytest.raises(UnknownModelError, match="qwen3-reranker"):
            AutoRM.load("org/model", cache_dir=tmp_path / "cache")


# -- the table -------------------------------------------------------------------------------------------------------


def test_every_recipe_of_the_table_that_is_a_family_has_a_golden_set() -> None:
    recipes = {recipe for row in LOOKALIKES for recipe in row.recipes}
    families = {family.name for family in registry.families()}
    assert recipes - families == {"polar", "qwen3-reranker"}
    assert recipes & families <= {golden.family for golden in ONE_MODEL}
    assert all(row.recipes[0] in families for row in LOOKALIKES)


@pytest.mark.parametrize("golden", DECIDABLE, ids=str)
def test_golden_checkpoints_are_taken_for_what_they_are_without_a_warning(
    golden: GoldenSet, golden_models: GoldenModels, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert AutoRM.inspect(golden_models.checkpoint(golden))["family"] == golden.family
    assert warnings_of(caplog) == []


# -- one head alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["ultrarm", "eurus", "athene"])
@pytest.mark.parametrize("architectures", [["LlamaForCausalLM"], ["Whatever"], None], ids=str)
def test_a_head_of_a_usual_name_under_another_class_is_taken_with_a_warning(
    slug: str, architectures: list[str] | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    golden = GoldenSet(slug, "own")
    folder = golden.make(tmp_path / "m")
    edit(folder / "config.json", architectures=architectures)
    with caplog.at_level(logging.WARNING):
        scores = [AutoRM.load(str(folder)).score(PAIR)]
    assert [golden.family in message and "family=" in message for message in warnings_of(caplog)] == [True]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        scores.append(AutoRM.load(str(folder), family=golden.family).score(PAIR))
    assert warnings_of(caplog) == []
    assert scores[0] == scores[1]


def test_the_bias_of_a_stock_classifier_is_added_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = GoldenSet("seqcls-llama3", "own").make(tmp_path / "m")
    plain = AutoRM.load(str(folder)).score(PAIR)
    tensors = {**load_file(folder / "model.safetensors"), "score.bias": torch.tensor([0.75])}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.WARNING):
        rm = AutoRM.load(str(folder))
    assert rm.score(PAIR) == pytest.approx(plain + 0.75, abs=1e-6)
    assert ["score.bias" in message for message in warnings_of(caplog)] == [True]


@pytest.mark.parametrize("golden", DECIDABLE, ids=str)
def test_a_second_head_is_refused_by_name_unless_the_family_is_said(golden: GoldenSet, tmp_path: Path) -> None:
    width = golden.spec["config"]["hidden_size"]
    weights = next(name for name in golden.spec["files"] if name.startswith(("model", "pytorch_model")))
    present = {name.split(".")[0] for file, tensors in golden.spec["files"].items() for name in [*tensors, file]}
    wrong = {}
    for head in set(HEADS) - present:
        spec = copy.deepcopy(golden.spec)
        spec["files"][weights][f"{head}.weight"] = {"shape": [1, width]}
        folder = golden.make(tmp_path / head, spec)
        told = outcome(lambda folder=folder: AutoRM.inspect(folder))
        if f"{head}.weight" not in told:
            wrong[head] = told
        if AutoRM.inspect(folder, family=golden.family)["family"] != golden.family:
            wrong[head] = "family= was not heard"
    assert wrong == {}


def test_three_heads_are_refused_by_their_names(tmp_path: Path) -> None:
    folder = GoldenSet("seqcls-llama3", "own").make(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    heads = {f"{name}.weight": tensors["score.weight"].clone() for name in ("v_head", "regression_head")}
    save_file({**tensors, **heads}, folder / "model.safetensors", metadata={"format": "pt"})
    score = AutoRM.load(str(folder), family="sequence-classifier").score(PAIR)
    assert score == AutoRM.load(str(GoldenSet("seqcls-llama3", "own").make(tmp_path / "one"))).score(PAIR)
    for architectures in (["LlamaForSequenceClassification"], ["LlamaForCausalLM"]):
        edit(folder / "config.json", architectures=architectures)
        with pytest.raises(UnknownModelError) as caught:
            AutoRM.load(str(folder))
        assert all(f"{name}.weight" in str(caught.value) for name in ("score", "v_head", "regression_head"))


@pytest.mark.parametrize(
    "name",
    ["multi_modal_projector.mm_input_projection_weight", "vision_tower.head.probe.weight", "visual.proj.weight"],
)
def test_what_sees_images_for_a_backbone_is_no_second_head(name: str, tmp_path: Path) -> None:
    golden = GoldenSet("seqcls-llama3", "own")
    spec = copy.deepcopy(golden.spec)
    spec["files"]["model.safetensors"][name] = {"shape": [16, spec["config"]["hidden_size"]]}
    assert AutoRM.inspect(golden.make(tmp_path / "m", spec))["family"] == "sequence-classifier"


def outcome(ask: Callable[[], object]) -> str:
    try:
        return f"no error: {ask()}"[:200]
    except RewardHubError as error:
        return str(error)
