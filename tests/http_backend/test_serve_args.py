"""`reward-hub serve-args` prints the server that the HTTP backend reads from: the plan, word for word."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from golden_sets import GoldenModels, GoldenSet

from reward_hub import AutoRM, CheckpointError, UnsupportedError
from reward_hub.backends.vllm.plan import RULES_KEY
from reward_hub.cli import main


def words_of(golden_models: GoldenModels, slug: str, **options: Any) -> tuple[dict[str, str], list[str]]:
    golden = GoldenSet(slug, "own")
    folder = golden_models.checkpoint(golden)
    family = {} if golden.decidable else {"family": golden.family}
    words, notes = AutoRM.serve_args(folder / "policy" if golden.two_models else folder, **family, **options)
    assert words[:2] == ["vllm", "serve"]
    return {"model": words[2], **dict(zip(words[3::2], words[4::2], strict=True))}, notes


@pytest.mark.parametrize(
    ("slug", "runner", "task"),
    [
        ("seqcls-qwen2", "pooling", "classify"),
        ("armorm", "pooling", "embed"),
        ("qwen2.5-math-prm", "pooling", "token_classify"),
        ("rlhflow-prm", "pooling", "token_classify"),
        ("rlhflow-pair-pm", "pooling", "classify"),
        ("dpo-implicit", "generate", None),
    ],
)
def test_the_command_starts_the_task_that_is_read(
    golden_models: GoldenModels, slug: str, runner: str, task: str | None
) -> None:
    flags, _ = words_of(golden_models, slug)
    assert flags["--runner"] == runner
    config = json.loads(flags["--pooler-config"]) if task else {"task": None, "use_activation": False}
    assert (config["task"], config["use_activation"]) == (task, False)
    assert Path(flags["model"]).is_dir()


def test_a_foreign_head_is_left_out_by_the_plug_in_or_by_a_folder(golden_models: GoldenModels, tmp_path: Path) -> None:
    flags, notes = words_of(golden_models, "armorm")
    assert RULES_KEY in json.loads(flags["--hf-overrides"])
    assert any("pip install" in note for note in notes)
    flags, notes = words_of(golden_models, "armorm", folder=tmp_path / "view")
    assert RULES_KEY not in json.loads(flags["--hf-overrides"])
    assert flags["model"] == str(tmp_path / "view")
    assert (tmp_path / "view" / "config.json").is_file()
    assert not any("pip install" in note for note in notes)


def test_another_model_type_needs_a_folder(golden_models: GoldenModels, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="--folder"):
        words_of(golden_models, "internlm2-reward")
    flags, _ = words_of(golden_models, "internlm2-reward", folder=tmp_path / "view")
    assert json.loads((tmp_path / "view" / "config.json").read_text())["model_type"] == "llama"
    with pytest.raises(CheckpointError, match="not empty"):
        words_of(golden_models, "internlm2-reward", folder=tmp_path / "view")
    assert flags["--served-model-name"].endswith("internlm2-reward")


def test_what_vllm_cannot_run_is_said(golden_models: GoldenModels) -> None:
    with pytest.raises(UnsupportedError, match="transformers"):
        words_of(golden_models, "deberta-rm")


def test_the_command_line_prints_the_command_alone(
    golden_models: GoldenModels, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = golden_models.checkpoint(GoldenSet("seqcls-qwen2", "own"))
    with pytest.raises(SystemExit) as ended:
        main(["serve-args", str(folder), "--name", "rm", "--dtype", "float32"])
    printed = capsys.readouterr()
    assert ended.value.code == 0
    assert shlex.split(printed.out) == AutoRM.serve_args(folder, name="rm", torch_dtype="float32")[0]
    assert 'load_method="api"' in printed.err
    assert len(printed.out.splitlines()) == 1
