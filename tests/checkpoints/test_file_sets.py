"""One reading of a folder: the head and the backbone come from one set of files, the one that transformers reads."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from golden_sets import GoldenSet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from reward_hub import AutoRM, CheckpointError
from reward_hub.checkpoints.files import open_checkpoint

CLASSIFIER = GoldenSet("seqcls-mistral", "own")
CASE = CLASSIFIER.cases[0]
State = dict[str, torch.Tensor]


class States(list[State]):
    """Versions of the weights, each with a backbone and a head of its own."""

    def __repr__(self) -> str:  # hypothesis prints what a test is given
        return "States()"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CLASSIFIER.make(tmp_path_factory.mktemp("original") / "classifier")


@pytest.fixture(scope="module")
def states(original: Path) -> States:
    stored = load_file(original / "model.safetensors")
    random = torch.Generator().manual_seed(0)
    return States(
        {name: tensor + 0.05 * torch.randn(tensor.shape, generator=random) for name, tensor in stored.items()}
        for _ in range(4)
    )


def new_folder(original: Path, folder: Path) -> Path:
    """The config and the tokenizer without the weights."""
    folder.mkdir(parents=True)
    for file in original.iterdir():
        if file.name != "model.safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def write_shards(folder: Path, state: State, ending: str, *, complete: bool) -> None:
    stem = "model" if ending == "safetensors" else "pytorch_model"
    names, places = sorted(state), {}
    for i, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"{stem}-0000{i}-of-00002.{ending}"
        places |= dict.fromkeys(part, shard)
        if complete or i == 1:
            tensors = {name: state[name] for name in part}
            save_file(tensors, folder / shard) if ending == "safetensors" else torch.save(tensors, folder / shard)
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def score(folder: Path) -> float:
    return float(AutoRM.load(folder, "transformers", torch_dtype="float32").score(CASE["messages"]))


def score_by_transformers(folder: Path, state: State | None = None) -> float | None:
    """The stock class's score of the folder, or of a state; None where it finds no whole model there."""
    stock: Any = transformers.MistralForSequenceClassification
    config = transformers.AutoConfig.from_pretrained(folder, pad_token_id=-1)
    try:
        place = {"state_dict": state} if state is not None else {}
        model, report = stock.from_pretrained(
            None if state is not None else folder, config=config, output_loading_info=True, **place
        )
    except OSError:
        return None
    if report["missing_keys"]:
        return None
    with torch.no_grad():
        return float(model.eval()(input_ids=torch.tensor([CASE["input_ids"]])).logits[0, 0])


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    single=st.booleans(),
    shards=st.sampled_from([None, "whole", "a shard missing"]),
    pickle=st.sampled_from([None, "plain", "module", "model", "state_dict"]),
    pickled_shards=st.booleans(),
    other=st.sampled_from([None, "reward.safetensors", "model.fp16.safetensors"]),
)
def test_whatever_files_lie_there_head_and_backbone_are_of_one_set(
    original: Path,
    states: States,
    tmp_path_factory: pytest.TempPathFactory,
    single: bool,
    shards: str | None,
    pickle: str | None,
    pickled_shards: bool,
    other: str | None,
) -> None:
    folder = new_folder(original, tmp_path_factory.mktemp("set") / "m")
    if single:
        save_file(states[0], folder / "model.safetensors")
    if shards:
        write_shards(folder, states[1], "safetensors", complete=shards == "whole")
    if pickle:
        torch.save(states[2] if pickle == "plain" else {pickle: states[2], "step": 3}, folder / "pytorch_model.bin")
    if pickled_shards:
        write_shards(folder, states[3], "bin", complete=True)
    if other:
        save_file(states[3], folder / other)
    expected = score_by_transformers(folder)
    try:
        ours = score(folder)
    except CheckpointError:
        assert expected is None
        return
    if expected is not None:
        assert ours == pytest.approx(expected, abs=1e-5)
    else:
        of_one_set = [score_by_transformers(folder, state) for state in states]
        assert any(ours == pytest.approx(one, abs=1e-5) for one in of_one_set)


def test_an_index_that_was_left_beside_a_saved_model_changes_nothing(
    original: Path, states: States, tmp_path: Path
) -> None:
    folder = new_folder(original, tmp_path / "m")
    save_file(states[0], folder / "model.safetensors")
    alone = score(folder)
    write_shards(folder, states[1], "safetensors", complete=True)
    assert score(folder) == alone
    (folder / "model-00001-of-00002.safetensors").unlink()
    assert score(folder) == alone


