"""Rubrics of judges that were trained on one criterion with a description of each score from 1 to 5."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reward_hub.judge.rubrics.rubric import Rubric

SCORES = (1, 2, 3, 4, 5)
# prometheus_eval/prompts.py of https://github.com/prometheus-eval/prometheus-eval (Apache-2.0).
HELPFULNESS = Rubric(
    instructions="Does the model provide relevant and useful responses to the user's needs or questions?",
    levels={
        1: "The model's responses are irrelevant or unhelpful to the user's needs or queries.",
        2: "The model sometimes provides helpful information, but often fails to address the user's actual needs or "
        "questions.",
        3: "The model generally provides helpful responses that address the user's needs, though it may occasionally "
        "miss the mark.",
        4: "The model regularly provides helpful responses that are well-aligned with the user's inquiries, with "
        "only rare inaccuracies.",
        5: "The model consistently offers highly relevant and useful responses that perfectly cater to the user's "
        "needs and inquiries.",
    },
)


def scored_rubric(rubric: str | Rubric | Mapping[str, Any]) -> str:
    """`[criterion]` and five lines `Score 1: ...` to `Score 5: ...`.

    Args:
        rubric: that text itself, a `Rubric` with a description of each score in `levels`, or a mapping of
            `criterion` and "1" to "5", as JSON has it.

    Raises:
        ValueError: a description is missing.
    """
    if isinstance(rubric, str):
        missing = [score for score in SCORES if not re.search(rf"^Score {score}:", rubric, re.MULTILINE)]
        text = rubric
    else:
        criterion, levels = _parts(rubric)
        missing = [score for score in SCORES if not levels.get(score)]
        text = "\n".join([f"[{criterion}]", *(f"Score {score}: {levels.get(score)}" for score in SCORES)])
    if missing:
        raise ValueError(
            f"The rubric does not describe score {', '.join(map(str, missing))}; this judge needs a criterion and a "
            "line 'Score 1: ...' for each score from 1 to 5."
        )
    return text


def criterion_of(rubric: str | Rubric | Mapping[str, Any]) -> str:
    """`[criterion]` alone, for judges that compare."""
    if isinstance(rubric, str):
        first = rubric.strip().split("\n")[0].strip()
        if not first:
            raise ValueError("The rubric is empty; a criterion is needed.")
        return first if first.startswith("[") else f"[{first}]"
    return f"[{_parts(rubric)[0]}]"


def _parts(rubric: Rubric | Mapping[str, Any]) -> tuple[str, dict[int, str]]:
    if isinstance(rubric, Rubric):
        if rubric.score_range != (1.0, 5.0) or rubric.criteria:
            raise ValueError("This judge takes one criterion, scored from 1 to 5.")
        return rubric.instructions, {int(level): text for level, text in rubric.levels.items()}
    known = {"criterion", *map(str, SCORES)}
    if unknown := sorted(set(map(str, rubric)) - known):
        raise ValueError(f"The rubric has {', '.join(unknown)}; known: criterion, 1, 2, 3, 4, 5.")
    if not rubric.get("criterion"):
        raise ValueError("The rubric has no 'criterion'.")
    return str(rubric["criterion"]), {int(key): str(text) for key, text in rubric.items() if key != "criterion"}
