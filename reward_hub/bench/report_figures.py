"""The figures of one run on the report page: distributions, length bias, curves over n, coloured steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reward_hub.bench.statistics import histograms, spearman

if TYPE_CHECKING:
    from reward_hub.bench.report import Run

MAX_POINTS = 1500
MAX_STEP_ITEMS = 60
MAX_TEXT = 4000

_LINES = (
    ("model", "the model's choice", False),
    ("pass", "pass@n", True),
    ("oracle", "best grade", True),
    ("majority", "majority vote", True),
    ("weighted_majority", "majority weighted by score", True),
    ("softmax_majority", "majority weighted by exp(score)", True),
    ("random", "a random candidate", True),
)
_LINE_COLORS = ("#8c6bb1", "#8c6bb1", "#e69f00", "#009e73", "#56b4e9", "#8a94a6")


def histogram_of(run: Run) -> dict[str, Any] | None:
    """Counts of scores over shared bins: `edges`, and one series a kind of response. None without scores."""
    groups = {name: values for name, values in _kinds(run) if values}
    if not groups:
        return None
    counted = histograms(groups)
    series = [{"name": name, "counts": counted[name]} for name in groups]
    compared = any("probabilities" in row.get("scores", {}) for row in run.rows)
    note = "Mean over both orders; 0.5 is no preference." if compared else None
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
        yield "right candidates", [score for score, grade in graded if grade >= 0.5]
        yield "wrong candidates", [score for score, grade in graded if grade < 0.5]
    elif any("probabilities" in row["scores"] for row in scored):
        yield "pairs", [p for row in scored if (p := probability_of(row)) is not None]
    else:
        for name in dict.fromkeys(name for row in scored for name in row["scores"]):
            yield name, [score for row in scored for score in row["scores"].get(name, ()) if score is not None]


def probability_of(row: Mapping[str, Any]) -> float | None:
    """That the chosen response is better, over the orders that gave a verdict."""
    told = [p for p in row["scores"].get("probabilities", ()) if p is not None]
    return sum(told) / len(told) if told else None


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
    """Scores against lengths: [x, y, right?] a point; None where nothing has a length."""
    form = run.results["form"]
    scored = [row for row in run.rows if "scores" in row and row.get("responses")]
    if form == "preference":
        x, y = "characters, chosen less rejected", "margin"
        points = [point for row in scored if (point := _margin_point(row)) is not None]
    else:
        x, y = "characters", "score"
        points = [point for row in scored for point in _response_points(row)]
    if len(points) < 2:
        return None
    rho = spearman([p[0] for p in points], [p[1] for p in points])
    told = "undefined" if rho is None else f"{rho:+.2f}"
    step = max(1, -(-len(points) // MAX_POINTS))
    drawn = f"; every {step}th of {len(points)} is drawn" if step > 1 else ""
    return {"points": points[::step], "x": x, "y": y, "note": f"Spearman's correlation {told}{drawn}."}


def _margin_point(row: Mapping[str, Any]) -> list[Any] | None:
    margin = margin_of(row)
    chosen, rejected = (row["responses"].get(name) for name in ("chosen", "rejected"))
    if margin is None or not chosen or not rejected:
        return None
    lengths = [np.mean([response["characters"] for response in group]) for group in (chosen, rejected)]
    return [round(float(lengths[0] - lengths[1]), 1), margin, int(margin > 0)]


def _response_points(row: Mapping[str, Any]) -> Iterator[list[Any]]:
    for name, scores in row["scores"].items():
        responses = row["responses"].get(name) or ()
        grades = row.get("grades") or [1.0] * len(scores)
        for response, score, grade in zip(responses, scores, grades, strict=True):
            yield [response["characters"], score, int(grade >= 0.5)]


def curves_of(run: Run, color: str) -> dict[str, Any] | None:
    """The curves over n of a best-of-n run: name, colour and [n, value, low, high] a point."""
    curve = run.results["metrics"]["overall"].get("curve")
    if not curve:
        return None
    lines = []
    for (key, name, dashed), other in zip(_LINES, (color, *_LINE_COLORS), strict=True):
        known = [point for point in curve if point.get(key) is not None]
        # Where grades are 0 and 1 the best grade is pass@n.
        if not known or (key == "oracle" and all(point.get("pass") is not None for point in curve)):
            continue
        points = [[p["n"], p[key], *(p["ci95"] if key == "model" else (None, None))] for p in known]
        lines.append({"name": name, "color": other, "dashed": dashed, "points": points})
    return {"lines": lines, "note": "Expectations over random subsets of n candidates; the band is a 95 % interval."}


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
    everything = [score for run in runs for row in run.rows for score in row.get("scores", {}).get("steps", ())]
    if not chosen or not everything:
        return None
    low, high = (0.0, 1.0) if min(everything) >= 0 and max(everything) <= 1 else _middle(everything)
    return {
        "items": [_step_item(row, [by_id.get(str(row["id"])) for by_id in rows]) for row in chosen],
        "low": low,
        "high": high,
        "note": "Red is a low score, green a high one. Choose an item; the data say which step is wrong.",
    }


def _middle(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(np.asarray(values), [0.05, 0.95])
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
