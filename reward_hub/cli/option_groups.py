"""Groups of options that several commands share, each a dataclass with one field per option.

A command takes a group as one parameter; `command_of` shows typer its fields:

    def score(file: File, *, model: Model, load: LoadOptions, log: LogOptions) -> None: ...
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import sys
import typing
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from reward_hub.cli.column_options import ColumnOptions
from reward_hub.cli.usage import UsageError

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

_MODEL = "Model"
_BATCHES = "Length and batches"
_HUB = "Hub"
_API = "Server (load method api; the key comes from REWARD_HUB_API_KEY or OPENAI_API_KEY)"
RUN = "Run"
_LOG = "Messages"


def set_up_logging(level: int) -> int:
    """Log to stderr: warnings, with -v one line per load, with -vv batches."""
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    logging.getLogger("reward_hub").setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(level, 2)])
    warnings.showwarning = _print_warning
    return level


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {message}", file=file or sys.stderr)


Json = Annotated[bool, typer.Option("--json", help="Print for machines.")]
Model = Annotated[str, typer.Option("--model", "-m", help="A hub id, a local folder, or a built-in model.")]


@dataclasses.dataclass(frozen=True)
class LogOptions:
    """What is said on stderr. `--debug` is acted on by `reward_hub.cli.main`."""

    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            callback=set_up_logging,
            help="Say more; twice for most.",
            rich_help_panel=_LOG,
        ),
    ] = 0
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the code an error arose.", rich_help_panel=_LOG)
    ] = False


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """Where a checkpoint is and how it is read: the options of `AutoRM.inspect`."""

    family: Annotated[
        str | None, typer.Option(help="How the model is read, where its files do not say.", rich_help_panel=_MODEL)
    ] = None
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An option of the family (see `families NAME`); the value is JSON, or else text.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    adapter: Annotated[str | None, typer.Option(help="A PEFT adapter on the model.", rich_help_panel=_MODEL)] = None
    max_length: Annotated[
        int | None, typer.Option(min=1, help="In tokens; by default the model's own.", rich_help_panel=_BATCHES)
    ] = None
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.", rich_help_panel=_HUB)] = None
    local_files_only: Annotated[
        bool, typer.Option("--local-files-only", help="Ask the cache alone, not the hub.", rich_help_panel=_HUB)
    ] = False
    cache_dir: Annotated[str | None, typer.Option(help="Where files of the hub are kept.", rich_help_panel=_HUB)] = None

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `AutoRM.inspect` or, in the subclass, of `AutoRM.load`.

        Raises:
            UsageError: a NAME=VALUE that is none.
        """
        arguments = dataclasses.asdict(self)
        arguments["options"] = named_values("--option", arguments.pop("option")) or None
        return arguments


