"""The code blocks of the documentation run, and give the numbers they promise."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from reward_hub import AutoRM, UnknownModelError, builtin
from reward_hub import messages as border

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def unknown_head(tmp_path):
    """The built-in outcome model with its head under a name that no family knows."""
    import safetensors.numpy

    folder = tmp_path / "my-checkpoint"
    shutil.copytree(builtin.path("arithmetic-orm"), folder)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["reward_vector.weight"] = tensors.pop("score.weight")
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["MyRewardModel"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def code_block(page, n=0):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)[n]


def test_an_unknown_linear_head_is_refused_with_the_lines_that_register_it(unknown_head):
    with pytest.raises(UnknownModelError) as caught:
        AutoRM.load(unknown_head)
    message = str(caught.value)
    assert 'HeadOutputs(Linear("reward_vector"))' in message
    assert "docs/add_a_family.md" in message


def test_the_ten_lines_of_the_page_load_that_checkpoint(unknown_head, monkeypatch, capsys):
    from reward_hub import registry

    monkeypatch.chdir(unknown_head.parent)
    monkeypatch.setattr(registry.FAMILIES, "registered", {})
    names: dict[str, object] = {}
    exec(code_block("add_a_family.md"), names)
    rm = names["rm"]
    conversation = border.parse(prompt="What is 2+2?", response="4")
    ids = rm.model.family.encode(conversation, rm.model.setup).token_ids
    assert float(capsys.readouterr().out) == pytest.approx(plain_score(unknown_head, ids), abs=1e-5)


def plain_score(folder, ids):
    import safetensors.numpy
    import torch
    import transformers

    backbone = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        hidden = backbone(torch.tensor([ids])).last_hidden_state[0, -1].numpy()
    head = safetensors.numpy.load_file(folder / "model.safetensors")["reward_vector.weight"]
    return float(np.dot(head[0], hidden))
