"""Files of checkpoints: dtypes, shards, pickles, adapters, repositories of the Hub, and all that is wrong with them."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_sets import GoldenModels, GoldenSet, golden_sets, score_case
from hub_server import HubServer
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from reward_hub import AutoRM, CheckpointError, UnknownModelError
from reward_hub.checkpoints.files import open_checkpoint
from reward_hub.testing import make_checkpoint, make_tensors, write_tensors

CLASSIFIER = GoldenSet("seqcls-mistral", "own")
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A stock sequence classifier."""
    return CLASSIFIER.make(tmp_path / "classifier")


def load(folder: Path | str, **options: Any) -> Any:
    return AutoRM.load(folder, "transformers", torch_dtype="float32", **options)


def golden_scores(rm: Any, golden: GoldenSet = CLASSIFIER) -> list[list[float]]:
    return [score_case(rm, case)[0] for case in golden.cases]


def in_two_shards(folder: Path) -> Path:
    """Cut the weights into two files with an index."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    (folder / WEIGHTS).unlink()
    places = {}
    for i, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"model-0000{i}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / shard, metadata={"format": "pt"})
        places |= dict.fromkeys(part, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


# Tensors


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_tensor_is_read_as_torch_reads_it(tmp_path: Path, file: str, dtype: str) -> None:
    tensors = {"score.weight": {"shape": [3, 5], "dtype": dtype}, "other.weight": {"shape": [7], "dtype": dtype}}
    files = open_checkpoint(str(make_checkpoint(tmp_path / "m", {"config": {}, "seed": 1, "files": {file: tensors}})))
    stored = load_file(tmp_path / "m" / file) if "safetensors" in file else torch.load(tmp_path / "m" / file)
    assert stored["score.weight"].dtype == {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    for name, tensor in stored.items():
        np.testing.assert_array_equal(files.read(name), tensor.float().numpy())
        assert files.read(name).dtype == np.float32
        assert torch.equal(files.torch_tensor(name), tensor)
    np.testing.assert_array_equal(files.rows("score.weight", [2, 0]), stored["score.weight"].float().numpy()[[2, 0]])


def test_made_values_depend_on_seed_and_name_alone() -> None:
    tensors = {"a": {"shape": [4], "mean": 1.0}, "b": {"shape": [4]}}
    made = make_tensors(tensors, seed=3)
    np.testing.assert_array_equal(made["b"], make_tensors({"b": tensors["b"]}, seed=3)["b"])
    assert not np.array_equal(made["b"], make_tensors({"b": tensors["b"]}, seed=4)["b"])
    # The numbers themselves: golden scores hang on them.
    np.testing.assert_allclose(made["b"], [0.0033778, 0.0778517, 0.0120518, -0.1045247], atol=1e-6)


def test_shards_give_the_same_scores(folder: Path) -> None:
    whole = golden_scores(load(folder))
    assert golden_scores(load(in_two_shards(folder))) == whole


def test_safetensors_are_taken_before_pickles(folder: Path) -> None:
    torch.save({"score.weight": torch.zeros(1, 64)}, folder / "pytorch_model.bin")
    assert open_checkpoint(str(folder)).weight_files == (WEIGHTS,)


# Broken files


def test_a_truncated_file_is_an_error(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors .* is incomplete"):
        load(folder)


@pytest.mark.parametrize(
    "content", [b"", b'\x08\0\0\0\0\0\0\0{"a": }', b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_a_file_that_is_no_safetensors_file_is_an_error(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load(folder)


def test_a_missing_shard_is_an_error_that_names_it(folder: Path) -> None:
    (in_two_shards(folder) / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors"):
        load(folder)


def test_an_index_that_names_an_absent_file_is_an_error(folder: Path) -> None:
    index = in_two_shards(folder) / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"score.weight": "nowhere.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors"):
        load(folder)


def test_several_files_of_weights_without_an_index_are_an_error(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "a.safetensors")
    (folder / WEIGHTS).rename(folder / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"several files of weights.*a\.safetensors, b\.safetensors"):
        load(folder)


def test_no_weights_and_no_config_are_errors(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load(folder)


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_a_broken_config_is_an_error(folder: Path, content: str) -> None:
    (folder / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(folder)


class Planted:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("torch_format", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(folder: Path, tmp_path: Path, torch_format: bool) -> None:
    mark = tmp_path / "was-run"
    state = {**load_file(folder / WEIGHTS), "extra": Planted(mark)}
    (folder / WEIGHTS).unlink()
    if torch_format:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"extra": Planted(mark)}))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin .*pickles that run code are refused"):
        load(folder)
    assert not mark.exists()


def test_a_pickled_head_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    golden = GoldenSet("ldl-gemma2", "own")
    folder, mark = golden.make(tmp_path / "ldl"), tmp_path / "was-run"
    torch.save({"network.0.weight": Planted(mark)}, folder / "gating_layer.pt")
    with pytest.raises(CheckpointError, match=r"gating_layer\.pt .*refused"):
        load(folder)
    assert not mark.exists()


@pytest.mark.parametrize("golden", [g for g in golden_sets("own") if g.registered and not g.two_models], ids=str)
def test_a_missing_or_misshapen_tensor_of_the_backbone_is_an_error(golden: GoldenSet, tmp_path: Path) -> None:
    layer = re.compile(r"(^|\.)(layers|layer|block)\.0\.")
    file, name = next(
        (file, name)
        for file, tensors in golden.spec["files"].items()
        for name, tensor in tensors.items()
        if layer.search(name) and len(tensor["shape"]) == 2 and not name.startswith(("gating.", "score."))
    )
    for change in ("missing", "misshapen"):
        spec = copy.deepcopy(golden.spec)
        # A state dict may hold the backbone twice, under two names for the same values.
        copies = [n for n, t in spec["files"][file].items() if n == name or t.get("same_as") == name]
        for each in copies:
            if change == "missing":
                del spec["files"][file][each]
            else:
                spec["files"][file][each]["shape"][0] += 2
        with pytest.raises(CheckpointError) as caught:
            golden.load(golden.make(tmp_path / change, spec), detect=False)
        assert caught.value.tensor is not None


# Adapters


# peft 0.21 asks transformers 5.19 by an old name.
old_name = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A causal language model without any reward head."""
    spec = copy.deepcopy(CLASSIFIER.spec)
    tensors = spec["files"][WEIGHTS]
    del tensors["score.weight"]
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    spec["config"]["architectures"] = ["MistralForCausalLM"]
    return CLASSIFIER.make(tmp_path / "base", spec)


