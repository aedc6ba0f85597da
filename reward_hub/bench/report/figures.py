"""The figures of one run on the report page: distributions, length bias, curves over n, coloured steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from reward_hub.bench.report.runs import Run
from reward_hub.bench.statistics import histograms, spearman

MAX_POINTS = 1500
MAX_STEP_ITEMS = 60
MAX_TEXT = 4000

# Key, name, colour and dashes (drawn, left out, ... in points): lines are told apart without their colours too.
_LINES: tuple[tuple[str, str, str | None, list[int]], ...] = (
    ("model", "the model's choice", None, []),
    ("pass", "pass@n", "#8c6bb1", [7, 3]),
    ("oracle", "best grade", "#8c6bb1", [7, 3]),
    ("majority", "majority vote", "#e69f00", [4, 2]),
    ("weighted_majority", "majority weighted by score", "#009e73", [7, 2, 2, 2]),
    ("softmax_majority", "majority weighted by exp(score)", "#56b4e9", [7, 2, 2, 2, 2, 2]),
    ("random", "a random candidate", "#8a94a6", [2, 2]),
)


def is_graded(run: Run) -> bool:
    """Whether candidates have grades on a scale of their own, which are not shown in percent."""
    return any(not 0 <= grade <= 1 for row in run.rows for grade in row.get("grades") or ())


def _is_judged(run: Run) -> bool:
    """Whether candidates are right or wrong: all grades are 1 or 0."""
    return run.results["form"] == "best-of-n" and all(g in (0, 1) for row in run.rows for g in row.get("grades") or ())


def histogram_of(run: Run) -> dict[str, Any] | None:
    """Counts of scores over shared bins: `edges`, and one series a kind of response. None without scores."""
    groups = {name: values for name, values in _kinds(run) if values}
    if not groups:
        return None
    counted = histograms(groups)
    series = [{"name": name, "counts": counted[name]} for name in groups]
    compared = any("probabilities" in row.get("scores", {}) for row in run.rows)
    note = "Mean over both orders; 0.5 favours neither." if compared else None
    x = "probability that chosen is better" if compared else "score"
    return {"edges": counted["edges"], "series": series, "x": x, "note": note}


def _kinds(run: Run) -> Iterator[tuple[str, list[float]]]:
    """The scores of a run by what the data say of the scored."""
    scored = [row for row in run.rows if "scores" in row]
    form = run.results["form"]
    if form == "process":
        steps = [(score, truth) for row in scored for score, truth in _judged_steps(row)]
        yield "right steps", [score for score, right in steps if right]
        yield "wrong steps", [score for score, right in steps if not right]
    elif form == "best-of-n":
        graded = [pair for row in scored for pair in zip(row["scores"]["candidates"], row["grades"], strict=True)]
        if _is_judged(run):
            yield "right candidates", [score for score, grade in graded if grade]
            yield "wrong candidates", [score for score, grade in graded if not grade]
        else:
            yield "candidates", [score for score, _ in graded]
    elif any("probabilities" in row["scores"] for row in scored):
        yield "pairs", [p for row in scored if (p := probability_of(row)) is not None]
    else:
        for name in dict.fromkeys(name for row in scored for name in row["scores"]):
            yield name, [score for row in scored for score in row["scores"].get(name, ()) if score is not None]


def probability_of(row: Mapping[str, Any]) -> float | None:
    """That the chosen response is better, over the orders that gave a verdict."""
    known = [p for p in row["scores"].get("probabilities", ()) if p is not None]
    return sum(known) / len(known) if known else None


def _judged_steps(row: Mapping[str, Any]) -> Iterator[tuple[float, bool]]:
    """(score, whether the step is right) of the steps whose truth is known: none after a first wrong one."""
    scores = row["scores"].get("steps", ())
    if "error_steps" in row:
        yield from ((score, i + 1 not in row["error_steps"]) for i, score in enumerate(scores))
    elif row["label"] < 0:
        yield from ((score, True) for score in scores)
    else:
        yield from ((score, i != row["label"]) for i, score in enumerate(scores[: row["label"] + 1]))


def margin_of(row: Mapping[str, Any]) -> float | None:
    """By how much the worst chosen response leads the best rejected one; for models that compare, p - 0.5."""
    scores = row.get("scores", {})
    if "probabilities" in scores:
        p = probability_of(row)
        return None if p is None else p - 0.5
    chosen, rejected = (
        [score for score in scores.get(name, ()) if score is not None] for name in ("chosen", "rejected")
    )
    return min(chosen) - max(rejected) if chosen and rejected else None


def scatter_of(run: Run) -> dict[str, Any] | None:
    """Scores against lengths: [x, y, 1 right, 0 wrong or None] a point; None where nothing has a length."""
    form = run.results["form"]
    scored = [row for row in run.rows if "scores" in row and row.get("responses")]
    if form == "preference":
        compared = any("probabilities" in row["scores"] for row in scored)
        x, y = "characters, chosen less rejected", "probability less 0.5" if compared else "margin"
        points = [point for row in scored for point in _margin_points(row)]
    else:
        x, y = "characters", "score"
        judged = _is_judged(run)
        points = [point for row in scored for point in _response_points(row, judged)]
    if len(points) < 2:
        return None
    rho = spearman([p[0] for p in points], [p[1] for p in points])
    correlation = "undefined" if rho is None else f"{rho:+.2f}"
    step = max(1, -(-len(points) // MAX_POINTS))
    drawn = f" One in {step} of {len(points)} points is drawn." if step > 1 else ""
    what = "a chosen response against a rejected one" if form == "preference" else "a response"
    note = f"A point is {what}. Spearman's correlation: {correlation}.{drawn}"
    return {"points": points[::step], "x": x, "y": y, "note": note}


def _margin_points(row: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Every chosen response against every rejected one, as `bench.bias` reads them."""
    chosen, rejected = ([r["characters"] for r in row["responses"].get(name) or ()] for name in ("chosen", "rejected"))
    if "probabilities" in row["scores"]:
        p = probability_of(row)
        margins = [] if p is None else [(chosen[0] - rejected[0], p - 0.5)]
    else:
        sides = (("chosen", chosen), ("rejected", rejected))
        pairs = itertools.product(*(zip(lengths, row["scores"][name], strict=True) for name, lengths in sides))
        margins = [(m - n, a - b) for (m, a), (n, b) in pairs if a is not None and b is not None]
    yield from ([length, margin, int(margin > 0)] for length, margin in margins)


