"""PEFT adapters: what an adapter brings in full stands in the place of the base's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers
from golden_sets import GoldenSet

from reward_hub import AutoRM

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft on transformers 5

MESSAGES = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "It is 4."}]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A classifier whose score head is trained."""
    return GoldenSet("seqcls-qwen2", "own").make(tmp_path / "base")


@pytest.fixture
def tuned(base: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An adapter over it with LoRA weights and a score head of its own, and the same merged into one model."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj", "down_proj"], modules_to_save=["score"])
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.normal_(std=0.2)
    wrapped.save_pretrained(tmp_path / "adapter")
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    for file in base.glob("*token*"):
        shutil.copyfile(file, tmp_path / "merged" / file.name)
    return tmp_path / "adapter", tmp_path / "merged"


def test_the_adapters_score_head_comes_before_the_bases_trained_one(base: Path, tuned: tuple[Path, Path]) -> None:
    adapter, merged = tuned
    expected = AutoRM.load(merged, torch_dtype="float32").score(MESSAGES)
    assert AutoRM.load(base, adapter=adapter, torch_dtype="float32").score(MESSAGES) == pytest.approx(
        expected, abs=1e-4
    )
    report = AutoRM.load(base, adapter=adapter, torch_dtype="float32").load_report
    assert (report["adapter"], report["adapter_from"]) == ("merged into the weights", str(adapter))
    # The adapter alone names its base.
    assert AutoRM.load(adapter, torch_dtype="float32").score(MESSAGES) == pytest.approx(expected, abs=1e-4)
    assert AutoRM.load(base, torch_dtype="float32").score(MESSAGES) != pytest.approx(expected, abs=0.1)
