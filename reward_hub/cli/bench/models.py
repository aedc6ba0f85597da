"""The options of `bench` that say what scores: a model, an ensemble from a file, a judge, or recorded scores."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from reward_hub.bench.benchmark import JudgeMode
from reward_hub.bench.data import sha256_of
from reward_hub.bench.ensemble_file import ensemble_of, kind_of_judges, local_files
from reward_hub.bench.item_rows import Scored
from reward_hub.bench.results import JUDGE_MODES, ModelFacts
from reward_hub.cli.bench.files import BenchTask
from reward_hub.cli.named_values import named_values
from reward_hub.cli.option_groups import LoadOptions, load_model
from reward_hub.cli.signature_options import option_group
from reward_hub.cli.usage import UsageError
from reward_hub.data.rows import RowFormatError
from reward_hub.errors import UnsupportedError

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

_Read = TypeVar("_Read")

_MODEL = "Model"
# Those options of loading that a judge has too.
_OF_JUDGES = ("load_method", "api_base", "timeout_s", "max_retries", "max_concurrency", "engine_option")
# Arguments of LLMJudge that have an option here, under another name or to other ends.
_BY_OPTION = ("model", "rubric", "engine", "engine_options", "api_key")
# What costs time or money alone; a resumed run may have others.
_NEUTRAL_OF_JUDGES = (
    *("prices", "budget", "token_budget", "requests_per_minute", "tokens_per_minute"),
    *("max_concurrency", "timeout_s", "deadline_s", "max_retries", "engine_options"),
)


# A run's settings and command line are written into its results, which may be pushed.
_SECRETS = {
    "api_key": "keys come from REWARD_HUB_API_KEY or OPENAI_API_KEY",
    "token": "tokens come from HF_TOKEN or `hf auth login`",
}


# `raw` of FastChat, under which rewardbench runs models without a template: the texts, with nothing around them.
_RAW = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@option_group
class BenchLoadOptions(LoadOptions):
    """Those of `AutoRM.load`, under rewardbench's names too."""

    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", "--ref-model", help="The reference model of an implicit reward.", rich_help_panel=_MODEL
        ),
    ] = None
    chat_template: Annotated[
        str | None,
        typer.Option(help="A template (Jinja), its file, or `raw`: in place of the model's.", rich_help_panel=_MODEL),
    ] = None


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """What scores."""

    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A hub id, a local folder, or a built-in model.")
    ] = None
    ensemble: Annotated[
        Path | None, typer.Option(help="An ensemble from a YAML or JSON file.", rich_help_panel=_MODEL)
    ] = None
    scores: Annotated[
        str | None,
        typer.Option(help="Recorded scores (rows with id) in place of a model.", rich_help_panel=_MODEL),
    ] = None
    judge: Annotated[
        bool,
        typer.Option(
            "--judge", help="The model is an LLM judge: --api-base, or --load-method vllm.", rich_help_panel=_MODEL
        ),
    ] = False
    rubric: Annotated[
        str | None, typer.Option(help="What a judge goes by: a text, or a file that holds it.", rich_help_panel=_MODEL)
    ] = None
    judge_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another argument of LLMJudge: mode, form, n_samples, ...",
            rich_help_panel=_MODEL,
        ),
    ] = None
    force_truncation: Annotated[
        bool, typer.Option("--force-truncation", help="The same as --truncation left.", rich_help_panel=_MODEL)
    ] = False
    not_quantized: Annotated[
        bool,
        typer.Option(
            "--not-quantized", help="As it is in any case: no model is quantized unasked.", rich_help_panel=_MODEL
        ),
    ] = False