def _response_points(row: Mapping[str, Any], judged: bool) -> Iterator[list[Any]]:
    for name, scores in row["scores"].items():
        responses = row["responses"].get(name) or ()
        grades = row["grades"] if judged else [None] * len(scores)
        for response, score, grade in zip(responses, scores, grades, strict=True):
            yield [response["characters"], score, None if grade is None else int(grade)]


def curves_of(run: Run, color: str) -> dict[str, Any] | None:
    """The curves over n of a best-of-n run: name, colour and [n, value, low, high] a point."""
    curve = run.results["metrics"]["overall"].get("curve")
    if not curve:
        return None
    lines = []
    for key, name, other, dashes in _LINES:
        known = [point for point in curve if point.get(key) is not None]
        # Where grades are 0 and 1 the best grade is pass@n.
        if not known or (key == "oracle" and all(point.get("pass") is not None for point in curve)):
            continue
        points = [[p["n"], p[key], *(p["ci95"] if key == "model" else (None, None))] for p in known]
        lines.append({"name": name, "color": other or color, "dashes": dashes, "points": points})
    share = not is_graded(run)
    y = "accuracy" if share and all(point.get("pass") is not None for point in curve) else "mean grade"
    note = "Expectations over random subsets of n candidates; the band is a 95 % interval."
    return {"lines": lines, "share": share, "y": y, "note": note}


def steps_of(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Items whose steps are shown coloured by score: the first with a wrong step and the first without, in turn."""
    if runs[0].results["form"] != "process":
        return None
    rows = [{str(row["id"]): row for row in run.rows} for run in runs]
    known = [row for row in runs[0].rows if "scores" in row]
    wrong = [row for row in known if _wrong_steps(row)][: MAX_STEP_ITEMS // 2]
    right = [row for row in known if not _wrong_steps(row)][: MAX_STEP_ITEMS // 2]
    chosen = [row for pair in zip(wrong, right, strict=False) for row in pair]
    chosen += [row for row in (*wrong, *right) if row not in chosen]
    if not chosen:
        return None
    return {
        "items": [_step_item(row, [by_id.get(str(row["id"])) for by_id in rows]) for row in chosen],
        "scales": [_scale_of(run) for run in runs],
        "note": "Red is a low score, blue a high one, on the scale of each model. Steps are counted from 0; the data "
        "say which one is wrong.",
    }


def _scale_of(run: Run) -> tuple[float, float]:
    """The scores that get the first and the last colour: the ends of probabilities, else the 5 and 95 % quantiles."""
    scores = [score for row in run.rows for score in row.get("scores", {}).get("steps", ())]
    if not scores or (min(scores) >= 0 and max(scores) <= 1):
        return 0.0, 1.0
    low, high = np.quantile(np.asarray(scores), [0.05, 0.95])
    return float(low), float(high)


def _wrong_steps(row: Mapping[str, Any]) -> list[int]:
    """Places of the steps that the data call wrong, from 0."""
    if "error_steps" in row:
        return sorted(step - 1 for step in row["error_steps"])
    return [row["label"]] if row["label"] >= 0 else []


def _step_item(row: Mapping[str, Any], of_runs: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    wrong = _wrong_steps(row)
    return {
        "id": str(row["id"]),
        "truth": f"step {wrong[0]} is wrong" if wrong else "all steps are right",
        "wrong": wrong,
        "prompt": prompt_text(row),
        "steps": [step[:MAX_TEXT] for step in row["steps"]] if "steps" in row else None,
        "runs": [None if found is None or "scores" not in found else found["scores"]["steps"] for found in of_runs],
    }


def prompt_text(row: Mapping[str, Any]) -> str:
    """The prompt as it is shown; roles are named where there are several messages."""
    messages = row.get("prompt") or []
    texts = [str(message.get("content") or "") for message in messages]
    if len(messages) > 1:
        texts = [f"{message['role']}: {text}" for message, text in zip(messages, texts, strict=True)]
    return "\n\n".join(texts)[:MAX_TEXT]
