"""`reward-hub score`: a score for each conversation of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reward_hub.cli.column_options import RowsFile
from reward_hub.cli.option_groups import LoadOptions, LogOptions, Model, RowOptions
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
    run_command(SCORE, file, model=model, rows=rows, load=load)


def _score(rm: BaseRM, conversations: list[Any]) -> list[dict[str, Any]]:
    scored = rm.score_batch(conversations, on_error="none", return_details=True)
    return results_of("score", scored)


SCORE = RowCommand(
    name="score",
    item_of=conversation_of,
    score=_score,
    numbers=lambda result: [result["score"]],
    figure="score",
)
