"""`reward-hub bench`: score a data set and compute its metrics; `bench compare` holds two runs against each other."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from reward_hub.cli import Commands
from reward_hub.cli.bench_data import DataOptions, load_benchmark
from reward_hub.cli.bench_files import Benchmark, BenchRun, Shard
from reward_hub.cli.bench_models import BenchLoadOptions, ModelOptions, Source
from reward_hub.cli.bench_publish import PublishOptions
from reward_hub.cli.bench_run import merged, missing_shards, score_shard, write_results
from reward_hub.cli.bench_table import print_results
from reward_hub.cli.option_groups import RUN, LogOptions, RunOptions, command_of
from reward_hub.cli.usage import UsageError


class _SubCommands(Commands):
    """Commands beside the run itself."""

    files: ClassVar[dict[str, str]] = {"compare": "bench_compare", "report": "bench_report"}


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
    if hub.wanted and out.out is None:
        # What the hub may yet refuse is kept, in the folder that `rewardbench` writes to.
        out = dataclasses.replace(out, out=Path("results") / source.name.strip("./").replace("/", "--"))
    benchmark = load_benchmark(data, judge=source.judge)
    with tempfile.TemporaryDirectory() as nowhere:
        bench_run = _run_of(out, Path(nowhere), settings=source.settings() | data.settings())
        results = _results(benchmark, bench_run, source)
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


def _run_of(out: OutOptions, nowhere: Path, *, settings: dict[str, Any]) -> BenchRun:
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
        raise UsageError("RANK and WORLD_SIZE in the environment are no whole numbers.") from error


def _results(benchmark: Benchmark, bench_run: BenchRun, source: Source) -> dict[str, Any] | None:
    """What results.json holds; None where other shards are still to come."""
    if source.options.scores is not None:
        if (bench_run.out / "parts").exists() and not bench_run.overwrite:
            raise UsageError(f"{bench_run.out} holds the run of a model. Say another --out, or --overwrite.")
        return write_results(benchmark, bench_run, source.recorded(benchmark), source.facts(), {})
    score_shard(benchmark, bench_run, source.load)
    missing = missing_shards(benchmark, bench_run)
    if missing:
        names = ", ".join(str(shard.index) for shard in missing)
        print(f"Shard {bench_run.shard} is complete; still to come: {names}.", file=sys.stderr)
        return None
    return merged(benchmark, bench_run)
