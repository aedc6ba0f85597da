"""The training loop of DrSow: TRL's DPO over token ids, a LoRA adapter of PEFT, checkpoints to go on from.

DPO (arXiv 2305.18290) widens the log-ratio of tuned and base model between chosen and rejected responses, and that
log-ratio is what DrSow scores with. The pairs come as the token ids that scoring reads; TRL tokenises nothing.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from reward_hub.drsow.saved import quiet_peft
from reward_hub.errors import BackendError, missing_dependency
from reward_hub.tokenizer import quiet_transformers
from reward_hub.types import TokenInput

logger = logging.getLogger(__name__)

# Adam's step for a hidden layer goes down with its width (arXiv 2203.03466); 5e-5 at 4096, 1.6e-3 at 128.
LEARNING_RATE_TIMES_WIDTH = 0.2


@dataclass(frozen=True)
class TrainingSettings:
    """How an adapter is trained; see `DrSow.train`.

    Raises:
        TypeError: a value is outside of what it may be.
    """

    epochs: int
    learning_rate: float | None
    beta: float
    lora_r: int
    lora_alpha: int
    batch_size: int
    held_out: float
    patience: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("epochs", "lora_r", "lora_alpha", "batch_size", "patience"):
            if not (_is_whole(getattr(self, name)) and getattr(self, name) >= 1):
                raise TypeError(f"{name}={getattr(self, name)!r}; a whole number of at least 1 is needed.")
        if not (_is_whole(self.seed) and 0 <= self.seed < 2**32):
            raise TypeError(f"seed={self.seed!r}; a whole number from 0 to 2**32 - 1 is needed.")
        for name in ("learning_rate", "beta"):
            value = getattr(self, name)
            if value is None and name == "learning_rate":
                continue
            if not (_is_number(value) and math.isfinite(value) and value > 0):
                raise TypeError(f"{name}={value!r}; a positive number is needed.")
        if not (_is_number(self.held_out) and 0 < self.held_out < 1):
            raise TypeError(f"held_out={self.held_out!r}; a share between 0 and 1 is needed.")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True)
class TokenPair:
    """A preference pair as the model reads it; `positions` are the response tokens that count."""

    chosen: TokenInput
    rejected: TokenInput


@dataclass(frozen=True)
class Trained:
    """How a training went: see `TrainingReport`."""

    n_steps: int
    best_step: int
    held_out_loss: float
    stopped_early: bool
    resumed_from: int | None


def train_adapter(
    model: Any,
    tokenizer: Any,
    train: Sequence[TokenPair],
    held_out: Sequence[TokenPair],
    settings: TrainingSettings,
    *,
    checkpoints: Path,
    adapter: Path,
    show_progress: bool,
) -> Trained:
    """Train a LoRA adapter over `model` (which is changed by it) and write the best step's to `adapter`.

    Where `checkpoints` holds some of an earlier run, that run is gone on with.

    Raises:
        MissingDependencyError: trl, datasets or peft is not installed.
        BackendError: training diverged.
    """
    newest = _newest_checkpoint(checkpoints)
    resumed_from = None if newest is None else int(_state(newest)["global_step"])
    if newest is None or not _is_finished(_state(newest)):
        if newest is not None:
            logger.info("Training goes on from %s.", newest)
        with quiet_transformers(), quiet_peft():
            trainer = _make_trainer(model, tokenizer, train, held_out, settings, checkpoints, show_progress)
            trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
        newest = _newest_checkpoint(checkpoints)
        assert newest is not None, "every epoch ends with a checkpoint"
    state = _state(newest)
    if not math.isfinite(state["best_metric"]):
        raise BackendError(
            "Training diverged: after no epoch was the held-out loss a finite number. Train with a lower learning_rate."
        )
    _copy_adapter(checkpoints / f"checkpoint-{state['best_global_step']}", adapter)
    return Trained(
        n_steps=int(state["global_step"]),
        best_step=int(state["best_global_step"]),
        held_out_loss=float(state["best_metric"]),
        stopped_early=bool(state["global_step"] < state["max_steps"]),
        resumed_from=resumed_from,
    )


def _make_trainer(
    model: Any,
    tokenizer: Any,
    train: Sequence[TokenPair],
    held_out: Sequence[TokenPair],
    settings: TrainingSettings,
    checkpoints: Path,
    show_progress: bool,
) -> Any:
    try:
        import datasets
        import peft
        import transformers
        import trl
    except ImportError as error:
        raise missing_dependency("trl, datasets and peft", "train", "DrSow.train") from error

    dpo: Any = trl

    class Trainer(dpo.DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *arguments: Any) -> Any:
            """As it is: the tokens are those that scoring reads, which TRL's own reading need not be."""
            return dataset

        def _send_telemetry(self) -> None:
            """Nothing is told to anyone."""

    on_gpu = model.device.type != "cpu"
    arguments = dpo.DPOConfig(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate or default_learning_rate(model),
        warmup_steps=0.1,
        beta=settings.beta,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        max_length=None,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=settings.seed,
        use_cpu=not on_gpu,
        bf16=str(model.dtype) == "torch.bfloat16",
        **_checkpointing(dpo.DPOConfig, on_gpu),
        dataloader_pin_memory=on_gpu,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=datasets.Dataset.from_list(_rows(train)),
        eval_dataset=datasets.Dataset.from_list(_rows(held_out)),
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(
            task_type="CAUSAL_LM", r=settings.lora_r, lora_alpha=settings.lora_alpha, target_modules="all-linear"
        ),
        callbacks=[transformers.EarlyStoppingCallback(settings.patience)],
    )
    # Without its own bar, the trainer prints.
    trainer.remove_callback(transformers.PrinterCallback)
    if show_progress:
        trainer.add_callback(_progress_bar())
    return trainer


