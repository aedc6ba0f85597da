"""Weights saved inside a wrapper: the error names the prefix, counts it, and its lines take it away."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_sets import GoldenModels, GoldenSet, golden_sets, score_case
from safetensors.torch import load_file, save_file

from reward_hub import AutoRM, CheckpointError, RewardHubError
from reward_hub.checkpoints.files import open_checkpoint

ONE_MODEL = [golden for golden in golden_sets("own") if golden.registered and not golden.two_models]
WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


def wrapped(golden: GoldenSet, folder: Path, rename: Callable[[str], str]) -> Path:
    """A golden checkpoint whose weights, files of heads apart, have other names."""
    golden.make(folder)
    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    if safe.is_file():
        tensors = {rename(name): tensor for name, tensor in load_file(safe).items()}
        save_file(tensors, safe, metadata={"format": "pt"})
    else:
        torch.save({rename(name): tensor for name, tensor in torch.load(pickled, weights_only=True).items()}, pickled)
    return folder


def weight_names(folder: Path) -> set[str]:
    files = open_checkpoint(str(folder))
    return set(files.tensors)


def refusal(golden: GoldenSet, folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        golden.load(folder)
    return str(caught.value)


def run_lines(message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the message says to do, in the folder."""
    lines = [line.strip() for line in message.splitlines() if line.startswith("    ")]
    assert len(lines) == 3
    monkeypatch.chdir(folder)
    exec("\n".join(lines), {})


@pytest.mark.parametrize("prefix", WRAPPERS)
@pytest.mark.parametrize("golden", ONE_MODEL, ids=str)
def test_a_wrapper_on_every_tensor_is_named_and_taken_away(
    golden: GoldenSet, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = wrapped(golden, tmp_path / "m", lambda name: prefix + name)
    n = len(weight_names(folder))
    message = refusal(golden, folder)
    assert f"{n} of " in message and repr(prefix) in message
    run_lines(message, folder, monkeypatch)
    assert weight_names(folder) == {name.removeprefix(prefix) for name in weight_names_of(golden)}


def weight_names_of(golden: GoldenSet) -> set[str]:
    return {
        name
        for file, tensors in golden.spec["files"].items()
        if file.startswith(("model", "pytorch_model"))
        for name in tensors
    }


@pytest.mark.parametrize("golden", ONE_MODEL, ids=str)
def test_one_more_model_in_front_of_every_tensor_is_named_or_means_nothing(
    golden: GoldenSet, golden_models: GoldenModels, tmp_path: Path
) -> None:
    folder = wrapped(golden, tmp_path / "m", lambda name: f"model.{name}")
    try:
        with golden.load(folder) as rm:
            scores, _ = score_case(rm, golden.cases[0])
    except RewardHubError as error:
        assert "'model.'" in str(error) or "'model.model.'" in str(error), str(error)
    else:
        # A bare backbone is a stock one then.
        assert scores == pytest.approx(score_case(golden_models.load(golden), golden.cases[0])[0], abs=1e-5)


@pytest.mark.parametrize(
    ("rename", "prefix", "n"),
    [
        (lambda name: re.sub(r"^model\.", "model._orig_mod.", name), "_orig_mod.", 20),
        (
            lambda name: re.sub(r"(layers\.\d+\.)", r"\1_checkpoint_wrapped_module.", name),
            "_checkpoint_wrapped_module.",
            18,
        ),
        (lambda name: re.sub(r"^model\.", "module.model.", name), "module.", 20),
    ],
)
def test_a_wrapper_on_a_part_is_named_counted_and_taken_away(
    rename: Any, prefix: str, n: int, golden_models: GoldenModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = GoldenSet("seqcls-llama3", "own")
    folder = wrapped(golden, tmp_path / "m", rename)
    message = refusal(golden, folder)
    assert f"{n} of 21 tensors" in message and repr(prefix) in message
    run_lines(message, folder, monkeypatch)
    assert (
        score_case(golden.load(folder), golden.cases[0])[0]
        == score_case(golden_models.load(golden), golden.cases[0])[0]
    )


def test_a_prefix_of_any_name_is_found_by_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = GoldenSet("seqcls-llama3", "own")
    folder = wrapped(golden, tmp_path / "m", lambda name: re.sub(r"^model\.", "backbone.inner.", name))
    message = refusal(golden, folder)
    assert "'backbone.inner.'" in message and "20 of 21 tensors" in message
    run_lines(message, folder, monkeypatch)
    assert AutoRM.load(str(folder)).score(golden.cases[0]["messages"]) == pytest.approx(
        golden.cases[0]["score"], abs=1e-4
    )
