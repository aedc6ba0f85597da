"""DrSow trained on preference pairs: what it learns, that scores are plain log-ratios, that a run survives its end."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from golden_sets import OWN
from hub_server import HubServer
from safetensors.torch import load_file, save_file

from reward_hub import (
    AutoRM,
    BackendError,
    CachedRM,
    CheckpointError,
    DrSow,
    EnsembleRM,
    InputTooLongError,
    InvalidConversationError,
    MissingDependencyError,
    UnknownModelError,
    UnsupportedError,
)
from reward_hub.data.preferences import read_preferences, split_by_prompt
from reward_hub.drsow.saved import TrainingReport
from reward_hub.drsow.trainer import TokenPair, TrainingSettings, collate, train_adapter
from reward_hub.drsow.training import preference_accuracy
from reward_hub.types import TokenInput

pytestmark = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="the extra 'train' is not installed")

# peft, used by itself, reads an attribute that transformers 5 has renamed.
old_name = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

# Few epochs of a high rate: enough for a model of 64 channels to learn the manners below.
SETTINGS: dict[str, Any] = {"epochs": 2, "learning_rate": 1e-2, "held_out": 0.2}
KIND = ("Thank you, {}", "With pleasure, {}", "Glad to help: {}", "Of course, {}")
RUDE = ("Go away, {}", "How stupid: {}", "Who cares, {}", "See yourself, {}")


ROLES = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def make_base(folder: Path, slug: str = "drsow", *, seed: int = 2, **special_tokens: str) -> Path:
    """A random language model of two layers, with the tokenizer of a golden set."""
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(OWN / slug)
    torch.manual_seed(seed)
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=False, pad_token_id=None,
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(config)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    for file in (OWN / slug).glob("tokenizer*.json"):
        shutil.copyfile(file, folder / file.name)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **special_tokens}))
    return folder


def write_pairs(path: Path, n: int, *, seed: int = 0) -> Path:
    """Prompts that all differ; kind answers are chosen, rude ones rejected. What follows the manners differs too."""
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        kind, rude = (draw.choice(manners).format(f"it is {draw.randrange(10**8)}.") for manners in (KIND, RUDE))
        rows.append({"prompt": f"{i}: which number?", "chosen": kind, "rejected": rude})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drsow")


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    return make_base(folder / "base")


@pytest.fixture(scope="module")
def pairs(folder: Path) -> Path:
    return write_pairs(folder / "pairs.jsonl", 200)


@pytest.fixture(scope="module")
def trained(folder: Path, base: Path, pairs: Path) -> tuple[DrSow, TrainingReport]:
    rm = DrSow(base_model=base, preference_data=pairs)
    return rm, rm.train(**SETTINGS, output_dir=folder / "run")


@pytest.fixture(scope="module")
def few(folder: Path) -> Path:
    return write_pairs(folder / "few.jsonl", 12)


def conversations(pairs: Path) -> list[list[dict[str, Any]]]:
    """The held-out responses of `SETTINGS`: chosen, rejected, chosen, rejected, ..."""
    _, held_out = split_by_prompt(read_preferences(pairs), SETTINGS["held_out"], seed=0)
    return [[turn.to_dict() for turn in c.messages] for pair in held_out for c in (pair.chosen, pair.rejected)]


# What is learnt


def test_training_teaches_the_held_out_preferences(trained: tuple[DrSow, TrainingReport]) -> None:
    _, report = trained
    # 40 pairs: the base's half has a standard deviation of 0.08.
    assert 0.3 <= report.accuracy_before <= 0.7
    assert report.accuracy_after >= 0.9
    assert (report.n_train, report.n_held_out, report.n_steps) == (160, 40, 40)


@pytest.mark.slow
def test_the_lines_of_the_page_teach_them_with_the_defaults(
    tmp_path: Path, base: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(base, tmp_path / "base")
    shutil.copy(pairs, tmp_path)
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "drsow.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0], names)
    report = names["report"]
    assert report.accuracy_before <= 0.75 and report.accuracy_after >= 0.9
    assert (report.n_train, report.n_held_out) == (180, 20)
    accuracies, score = capfd.readouterr().out.splitlines()
    assert accuracies.endswith(f"{report.accuracy_after:.2f} after") and float(score) > 0

    # Pairs of another file, which had no say in the best epoch.
    others = read_preferences(write_pairs(tmp_path / "others.jsonl", 200, seed=1))
    scores = names["rm"].score_batch(
        [[t.to_dict() for t in c.messages] for p in others for c in (p.chosen, p.rejected)]
    )
    assert preference_accuracy(scores) >= 0.9


def test_the_accuracies_are_those_of_scores(trained: tuple[DrSow, TrainingReport], base: Path, pairs: Path) -> None:
    rm, report = trained
    free = AutoRM.load(base, family="implicit", options={"reference_free": True}, length_normalize=True)
    responses = conversations(pairs)
    for model, accuracy in ((free, report.accuracy_before), (rm, report.accuracy_after)):
        scores = model.score_batch(responses)
        right = [chosen > rejected for chosen, rejected in zip(scores[::2], scores[1::2], strict=True)]
        assert accuracy == pytest.approx(sum(right) / len(right))


def test_a_tie_is_half_right() -> None:
    assert preference_accuracy([1.0, 0.0, 0.5, 0.5, 0.0, 1.0, 2.0, 2.0]) == 0.5


# The score


@old_name
def test_the_score_is_the_mean_log_ratio_of_a_plain_forward_with_and_without_the_adapter(
    trained: tuple[DrSow, TrainingReport], folder: Path, base: Path
) -> None:
    peft = pytest.importorskip("peft")
    rm, _ = trained
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(base)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, folder / "run" / "adapter").eval()
    for answer in (KIND[1].format("the river is old."), RUDE[2].format("the river is old."), ""):
        messages = [{"role": "user", "content": "How is the river?"}, {"role": "assistant", "content": answer}]
        prompt = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True)["input_ids"]
        whole = tokenizer.apply_chat_template(messages)["input_ids"]
        ids, first = torch.tensor([whole]), len(prompt)

        def mean(logits: torch.Tensor, ids: torch.Tensor = ids, first: int = first) -> float:
            table = torch.log_softmax(logits[0, :-1].double(), dim=-1)
            return float(table.gather(1, ids[0, 1:, None])[first - 1 :].mean())

        with torch.inference_mode():
            tuned = mean(model(ids).logits)
            with model.disable_adapter():
                plain = mean(model(ids).logits)
        assert abs(tuned - plain) > 1e-2
        assert rm.score(messages) == pytest.approx(tuned - plain, abs=1e-5)


def test_gpt_2_learns_them_too_and_without_a_warning(tmp_path: Path, pairs: Path) -> None:
    """Its linear layers lie transposed."""
    base = make_base(tmp_path / "base")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(base)
    torch.manual_seed(2)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=64, n_layer=2, n_head=4, n_positions=256, bos_token_id=None, eos_token_id=None
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(base)
    report = DrSow(base_model=base, preference_data=pairs).train(**SETTINGS, output_dir=tmp_path / "run")
    assert report.accuracy_after >= 0.9


def test_a_new_training_gives_another_model(tmp_path: Path, base: Path, few: Path) -> None:
    question = {"prompt": "How is the house?", "response": "Of course, the house is old."}
    rm = DrSow(base_model=base, preference_data=few)
    cached = CachedRM(EnsembleRM([rm]), cache_dir=tmp_path / "cache")
    scores, fingerprints = [], []
    for seed in (0, 1):
        rm.train(epochs=1, held_out=0.2, seed=seed, output_dir=tmp_path / str(seed))
        scores.append(rm.score(**question))
        assert cached.score(**question) == pytest.approx(scores[-1], abs=1e-9)
        fingerprints.append(rm.fingerprint)
    assert scores[0] != scores[1] and fingerprints[0] != fingerprints[1]
    assert scores == [pytest.approx(DrSow.load(tmp_path / str(seed)).score(**question), abs=1e-6) for seed in (0, 1)]


def test_a_saved_model_scores_the_same_when_loaded(
    trained: tuple[DrSow, TrainingReport], pairs: Path, tmp_path: Path
) -> None:
    rm, report = trained
    rm.save(tmp_path / "saved")
    shutil.move(tmp_path / "saved", tmp_path / "elsewhere")
    loaded = DrSow.load(tmp_path / "elsewhere")
    assert loaded.report == report
    responses = conversations(pairs)[:8]
    assert loaded.score_batch(responses) == pytest.approx(rm.score_batch(responses), abs=1e-5)
    assert loaded.fingerprint == rm.fingerprint


def test_a_run_can_be_loaded_and_saved_over_another_model(
    trained: tuple[DrSow, TrainingReport], folder: Path, tmp_path: Path
) -> None:
    rm, _ = trained
    (tmp_path / "drsow.json").write_text("torn")
    DrSow.load(folder / "run").save(tmp_path)
    question = {"prompt": "How is the house?", "response": "Of course, the house is big indeed"}
    assert DrSow.load(tmp_path).score(**question) == pytest.approx(rm.score(**question), abs=1e-5)


def test_saving_a_run_onto_itself_leaves_it_as_it_is(trained: tuple[DrSow, TrainingReport], folder: Path) -> None:
    trained[0].save(folder / "run")
    assert DrSow.load(folder / "run").report == trained[1]


def test_a_base_of_the_hub_is_pinned_to_its_commit(
    tmp_path: Path, base: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    question = {"prompt": "How is the house?", "response": "Go away, the house is old."}
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        commit = hub.add("org/base", base)
        rm = DrSow(base_model="org/base", preference_data=few, cache_dir=tmp_path / "cache")
        rm.train(epochs=1, held_out=0.2, output_dir=tmp_path / "run")
        hub.add("org/base", make_base(tmp_path / "other", seed=1))
        loaded = DrSow.load(tmp_path / "run", cache_dir=tmp_path / "cache")
        assert loaded.score(**question) == pytest.approx(rm.score(**question), abs=1e-6)
    record = json.loads((tmp_path / "run" / "drsow.json").read_text())
    assert (record["base_model"], record["revision"]) == ("org/base", commit)
    # The same weights in a folder are the same base.
    moved = DrSow.load(tmp_path / "run", base_model=base)
    assert moved.score(**question) == pytest.approx(rm.score(**question), abs=1e-6)


@old_name
def test_the_adapter_can_be_loaded_by_itself_over_its_base(
    trained: tuple[DrSow, TrainingReport], folder: Path, base: Path, pairs: Path
) -> None:
    implicit = AutoRM.load(folder / "run" / "adapter", reference=base, beta=1.0, length_normalize=True)
    responses = conversations(pairs)[:4]
    assert implicit.score_batch(responses) == pytest.approx(trained[0].score_batch(responses), abs=1e-5)


# The tokens that are trained on are those that are scored


@pytest.mark.parametrize(
    ("slug", "special_tokens", "options"),
    [
        ("drsow-bos", {}, {}),
        # A tokenizer that pads with its end of turn: that token does not count.
        ("drsow", {"pad_token": "<|im_end|>"}, {}),
        ("drsow", {}, {"mask_special_tokens": True, "system_prompt": "Be brief."}),
        ("drsow", {}, {"chat_template": ROLES, "max_length": 28, "truncation": "prompt"}),
    ],
)
def test_the_trainers_loss_is_that_of_the_scores(
    tmp_path: Path, few: Path, slug: str, special_tokens: dict[str, str], options: dict[str, Any]
) -> None:
    base = make_base(tmp_path / "base", slug, **special_tokens)
    rm = DrSow(base_model=base, preference_data=few, **options)
    report = rm.train(epochs=1, learning_rate=5e-3, held_out=0.5, batch_size=4, beta=0.5, output_dir=tmp_path / "run")
    _, held_out = split_by_prompt(read_preferences(few), 0.5, seed=0)
    sums = [
        [rm.score([t.to_dict() for t in c.messages], return_details=True)[1]["logratio_sum"] for c in both]
        for both in ((pair.chosen, pair.rejected) for pair in held_out)
    ]
    losses = [math.log1p(math.exp(-0.5 * (chosen - rejected))) for chosen, rejected in sums]
    # The trainer averages over batches of 4 and 2 weighted by their sizes, in float32.
    assert report.held_out_loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert abs(report.held_out_loss - math.log(2)) > 1e-4
    if "max_length" in options:
        assert any(
            rm.score([t.to_dict() for t in p.chosen.messages], return_details=True)[1]["truncated"] for p in held_out
        )


def test_a_batch_holds_chosen_then_rejected_padded_on_the_right() -> None:
    rows = [
        {"chosen_ids": [5, 6, 7], "chosen_positions": [2], "rejected_ids": [5, 8], "rejected_positions": [1]},
        {"chosen_ids": [9, 4], "chosen_positions": [1], "rejected_ids": [9, 3, 2, 2], "rejected_positions": [1, 3]},
    ]
    batch = {name: tensor.tolist() for name, tensor in collate(rows).items()}
    assert batch["input_ids"] == [[5, 6, 7, 0], [9, 4, 0, 0], [5, 8, 0, 0], [9, 3, 2, 2]]
    assert batch["attention_mask"] == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch["completion_mask"] == [[0, 0, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 1]]


# Runs that end early, are repeated, or are gone on with


def test_a_finished_run_is_read_and_not_repeated(
    trained: tuple[DrSow, TrainingReport], folder: Path, base: Path, pairs: Path
) -> None:
    adapter = folder / "run" / "adapter" / "adapter_model.safetensors"
    written = adapter.stat().st_mtime_ns
    rm = DrSow(base_model=base, preference_data=pairs)
    assert rm.train(**SETTINGS, output_dir=folder / "run") == trained[1]
    assert adapter.stat().st_mtime_ns == written
    question = {"prompt": "How is the house?", "response": "Go away, the house is old."}
    assert rm.score(**question) == pytest.approx(trained[0].score(**question), abs=1e-6)


@pytest.mark.parametrize("change", [{"seed": 1}, {"data": True}, {"base": True}, {"system_prompt": "Be brief."}])
def test_the_folder_of_another_run_is_refused(
    trained: tuple[DrSow, TrainingReport], folder: Path, base: Path, pairs: Path, few: Path, change: dict[str, Any],
    tmp_path: Path,
) -> None:  # fmt: skip
    rm = DrSow(
        base_model=make_base(tmp_path / "base", seed=1) if "base" in change else base,
        preference_data=few if "data" in change else pairs,
        system_prompt=change.get("system_prompt"),
    )
    with pytest.raises(CheckpointError, match=r"holds another run: .* was .* and is .*another output_dir"):
        rm.train(**{**SETTINGS, "seed": change.get("seed", 0)}, output_dir=folder / "run")


def test_by_default_a_run_has_a_folder_of_its_own(
    tmp_path: Path, base: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"epochs": 1, "held_out": 0.2}
    reports = [DrSow(base_model=base, preference_data=few).train(**settings) for _ in range(2)]
    (folder,) = tmp_path.iterdir()
    assert reports[0] == reports[1] == DrSow.load(folder).report


def token_pairs(n: int, *, seed: int) -> list[TokenPair]:
    """Random tokens: what is learnt from some tells nothing of others."""
    draw = random.Random(seed)
    inputs = [TokenInput([draw.randrange(4, 600) for _ in range(12)], list(range(6, 12))) for _ in range(2 * n)]
    return [TokenPair(*both) for both in zip(inputs[::2], inputs[1::2], strict=True)]


def test_training_stops_where_the_held_out_loss_no_longer_falls(tmp_path: Path, base: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(base)
    settings = TrainingSettings(
        epochs=20, learning_rate=1e-2, beta=0.5, lora_r=4, lora_alpha=8, batch_size=8, held_out=0.5, patience=2, seed=0
    )
    data = token_pairs(16, seed=0), token_pairs(16, seed=1)
    places = {"checkpoints": tmp_path / "checkpoints", "adapter": tmp_path / "adapter", "show_progress": False}
    outcome = train_adapter(model, tokenizer, *data, settings, **places)
    assert outcome.stopped_early and outcome.n_steps < 40
    # Two updates an epoch, and two epochs without a better one.
    assert outcome.n_steps == outcome.best_step + 4

    # Killed after its last update, the run has nothing left to train: no model is touched.
    (tmp_path / "checkpoints" / "checkpoint-1000").mkdir()
    again = train_adapter(None, None, *data, settings, **places)
    assert again == replace(outcome, resumed_from=outcome.n_steps)


TRAIN = """
import sys
from reward_hub import DrSow
base, pairs, folder = sys.argv[1:]
DrSow(base_model=base, preference_data=pairs).train(epochs=6, learning_rate=2e-3, patience=6, output_dir=folder)
"""


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been_killed(tmp_path: Path, base: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 80)
    command = [sys.executable, "-c", TRAIN, str(base), str(pairs), str(tmp_path / "killed")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    while process.poll() is None and not any((tmp_path / "killed").glob("checkpoints/*/trainer_state.json")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "drsow.json").exists()

    settings = {"epochs": 6, "learning_rate": 2e-3, "patience": 6}
    runs = {name: DrSow(base_model=base, preference_data=pairs) for name in ("killed", "whole")}
    reports = {name: rm.train(**settings, output_dir=tmp_path / name) for name, rm in runs.items()}
    assert reports["killed"].resumed_from in range(9, 54, 9)
    assert asdict(reports["killed"]) | {"resumed_from": None} == pytest.approx(asdict(reports["whole"]), abs=1e-6)
    killed, whole = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in reports)
    assert killed.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.allclose(killed[name], tensor, atol=1e-6), name


# What training leaves alone


def test_training_prints_nothing_and_leaves_the_random_numbers_alone(
    tmp_path: Path, base: Path, few: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(3).tolist(), random.random()
    torch.manual_seed(5)
    random.seed(5)
    DrSow(base_model=base, preference_data=few).train(epochs=1, held_out=0.2, output_dir=tmp_path / "run")
    assert (torch.rand(3).tolist(), random.random()) == expected
    assert capfd.readouterr() == ("", "")


def test_a_bar_shows_the_updates_and_the_held_out_accuracy(
    tmp_path: Path, base: Path, few: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rm = DrSow(base_model=base, preference_data=few)
    rm.train(epochs=2, held_out=0.2, output_dir=tmp_path / "run", show_progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "4/4" in err and "held-out loss" in err and "accuracy" in err


# What cannot be done


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"base_model": "m"}, TypeError, "preference_data="),
        ({"preference_data": "p.jsonl"}, TypeError, "base_model="),
        ({"base_model": "m", "preference_data": "p.jsonl", "strong": "s"}, TypeError, "strong="),
        ({"base_model": "m", "preference_data": "p.jsonl", "load_method": "vllm"}, UnsupportedError, "transformers"),
        ({"base_model": "m", "preference_data": "p.jsonl", "adapter": "a"}, TypeError, "adapter"),
        ({"base_model": "m", "preference_data": [{"prompt": "a"}]}, TypeError, "preference_data is a list; the path"),
        ({"base_model": "m", "preference_data": "p.jsonl", "system_prompt": 3}, TypeError, "system_prompt=3"),
        ({"strong": "m", "weak": "n", "mask_special_tokens": "yes"}, TypeError, "mask_special_tokens='yes'"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    given: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        DrSow(**given)


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 0}, {"learning_rate": 0.0}, {"learning_rate": math.inf}, {"beta": -0.1}, {"lora_r": 0},
        {"lora_alpha": 0}, {"batch_size": 1.5}, {"held_out": 0.0}, {"held_out": 1.0}, {"patience": 0}, {"seed": -1},
        {"epochs": True}, {"learning_rate": "1e-4"}, {"beta": None}, {"held_out": "a"}, {"seed": 1.5},
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_a_type_error_before_anything_is_read(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(TypeError, match=f"{name}="):
        DrSow(base_model="no/such-model", preference_data="no.jsonl").train(**setting)


def test_an_untrained_model_does_not_score() -> None:
    rm = DrSow(base_model="no/such-model", preference_data="no.jsonl")
    for call in (lambda: rm.score(prompt="a", response="b"), lambda: rm.save("nowhere"), lambda: rm.fingerprint):
        with pytest.raises(UnsupportedError, match=r"call train\(\)"):
            call()
    assert rm.report is None


def test_two_given_models_are_neither_trained_nor_saved(tmp_path: Path) -> None:
    rm = DrSow(strong="a", weak="b")
    with pytest.raises(UnsupportedError, match="only score"):
        rm.train()
    with pytest.raises(UnsupportedError, match="nothing was trained"):
        rm.save(tmp_path)


def test_a_pair_that_is_too_long_is_told_with_its_line(tmp_path: Path, base: Path, few: Path) -> None:
    row = {"prompt": "How?", "chosen": "well " * 400, "rejected": "ill"}
    few = shutil.copy(few, tmp_path / "few.jsonl")
    with open(few, "a") as file:
        file.write(json.dumps(row) + "\n")
    rm = DrSow(base_model=base, preference_data=few)
    with pytest.raises(InputTooLongError, match=r"few\.jsonl, line 13: 'chosen': .* the model takes 512"):
        rm.train(output_dir=tmp_path / "run")


def test_responses_that_become_the_same_tokens_are_told_with_their_line(tmp_path: Path, base: Path) -> None:
    rows = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "yes "} for i in range(3)]
    path = tmp_path / "same.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    template = "{% for m in messages %}<|im_start|>{{ m.content | trim }}<|im_end|>{% endfor %}"
    with pytest.raises(InvalidConversationError, match=r"same.jsonl, line \d: .* the same tokens"):
        DrSow(base_model=base, preference_data=path, chat_template=template).train(output_dir=tmp_path / "run")


def test_a_base_without_a_chat_template_needs_one(tmp_path: Path, few: Path) -> None:
    base = make_base(tmp_path / "base")
    config = json.loads((base / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"few.jsonl, line \d+: 'chosen': .*chat_template="):
        DrSow(base_model=base, preference_data=few).train(output_dir=tmp_path / "run")


def test_float16_is_not_trained_in(tmp_path: Path, base: Path, few: Path) -> None:
    with pytest.raises(UnsupportedError, match="bfloat16"):
        DrSow(base_model=base, preference_data=few, torch_dtype="float16").train(output_dir=tmp_path / "run")


def test_an_adapter_is_no_base(trained: tuple[DrSow, TrainingReport], folder: Path, few: Path, tmp_path: Path) -> None:
    rm = DrSow(base_model=folder / "run" / "adapter", preference_data=few)
    with pytest.raises(UnsupportedError, match="merge"):
        rm.train(output_dir=tmp_path / "run")


def test_training_that_diverges_is_an_error(tmp_path: Path, base: Path, few: Path) -> None:
    rm = DrSow(base_model=base, preference_data=few)
    with pytest.raises(BackendError, match="lower learning_rate"):
        rm.train(epochs=1, learning_rate=1e30, held_out=0.2, output_dir=tmp_path / "run")
    with pytest.raises(UnsupportedError, match=r"call train\(\)"):
        rm.score(prompt="a", response="b")


def test_without_trl_the_extra_is_named(tmp_path: Path, base: Path, few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'reward_hub\[train\]'"):
        DrSow(base_model=base, preference_data=few).train(output_dir=tmp_path / "run")


def test_pairs_that_were_refused_do_not_claim_the_folder(tmp_path: Path, base: Path, few: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "1?", "chosen": "1", "rejected": "1"}')
    with pytest.raises(InvalidConversationError):
        DrSow(base_model=base, preference_data=bad).train(output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_is_not_scored_over_another_base(
    trained: tuple[DrSow, TrainingReport], folder: Path, tmp_path: Path
) -> None:
    other = make_base(tmp_path / "other", seed=1)
    rm = DrSow.load(folder / "run", base_model=other)
    with pytest.raises(CheckpointError, match="not the base model"):
        rm.score(prompt="a", response="b")


def test_a_base_that_is_gone_is_asked_for(trained: tuple[DrSow, TrainingReport], folder: Path, tmp_path: Path) -> None:
    rm = DrSow.load(folder / "run", base_model=tmp_path / "gone")
    with pytest.raises(UnknownModelError, match=r"gone.*DrSow\.load\(path, base_model=\.\.\.\)"):
        rm.score(prompt="a", response="b")


def test_a_copy_of_the_base_will_do(
    trained: tuple[DrSow, TrainingReport], folder: Path, base: Path, tmp_path: Path
) -> None:
    shutil.copytree(base, tmp_path / "copy")
    question = {"prompt": "How is the house?", "response": "Go away, the house is old."}
    rm = DrSow.load(folder / "run", base_model=tmp_path / "copy")
    assert rm.score(**question) == pytest.approx(trained[0].score(**question), abs=1e-6)


@pytest.mark.parametrize("text", [None, "torn", "{}"])
def test_a_folder_without_a_saved_model_is_not_loaded(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "drsow.json").write_text(text)
    with pytest.raises(CheckpointError, match="no model that DrSow"):
        DrSow.load(tmp_path)


def test_a_saved_model_without_its_adapter_is_not_loaded(trained: tuple[DrSow, TrainingReport], tmp_path: Path) -> None:
    trained[0].save(tmp_path)
    shutil.rmtree(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="holds no adapter"):
        DrSow.load(tmp_path)
