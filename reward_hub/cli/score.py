"""`reward-hub score`: a score for each conversation of a file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reward_hub.cli.column_options import RowsFile
from reward_hub.cli.option_groups import LoadOptions, LogOptions, Model, RowOptions, StepDelimiter
from reward_hub.cli.row_commands import run_command
from reward_hub.cli.template_options import TemplateOptions
from reward_hub.data.column_names import LABELLED_PAIR
from reward_hub.data.columns import conversation_of
from reward_hub.data.row_run import RowCommand, results_of
from reward_hub.errors import InvalidConversationError

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

PLACE_IN_HELP = 10


def run(
    file: RowsFile,
    *,
    model: Model,
    step_delimiter: StepDelimiter = None,
    require_response: Annotated[
        bool,
        typer.Option(
            help="Whether the last message must be the assistant's; without, a conversation is scored as it stands."
        ),
    ] = True,
    template: TemplateOptions,
    rows: RowOptions,
    load: LoadOptions,
    log: LogOptions,
) -> None:
    """Score each conversation of a file.

    Columns: `messages`, `prompt` and `response`, or `instruction` (with `input`) and `response`; `system`, `history`,
    `tools`; optionally `id`. Other forms stand in docs/rows.md; what changes a prompt and cannot be read is refused.
    Each row written holds `id` (else the line number) and `score`, or `error`; of a row that
    cannot be read a null `id`, its `line` and `error`.
    A killed run goes on where it stood when the same command is given again.
    """
    arguments = template.template_arguments()
    settings: dict[str, Any] = {"step_delimiter": step_delimiter, **arguments}
    if not require_response:
        settings["require_response"] = False
    command = score_command(step_delimiter, arguments, require_response=require_response)
    run_command(command, file, model=model, rows=rows, load=load, more_settings=settings)


def score_command(
    step_delimiter: str | None = None,
    template: Mapping[str, Any] | None = None,
    *,
    require_response: bool = True,
) -> RowCommand:
    """What is done with a row; the responses of process models are split at the delimiter.

    Args:
        template: what the chat template takes besides the messages.
    """
    options: dict[str, Any] = dict(template or {})
    if step_delimiter is not None:
        options["step_delimiter"] = step_delimiter
    if not require_response:
        options["require_response"] = False

    def score(rm: BaseRM, conversations: list[Any]) -> list[dict[str, Any]]:
        return results_of("score", rm.score_batch(conversations, on_error="none", return_details=True, **options))

    return RowCommand(
        name="score",
        item_of=partial(conversation_of, require_response=require_response),
        score=score,
        numbers=lambda result: [result["score"]],
        figure="score",
        refusal=_why_not_pairs,
    )


def _why_not_pairs(record: dict[str, Any]) -> str | None:
    """Rows of labelled pairs have two responses and no score."""
    if any(record.get(name) is None for name in LABELLED_PAIR):
        return None
    try:
        conversation_of(record)
    except InvalidConversationError:
        return (
            "the row has a chosen and a rejected response, and `score` takes one response a row. How often the chosen "
            "one has the higher score: `reward-hub bench --data FILE`. An order of the two: `reward-hub rank`, of rows "
            "with both in the column `responses`."
        )
    return None


SCORE = score_command()
