"""`reward-hub inspect`: what would be loaded, before gigabytes move; with `--explain`, how a score comes to be."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from reward_hub.cli.explanation import explain, row_items, typed_items
from reward_hub.cli.explanation_text import print_explanation
from reward_hub.cli.option_groups import (
    CheckpointOptions,
    Json,
    LoadOptions,
    LogOptions,
    StepDelimiter,
    load_model,
)
from reward_hub.cli.plan import planned
from reward_hub.cli.tables import listed, print_pairs
from reward_hub.cli.template_options import TemplateOptions
from reward_hub.cli.usage import UsageError

PLACE_IN_HELP = 80

_TEMPLATE_LINES = 8  # of a chat template, which may have hundreds; --json has them all
_PLAN = "Plan a run (loads the model, and reads some short inputs)"
_EXPLAIN = "Explain a score (loads the model)"


def run(
    model: Annotated[str, typer.Argument(help="A hub id, a local folder, or a built-in model.")],
    *,
    explained: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--explain",
            metavar="PROMPT RESPONSE",
            help="Score this response: show the tokens, those that are read marked, and the score of each step.",
            rich_help_panel=_EXPLAIN,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RESPONSE", help="Beside --explain: another response to the prompt.", rich_help_panel=_EXPLAIN
        ),
    ] = None,
    explain_row: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:N]",
            help="Instead of --explain: the first or N-th row of a file, in any form that `score` or `steps` reads, or "
            "a pair; `-` is standard input.",
            rich_help_panel=_EXPLAIN,
        ),
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Tell what scoring the rows of a file would take: tokens, forwards, estimated time and memory.",
            rich_help_panel=_PLAN,
        ),
    ] = None,
    as_json: Json = False,
    step_delimiter: StepDelimiter = None,
    template: TemplateOptions,
    load: LoadOptions,
    log: LogOptions,
) -> None:
    """Show what would be loaded: family, head, template, positions read, backends, memory needed.

    With `--explain` the model is loaded: the tokens of the conversation with those that are read in marks, the score,
    of process models each step's, what the chat template dropped, and what was cut.
    With `--plan` the rows of a file are made into tokens, and what scoring them would take is told.
    """
    if explained is not None and explain_row is not None:
        raise UsageError("Give --explain or --explain-row, not both.")
    if explain_row is not None and against is not None:
        raise UsageError("--against goes with --explain; a row has both responses of a pair.")
    if plan is not None:
        if explained is not None or explain_row is not None or against is not None:
            raise UsageError("Give --plan or --explain, not both.")
        with load_model(model, load) as rm:
            figures = planned(rm, plan, step_delimiter=step_delimiter, template=template.template_arguments())
        if as_json:
            print(json.dumps(figures.to_dict(), indent=2))
        else:
            print_pairs(figures.shown())
        return
    if explained is not None:
        items = typed_items(*explained, against)
    elif explain_row is not None:
        items = row_items(explain_row)
    else:
        checkpoint = load.as_group(CheckpointOptions)
        own = {"--against": against, "--step-delimiter": step_delimiter, **template.given_of_template()}
        beyond = [name for name, value in own.items() if value is not None]
        _refuse(beyond + [name for name in load.given() if name not in checkpoint.given()])
        _inspect(model, checkpoint, as_json=as_json)
        return
    arguments = template.template_arguments()
    with load_model(model, load) as rm:
        explanation = explain(rm, items, step_delimiter=step_delimiter, template=arguments)
        if as_json:
            print(json.dumps(explanation.to_dict(), indent=2))
        else:
            print_explanation(explanation)


def _refuse(names: list[str]) -> None:
    if names:
        given = ", ".join(names)
        raise UsageError(f"{given}: without --explain nothing is loaded or scored, nor without --plan; leave it out.")


def _inspect(model: str, checkpoint: CheckpointOptions, *, as_json: bool) -> None:
    from reward_hub.auto import AutoRM

    try:
        described = AutoRM.inspect(model, **checkpoint.arguments())
    except TypeError as error:
        raise UsageError(str(error)) from error
    if as_json:
        print(json.dumps(described, indent=2))
    else:
        print_pairs(
            (name.removesuffix("_bytes").replace("_", " "), _text_of(name, value)) for name, value in described.items()
        )


def _text_of(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "template":
        lines = value.splitlines()
        return "\n".join([*lines[:_TEMPLATE_LINES], *(["..."] if len(lines) > _TEMPLATE_LINES else [])])
    if name == "read_tokens":
        shown = [f"{token['text']!r} (id {token['id']})" for token in value]
        return f"{listed(shown)}, in an example"
    if name.endswith("_bytes"):
        return f"{value / 2**20:,.1f} MiB"
    if isinstance(value, dict):
        return "\n".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
