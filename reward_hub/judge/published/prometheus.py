"""Prometheus 2: feedback and a score from 1 to 5, or the better of two responses, by a rubric of one criterion.

Prompts: prometheus_eval/prompts.py of https://github.com/prometheus-eval/prometheus-eval (Apache-2.0), with and
without a reference answer. Paper: https://arxiv.org/abs/2405.01535.
The system text stands before the user's, one line break between, as the authors' code renders it: Mistral's template
has no system role. Without a rubric the authors' helpfulness rubric is used; comparing, its criterion alone, as theirs.
Departs from it: decoding is greedy (the authors sample at temperature 1.0, top_p 0.9, repetition penalty 1.03). The
prompts have one instruction; a longer conversation is written into it turn by turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from reward_hub.judge.form import ChatMessages, JudgeForm, JudgeTask, Reply
from reward_hub.judge.marks import LETTER, NUMBER, a_or_b, behind, whole_score, without_thinking
from reward_hub.judge.rubrics.rubric import Rubric
from reward_hub.judge.rubrics.score_rubric import HELPFULNESS, criterion_of, scored_rubric
from reward_hub.judge.templates import Template, instruction_of, read_letter, read_score
from reward_hub.types import Checkpoint

SOURCE = "https://arxiv.org/abs/2405.01535"
CHECKPOINTS = (
    Checkpoint("prometheus-eval/prometheus-7b-v2.0", license="apache-2.0"),
    Checkpoint("prometheus-eval/prometheus-8x7b-v2.0", license="apache-2.0"),
    Checkpoint("prometheus-eval/prometheus-bgb-8x7b-v2.0", license="see its card"),
)
ABSOLUTE, RELATIVE = "prometheus-absolute", "prometheus-relative"

_ABSOLUTE_SYSTEM = (
    "You are a fair judge assistant tasked with providing clear, objective feedback based on specific criteria, "
    "ensuring each assessment reflects the absolute standards set for performance."
)
_RELATIVE_SYSTEM = (
    "You are a fair judge assistant assigned to deliver insightful feedback that compares individual performances, "
    "highlighting how each stands relative to others within the same cohort."
)
_ABSOLUTE_TASK = """###Task Description:
An instruction (might include an Input inside it), a response to evaluate, {given}and a score rubric \
representing a evaluation criteria are given.
1. Write a detailed feedback that assess the quality of the response strictly based on the given score rubric, not \
evaluating in general.
2. After writing a feedback, write a score that is an integer between 1 and 5. You should refer to the score rubric.
3. The output format should look as follows: "(write a feedback for criteria) [RESULT] (an integer number between 1 \
and 5)"
4. Please do not generate any other opening, closing, and explanations.

###The instruction to evaluate:
{instruction}

###Response to evaluate:
{response}
{reference_section}
###Score Rubrics:
{rubric}

###Feedback: """
_RELATIVE_TASK = """###Task Description:
An instruction (might include an Input inside it), a response to evaluate, {given}and a score rubric \
representing a evaluation criteria are given.
1. Write a detailed feedback that assess the quality of two responses strictly based on the given score rubric, not \
evaluating in general.
2. After writing a feedback, choose a better response between Response A and Response B. You should refer to the score \
rubric.
3. The output format should look as follows: "(write a feedback for criteria) [RESULT] (A or B)"
4. Please do not generate any other opening, closing, and explanations.

###Instruction:
{instruction}

###Response A:
{response_a}

###Response B:
{response_b}
{reference_section}
###Score Rubric:
{rubric}

###Feedback: """
_MARKS = (
    *("###Task Description:", "###The instruction to evaluate:", "###Response to evaluate:", "###Instruction:"),
    *("###Response A:", "###Response B:", "###Reference Answer", "###Score Rubric", "###Feedback:", "[RESULT]"),
)
# A mere mention counts where the reply ends with it: "so the score of 3", but not "a score of 5 would need proofs".
_TO_THE_END = r"[\s*_`\"'”’)\]}】〕.!。]{0,20}\Z"
_LAST_NUMBER = re.compile(
    r"[\s*_`\"'(\[{]{0,20}(?P<number>[-−+]?\d+(?:[.,]\d+)?)"
    rf"(?=(?:\s{{0,5}}[(\[]?(?:/|out\s+of)\s{{0,5}}\d+)?{_TO_THE_END})",
    re.IGNORECASE,
)
_LAST_LETTER = re.compile(rf"{LETTER.pattern}(?={_TO_THE_END})", re.IGNORECASE)
_RESULT = re.compile(r"[\[【〔][\s*_]{0,10}(?:final\s)?(?:result|score)\b", re.IGNORECASE)
_SCORE_COLON = re.compile(r"\b(?:score|result)\b[\s*_`\"']{0,20}[:=]", re.IGNORECASE)
_SCORE_OF = re.compile(r"\b(?:score|result)\b(?:\s{1,5}of\b)?", re.IGNORECASE)
_RESULT_LINE = re.compile(r"(?:^|\n)[ \t*_#>]{0,20}result\b|\bresult\b[\s*_`\"']{0,20}[:=]", re.IGNORECASE)
_RESPONSE = re.compile(r"[\[【〔][\s*_]{0,10}response\b", re.IGNORECASE)


