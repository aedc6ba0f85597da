"""Groups of options that several commands share, each a dataclass with one field an option."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import sys
import warnings
from typing import Annotated, Any, TextIO

import typer

from reward_hub.auto import AutoRM
from reward_hub.base import BaseRM
from reward_hub.cli.column_options import ColumnOptions
from reward_hub.cli.signature_options import Option, SignatureOptions, options_of
from reward_hub.cli.usage import UsageError
from reward_hub.loading.arguments import ENGINE, KEY, table_of

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


def typed_delimiter(text: str | None) -> str | None:
    """A step delimiter as it is typed, where two characters stand for one that ends a line or a cell."""
    if text is None:
        return None
    return text.replace(r"\n", "\n").replace(r"\r", "\r").replace(r"\t", "\t")


StepDelimiter = Annotated[
    str | None,
    typer.Option(
        "--step-delimiter",
        callback=typed_delimiter,
        help=r"Process models: where a response is split (\n is a line end); by default the family's.",
    ),
]


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


_SHARED = tuple(inspect.signature(AutoRM.inspect).parameters)
"""What `load`, `inspect` and `serve_args` take alike."""
_OWN = {
    "options": Option(help="An option of the family (see `families NAME`); the value is JSON, or else text."),
    "load_method": Option(help="auto, transformers (hf), vllm or api."),
    "torch_dtype": Option(names=("--dtype", "--torch-dtype"), field="dtype"),
    "tokenizer": Option(help="Folder or hub id of another tokenizer."),
    "quantization_config": Option(help="For vLLM: the name of a method, as in fp8."),
    "engine_options": Option(help="An option of the engine, likewise."),
    **{name: Option(panel=_BATCHES) for name in ("max_length", "truncation", "batch_size", "max_batch_tokens", "tune")},
    **{name: Option(panel=_HUB) for name in ("revision", "local_files_only", "cache_dir", "trust_remote_code")},
    **{name: Option(panel=_API) for name, row in table_of(AutoRM.load).items() if not ENGINE & row.readers},
}
_KEYS = tuple(name for name, row in table_of(AutoRM.load).items() if KEY in row.notes)


@options_of(AutoRM.load, panel=_MODEL, own=_OWN, only=_SHARED, without=("model", *_KEYS))
class CheckpointOptions(SignatureOptions):
    """Where a checkpoint is and how it is read: the options of `AutoRM.inspect`."""


@options_of(AutoRM.load, panel=_MODEL, own=_OWN, without=("model", *_KEYS))
class LoadOptions(CheckpointOptions):
    """The options of `AutoRM.load`, the model apart."""

    def arguments(self) -> dict[str, Any]:
        arguments = super().arguments()
        engine_options = arguments.pop("engine_options") or {}
        for name in engine_options.keys() & arguments.keys():
            raise UsageError(f"--engine-option {name}: there is an option of its own for it, see --help.")
        return arguments | engine_options

    def settings(self) -> dict[str, Any]:
        """Those that may change a score beyond rounding; the others may differ when a run is resumed."""
        here = ("device", "batch_size", "max_batch_tokens", "local_files_only", "cache_dir", "trust_remote_code")
        neutral = (*here, "timeout_s", "max_retries", "max_concurrency", "tune")
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
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="JSONL, JSON, CSV, TSV or Parquet by its ending, also packed (.gz); `-` is JSONL on standard output.",
            rich_help_panel=RUN,
        ),
    ] = None
    details: Annotated[bool, typer.Option("--details", help="Write each score's details.", rich_help_panel=RUN)] = False


def load_model(model: str, load: LoadOptions) -> BaseRM:
    """`AutoRM.load`, an option that it refuses being bad usage."""
    arguments = load.arguments()
    try:
        return AutoRM.load(model, **arguments)
    except TypeError as error:
        raise UsageError(str(error)) from error