@dataclasses.dataclass(frozen=True)
class LoadOptions(CheckpointOptions):
    """The options of `AutoRM.load`, the model apart."""

    load_method: Annotated[str, typer.Option(help="auto, transformers (hf), vllm or api.", rich_help_panel=_MODEL)] = (
        "auto"
    )
    dtype: Annotated[
        str,
        typer.Option("--dtype", "--torch-dtype", help="auto, float32, bfloat16, ...", rich_help_panel=_MODEL),
    ] = "auto"
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...", rich_help_panel=_MODEL)] = None
    aggregation: Annotated[
        str | None,
        typer.Option(help="Step scores to one score: min, last, product, mean, ... or model.", rich_help_panel=_MODEL),
    ] = None
    reference: Annotated[
        str | None, typer.Option(help="The reference model of an implicit reward.", rich_help_panel=_MODEL)
    ] = None
    beta: Annotated[float | None, typer.Option(help="Its coefficient.", rich_help_panel=_MODEL)] = None
    length_normalize: Annotated[
        bool,
        typer.Option(
            "--length-normalize", help="An implicit reward per token of the response.", rich_help_panel=_MODEL
        ),
    ] = False
    engine_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option of the engine, likewise.", rich_help_panel=_MODEL),
    ] = None
    truncation: Annotated[
        Literal["error", "prompt", "left", "right"],
        typer.Option(help="What becomes of a conversation that is too long.", rich_help_panel=_BATCHES),
    ] = "error"
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="At most so many conversations a batch.", rich_help_panel=_BATCHES)
    ] = None
    max_batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="At most so many tokens a batch.", rich_help_panel=_BATCHES)
    ] = None
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code of the model's repository.", rich_help_panel=_HUB)
    ] = False
    api_base: Annotated[
        str | None, typer.Option(help="Its address; the model is then the served name.", rich_help_panel=_API)
    ] = None
    checkpoint: Annotated[
        str | None, typer.Option(help="A hub id or folder of what it holds.", rich_help_panel=_API)
    ] = None
    dialect: Annotated[
        str | None, typer.Option(help="What it speaks, where that is not found.", rich_help_panel=_API)
    ] = None
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.001, help="Seconds of one attempt.", rich_help_panel=_API)
    ] = 60.0
    max_retries: Annotated[int, typer.Option(min=0, help="Further attempts.", rich_help_panel=_API)] = 4
    max_concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.", rich_help_panel=_API)] = 32

    def arguments(self) -> dict[str, Any]:
        arguments = super().arguments()
        engine_options = named_values("--engine-option", arguments.pop("engine_option"))
        arguments["torch_dtype"] = arguments.pop("dtype")
        for name in engine_options.keys() & arguments.keys():
            raise UsageError(f"--engine-option {name}: there is an option of its own for it, see --help.")
        return arguments | engine_options

    def settings(self) -> dict[str, Any]:
        """Those that may change a score beyond rounding; the others may differ when a run is resumed."""
        here = ("device", "batch_size", "max_batch_tokens", "local_files_only", "cache_dir", "trust_remote_code")
        neutral = (*here, "timeout_s", "max_retries", "max_concurrency")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in neutral}


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a run goes on after a kill, and what is said of it."""

    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Score again what failed.", rich_help_panel=RUN)
    ] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew instead of going on.", rich_help_panel=RUN)
    ] = False
    chunk_size: Annotated[int, typer.Option(min=1, help="Scored between two writes.", rich_help_panel=RUN)] = 256
    progress: Annotated[
        bool | None,
        typer.Option(help="A progress bar; by default on a terminal.", show_default=False, rich_help_panel=RUN),
    ] = None
    json: Annotated[bool, typer.Option("--json", help="Print the summary for machines.", rich_help_panel=RUN)] = False


@dataclasses.dataclass(frozen=True)
class RowOptions(ColumnOptions, RunOptions):
    """Which rows are read and where they go."""

    out: Annotated[
        str | None, typer.Option("--out", "-o", help="A JSONL file; `-` is standard output.", rich_help_panel=RUN)
    ] = None
    details: Annotated[bool, typer.Option("--details", help="Write each score's details.", rich_help_panel=RUN)] = False


def named_values(option: str, pairs: Sequence[str] | None) -> dict[str, Any]:
    """`["a=1", "b=x"]` as `{"a": 1, "b": "x"}`."""
    values: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise UsageError(f"{option} {pair!r}: write NAME=VALUE.")
        if name in values:
            raise UsageError(f"{option} {name} is given twice.")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def load_model(model: str, load: LoadOptions) -> BaseRM:
    """`AutoRM.load`, an option that it refuses being bad usage."""
    from reward_hub.auto import AutoRM

    arguments = load.arguments()
    try:
        return AutoRM.load(model, **arguments)
    except TypeError as error:
        raise UsageError(str(error)) from error


def command_of(function: Callable[..., None]) -> Callable[..., None]:
    """The same command with each group's fields as parameters of their own, as typer reads them."""
    signature = inspect.signature(function, eval_str=True)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if dataclasses.is_dataclass(parameter.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        parameters += _parameters_of(groups[name]) if name in groups else [parameter.replace(kind=_KEYWORD)]

    def run(**values: Any) -> None:
        grouped = {
            name: group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        function(**values, **grouped)

    run.__doc__ = function.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _parameters_of(group: Any) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(field.name, _KEYWORD, default=field.default, annotation=hints[field.name])
        for field in dataclasses.fields(group)
    ]
