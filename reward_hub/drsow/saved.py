"""What DrSow keeps of a training: the folder with the adapter, and the two models that are loaded from it.

drsow.json      what was trained, how, and the report; written last, so that a folder that has it is complete
adapter/        the LoRA adapter, in PEFT's form
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pydantic

from reward_hub.base import BaseRM
from reward_hub.errors import CheckpointError, UnsupportedError

FAMILY = "drsow"
RECORD = "drsow.json"
ADAPTER = "adapter"


@dataclass(frozen=True)
class TrainingReport:
    """How a training went.

    Attributes:
        accuracy_before: share of held-out pairs whose chosen response the base model itself finds likelier, by the
            mean log-probability of its tokens (the log-ratio that is scored later is zero for every response as yet).
        accuracy_after: share of held-out pairs whose chosen response has the higher score. In both, a tie is a half.
        n_train, n_held_out: pairs trained on, and held out.
        n_steps: updates made; `best_step` is the one whose adapter is kept.
        held_out_loss: the DPO loss of the held-out pairs at that step.
        stopped_early: the held-out loss had stopped going down before the last epoch.
        resumed_from: the step at which an interrupted run was taken up, if it was.
    """

    accuracy_before: float
    accuracy_after: float
    n_train: int
    n_held_out: int
    n_steps: int
    best_step: int
    held_out_loss: float
    stopped_early: bool
    resumed_from: int | None


class Scoring(pydantic.BaseModel):
    """What else a score depends on, besides base model and adapter: as `DrSow` takes them."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)
    torch_dtype: str
    max_length: int | None
    truncation: str
    chat_template: str | None
    mask_special_tokens: bool
    system_prompt: str | None

    def family_options(self) -> dict[str, Any]:
        """Those that the family takes."""
        return self.model_dump(include={"mask_special_tokens", "system_prompt"})


class Record(pydantic.BaseModel):
    """drsow.json."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)
    format: Literal[1] = 1
    base_model: str
    revision: str | None
    base_fingerprint: str
    preference_data: str
    scoring: Scoring
    report: TrainingReport


@dataclass(frozen=True)
class Base:
    """The base model, found and fetched.

    Attributes:
        name: Hub id or absolute folder; `revision` is the commit of a Hub id.
        fingerprint: identifies weights, tokenizer and chat template.
    """

    name: str
    revision: str | None
    folder: Path
    fingerprint: str
    chat_template: str | None


def open_base(model: str | Path, *, revision: str | None, chat_template: str | None, access: Mapping[str, Any]) -> Base:
    """Find and fetch the base model: one folder, from which tuned and base model are both loaded.

    Args:
        access: token, cache_dir, local_files_only.
    """
    from reward_hub.loading.resolve import resolve
    from reward_hub.tokenizer import load_tokenizer

    files = resolve(model, family=FAMILY, revision=revision, **access).files
    if files.adapter is not None:
        raise UnsupportedError(
            f"{model} is an adapter over another model; merge it (peft's merge_and_unload) to train on."
        )
    folder = files.fetch()
    tokenizer = load_tokenizer(files.tokenizer_folder(), chat_template=chat_template)
    return Base(
        name=str(model) if files.revision else str(folder.absolute()),
        revision=files.revision,
        folder=folder,
        # Of the contents, so that a copy in a folder is the same base as the Hub's.
        fingerprint=f"{replace(files, revision=None).fingerprint()}+{tokenizer.fingerprint()}",
        chat_template=None if chat_template is None else tokenizer.chat_template,
    )


def read_record(folder: Path) -> Record:
    """The record of a finished run or a saved model.

    Raises:
        CheckpointError: the folder holds none.
    """
    try:
        text = (folder / RECORD).read_text(encoding="utf-8")
        record = Record.model_validate_json(text)
    except (OSError, UnicodeDecodeError, pydantic.ValidationError) as error:
        raise CheckpointError(f"{folder} holds no model that DrSow.save wrote: {error}") from error
    if not (folder / ADAPTER / "adapter_model.safetensors").is_file():
        raise CheckpointError(f"{folder} holds no {ADAPTER}/adapter_model.safetensors beside its {RECORD}.")
    return record


def check_base(base: Base, record: Record) -> None:
    """Raises CheckpointError where this is not the model that the adapter was trained over."""
    if base.fingerprint != record.base_fingerprint:
        raise CheckpointError(
            f"{base.name} is not the base model that was trained on: its weights, tokenizer or chat template differ "
            f"({base.fingerprint} in place of {record.base_fingerprint}). Give base_model= where that one lies."
        )


def copy_model(source: Path, target: Path) -> None:
    """Copy adapter and record; an earlier model at `target` is replaced."""
    if target.exists() and target.samefile(source):
        return
    (target / RECORD).unlink(missing_ok=True)
    shutil.copytree(source / ADAPTER, target / ADAPTER, dirs_exist_ok=True)
    write_json(target / RECORD, json.loads((source / RECORD).read_text(encoding="utf-8")))


def load_models(base: Base, adapter: Path, scoring: Scoring, engine: Mapping[str, Any]) -> BaseRM:
    """The tuned model over the base."""
    from reward_hub.auto import AutoRM

    with quiet_peft():
        return AutoRM.load(
            base.folder,
            "transformers",
            family=FAMILY,
            reference=base.folder,
            adapter=adapter,
            options=scoring.family_options(),
            **load_arguments(base, scoring),
            **engine,
        )


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without what peft warns of that nobody here can act on.

    These are a name that transformers has changed, and that the layers of GPT-2 lie transposed, which peft sees to.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)
        yield


def load_arguments(base: Base, scoring: Scoring) -> dict[str, Any]:
    settings = scoring.model_dump(include={"torch_dtype", "max_length", "truncation"})
    return {**settings, "chat_template": base.chat_template}


def write_json(path: Path, value: Any) -> None:
    """In one piece: a process that is killed leaves the file as it was, or not there."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)