@dataclasses.dataclass(frozen=True)
class Source:
    """What scores, with the options that it is loaded with."""

    options: ModelOptions
    load_options: BenchLoadOptions

    @classmethod
    def of(cls, options: ModelOptions, load: BenchLoadOptions) -> Source:
        """Check that the options fit together.

        Raises:
            UsageError: they do not, or no model is said.
        """
        for option, pairs in (("--judge-option", options.judge_option), ("--engine-option", load.engine_option)):
            for name in named_values(option, pairs).keys() & _SECRETS.keys():
                raise UsageError(f"{option} {name}: {_SECRETS[name]}; what is typed here is written into results.json.")
        said = [name for name in ("model", "ensemble", "scores") if getattr(options, name) is not None]
        if len(said) != 1:
            found = f"not {' and '.join('--' + name for name in said)}" if said else "found none of them"
            raise UsageError(f"say what scores with one of --model, --ensemble and --scores; {found}.")
        if options.model is None:
            _refuse_load_options(load, f"with --{said[0]} none is")
        elif options.judge:
            _refuse_load_options(load, "a judge is not", taken=_OF_JUDGES)
        if not (options.judge and options.model) and (options.judge or options.rubric or options.judge_option):
            raise UsageError("--judge, --rubric and --judge-option go together, with --model.")
        if load.chat_template == "raw":
            load = load.but(chat_template=_RAW)
        if load.chat_template is not None and not _is_template(load.chat_template):
            raise UsageError(
                f"--chat-template {load.chat_template!r} is neither a file nor a Jinja template. Of the names of "
                "FastChat's conversation templates only 'raw' is known; leave the option out, and the model has its "
                "own template."
            )
        if options.force_truncation:
            if load.truncation not in ("error", "left"):
                raise UsageError(
                    f"--force-truncation is --truncation left, and --truncation {load.truncation} is said."
                )
            load = load.but(truncation="left")
        return cls(options, load)

    @property
    def name(self) -> str:
        return str(self.options.model or self.options.ensemble or self.options.scores)

    @property
    def judge(self) -> JudgeMode | None:
        """How a judge, or an ensemble of judges alone, answers, for suites that count judges by a rule of their own."""
        if self.options.ensemble is not None:
            return JUDGE_MODES.get(self._of_ensemble(kind_of_judges) or "")
        if not self.options.judge:
            return None
        with self._judge() as judge:
            return JUDGE_MODES.get(judge.kind)

    def settings(self) -> dict[str, Any]:
        """What the scores depend on, as plain JSON."""
        if self.options.ensemble is not None:
            # Not what it says, for it may hold a key.
            return {"ensemble": str(self.options.ensemble), "ensemble_sha256": self._of_ensemble(sha256_of)}
        settings = {"model": self.options.model, **self.load_options.settings()}
        if not self.options.judge:
            return settings
        given = named_values("--judge-option", self.options.judge_option)
        return settings | {
            "rubric": self._rubric,
            "judge": {name: value for name, value in given.items() if name not in _NEUTRAL_OF_JUDGES},
        }

    def files(self) -> list[Path]:
        """Files and folders that the scores depend on; those that a name on the hub stands for are not among them."""
        if self.options.ensemble is not None:
            return self._of_ensemble(local_files)
        load = self.load_options
        named = (self.options.model, load.reference, load.adapter, load.checkpoint, load.tokenizer)
        template = load.chat_template if load.chat_template and "{" not in load.chat_template else None
        return [Path(name) for name in (*named, template) if name is not None and Path(name).exists()]

    def load(self) -> BaseRM:
        """Load the model.

        Raises:
            UsageError: an option that the model does not take.
            RewardHubError: it cannot be loaded.
        """
        if self.options.ensemble is not None:
            return self._of_ensemble(ensemble_of)
        assert self.options.model is not None
        if self.options.judge:
            return self._judge()
        return load_model(self.options.model, _on_own_device(self.load_options))

    def _of_ensemble(self, read: Callable[[Path], _Read]) -> _Read:
        assert self.options.ensemble is not None
        try:
            return read(self.options.ensemble)
        except (OSError, TypeError, ValueError) as error:
            raise UsageError(f"--ensemble {self.options.ensemble}: {_said(error)}") from error

    @property
    def _rubric(self) -> str | None:
        from reward_hub.cli.judge_options import JudgeOptions

        return JudgeOptions(rubric=self.options.rubric).rubric_text

    def _judge(self) -> BaseRM:
        """The judge; nothing is called or started by this."""
        from reward_hub.judge import LLMJudge

        load, arguments = self.load_options, named_values("--judge-option", self.options.judge_option)
        _check_judge_options(arguments.keys())
        arguments["load_method"] = "api" if load.load_method == "auto" else load.load_method
        arguments |= {"api_base": load.api_base, "max_retries": load.max_retries}
        arguments |= {"max_concurrency": load.max_concurrency, "rubric": self._rubric}
        if load.timeout_s != LoadOptions().timeout_s:
            arguments["timeout_s"] = load.timeout_s
        if load.engine_option:
            arguments["engine_options"] = named_values("--engine-option", load.engine_option)
        if arguments.get("mode") == "pairwise":
            # Both orders are asked for here, each by itself: a reply without a verdict then costs that order alone.
            arguments.setdefault("both_orders", False)
        try:
            return LLMJudge(str(self.options.model), **arguments)
        except (TypeError, ValueError, UnsupportedError) as error:
            raise UsageError(str(error)) from error

    def recorded(self, task: BenchTask) -> list[Scored]:
        """The recorded scores of the items.

        Raises:
            UsageError: they cannot be read, or are of other data.
        """
        from reward_hub.bench.recorded_scores import recorded

        assert self.options.scores is not None
        try:
            return recorded(task.items, self.options.scores, task.form, partial=task.partial)
        except (RowFormatError, OSError) as error:
            raise UsageError(f"--scores: {_said(error)}") from error

    def facts(self) -> ModelFacts:
        """Of recorded scores, whose model is not known."""
        return ModelFacts(name=self.name, kind="recorded")


def _refuse_load_options(load: BenchLoadOptions, why: str, *, taken: Sequence[str] = ()) -> None:
    for field in dataclasses.fields(load):
        if field.name not in taken and getattr(load, field.name) != field.default:
            raise UsageError(f"--{field.name.replace('_', '-')} is of a reward model that is loaded; {why}.")


def _check_judge_options(names: Iterable[str]) -> None:
    from reward_hub.judge import LLMJudge

    known = inspect.signature(LLMJudge).parameters.keys() - {*_OF_JUDGES, *_BY_OPTION}
    for name in names:
        if name in (*_OF_JUDGES, *_BY_OPTION):
            raise UsageError(f"--judge-option {name}: there is an option of its own for it, see --help.")
        if name not in known:
            raise UsageError(
                f"--judge-option {name}: LLMJudge has no such argument; known: {', '.join(sorted(known))}."
            )


def _said(error: Exception) -> str:
    """The words of an error, those of the system with the file first."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error)


def _is_template(text: str) -> bool:
    return "{" in text or Path(text).is_file()


def _on_own_device(load: BenchLoadOptions) -> BenchLoadOptions:
    """Under a launcher of several processes (`accelerate launch`, torchrun) each takes the GPU of its local rank."""
    import os

    rank = os.environ.get("LOCAL_RANK")
    if rank is None or load.device is not None or load.api_base is not None:
        return load
    import torch

    return load.but(device=f"cuda:{rank}") if torch.cuda.is_available() else load
