"""Language models as judges: `LLMJudge`, its `Rubric`, and the words of published judges."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "JudgeForm": "reward_hub.judge.form",
    "LLMJudge": "reward_hub.judge.llm_judge",
    "Rubric": "reward_hub.judge.rubric",
    "parse_verdict": "reward_hub.judge.parsing",
}

if TYPE_CHECKING:
    from reward_hub.judge.form import JudgeForm as JudgeForm
    from reward_hub.judge.llm_judge import LLMJudge as LLMJudge
    from reward_hub.judge.parsing import parse_verdict as parse_verdict
    from reward_hub.judge.rubric import Rubric as Rubric


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOME)