def prometheus_absolute(*, rubric: str | Rubric | Mapping[str, Any] = HELPFULNESS) -> JudgeForm:
    """A score from 1 to 5.

    Args:
        rubric: a criterion with a description of each score from 1 to 5; see `score_rubric.scored_rubric`.
    """
    own = scored_rubric(rubric)
    given, heading = "a reference answer that gets a score of 5, ", "###Reference Answer (Score 5):"
    templates = _templates(ABSOLUTE, f"{_ABSOLUTE_SYSTEM}\n{_ABSOLUTE_TASK}", given, heading)

    def request(task: JudgeTask, replies: Sequence[Reply]) -> ChatMessages:
        text = templates[task.reference is not None].filled(
            instruction=instruction_of(task.prompt),
            response=task.responses[0],
            reference=task.reference or "",
            rubric=own if task.rubric is None else scored_rubric(task.rubric),
        )
        return [{"role": "user", "content": text}]

    return JudgeForm(
        name=ABSOLUTE,
        mode="pointwise",
        source=SOURCE,
        request=request,
        read=read_score(ABSOLUTE, _absolute_verdict),
        parse=_absolute_verdict,
        score_range=(1.0, 5.0),
        checkpoints=CHECKPOINTS,
        takes_rubric=True,
    )


def prometheus_relative(*, rubric: str | Rubric | Mapping[str, Any] = HELPFULNESS) -> JudgeForm:
    """The better of two responses.

    Args:
        rubric: a criterion; descriptions of scores are left out.
    """
    own = criterion_of(rubric)
    templates = _templates(
        RELATIVE, f"{_RELATIVE_SYSTEM}\n{_RELATIVE_TASK}", "a reference answer, ", "###Reference Answer:"
    )

    def request(task: JudgeTask, replies: Sequence[Reply]) -> ChatMessages:
        text = templates[task.reference is not None].filled(
            instruction=instruction_of(task.prompt),
            response_a=task.responses[0],
            response_b=task.responses[1],
            reference=task.reference or "",
            rubric=own if task.rubric is None else criterion_of(task.rubric),
        )
        return [{"role": "user", "content": text}]

    return JudgeForm(
        name=RELATIVE,
        mode="pairwise",
        source=SOURCE,
        request=request,
        read=read_letter(RELATIVE, _relative_verdict),
        parse=_relative_verdict,
        checkpoints=CHECKPOINTS,
        takes_rubric=True,
    )


def _templates(judge: str, text: str, given: str, heading: str) -> dict[bool, Template]:
    """The prompt without (False) and with (True) a reference answer."""
    return {
        False: Template(judge, text.replace("{given}", "").replace("{reference_section}", ""), _MARKS),
        True: Template(
            judge,
            text.replace("{given}", given).replace("{reference_section}", f"\n{heading}\n{{reference}}\n"),
            _MARKS,
        ),
    }


def _absolute_verdict(text: str) -> int:
    marks = ((_RESULT, NUMBER), (_SCORE_COLON, NUMBER), (_SCORE_OF, _LAST_NUMBER))
    return behind(marks, without_thinking(text), whole_score)


def _relative_verdict(text: str) -> str:
    return behind(
        ((_RESULT, LETTER), (_RESULT_LINE, LETTER), (_RESPONSE, _LAST_LETTER)), without_thinking(text), a_or_b
    )


FORMS = (prometheus_absolute, prometheus_relative)
