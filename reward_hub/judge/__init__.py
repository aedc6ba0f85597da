"""Language models as judges: `LLMJudge`, its `Rubric`, and the words of published judges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reward_hub.lazy_names import lazy_names

_HOME = {
    "JudgeForm": "reward_hub.judge.form",
    "LLMJudge": "reward_hub.judge.llm_judge",
    "Rubric": "reward_hub.judge.rubrics.rubric",
    "parse_verdict": "reward_hub.judge.verdicts",
}

if TYPE_CHECKING:
    from reward_hub.judge.form import JudgeForm as JudgeForm
    from reward_hub.judge.llm_judge import LLMJudge as LLMJudge
    from reward_hub.judge.rubrics.rubric import Rubric as Rubric
    from reward_hub.judge.verdicts import parse_verdict as parse_verdict


__getattr__, __dir__ = lazy_names(globals(), _HOME)
