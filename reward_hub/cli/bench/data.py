"""The options of `bench` that say what is scored, and the task that they mean."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from reward_hub.bench.benchmark import BENCHMARKS, Benchmark, JudgeMode, suite_named, suite_of_hub
from reward_hub.bench.data import Data, HubData, read_hub, read_path
from reward_hub.bench.items import READERS, Form, Item, form_of, read_items
from reward_hub.bench.results import default_options
from reward_hub.cli.bench.files import BenchTask
from reward_hub.cli.column_options import ColumnOptions
from reward_hub.cli.named_values import named_values
from reward_hub.cli.option_groups import typed_delimiter
from reward_hub.cli.template_options import TemplateOptions
from reward_hub.cli.usage import UsageError
from reward_hub.data.rows import RowFormatError
from reward_hub.errors import InvalidConversationError
from reward_hub.messages import with_template_arguments

_DATA = "Data"
_DEFAULT_SUITE = "rewardbench"
# Those of other packages are looked up when one is asked for.
_SUITES = ", ".join(name for name, entry in BENCHMARKS.builtin().items() if entry.thing.has_data)


@dataclasses.dataclass(frozen=True)
class DataOptions(ColumnOptions, TemplateOptions):
    """What is scored."""

    suite: Annotated[
        str | None,
        typer.Option(help=f"A published benchmark: {_SUITES}; or another package's.", rich_help_panel=_DATA),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(help="JSONL, JSON, CSV, Parquet, or a folder; with --suite, its data.", rich_help_panel=_DATA),
    ] = None
    dataset: Annotated[
        str | None,
        typer.Option(help="A data set's id on the hub; with --load-json, a local file.", rich_help_panel=_DATA),
    ] = None
    split: Annotated[str | None, typer.Option(help="Of the data set.", rich_help_panel=_DATA)] = None
    config: Annotated[str | None, typer.Option(help="Of the data set on the hub.", rich_help_panel=_DATA)] = None
    data_revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the data on the hub.", rich_help_panel=_DATA)
    ] = None
    load_json: Annotated[
        bool, typer.Option("--load-json", help="--dataset is a local JSON or JSONL file.", rich_help_panel=_DATA)
    ] = False
    form: Annotated[
        Literal["preference", "process", "best-of-n", "instruction"] | None,
        typer.Option(help="Of the rows, where the columns fit several.", rich_help_panel=_DATA),
    ] = None
    prioritize_scoring: Annotated[
        bool,
        typer.Option("--prioritize-scoring", help="The same as --form instruction.", rich_help_panel=_DATA),
    ] = False
    limit: Annotated[int | None, typer.Option(min=1, help="The first items alone.", rich_help_panel=_DATA)] = None
    answer_pattern: Annotated[
        str | None,
        typer.Option(
            help="Best of n: a regular expression whose first group is a response's answer, for majority votes.",
            rich_help_panel=_DATA,
        ),
    ] = None
    threshold: Annotated[
        float | None,
        typer.Option(help="Labelled steps: a step that scores below it is wrong.", rich_help_panel=_DATA),
    ] = None
    rule_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An argument of the suite's rule.", rich_help_panel=_DATA),
    ] = None
    step_delimiter: Annotated[
        str | None,
        typer.Option(
            callback=typed_delimiter,
            help=r"Process models on whole responses: where these are split (\n is a line end).",
            rich_help_panel=_DATA,
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Those that a score depends on."""
        return {"step_delimiter": self.step_delimiter, **self.column_settings()}


def load_task(options: DataOptions, *, judge: JudgeMode | None = None) -> BenchTask:
    """The items that the options mean.

    Args:
        options: what is scored.
        judge: how a judge answers, where one does: some suites count judges by a rule of their own.

    Raises:
        UsageError: the options contradict each other, or the data cannot be read.
        DataUnavailableError: the hub cannot be reached; says what to download.
    """
    path = options.dataset if options.load_json and options.data is None else options.data
    if path is not None and not Path(path).exists():
        raise UsageError(f"there is no file or folder {path}, where the data should be.")
    try:
        suite = _suite(options)
        items, form, data = _suite_items(suite, options) if suite is not None else _own_items(options)
    except RowFormatError as error:
        raise UsageError(str(error)) from error
    partial = options.limit is not None and options.limit < len(items)
    items = items[: options.limit]
    if not items:
        raise UsageError(f"{data.name} holds no rows.")
    if options.answer_pattern is not None:
        items = [_with_answers(item, options.answer_pattern) for item in items]
    if template := options.template_arguments():
        items = [_with_template(item, template) for item in items]
    task = BenchTask(
        items,
        form,
        data,
        suite=None if suite is None else suite.name,
        step_delimiter=options.step_delimiter,
        partial=partial,
    )
    rule_options = _rule_options(options, suite, form, task.rule, judge)
    return dataclasses.replace(task, rule_options=rule_options)


