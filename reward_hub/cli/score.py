"""`reward-hub score`: a score for each conversation of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reward_hub.cli.column_options import RowsFile
from reward_hub.cli.option_groups import LoadOptions, LogOptions, Model, RowOptions, StepDelimiter
from reward_hub.cli.row_commands import run_command
from reward_hub.data.columns import conversation_of
from reward_hub.data.row_run import RowCommand, results_of

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

PLACE_IN_HELP = 10


def run(
    file: RowsFile,
    *,
    model: Model,
    step_delimiter: StepDelimiter = None,
    rows: RowOptions,
    load: LoadOptions,
    log: LogOptions,
) -> None:
    """Score each conversation of a file.

    Columns: `messages`, `prompt` and `response`, or `instruction` (with `input`) and `response`; `system`, `history`,
    `tools`; optionally `id`. Other forms stand in docs/rows.md; what changes a prompt and cannot be read is refused.
    Each row written holds `id` (else the line number) and `score`, or `error`.
    A killed run goes on where it stood when the same command is given again.
    """
    command = score_command(step_delimiter)
    run_command(command, file, model=model, rows=rows, load=load, more_settings={"step_delimiter": step_delimiter})


def score_command(step_delimiter: str | None = None) -> RowCommand:
    """What is done with a row; the responses of process models are split at the delimiter."""
    options: dict[str, Any] = {} if step_delimiter is None else {"step_delimiter": step_delimiter}

    def score(rm: BaseRM, conversations: list[Any]) -> list[dict[str, Any]]:
        return results_of("score", rm.score_batch(conversations, on_error="none", return_details=True, **options))

    return RowCommand(
        name="score",
        item_of=conversation_of,
        score=score,
        numbers=lambda result: [result["score"]],
        figure="score",
    )


SCORE = score_command()