def write_adapter(base: Path, folder: Path, *, score: bool = True) -> Any:
    """A LoRA adapter with random weights and, with `score`, a trained score head, as peft writes it; its own model."""
    import peft
    import transformers

    torch.manual_seed(5)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    config = peft.LoraConfig(
        task_type="SEQ_CLS" if score else "FEATURE_EXTRACTION",
        r=4,
        target_modules=["q_proj", "v_proj", "down_proj"],
        modules_to_save=["score"] if score else None,
        init_lora_weights=False,
    )
    wrapped = peft.get_peft_model(model, config).eval()
    wrapped.save_pretrained(folder)
    return wrapped


def peft_score(model: Any, token_ids: list[int]) -> float:
    model.config.pad_token_id = -1
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([token_ids])).logits[0, 0])


@old_name
@pytest.mark.parametrize("named", ["adapter= over a base", "the adapter's folder"])
def test_the_trained_score_head_of_an_adapter_is_used(base: Path, tmp_path: Path, named: str) -> None:
    model = write_adapter(base, tmp_path / "adapter")
    rm = load(base, adapter=tmp_path / "adapter") if named.startswith("adapter=") else load(tmp_path / "adapter")
    assert rm.family == "sequence-classifier"
    for case in CLASSIFIER.cases:
        assert rm.score(case["messages"]) == pytest.approx(peft_score(model, case["input_ids"]), abs=1e-5)


@old_name
def test_an_adapter_without_a_trained_head_over_a_base_without_one_is_an_error(base: Path, tmp_path: Path) -> None:
    write_adapter(base, tmp_path / "adapter", score=False)
    with pytest.raises(CheckpointError, match=r"score\.weight"):
        load(base, adapter=tmp_path / "adapter", family="sequence-classifier")
    with pytest.raises((CheckpointError, UnknownModelError)):
        load(tmp_path / "adapter")


