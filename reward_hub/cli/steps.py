"""`reward-hub steps`: a score for each step of each response of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reward_hub.cli.column_options import RowsFile
from reward_hub.cli.option_groups import LoadOptions, LogOptions, Model, RowOptions, StepDelimiter
from reward_hub.cli.row_commands import run_command
from reward_hub.cli.template_options import TemplateOptions
from reward_hub.data.columns import stepwise_of
from reward_hub.data.row_run import RowCommand, results_of

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

PLACE_IN_HELP = 20


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
    """Score each step of the responses of a file, with a process reward model.

    Columns: those of `score`, optionally with `steps` (a list of texts); or `prompt` or `problem` with `steps`.
    Each row written holds `id` (else the line number) and `step_scores`, or `error`; of a row that
    cannot be read a null `id`, its `line` and `error`.
    A killed run goes on where it stood when the same command is given again.
    """

    arguments = template.template_arguments()

    def item_of(record: dict[str, Any]) -> dict[str, Any]:
        item = stepwise_of(record)
        if step_delimiter is not None and "steps" not in item:
            item["step_delimiter"] = step_delimiter
        return item

    command = RowCommand(
        name="steps",
        item_of=item_of,
        score=lambda rm, items: score_steps(rm, items, arguments),
        numbers=lambda result: result["step_scores"],
        figure="step score",
    )
    settings = {"step_delimiter": step_delimiter, **arguments}
    run_command(command, file, model=model, rows=rows, load=load, more_settings=settings)


def score_steps(rm: BaseRM, items: list[Any], template: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The results of items as `score_steps_batch` takes them; `template` is what the chat template takes besides."""
    scored = rm.score_steps_batch(items, on_error="none", return_details=True, **(template or {}))
    return results_of("step_scores", scored)
