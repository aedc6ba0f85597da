"""From scored items to metrics: which rule a suite or a form of data has, and what results.json holds."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reward_hub.bench.benchmark import BENCHMARKS, JudgeMode
from reward_hub.bench.items import Form, Item
from reward_hub.version import __version__

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

JUDGE_MODES: dict[str, JudgeMode] = {"outcome": "rating", "pairwise": "comparison"}
"""By the judge's kind."""

_PACKAGES = ("torch", "transformers", "vllm", "tokenizers", "openai", "numpy")


def rule_of(suite: str | None, form: Form, items: Sequence[Item]) -> str | None:
    """The name of the rule: the suite's, else the one of the form; None where there is nothing to be right about."""
    if suite is not None:
        return suite
    if form == "process":
        return "prmbench" if any("classification" in item.truth for item in items) else "processbench"
    return None if form == "instruction" else form


def default_options(
    suite: str | None, rule: str | None, *, judge: JudgeMode | None = None, whole: bool = True
) -> dict[str, Any]:
    """The arguments that a rule has unless others are given.

    Args:
        judge: how the judge answers, where one does: some suites count judges by a rule of their own.
        whole: the items are all of the suite's.
    """
    if rule is None:
        return {}
    benchmark = BENCHMARKS.get(rule)
    options: dict[str, Any] = {}
    if suite is not None and judge is not None:
        options |= benchmark.options_for_judge(judge)
    if suite is None or not whole:
        options |= benchmark.options_for_part
    return options


def computed(
    rows: Sequence[dict[str, Any]], *, form: Form, rule: str | None, options: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The metrics of scored rows, and the rows with what the rule says of each (`correct`, `tie`).

    Args:
        rows: as `item_row` makes them; at least one.
        form: of their items. To preference data belong margins, biases and calibration too.
        rule: as `rule_of` names it.
        options: arguments of the rule's `score` (`threshold`, `judge`, ...).

    Raises:
        RowFormatError: scores that the rule does not read, or nothing to compute a metric of.
        TypeError: an option that the rule does not have.
    """
    if rule is None:
        return {"rule": None, "metrics": _logged(rows), "notes": []}, list(rows)
    score = BENCHMARKS.get(rule).score
    unknown = sorted(set(options or {}) - set(inspect.signature(score).parameters))
    if unknown:
        raise TypeError(f"the rule {rule} has no option {', '.join(unknown)}.")
    result = score(rows, **(options or {}))
    judged = {item.id: item for item in result.items}
    marked = [_marked(row, judged.get(row["id"])) for row in rows]
    metrics = result.metrics | _beside(rows) if form == "preference" else result.metrics
    return {"rule": result.rule, "metrics": metrics, "notes": list(result.notes)}, marked


def _beside(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from reward_hub.bench.bias import bias_report
    from reward_hub.bench.margins import calibration, margin_summary

    return {"margins": margin_summary(rows), "bias": bias_report(rows), "calibration": calibration(rows)}


def _marked(row: dict[str, Any], item: Any) -> dict[str, Any]:
    if item is None or item.correct is None:
        return row
    return row | {"correct": item.correct, "tie": item.tie}


def _logged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores without a label: what they are like, overall and per subset."""
    from reward_hub.bench.statistics import summary

    scores: dict[str | None, list[float]] = {}
    for row in rows:
        scores.setdefault(row["subset"], []).extend(row.get("scores", {}).get("response", ()))
    return {
        "overall": summary([score for group in scores.values() for score in group]),
        "subsets": {name: summary(group) for name, group in scores.items() if name is not None},
        "sections": {},
    }


@dataclass(frozen=True)
class ModelFacts:
    """What results.json says of the model, kept so that a finished run need not load it again."""

    name: str
    kind: str
    family: str | None = None
    fingerprint: str | None = None
    higher_is_better: bool = True
    max_length: int | None = None
    template_sha256: str | None = None


def facts_of(rm: BaseRM) -> ModelFacts:
    """The facts of a loaded model."""
    template = rm.capabilities.chat_template
    digest = None if template is None else hashlib.sha256(template.encode()).hexdigest()
    return ModelFacts(
        rm.name or type(rm).__name__, rm.kind, rm.family, rm.fingerprint, rm.higher_is_better, rm.max_length, digest
    )


def versions() -> dict[str, str]:
    """Of Python, this package, and the engines that are installed; none of them is imported."""
    found = {"python": platform.python_version(), "reward_hub": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