@old_name
def test_an_adapter_over_a_trained_head_keeps_it(folder: Path, tmp_path: Path) -> None:
    model = write_adapter(folder, tmp_path / "adapter", score=False)
    rm = load(folder, adapter=tmp_path / "adapter")
    case = CLASSIFIER.cases[0]
    assert rm.score(case["messages"]) == pytest.approx(peft_score(model, case["input_ids"]), abs=1e-5)
    assert rm.fingerprint != load(folder).fingerprint


# Repositories of the Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


HUB_SETS = [g for g in golden_sets("own") if g.registered and not g.two_models and "tokenizer" not in g.spec]


@pytest.mark.parametrize("golden", HUB_SETS, ids=str)
def test_a_repository_gives_the_scores_of_its_folder(
    hub: HubServer, golden: GoldenSet, golden_models: GoldenModels
) -> None:
    commit = hub.add("org/model", golden_models.checkpoint(golden))
    told = {} if golden.decidable else {"family": golden.family}
    rm = AutoRM.load("org/model", "transformers", torch_dtype="float32", **told)
    scores, details = score_case(rm, golden.cases[0])
    assert scores == score_case(golden_models.load(golden), golden.cases[0])[0]
    assert (details["model"], details["revision"]) == ("org/model", commit)


def test_the_fingerprint_changes_with_the_commit(hub: HubServer, folder: Path) -> None:
    first = hub.add("org/model", folder)
    old = load("org/model")
    write_tensors(
        folder / WEIGHTS, make_tensors(CLASSIFIER.spec["files"][WEIGHTS], seed=99), CLASSIFIER.spec["files"][WEIGHTS]
    )
    hub.add("org/model", folder)
    new, pinned = load("org/model"), load("org/model", revision=first)
    assert old.fingerprint == pinned.fingerprint != new.fingerprint
    assert golden_scores(old) == golden_scores(pinned) != golden_scores(new)


def test_only_the_files_that_are_needed_are_fetched(hub: HubServer, tmp_path: Path) -> None:
    folder = GoldenSet("ldl-gemma2", "own").make(tmp_path / "ldl")
    for name in ("README.md", "training_args.bin", "optimizer.pt", "pytorch_model.bin", "trainer_state.json"):
        (folder / name).write_bytes(b"x" * 50_000)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"x" * 50_000)
    hub.add("org/model", folder)
    load("org/model")
    needed = {"config.json", "model.safetensors", "regression_layer.pt", "gating_layer.pt"}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert set(hub.files_sent()) == needed | tokenizer
    # The header apart, no byte of the weights is sent twice.
    assert hub.bytes_sent(WEIGHTS) <= (folder / WEIGHTS).stat().st_size + 101_000


def test_a_model_is_refused_before_its_weights_move(hub: HubServer, tmp_path: Path) -> None:
    spec = copy.deepcopy(CLASSIFIER.spec)
    spec["files"][WEIGHTS]["renamed_score.weight"] = spec["files"][WEIGHTS].pop("score.weight")
    folder = CLASSIFIER.make(tmp_path / "model", spec)
    assert (folder / WEIGHTS).stat().st_size > 1_000_000
    hub.add("org/model", folder)
    with pytest.raises(CheckpointError) as caught:
        load("org/model")
    assert caught.value.tensor == "score.weight"
    assert hub.bytes_sent() < 200_000


def test_a_cached_model_loads_offline(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/model", folder)
    scores = golden_scores(load("org/model"))
    hub.stop()
    assert golden_scores(load("org/model", local_files_only=True)) == scores
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert golden_scores(load("org/model")) == scores


def test_a_model_that_is_not_cached_is_not_found_offline(hub: HubServer) -> None:
    with pytest.raises(UnknownModelError, match="org/other"):
        load("org/other", local_files_only=True)


def test_a_published_id_tells_its_family(hub: HubServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    golden = GoldenSet("rlhflow-prm", "own")
    hub.add("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", golden.make(tmp_path / "model"))
    caplog.set_level(logging.INFO, "reward_hub")
    rm = load("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data")
    assert rm.family == "rlhflow-prm"
    assert "published id" in caplog.text
