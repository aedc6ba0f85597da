"""DrSow: a reward from the density ratio of a strong and a weak language model (Dr. SoW, arXiv 2411.02481).

Scores a response with the mean of log p_strong - log p_weak over its tokens; unbounded, higher is better. The two
models are given, or the strong one is trained: the weak one with an adapter, tuned on preference pairs.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from reward_hub.base import BaseRM
from reward_hub.errors import UnknownModelError, UnsupportedError
from reward_hub.load_call import LoadCall
from reward_hub.reward_model import CallOptions, Capabilities, Result
from reward_hub.types import Conversation, ModelInput, Pair
from reward_hub.work import Work, in_thread

if TYPE_CHECKING:
    from reward_hub.drsow.saved import Record, Scoring, TrainingReport

# What an adapter runs on.
_TRAINS_ON = ("auto", "transformers", "hf")
_FOLDERS = ("strong", "weak", "base_model", "preference_data", "chat_template", "cache_dir")
_ADDRESS = ("http://", "https://")


class DrSow(BaseRM):
    """Two models, loaded when the first conversation comes; or one, of which `train` makes the other.

    Args:
        strong, weak: Hub ids or checkpoint folders; each model is given its own tokenizer's tokens. On servers:
            their names at `api_base`, or the address of a server (`http://...`) for the model that it holds.
        base_model, preference_data: in their place, what `train` starts from: Hub id or folder of a causal language
            model, and a file of preference pairs (see `reward_hub.data.preferences`). The tuned model is then the
            strong one, the base the weak one.
        load_method, torch_dtype, ..., engine_options: as `AutoRM.load` takes them, for both models; it checks them.
            A trained model runs on Transformers and takes no engine options.
        mask_special_tokens: no special token counts; by default only the padding token does not.
        system_prompt: put in front of every conversation.

    Raises:
        TypeError: a model is missing, or both kinds of arguments are given.
        UnsupportedError: training with another engine than Transformers.
    """

    family = "drsow"

    def __init__(
        self,
        *,
        strong: str | Path | None = None,
        weak: str | Path | None = None,
        base_model: str | Path | None = None,
        preference_data: str | Path | None = None,
        load_method: str = "auto",
        torch_dtype: Any = "auto",
        device: Any = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        chat_template: str | None = None,
        max_length: int | None = None,
        truncation: str = "error",
        batch_size: int | None = None,
        max_batch_tokens: int | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        mask_special_tokens: bool = False,
        system_prompt: str | None = None,
        **engine_options: Any,
    ) -> None:
        given = {**locals(), **engine_options}
        del given["self"], given["engine_options"]
        if base_model is None and preference_data is None:
            if strong is None or weak is None:
                raise TypeError("DrSow compares two models: give strong= and weak=, or base_model= to train one.")
            self.name = f"{strong} / {weak}"
        else:
            if strong is not None or weak is not None:
                raise TypeError("Give strong= and weak= to score, or base_model= and preference_data= to train.")
            if base_model is None or preference_data is None:
                raise TypeError("Training needs base_model= and preference_data=.")
            if load_method not in _TRAINS_ON:
                raise UnsupportedError(
                    f"load_method={load_method!r}: training runs on transformers. Score with another engine by merging "
                    "the adapter (peft's merge_and_unload) and giving strong= and weak=."
                )
            if engine_options:
                raise TypeError(f"{', '.join(sorted(engine_options))}: no option of a model that is trained.")
            if not isinstance(preference_data, (str, Path)):
                raise TypeError(
                    f"preference_data is a {type(preference_data).__name__}; the path of a file of pairs is needed "
                    "(JSONL, JSON, CSV or Parquet, or a folder of save_to_disk)."
                )
            self.name = f"{base_model} (tuned) / {base_model}"
        if not isinstance(mask_special_tokens, bool):
            raise TypeError(f"mask_special_tokens={mask_special_tokens!r}; True or False is needed.")
        if not (system_prompt is None or isinstance(system_prompt, str)):
            raise TypeError(f"system_prompt={system_prompt!r}; a text is needed.")
        self._strong = strong
        self._weak = weak
        self._base_model = base_model
        self._preference_data = preference_data
        self._load_method = load_method
        self._revision = revision
        self._options = {"mask_special_tokens": mask_special_tokens, "system_prompt": system_prompt}
        self._scoring: Mapping[str, Any] = {
            "torch_dtype": torch_dtype,
            "max_length": max_length,
            "truncation": truncation,
            "chat_template": chat_template,
        }
        self._access: Mapping[str, Any] = {
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        self._engine: Mapping[str, Any] = {
            "device": device,
            "device_map": device_map,
            "attn_implementation": attn_implementation,
            "batch_size": batch_size,
            "max_batch_tokens": max_batch_tokens,
            **engine_options,
        }
        self._trained: tuple[Path, Record] | None = None
        self.n_trainings = 0
        self._loaded: BaseRM | None = None
        self._lock = threading.Lock()
        if type(self) is DrSow:
            served = load_method in ("api", "openai") or "api_base" in engine_options
            # On a server these are its names, whatever folders lie here.
            folders = set(_FOLDERS) - ({"strong", "weak"} if served else set())
            self.load_call = LoadCall.of(DrSow, given, self, keys=("token", "api_key"), folders=folders)

    # -- training --------------------------------------------------------------------------------------------------

    def train(
        self,
        *,
        epochs: int = 10,
        learning_rate: float | None = None,
        beta: float = 0.1,
        lora_r: int = 16,
        lora_alpha: int = 32,
        batch_size: int = 8,
        held_out: float = 0.1,
        patience: int = 2,
        seed: int = 0,
        output_dir: str | Path | None = None,
        show_progress: bool = False,
    ) -> TrainingReport:
        """Tune a LoRA adapter over the base model with DPO; from then on this model scores.

        A run that was killed goes on from its last checkpoint (one is written after each epoch) when the same
        training is called again; a finished one is read, not repeated.

        Args:
            epochs: at most; `patience` epochs in a row that do not lower the held-out loss end the training, and the
                adapter of the best epoch is kept.
            learning_rate: of the adapter; default: 0.2 over the model's width (5e-5 at 4096).
            beta: DPO's: how dearly the tuned model pays for leaving the base.
            lora_r, lora_alpha: rank and scale of the adapter, which lies over every linear layer but the LM head.
            batch_size: pairs of one update.
            held_out: the share of the pairs that is not trained on, whole prompts at a time.
            output_dir: the folder of the run; default: one of the working directory, named by what is trained and how.
            show_progress: a bar over the updates, with held-out loss and accuracy.

        Returns:
            The report, with the accuracy on the held-out pairs before and after. They also chose the best epoch;
            pairs of another file tell the accuracy without that.

        Raises:
            InvalidConversationError, InputTooLongError: rows that cannot be trained on, with their lines.
            CheckpointError: `output_dir` holds another run.
            MissingDependencyError: the extra `train` is not installed.
            UnsupportedError: the two models were given.
        """
        from reward_hub.drsow import saved as drsow_saved
        from reward_hub.drsow import training as drsow_training
        from reward_hub.drsow.trainer import TrainingSettings

        if self._base_model is None or self._preference_data is None:
            raise UnsupportedError("strong= and weak= only score; give base_model= and preference_data= to train.")
        settings = TrainingSettings(
            epochs=epochs,
            learning_rate=learning_rate,
            beta=beta,
            lora_r=lora_r,
            lora_alpha=lora_alpha,
            batch_size=batch_size,
            held_out=held_out,
            patience=patience,
            seed=seed,
        )
        base = drsow_saved.open_base(
            self._base_model,
            revision=self._revision,
            chat_template=self._scoring["chat_template"],
            access=self._access,
        )
        trained = drsow_training.train(
            base,
            Path(self._preference_data),
            settings,
            self._scoring_record(base.chat_template),
            engine=self._engine,
            output_dir=None if output_dir is None else Path(output_dir),
            show_progress=show_progress,
        )
        self.close()
        with self._lock:
            # The commit that was trained over, wherever a branch of that name moves to.
            self._trained, self._revision = trained, base.revision
            self.n_trainings += 1
        return trained[1].report

    def _scoring_record(self, chat_template: str | None) -> Scoring:
        from reward_hub.drsow.saved import Scoring

        dtype = str(self._scoring["torch_dtype"]).removeprefix("torch.")
        return Scoring(**{**self._scoring, **self._options, "torch_dtype": dtype, "chat_template": chat_template})

    @property
    def report(self) -> TrainingReport | None:
        """How the training went; None before it, and for two given models."""
        return None if self._trained is None else self._trained[1].report

    def save(self, path: str | Path) -> None:
        """Write adapter, settings and report to a folder; the base model is named there, not copied.

        Raises:
            UnsupportedError: nothing was trained.
        """
        from reward_hub.drsow.saved import copy_model

        copy_model(self._trained_model()[0], Path(path))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        base_model: str | Path | None = None,
        torch_dtype: Any = None,
        device: Any = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        batch_size: int | None = None,
        max_batch_tokens: int | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> DrSow:
        """A trained model from the folder of `save`, or from the `output_dir` of a finished training.

        Args:
            base_model: where the base lies now, if not where it was; another model than that is an error.
            torch_dtype: default: as trained.

        Raises:
            CheckpointError: the folder holds no such model; when the first conversation comes, that the base differs.
        """
        from reward_hub.drsow.saved import read_record

        folder = Path(path).absolute()
        record = read_record(folder)
        settings = record.scoring.model_dump()
        if torch_dtype is not None:
            settings["torch_dtype"] = torch_dtype
        rm = cls(
            base_model=record.base_model if base_model is None else base_model,
            preference_data=record.preference_data,
            revision=record.revision if base_model is None else None,
            device=device,
            device_map=device_map,
            attn_implementation=attn_implementation,
            batch_size=batch_size,
            max_batch_tokens=max_batch_tokens,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            **settings,
        )
        rm._trained = folder, record
        return rm

    def _trained_model(self) -> tuple[Path, Record]:
        if self._base_model is None:
            raise UnsupportedError("Two models were given, and nothing was trained that could be saved.")
        if self._trained is None:
            raise UnsupportedError(f"{self._base_model} is not trained yet: call train(), or DrSow.load(path).")
        return self._trained

    # -- scoring ---------------------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        return self._models().fingerprint

    @property
    def runs_on(self) -> Mapping[str, Any]:
        return {"backend": self._load_method} if self._loaded is None else self._loaded.runs_on

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """The call that made it, with what `train` or `load` left."""
        if self.load_call is None:
            return super().__reduce_ex__(protocol)
        trained = {name: vars(self)[name] for name in ("_trained", "_revision", "n_trainings")}
        return self.load_call.reduced(self, **trained)

    def close(self) -> None:
        """Give both models back; the next conversation would load them again."""
        with self._lock:
            if self._loaded is not None:
                self._loaded.close()
            self._loaded = None

    @property
    def capabilities(self) -> Capabilities:
        if self._loaded is not None:
            return self._loaded.capabilities
        # Not loaded just to be asked for this.
        addresses = str(self._strong).startswith(_ADDRESS) or self._engine.get("api_base") is not None
        return replace(
            super().capabilities,
            waits_elsewhere=addresses or self._load_method in ("api", "openai"),
            score_range=(-math.inf, math.inf),
        )

    def scoring_of(self, conversations: Sequence[Conversation], options: CallOptions) -> Work[list[Result]]:
        models = yield from in_thread(self._models)
        return (yield from models.scoring_of(conversations, options))

    @property
    def load_report(self) -> Mapping[str, Any]:
        return self.runs_on if self._loaded is None else self._loaded.load_report

    def inputs_of(self, value: Conversation | Pair) -> list[ModelInput]:
        return self._models().inputs_of(value)

    def _models(self) -> BaseRM:
        """Strong and weak model as one reward model; loaded on the first call."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load_given() if self._base_model is None else self._load_trained()
                self.max_length = self._loaded.max_length
            return self._loaded

    def _load_given(self) -> BaseRM:
        from reward_hub.auto import AutoRM

        assert self._strong is not None
        strong, engine = self._strong, self._engine
        if str(strong).startswith(_ADDRESS):
            if engine.get("api_base") is not None:
                raise TypeError(f"strong={strong!r} is an address, and so is api_base=; give one of them.")
            strong, engine = "", {**engine, "api_base": strong}
        return AutoRM.load(
            strong,
            self._load_method,
            family=self.family,
            reference=self._weak,
            revision=self._revision,
            options=self._options,
            **self._scoring,
            **self._access,
            **engine,
        )

    def _load_trained(self) -> BaseRM:
        from reward_hub.drsow import saved as drsow_saved

        folder, record = self._trained_model()
        assert self._base_model is not None
        try:
            base = drsow_saved.open_base(
                self._base_model,
                revision=self._revision,
                chat_template=record.scoring.chat_template,
                access=self._access,
            )
        except UnknownModelError as error:
            error.message += (
                " It is the base of a trained model: DrSow.load(path, base_model=...) tells where it lies now."
            )
            raise
        drsow_saved.check_base(base, record)
        scoring = self._scoring_record(base.chat_template)
        return drsow_saved.load_models(base, folder / drsow_saved.ADAPTER, scoring, self._engine)
