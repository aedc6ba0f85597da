"""A run of `reward-hub bench`: shards that resume, each in files of its own, and the results of all of them.

The process that finds every shard complete writes items.jsonl and results.json.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reward_hub.bench.item_rows import Scored, item_row, truncation_rate
from reward_hub.bench.items import Item
from reward_hub.bench.results import ModelFacts, computed, facts_of, versions
from reward_hub.bench.scoring import require_scorable, score_items
from reward_hub.bench.statistics import SEED
from reward_hub.cli.bench.files import (
    BenchRun,
    BenchTask,
    Shard,
    changed_since,
    lines_of,
    n_lines_of,
    write_json,
    write_lines,
)
from reward_hub.cli.row_commands import run_rows
from reward_hub.cli.usage import UsageError
from reward_hub.data.row_run import RowCommand, RowRun, Summary
from reward_hub.data.rows import RowFormatError
from reward_hub.errors import UnsupportedError

if TYPE_CHECKING:
    from reward_hub.base import BaseRM


def score_shard(task: BenchTask, run: BenchRun, load: Callable[[], BaseRM]) -> Summary:
    """Score the items of the run's shard that are not scored yet.

    Raises:
        UsageError: the folder holds another run, or the model cannot score such data.
        RewardHubError: the model cannot be loaded, or the engine failed on everything.
    """
    parts = run.part("plan.jsonl").parent
    parts.mkdir(parents=True, exist_ok=True)
    others = [part for part in sorted(parts.glob("*-of-*.*")) if f"-of-{run.shard.count}." not in part.name]
    if others and not run.overwrite:
        raise UsageError(
            f"{run.out} holds a run in another number of shards ({others[0].name}). Say another --out, or --overwrite "
            "to start anew."
        )
    places = run.shard.places(len(task.items))
    _write_plan(task, run, places)
    if run.overwrite:
        own = (run.items_path, run.results_path, run.part("times.jsonl"), run.part("model.json"))
        for path in (*own, *others):
            path.unlink(missing_ok=True)

    def load_and_note() -> BaseRM:
        rm = load()
        try:
            require_scorable(task.form, rm, task.step_delimiter)
        except UnsupportedError as error:
            rm.close()
            raise UsageError(str(error)) from error
        write_json(run.part("model.json"), dataclasses.asdict(facts_of(rm)))
        return rm

    started = _now()
    command = _command(task)
    summary = run_rows(
        command,
        RowRun(
            source=str(run.part("plan.jsonl")),
            out=str(run.part("scores.jsonl")),
            settings=run.settings,
            overwrite=run.overwrite,
            retry_errors=run.retry_errors,
            chunk_size=run.chunk_size,
            n_rows=len(places),
            warn_of_equal_ids=False,
        ),
        load_and_note,
        progress=run.progress,
        called=lambda row: f"item {row.id}",
    )
    if summary.rows == summary.resumed:
        _require_same_model(run, load)
    else:
        entry = {"started": started, "ended": _now(), "seconds": summary.seconds, "tokens": summary.n_tokens}
        write_lines(run.part("times.jsonl"), [*lines_of(run.part("times.jsonl")), entry])
    return summary


def _require_same_model(run: BenchRun, load: Callable[[], BaseRM]) -> None:
    """Refuse a finished run whose model is another one by now; where no file of it changed it is not loaded.

    Raises:
        UsageError: the files of the model are others than those that gave the scores.
    """
    noted = run.part("model.json")
    if not noted.exists() or not changed_since(run.files, noted.stat().st_mtime):
        return
    with load() as rm:
        was, now = json.loads(noted.read_text())["fingerprint"], rm.fingerprint
    if was != now:
        raise UsageError(
            f"{run.out} was scored by another model: its fingerprint was {was}, this one's is {now}. "
            "Say another --out, or --overwrite to start anew."
        )
    noted.touch()


def _write_plan(task: BenchTask, run: BenchRun, places: Sequence[int]) -> None:
    """State which items the shard has; the same data give the same file, and others are told by it."""
    plan = [{"id": task.items[place].id, "place": place, "sha256": task.items[place].digest} for place in places]
    write_lines(run.part("plan.jsonl"), plan)


def _command(task: BenchTask) -> RowCommand:
    def score(rm: BaseRM, items: list[Item]) -> list[dict[str, Any]]:
        scored = score_items(rm, items, step_delimiter=task.step_delimiter)
        return [result | {"details": {"tokens_scored": result.get("tokens_scored")}} for result in scored]

    return RowCommand(
        name="bench",
        item_of=lambda record: task.items[record["place"]],
        score=score,
        numbers=lambda result: (),
        figure="score",
    )


def missing_shards(task: BenchTask, run: BenchRun) -> list[Shard]:
    """The shards that are not complete."""
    return [
        shard
        for shard in run.shard.all
        if n_lines_of(run.part("scores.jsonl", shard)) != len(shard.places(len(task.items)))
    ]


def merged(task: BenchTask, run: BenchRun) -> dict[str, Any]:
    """Join complete shards into items.jsonl and results.json; gives what results.json holds.

    Raises:
        UsageError: shards were scored by different models or of different data.
    """
    scored: list[Scored] = [{} for _ in task.items]
    for shard in run.shard.all:
        _require_same_steps(run, shard)
        plan = list(lines_of(run.part("plan.jsonl", shard)))
        for place, planned, result in zip(
            shard.places(len(task.items)), plan, lines_of(run.part("scores.jsonl", shard)), strict=True
        ):
            if planned["sha256"] != task.items[place].digest or result.pop("id") != task.items[place].id:
                raise UsageError(f"{run.out}: shard {shard} was scored from other data than {task.data.name}.")
            scored[place] = result
    return write_results(task, run, scored, _facts(run), _speed(run))


def _require_same_steps(run: BenchRun, shard: Shard) -> None:
    """The one setting that no fingerprint tells of; another machine may have the same model under another name."""
    noted = run.part("scores.jsonl.run.json", shard)
    # A shard without an item has none.
    settings = json.loads(noted.read_text())["settings"] if noted.exists() else run.settings
    was, here = (said.get("step_delimiter") for said in (settings, run.settings))
    if was != here:
        raise UsageError(f"{run.out}: the step delimiter of shard {shard} is {was!r}, that of {run.shard} {here!r}.")


def _facts(run: BenchRun) -> ModelFacts:
    of_shards = [ModelFacts(**json.loads(run.part("model.json", shard).read_text())) for shard in _with_items(run)]
    if any(facts.fingerprint != of_shards[0].fingerprint for facts in of_shards):
        raise UsageError(f"{run.out}: the shards were scored by models of different fingerprints.")
    return of_shards[0]


def _with_items(run: BenchRun) -> Iterator[Shard]:
    return (shard for shard in run.shard.all if run.part("model.json", shard).exists())


def _speed(run: BenchRun) -> dict[str, Any]:
    """When and how fast: shards run side by side, so their tokens per second add up."""
    times = {shard: list(lines_of(run.part("times.jsonl", shard))) for shard in run.shard.all}
    known = [entry for entries in times.values() for entry in entries]
    rates = [
        sum(entry["tokens"] for entry in entries) / sum(entry["seconds"] for entry in entries)
        for entries in times.values()
        if sum(entry["seconds"] for entry in entries)
    ]
    return {
        "started": min((entry["started"] for entry in known), default=None),
        "ended": max((entry["ended"] for entry in known), default=None),
        "seconds": round(max((sum(e["seconds"] for e in entries) for entries in times.values()), default=0.0), 3),
        "tokens_per_second": round(sum(rates), 1) if any(rates) else None,
    }


def write_results(
    task: BenchTask,
    run: BenchRun,
    scored: Sequence[Scored],
    model: ModelFacts,
    speed: Mapping[str, Any],
) -> dict[str, Any]:
    """Write items.jsonl and results.json, and give what the latter holds."""
    rows = [item_row(item, result, texts=run.texts) for item, result in zip(task.items, scored, strict=True)]
    try:
        metrics, rows = computed(rows, form=task.form, rule=task.rule, options=task.rule_options)
    except (RowFormatError, TypeError) as error:
        raise UsageError(str(error)) from error
    results = {
        "suite": task.suite,
        "form": task.form,
        "kind": model.kind,
        "model": model.name,
        **metrics,
        "n": len(rows),
        "n_failed": sum("error" in row for row in rows),
        "run": {
            "versions": versions(),
            "family": model.family,
            "fingerprint": model.fingerprint,
            "higher_is_better": model.higher_is_better,
            "template_sha256": model.template_sha256,
            "data": {"name": task.data.name, "sha256": task.data.sha256},
            "settings": run.settings,
            "command": ["reward-hub", *sys.argv[1:]],
            "num_shards": run.shard.count,
            "seed": SEED,
            **speed,
            **_sums(rows),
            "truncation_rate": truncation_rate(rows),
        },
    }
    run.out.mkdir(parents=True, exist_ok=True)
    write_lines(run.items_path, rows)
    write_json(run.results_path, results)
    return results


def _sums(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tokens, usage and cost of the items that did not fail; None where one of them is not known."""
    scored = [row for row in rows if "error" not in row]
    usages = [row["usage"] for row in scored if "usage" in row]
    return {
        "tokens": _sum([row.get("tokens_scored") for row in scored]),
        "cost": _sum([row["cost"] for row in scored if "cost" in row]),
        "usage": {name: _sum([usage[name] for usage in usages]) for name in usages[0]} if usages else None,
    }


def _sum(values: Sequence[Any]) -> Any:
    return None if not values or None in values else sum(values)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
