"""The command line: one file per command in this folder, imported when its command is asked for."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_command

from reward_hub.cli.option_groups import command_of
from reward_hub.cli.usage import UsageError
from reward_hub.errors import RewardHubError
from reward_hub.version import __version__

# Command and file; each file holds one function, named `run`, or an `app` where it has commands below it.
_FILES = {
    "score": "score",
    "steps": "steps",
    "rank": "rank",
    "judge": "judge",
    "ensemble": "ensemble",
    "bench": "bench.command",
    "families": "families",
    "inspect": "inspect",
    "serve-args": "serve_args",
    "serve": "serve",
    "verify": "verify",
    "cache": "cache",
}


class Commands(TyperGroup):
    """Commands that are imported when they are looked up."""

    files: ClassVar[dict[str, str]] = _FILES

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.files)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.files:
            return None
        module = importlib.import_module(f"reward_hub.cli.{self.files[cmd_name]}")
        if hasattr(module, "app"):
            return get_command(module.app)
        single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        single.command(cmd_name)(command_of(module.run))
        return get_command(single)


app = typer.Typer(cls=Commands, name="reward-hub", no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", is_eager=True, callback=_print_version, help="Print the version."),
) -> None:
    """Score conversations with any reward model."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process: 0 where all went well, 1 for a failure, 2 for bad usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(list(arguments), prog_name="reward-hub")
    except (RewardHubError, UsageError, OSError) as error:
        # Looked up in the arguments, because an error may arise while they are read.
        if "--debug" in arguments:
            raise
        if isinstance(error, BrokenPipeError):
            # The reader (head, less) has left. Python would write to the pipe once more when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
