"""A judge that is asked for a mark from 1 to 6, of which 1 is the best, and writes `MARK 2`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reward_hub.judge.form import ChatMessages, JudgeForm, JudgeTask, Reply
from reward_hub.judge.marks import NotAVerdictError
from reward_hub.judge.templates import Template, instruction_of, read_score
from reward_hub.types import Checkpoint

NAME = "my-judge"
_TEMPLATE = Template(NAME, "Question: {question}\nResponse: {response}\nGive a mark from 1 (best) to 6.", ("MARK",))


def _verdict(text: str) -> int:
    marks = re.findall(r"MARK ([1-6])", text)
    if len(marks) != 1:
        raise NotAVerdictError(f"holds {len(marks)} marks")
    return 7 - int(marks[0])


def my_judge(*, strict: bool = False) -> JudgeForm:
    """Marks, turned so that 6 is the best."""

    def request(task: JudgeTask, replies: Sequence[Reply]) -> ChatMessages:
        text = _TEMPLATE.filled(question=instruction_of(task.prompt), response=task.responses[0])
        return [{"role": "user", "content": f"Be strict. {text}" if strict else text}]

    return JudgeForm(
        name=NAME,
        mode="pointwise",
        source="https://example.org/my-judge",
        request=request,
        read=read_score(NAME, _verdict),
        parse=_verdict,
        score_range=(1.0, 6.0),
        checkpoints=(Checkpoint("me/my-judge-7b", license="mit"),),
    )
