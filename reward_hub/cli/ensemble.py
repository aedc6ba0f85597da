"""`reward-hub ensemble`: recorded scores of several models combined, and how often each combination is right."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reward_hub.cli.column_options import ColumnOptions
from reward_hub.cli.option_groups import Json, LogOptions
from reward_hub.cli.tables import print_table
from reward_hub.cli.usage import UsageError

if TYPE_CHECKING:
    from reward_hub.ensemble.offline import RecordedEnsemble
    from reward_hub.ensemble.reduction import Floats, Reduction

PLACE_IN_HELP = 50

_MODES = "Modes"
_MODELS = "Models"
_NONE = "none"
# So many subsets fit beside each other.
_N_COLUMNS = 8


@dataclass(frozen=True)
class ModeOptions:
    """How scores are combined."""

    reduce: Annotated[
        list[str] | None,
        typer.Option(
            help="mean, median, min, max, uncertainty, mean_minus_std, trimmed_mean, softmin or vote; repeatable.",
            show_default="mean",
            rich_help_panel=_MODES,
        ),
    ] = None
    normalize: Annotated[
        list[str] | None,
        typer.Option(
            help="zscore, minmax, rank, sigmoid or none; repeatable. Statistics are those of each whole file.",
            show_default="zscore",
            rich_help_panel=_MODES,
        ),
    ] = None
    table: Annotated[
        bool, typer.Option("--table", help="Every reduce with every normalize.", rich_help_panel=_MODES)
    ] = False
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Every subset of two or more of the models.", rich_help_panel=_MODES)
    ] = False
    uncertainty_penalty: Annotated[
        float | None, typer.Option(help="Of uncertainty and mean_minus_std.", show_default="1", rich_help_panel=_MODES)
    ] = None
    trim: Annotated[
        float | None,
        typer.Option(help="Of trimmed_mean: dropped at either end.", show_default="0.2", rich_help_panel=_MODES),
    ] = None
    beta: Annotated[float | None, typer.Option(help="Of softmin.", show_default="1", rich_help_panel=_MODES)] = None


@dataclass(frozen=True)
class ModelOptions(ColumnOptions):
    """What the files are."""

    weight: Annotated[
        list[float] | None,
        typer.Option(help="Of each file, in their order, costs last; by default alike.", rich_help_panel=_MODELS),
    ] = None
    cost: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A further file, whose lower scores are better.", rich_help_panel=_MODELS),
    ] = None
    pairs: Annotated[
        str | None, typer.Option(metavar="FILE", help="Rows with id and subset.", rich_help_panel=_MODELS)
    ] = None


def run(
    files: Annotated[
        list[str],
        typer.Argument(help="Score files: JSONL, JSON or Parquet, or RewardBench's JSON.", show_default=False),
    ],
    *,
    models: ModelOptions,
    modes: ModeOptions,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Write the combined scores, as its ending says; `-` is standard output."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file that is there.")] = False,
    as_json: Json = False,
    log: LogOptions,
) -> None:
    """Combine recorded scores of several models.

    Rows have an `id` and `chosen_score` and `rejected_score` (or RewardBench's `scores_chosen` and `scores_rejected`),
    optionally a `subset`; or `scores`, `step_scores` or `score`, which are combined into --out and have no accuracy.
    The rows are those of the first file. A pair is right where the chosen response has the strictly greater score.

    RewardBench's offline modes Mean, Worst and Uncertainty are `--reduce mean --reduce min --reduce mean_minus_std`
    with `--normalize zscore`.
    """
    from reward_hub.data.rows import RowFormatError

    try:
        ensemble = _ensemble(files, models)
        if out is not None:
            _write(ensemble, modes, out, overwrite=overwrite)
        if ensemble.form == "pair" and out != "-":
            accuracies = {
                "n": len(ensemble.ids),
                "members": _members(ensemble),
                "ensembles": _ensembles(ensemble, modes),
            }
            _show(accuracies, modes, as_json=as_json)
        elif out is None:
            raise UsageError(f"The files hold {ensemble.form!r}: without pairs there is no accuracy; say --out.")
    except RowFormatError as error:
        raise UsageError(str(error)) from error


def _ensemble(files: Sequence[str], models: ModelOptions) -> RecordedEnsemble:
    from reward_hub.data.recorded import read_recorded, read_subsets
    from reward_hub.ensemble.offline import RecordedEnsemble, RecordedMember, names_of

    paths = [*files, *(models.cost or ())]
    weights = models.weight or [1.0] * len(paths)
    if len(weights) != len(paths):
        raise UsageError(f"--weight is given {len(weights)} times for {len(paths)} files.")
    if not all(0 < weight < math.inf for weight in weights):
        raise UsageError(f"--weight {min(weights)}: weights are positive and finite.")
    repeated = [path for path in paths if paths.count(path) > 1]
    if repeated:
        raise UsageError(f"{repeated[0]} is given twice.")
    members = [
        RecordedMember(read_recorded(path, models.columns), name=name, weight=weight, cost=place >= len(files))
        for place, (path, name, weight) in enumerate(zip(paths, names_of(paths), weights, strict=True))
    ]
    return RecordedEnsemble(
        members, subsets=None if models.pairs is None else read_subsets(models.pairs, models.columns)
    )


def _modes(modes: ModeOptions) -> list[tuple[Reduction, str | None]]:
    """Every reduction that is asked for with every normalisation."""
    from reward_hub.ensemble.normalization import NORMALIZATIONS
    from reward_hub.ensemble.reduction import REDUCTIONS, Reduction, parameter_of

    if modes.table and (modes.reduce or modes.normalize):
        raise UsageError("--table shows every mode; leave --reduce and --normalize out.")
    names = REDUCTIONS if modes.table else tuple(modes.reduce or ("mean",))
    scales = (_NONE, *NORMALIZATIONS) if modes.table else tuple(modes.normalize or ("zscore",))
    unknown = [scale for scale in scales if scale not in (_NONE, *NORMALIZATIONS)]
    if unknown:
        raise UsageError(f"--normalize {unknown[0]}: known are {', '.join((_NONE, *NORMALIZATIONS))}.")
    given = {"uncertainty_penalty": modes.uncertainty_penalty, "trim": modes.trim, "beta": modes.beta}
    used = {parameter_of(name) for name in names}
    for parameter, value in given.items():
        if value is not None and parameter not in used:
            raise UsageError(f"--{parameter.replace('_', '-')} has no part in {', '.join(names)}.")
    try:
        own = [{p: v for p, v in given.items() if p == parameter_of(name)} for name in names]
        reductions = [Reduction.of(name, **parameters) for name, parameters in zip(names, own, strict=True)]
    except TypeError as error:
        raise UsageError(str(error)) from error
    return [(reduction, None if scale == _NONE else scale) for reduction in reductions for scale in scales]


def _members(ensemble: RecordedEnsemble) -> list[dict[str, Any]]:
    """Each model by itself."""
    from reward_hub.ensemble.reduction import Reduction

    alone = Reduction.of("mean")
    return [
        {"model": member.name, **_accuracies(ensemble, ensemble.combined(alone, None, [place]))}
        for place, member in enumerate(ensemble.members)
    ]


def _ensembles(ensemble: RecordedEnsemble, modes: ModeOptions) -> list[dict[str, Any]]:
    n = len(ensemble.members)
    if modes.sweep and n < 2:
        raise UsageError("--sweep combines two or more models; one file is given.")
    sizes = range(2, n + 1) if modes.sweep else range(n, n + 1)
    return [
        {
            "models": [ensemble.members[place].name for place in places],
            "reduce": reduction.name,
            "normalize": scale or _NONE,
            **_accuracies(ensemble, ensemble.combined(reduction, scale, places)),
        }
        for reduction, scale in _modes(modes)
        for size in sizes
        for places in itertools.combinations(range(n), size)
    ]


def _accuracies(ensemble: RecordedEnsemble, scores: Floats) -> dict[str, Any]:
    """Overall, by subset, and where the subsets are RewardBench's by section, as fractions."""
    from reward_hub.bench import EXAMPLE_COUNTS, SUBSET_MAPPING, calculate_scores_per_section

    accuracy = ensemble.accuracy(scores)
    accuracies: dict[str, Any] = {"accuracy": accuracy.overall, "subsets": accuracy.subsets}
    if accuracy.subsets and set(accuracy.subsets) <= set(EXAMPLE_COUNTS):
        accuracies["sections"] = calculate_scores_per_section(EXAMPLE_COUNTS, SUBSET_MAPPING, accuracy.subsets)
    return accuracies


def _show(accuracies: dict[str, Any], modes: ModeOptions, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(accuracies, indent=2))
        return
    _print_accuracies("model", [(entry["model"], entry) for entry in accuracies["members"]])
    if modes.table and not modes.sweep:
        _print_modes(accuracies["ensembles"])
    else:
        named = [(f"{e['reduce']}, {e['normalize']}: {' + '.join(e['models'])}", e) for e in accuracies["ensembles"]]
        _print_accuracies("ensemble", named)
    print(f"Percent of {accuracies['n']} pairs whose chosen response has the strictly greater score.")


def _print_accuracies(title: str, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """A line for each entry: overall, and by section or by subset where there are not too many."""
    groups = "sections" if "sections" in entries[0][1] else "subsets"
    names = list(entries[0][1][groups])
    if len(names) > _N_COLUMNS:
        names = []
    rows = [
        (name, _percent(entry["accuracy"]), *(_percent(entry[groups][group]) for group in names))
        for name, entry in entries
    ]
    print_table((title, "overall", *names), rows, whole=(title,))


def _print_modes(ensembles: Sequence[dict[str, Any]]) -> None:
    """A line for each reduction, a column for each normalisation."""
    scales = list(dict.fromkeys(entry["normalize"] for entry in ensembles))
    by_mode = {(entry["reduce"], entry["normalize"]): _percent(entry["accuracy"]) for entry in ensembles}
    names = dict.fromkeys(entry["reduce"] for entry in ensembles)
    rows = [(name, *(by_mode[name, scale] for scale in scales)) for name in names]
    print_table(("reduce \\ normalize", *scales), rows, whole=("reduce \\ normalize",))


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _write(ensemble: RecordedEnsemble, modes: ModeOptions, out: str, *, overwrite: bool) -> None:
    """The combined scores in the columns that the files have."""
    from reward_hub.data.writing import write_rows

    wanted = _modes(modes)
    if len(wanted) > 1 or modes.sweep:
        raise UsageError("--out holds the scores of one mode of all models: one --reduce, one --normalize, no --sweep.")
    rows = [
        {"id": id_, **({} if subset is None else {"subset": subset}), **_columns(ensemble.form, scores)}
        for id_, subset, scores in zip(
            ensemble.ids, ensemble.subsets, ensemble.by_row(ensemble.combined(*wanted[0])), strict=True
        )
    ]
    if out == "-":
        sys.stdout.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        return
    if Path(out).exists() and not overwrite:
        raise UsageError(f"{out} exists; say another --out, or --overwrite.")
    write_rows(Path(out), lambda: rows)


def _columns(form: str, scores: list[float]) -> dict[str, Any]:
    if form == "pair":
        return {"chosen_score": scores[0], "rejected_score": scores[1]}
    return {form: scores[0] if form == "score" else scores}