def _suite(options: DataOptions) -> Benchmark | None:
    if options.suite is not None:
        try:
            return suite_named(options.suite)
        except LookupError as error:
            raise UsageError(f"--suite: {error.args[0]}") from error
    if options.load_json and options.data is None and options.dataset is None:
        raise UsageError("--load-json is said of a local file: --dataset FILE.")
    if options.dataset is not None and not options.load_json:
        return suite_of_hub(options.dataset)
    # With nothing said it is what `rewardbench` runs by itself.
    return suite_named(_DEFAULT_SUITE) if options.data is None and options.dataset is None else None


def _suite_items(suite: Benchmark, options: DataOptions) -> tuple[list[Item], Form, Data]:
    if options.form not in (None, suite.form) or options.prioritize_scoring:
        raise UsageError(f"--form: the data of {suite.name} are of the form {suite.form!r}.")
    if options.config is not None:
        raise UsageError(f"--config: the data of {suite.name} have none.")
    if options.dataset is not None and suite_of_hub(options.dataset) is not suite:
        raise UsageError(f"--dataset {options.dataset} is not the data of {suite.name}; say --data PATH for a copy.")
    items, data = suite.load(options.data, split=options.split, revision=options.data_revision, columns=options.columns)
    return items, suite.form, data


def _own_items(options: DataOptions) -> tuple[list[Item], Form, Data]:
    if options.data is not None and options.dataset is not None:
        raise UsageError("say --data or --dataset, not both.")
    if options.prioritize_scoring and options.form not in (None, "instruction"):
        raise UsageError("--prioritize-scoring and --form contradict each other.")
    data = _own_data(options)
    form: Form = "instruction" if options.prioritize_scoring else options.form or form_of(data.rows)
    return read_items(data.rows, READERS[form]), form, data


def _own_data(options: DataOptions) -> Data:
    path = options.data if options.dataset is None else options.dataset
    assert path is not None
    if options.dataset is None or options.load_json:
        for name, value in (("--config", options.config), ("--data-revision", options.data_revision)):
            if value is not None:
                raise UsageError(f"{name} is of data on the hub; {path} is a local path.")
        return read_path(path, split=options.split, columns=options.columns)
    if Path(path).exists():
        raise UsageError(f"--dataset {path} is a local path; say --data {path}, or add --load-json.")
    wanted = HubData(path, split=options.split, config=options.config, revision=options.data_revision)
    return read_hub(wanted, columns=options.columns)


def _with_answers(item: Item, pattern: str) -> Item:
    """The item with each candidate's answer: the last match of the pattern, or None."""
    if "candidates" not in item.conversations:
        if item.error is not None:
            return item
        raise UsageError("--answer-pattern reads the answers of candidates; the data hold none.")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--answer-pattern {pattern!r} is not a regular expression: {error}.") from error
    matches_of = [compiled.findall(c.response) for c in item.conversations["candidates"]]
    if compiled.groups != 1:
        raise UsageError(f"--answer-pattern {pattern!r} must have one group: the answer.")
    answers = [matches[-1].strip() if matches else None for matches in matches_of]
    return dataclasses.replace(item, truth={**item.truth, "answers": answers})


def _with_template(item: Item, template: Mapping[str, Any]) -> Item:
    """The item with what the chat template takes besides; an item that has others of its own is an error."""
    try:
        conversations = {
            name: tuple(dataclasses.replace(c, messages=with_template_arguments(c.messages, **template)) for c in group)
            for name, group in item.conversations.items()
        }
    except InvalidConversationError as error:
        return Item(item.id, item.subset, error=error.message)
    return dataclasses.replace(item, conversations=conversations)


def _rule_options(
    options: DataOptions, suite: Benchmark | None, form: Form, rule: str | None, judge: JudgeMode | None
) -> dict[str, Any]:
    """The arguments of the rule."""
    rule_options = named_values("--rule-option", options.rule_option)
    if options.threshold is not None:
        if form != "process":
            raise UsageError("--threshold is of labelled steps; the data hold none.")
        rule_options["threshold"] = options.threshold
    name = None if suite is None else suite.name
    return default_options(name, rule, judge=judge, whole=options.limit is None) | rule_options
