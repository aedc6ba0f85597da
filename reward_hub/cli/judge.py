"""`reward-hub judge`: a language model's verdict on each row of a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reward_hub.cli import rank, score, steps
from reward_hub.cli.column_options import RowsFile
from reward_hub.cli.judge_options import JudgeOptions
from reward_hub.cli.option_groups import LogOptions, RowOptions
from reward_hub.cli.row_commands import run_and_report
from reward_hub.data.column_names import REFERENCE
from reward_hub.data.columns import conversation_of, pair_of, responses_of, stepwise_of, texts_of
from reward_hub.data.row_run import RowCommand, error_result
from reward_hub.errors import RewardHubError

if TYPE_CHECKING:
    from reward_hub.base import BaseRM
    from reward_hub.judge import LLMJudge

PLACE_IN_HELP = 40


def run(
    file: RowsFile,
    *,
    model: Annotated[str, typer.Option("--model", "-m", help="Its name at the endpoint; for vLLM a hub id or folder.")],
    judge: JudgeOptions,
    rows: RowOptions,
    log: LogOptions,
) -> None:
    """Judge each row of a file with a language model.

    Pointwise: columns as `score`, rows written with `score`. Stepwise: as `steps`, with `step_scores`. Listwise: as
    `rank`, with `ranking`. Pairwise: a prompt with `a` and `b`, or `chosen` and `rejected`; rows with `probability`,
    that the first of the two is the better one. A column `reference` holds a reference answer.
    A killed run goes on where it stood when the same command is given again; so does one that its budget ended.
    """
    made = judge.judge(model)
    run_and_report(
        COMMANDS[made.mode],
        file,
        model=model,
        rows=rows,
        settings=judge.settings(),
        load=lambda: made,
        more_figures=lambda: _figures(made),
    )


def _figures(judge: LLMJudge) -> dict[str, Any]:
    """What the judge used in this run, and its position bias."""
    figures = {name: value for name, value in judge.usage.to_dict().items() if value is not None}
    bias = judge.position_bias
    if bias is not None:
        figures |= {"pairs in both orders": bias.pairs, "same verdict": bias.agreement, "position bias": bias.bias}
    return figures


def _conversation(record: dict[str, Any]) -> list[Any]:
    return _with_reference(conversation_of(record).to_dicts(), record)


def _steps(record: dict[str, Any]) -> dict[str, Any]:
    item = stepwise_of(record)
    return {**item, "messages": _with_reference(item["messages"], record)}


def _responses(record: dict[str, Any]) -> tuple[list[Any], list[str]]:
    prompt, responses = responses_of(record)
    return _with_reference(prompt, record), responses


def _pair(record: dict[str, Any]) -> tuple[list[Any], str, str]:
    prompt, (a, b) = texts_of(pair_of(record))
    return _with_reference(prompt, record), a, b


def _with_reference(messages: list[Any], record: dict[str, Any]) -> list[Any]:
    """The messages with the row's reference answer, where it has one."""
    reference = record.get(REFERENCE)
    return messages if reference in (None, "") else [{**messages[0], REFERENCE: reference}, *messages[1:]]


def _compare(rm: BaseRM, items: list[Any]) -> list[dict[str, Any]]:
    async def one(item: Any) -> dict[str, Any]:
        prompt, a, b = item
        probability, details = await rm.acompare(prompt, a=a, b=b, return_details=True)
        return {"probability": probability, "details": details}

    return _together(items, one)


def _rank(rm: BaseRM, items: list[Any]) -> list[dict[str, Any]]:
    async def one(item: Any) -> dict[str, Any]:
        prompt, responses = item
        return rank.result_of(*await rm.arank(prompt, responses=responses, return_details=True))

    return _together(items, one)


def _together(items: Sequence[Any], judge: Callable[[Any], Awaitable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The results of all items at once; one that cannot be judged has its error."""
    from reward_hub.loops import in_order, run_sync

    async def one(item: Any) -> dict[str, Any]:
        try:
            return await judge(item)
        except RewardHubError as error:
            return error_result(error)

    return run_sync(in_order([one(item) for item in items]))


COMMANDS = {
    "pointwise": RowCommand("judge", _conversation, score.SCORE.score, score.SCORE.numbers, "score"),
    "pairwise": RowCommand("judge", _pair, _compare, lambda result: [result["probability"]], "probability"),
    "listwise": RowCommand("judge", _responses, _rank, rank.RANK.numbers, "best score"),
    "stepwise": RowCommand("judge", _steps, steps.score_steps, lambda result: result["step_scores"], "step score"),
}
"""Mode -> what is done with a row."""
