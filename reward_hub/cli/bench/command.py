"""`reward-hub bench`: score a data set and compute its metrics; `bench compare` holds two runs against each other."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from reward_hub.bench.item_rows import Scored
from reward_hub.cli.bench.data import DataOptions, load_task
from reward_hub.cli.bench.files import BenchRun, BenchTask, Shard
from reward_hub.cli.bench.models import BenchLoadOptions, ModelOptions, Source
from reward_hub.cli.bench.publish import PublishOptions
from reward_hub.cli.bench.run import merged, missing_shards, score_shard, write_results
from reward_hub.cli.bench.table import print_results
from reward_hub.cli.commands import Commands, commands_of
from reward_hub.cli.option_groups import RUN, LogOptions, RunOptions
from reward_hub.cli.parameters import command_of
from reward_hub.cli.row_commands import N_REPORTED
from reward_hub.cli.usage import UsageError

PLACE_IN_HELP = 60

# Options of rewardbench's scripts that have no counterpart by name, and what is said instead.
_OF_REWARDBENCH = {
    "--best-of": "best-of-n data is read by --data FILE (prompt, candidates, correct), or say --suite rewardbench2.",
    "--force-local": "say --judge --load-method vllm.",
    "--num-gpus": "say --engine-option tensor_parallel_size=N.",
    "--num-threads": "say --max-concurrency N.",
    "--pref-sets": "say --dataset allenai/pref-test-sets, and one of its splits with --split.",
    "--quantized": "no model is quantized here; --dtype bfloat16 halves the memory.",
    "--ref-free-type": "say --family implicit --option reference_free=true, for `avg` with --length-normalize.",
    "--vllm-gpu-util": "say --engine-option gpu_memory_utilization=X.",
    "--wandb-run": "name the model that the run made with --model, and its --revision.",
}


class _SubCommands(Commands):
    """Commands beside the run itself."""

    registry = commands_of("reward_hub.cli.bench")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for name in (_with_hyphens(argument.partition("=")[0]) for argument in args):
            if name in _OF_REWARDBENCH:
                raise UsageError(f"{name} of rewardbench: {_OF_REWARDBENCH[name]}")
        given = [option for option in self.make_parser(ctx).parse_args(list(args))[2] if _holds_one_value(option)]
        for option in given:
            # Of two values the parser would take the last one and say nothing of the other.
            if given.count(option) > 1:
                several = " Several models are an --ensemble FILE." if option.name == "model" else ""
                raise UsageError(f"{option.opts[0]} is given twice, and takes one value.{several}")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            known = ", ".join(self.list_commands(ctx))
            raise UsageError(
                f"{args[0]!r} is neither a command ({known}) nor the value of an option. An option "
                "takes one value, a switch none; several models or judges are an --ensemble FILE."
            )
        return super().resolve_command(ctx, args)


def _holds_one_value(option: Any) -> bool:
    return not (option.multiple or option.count or option.is_flag)


def _with_hyphens(name: str) -> str:
    """`--load_json` is `--load-json`: a command line written for `rewardbench` carries over."""
    return name.replace("_", "-")


app = typer.Typer(
    cls=_SubCommands,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"token_normalize_func": _with_hyphens},
)


@dataclasses.dataclass(frozen=True)
class OutOptions(RunOptions):
    """Where results go and how a run goes on."""

    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", "--output-dir", help="A folder for results.json and items.jsonl.", rich_help_panel=RUN
        ),
    ] = None
    texts: Annotated[
        bool, typer.Option("--texts/--no-texts", help="Write prompts and responses too.", rich_help_panel=RUN)
    ] = True
    save_all: Annotated[
        bool, typer.Option("--save-all", help="As it is in any case: every score is written.", rich_help_panel=RUN)
    ] = False
    num_shards: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that share the work; by default accelerate's.", rich_help_panel=RUN),
    ] = None
    shard: Annotated[int | None, typer.Option(min=0, help="Which of them this is, from 0.", rich_help_panel=RUN)] = None


def run(
    context: typer.Context,
    *,
    data: DataOptions,
    model: ModelOptions,
    load: BenchLoadOptions,
    out: OutOptions,
    hub: PublishOptions,
    log: LogOptions,
) -> None:
    """Evaluate a reward model, a judge, an ensemble or recorded scores on a suite or on data of your own.

    A killed run goes on where it stood when the same command is given again. An item that fails is written with its
    reason and counts as wrong; the exit code is then 1. Options may be spelled with `_` for `-`.
    """
    if context.invoked_subcommand is not None:
        return
    hub.check(model.model)
    source = Source.of(model, load)
    if model.scores is not None:
        _refuse_options_of_scoring(data, out)
    if hub.wanted and out.out is None:
        # What the hub may yet refuse is kept, in the folder that `rewardbench` writes to.
        out = dataclasses.replace(out, out=Path("results") / source.name.strip("./").replace("/", "--"))
    task = load_task(data, judge=source.judge)
    with tempfile.TemporaryDirectory() as nowhere:
        settings = source.settings() | data.settings()
        bench_run = _run_of(out, Path(nowhere), settings=settings, files=source.files())
        results = _results(task, bench_run, source)
    if results is None:
        return
    if out.json:
        print(json.dumps(results, indent=2))
    else:
        print_results(results, out.out)
    if out.out is not None and hub.wanted:
        hub.publish(out.out, model=model.model)
    if results["n_failed"]:
        raise typer.Exit(1)


app.callback(invoke_without_command=True)(command_of(run))


def _refuse_options_of_scoring(data: DataOptions, out: OutOptions) -> None:
    options_given = {
        "--step-delimiter": data.step_delimiter,
        **data.given_of_template(),
        "--num-shards": out.num_shards,
        "--shard": out.shard,
        "--retry-errors": out.retry_errors or None,
    }
    for name, value in options_given.items():
        if value is not None:
            raise UsageError(f"{name} is of a run that scores; with --scores none does.")


def _run_of(out: OutOptions, nowhere: Path, *, settings: dict[str, Any], files: Sequence[Path]) -> BenchRun:
    shard = _shard(out)
    if out.out is None and shard.count > 1:
        raise UsageError("several shards need --out DIR, where their scores meet.")
    return BenchRun(
        out=out.out or nowhere,
        settings=settings,
        shard=shard,
        texts=out.texts,
        overwrite=out.overwrite,
        retry_errors=out.retry_errors,
        chunk_size=out.chunk_size,
        # One bar is enough for processes that share a terminal.
        progress=False if out.progress is None and shard.index else out.progress,
        files=files,
    )


def _shard(out: OutOptions) -> Shard:
    """As the options say, else as accelerate's launcher has set it."""
    if (out.shard is None) != (out.num_shards is None):
        raise UsageError("--shard and --num-shards are said together.")
    if out.shard is not None and out.num_shards is not None:
        return Shard(out.shard, out.num_shards)
    try:
        return Shard(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    except ValueError as error:
        raise UsageError("RANK and WORLD_SIZE in the environment are not whole numbers.") from error


def _results(task: BenchTask, bench_run: BenchRun, source: Source) -> dict[str, Any] | None:
    """What results.json holds; None where other shards are still to come."""
    try:
        bench_run.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {bench_run.out} cannot be written: {error.strerror}.") from error
    if source.options.scores is not None:
        if (bench_run.out / "parts").exists() and not bench_run.overwrite:
            raise UsageError(f"{bench_run.out} holds the run of a model. Say another --out, or --overwrite.")
        scored = source.recorded(task)
        _report_failures(task, scored)
        return write_results(task, bench_run, scored, source.facts(), {})
    score_shard(task, bench_run, source.load)
    missing = missing_shards(task, bench_run)
    if missing:
        names = ", ".join(str(shard.index) for shard in missing)
        print(f"Shard {bench_run.shard} is complete; still to come: {names}.", file=sys.stderr)
        return None
    return merged(task, bench_run)


def _report_failures(task: BenchTask, scored: Sequence[Scored]) -> None:
    results = zip(task.items, scored, strict=True)
    failed = [(item.id, result["error"]) for item, result in results if "error" in result]
    for name, error in failed[:N_REPORTED]:
        print(f"item {name}: {error['type']}: {error['message']}", file=sys.stderr)
    if len(failed) > N_REPORTED:
        print("further items failed, and are written with their errors", file=sys.stderr)
