"""`reward-hub rank`: the responses to each prompt of a file, best first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reward_hub.cli.column_options import RowsFile
from reward_hub.cli.option_groups import LoadOptions, LogOptions, Model, RowOptions, StepDelimiter
from reward_hub.cli.row_commands import run_command
from reward_hub.cli.template_options import TemplateOptions
from reward_hub.data.columns import responses_of
from reward_hub.data.row_run import RowCommand, error_result
from reward_hub.errors import RewardHubError

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

PLACE_IN_HELP = 30


def run(
    file: RowsFile,
    *,
    model: Model,
    step_delimiter: StepDelimiter = None,
    template: TemplateOptions,
    rows: RowOptions,
    load: LoadOptions,
    log: LogOptions,
) -> None:
    """Rank the responses to each prompt of a file.

    Columns: a prompt as `score` reads it, with `responses` (a list of texts); optionally `id`.
    Each row written holds `id` (else the line number), `ranking` (best first), `scores` and `best`; or `error`; of
    a row that cannot be read a null `id`, its `line` and `error`.
    A killed run goes on where it stood when the same command is given again.
    """
    arguments = template.template_arguments()
    settings = {"step_delimiter": step_delimiter, **arguments}
    command = rank_command(step_delimiter, arguments)
    run_command(command, file, model=model, rows=rows, load=load, more_settings=settings)


def rank_command(step_delimiter: str | None = None, template: Mapping[str, Any] | None = None) -> RowCommand:
    """What is done with a row; the responses to process models are split at the delimiter.

    Args:
        template: what the chat template takes besides the messages.
    """
    options = ({} if step_delimiter is None else {"step_delimiter": step_delimiter}) | dict(template or {})

    def rank_one(rm: BaseRM, messages: list[Any], responses: list[str]) -> dict[str, Any]:
        try:
            ranking, details = rm.rank(messages=messages, responses=responses, return_details=True, **options)
        except RewardHubError as error:
            return error_result(error)
        return result_of(ranking, details)

    return RowCommand(
        name="rank",
        item_of=responses_of,
        score=lambda rm, items: [rank_one(rm, messages, responses) for messages, responses in items],
        numbers=lambda result: [result["scores"][result["best"]]],
        figure="best score",
    )


def result_of(ranking: list[int], details: dict[str, Any]) -> dict[str, Any]:
    """The columns of one row."""
    scores = details.pop("scores")
    return {"ranking": ranking, "scores": scores, "best": ranking[0], "details": details}


RANK = rank_command()
