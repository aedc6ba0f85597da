"""The command line: one file a command in this folder; see `reward_hub.cli.commands`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from reward_hub.cli.commands import Commands, commands_of
from reward_hub.cli.usage import UsageError
from reward_hub.errors import RewardHubError
from reward_hub.version import __version__


class _RewardHubCommands(Commands):
    """What `reward-hub` is followed by."""

    registry = commands_of("reward_hub.cli", "reward_hub.commands")


app = typer.Typer(cls=_RewardHubCommands, name="reward-hub", no_args_is_help=True, pretty_exceptions_enable=False)


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