@pytest.mark.parametrize("wrapper", ["module", "model", "state_dict", "model_state_dict"])
def test_a_wrapped_pickle_gives_the_scores_of_the_plain_one(
    original: Path, states: States, tmp_path: Path, wrapper: str
) -> None:
    folder = new_folder(original, tmp_path / "m")
    torch.save({wrapper: states[0]}, folder / "pytorch_model.bin")
    assert score(folder) == pytest.approx(score_by_transformers(folder, states[0]), abs=1e-5)


def test_a_pickle_that_holds_a_tensor_twice_is_an_error(original: Path, states: States, tmp_path: Path) -> None:
    folder = new_folder(original, tmp_path / "m")
    torch.save({"module": states[0], "model": states[1]}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="two tensors"):
        score(folder)


def test_the_weights_that_a_config_names_are_read(original: Path, states: States, tmp_path: Path) -> None:
    folder = new_folder(original, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "new.safetensors"}))
    save_file(states[0], folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"new\.safetensors"):
        score(folder)
    save_file(states[1], folder / "new.safetensors")
    assert score(folder) == pytest.approx(score_by_transformers(folder, states[1]), abs=1e-5)


def test_a_trainers_folder_with_another_name_for_the_weights_loads(
    original: Path, states: States, tmp_path: Path
) -> None:
    folder = new_folder(original, tmp_path / "m")
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin"):
        torch.save({"a": torch.zeros(2)}, folder / name)
    torch.save(states[0], folder / "weights.pt")
    assert score(folder) == pytest.approx(score_by_transformers(folder, states[0]), abs=1e-5)


@pytest.mark.parametrize("named", ["torch.float32", "auto", None])
def test_the_dtype_of_a_config_is_read_in_every_spelling(
    original: Path, states: States, tmp_path: Path, named: str | None
) -> None:
    folder = new_folder(original, tmp_path / "m")
    save_file(states[0], folder / "model.safetensors")
    expected = score_by_transformers(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": named}))
    assert AutoRM.load(folder, "transformers").score(CASE["messages"]) == pytest.approx(expected, abs=1e-5)


def test_infinite_numbers_of_a_config_are_numbers(original: Path, states: States, tmp_path: Path) -> None:
    folder = new_folder(original, tmp_path / "m")
    save_file(states[0], folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    limits = {"a": [0.0, {"__float__": "Infinity"}], "b": {"c": {"__float__": "-Infinity"}}, "d": {"__float__": "NaN"}}
    (folder / "config.json").write_text(json.dumps({**config, **limits}))
    stored = open_checkpoint(str(folder)).config
    assert (stored["a"], stored["b"]) == ([0.0, math.inf], {"c": -math.inf})
    assert math.isnan(stored["d"])


peft_names = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@peft_names
def test_an_adapter_left_beside_a_whole_model_is_left_aside_and_said(
    original: Path, states: States, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    peft = pytest.importorskip("peft")
    folder = new_folder(original, tmp_path / "m")
    save_file(states[0], folder / "model.safetensors", metadata={"format": "pt"})
    merged = score(folder)
    stock: Any = transformers.AutoModelForSequenceClassification
    lora = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(stock.from_pretrained(folder), lora).save_pretrained(folder)
    with caplog.at_level(logging.WARNING, "reward_hub"):
        assert score(folder) == merged
    assert [record.message.count("adapter_model.safetensors") for record in caplog.records] == [1]
    assert AutoRM.inspect(folder)["left_aside"] == ["adapter_config.json", "adapter_model.safetensors"]
    assert AutoRM.load(folder, "transformers").load_report["left_aside"] == AutoRM.inspect(folder)["left_aside"]


@peft_names
def test_an_adapter_beside_its_bases_config_is_an_adapter(original: Path, states: States, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = new_folder(original, tmp_path / "base")
    save_file(states[0], base / "model.safetensors", metadata={"format": "pt"})
    stock: Any = transformers.AutoModelForSequenceClassification
    lora = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(stock.from_pretrained(base), lora).save_pretrained(tmp_path / "adapter")
    expected = score(tmp_path / "adapter")
    (tmp_path / "adapter" / "config.json").write_bytes((base / "config.json").read_bytes())
    torch.save({"a": torch.zeros(2)}, tmp_path / "adapter" / "training_args.bin")
    assert score(tmp_path / "adapter") == expected