def _checkpointing(config: Any, on: bool) -> dict[str, bool]:
    """Whether activations are computed again for the gradients, under each name that this transformers has for it."""
    known = {field.name for field in fields(config)}
    return {name: on for name in ("gradient_checkpointing", "activation_checkpointing") if name in known}


def default_learning_rate(model: Any) -> float:
    """0.2 over the model's width."""
    return LEARNING_RATE_TIMES_WIDTH / float(model.config.get_text_config().hidden_size)


def _rows(pairs: Sequence[TokenPair]) -> list[dict[str, Any]]:
    return [
        {
            "chosen_ids": pair.chosen.token_ids,
            "chosen_positions": pair.chosen.positions,
            "rejected_ids": pair.rejected.token_ids,
            "rejected_positions": pair.rejected.positions,
        }
        for pair in pairs
    ]


def collate(rows: Sequence[Mapping[str, list[int]]]) -> dict[str, Any]:
    """[2 x pairs, longest] each: the chosen responses, then the rejected ones, padded on the right."""
    import torch

    responses = [(row[f"{kind}_ids"], row[f"{kind}_positions"]) for kind in ("chosen", "rejected") for row in rows]
    shape = len(responses), max(len(token_ids) for token_ids, _ in responses)
    batch = {name: torch.zeros(shape, dtype=torch.long) for name in ("input_ids", "attention_mask", "completion_mask")}
    for i, (token_ids, positions) in enumerate(responses):
        batch["input_ids"][i, : len(token_ids)] = torch.tensor(token_ids)
        batch["attention_mask"][i, : len(token_ids)] = 1
        batch["completion_mask"][i, positions] = 1
    return batch


def _progress_bar() -> Any:
    import transformers
    from tqdm import tqdm

    callback: Any = transformers.TrainerCallback

    class ProgressBar(callback):  # type: ignore[misc]
        """One unit an update; the held-out loss and accuracy of the last epoch behind it."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step")

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.update(state.global_step - self.bar.n)

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
            loss, accuracy = metrics["eval_loss"], metrics["eval_rewards/accuracies"]
            self.bar.set_postfix_str(f"held-out loss {loss:.3f}, accuracy {accuracy:.0%}")

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.close()

    return ProgressBar()


# -- checkpoints ---------------------------------------------------------------------------------------------------


def _newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; what a killed process left half written is removed."""
    complete = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            _state(checkpoint)
        except (OSError, json.JSONDecodeError):
            shutil.rmtree(checkpoint)
        else:
            complete.append(checkpoint)
    return max(complete, key=lambda checkpoint: int(checkpoint.name.removeprefix("checkpoint-")), default=None)


def _state(checkpoint: Path) -> dict[str, Any]:
    """The trainer's record of its run, which is written as the last file of a checkpoint."""
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state


def _is_finished(state: Mapping[str, Any]) -> bool:
    """Whether no epoch is left, or early stopping had said enough; gone on with, the trainer would forget that."""
    stopped = state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]
    return bool(stopped or state["global_step"] >= state["max_steps"])


def _copy_adapter(checkpoint: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(checkpoint / name, folder / name)
