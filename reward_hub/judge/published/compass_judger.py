"""CompassJudger: the better of two responses; version 2 reasons and ends in JSON, version 1 answers with the letter.

Prompts: the README of https://github.com/open-compass/CompassJudger (Apache-2.0), "Pair-wise Comparison" of version 2
and "Reward Judge" of version 1, one user message each.
Departs from it: a longer conversation is written into version 2's question turn by turn. Version 1's prompt has the
turns of both assistants side by side; an earlier turn is the same for both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from reward_hub.judge.form import ChatMessages, JudgeForm, JudgeTask, Reply
from reward_hub.judge.marks import BEFORE_LETTER, LETTER, a_or_b, agreed, behind, without_thinking
from reward_hub.judge.templates import Template, instruction_of, read_letter, refuse_reference
from reward_hub.types import Checkpoint, Message

SOURCE = "https://github.com/open-compass/CompassJudger"
SECOND, FIRST = "compass-judger", "compass-judger-1"
MAX_TOKENS = 2048

_SECOND = Template(
    SECOND,
    """
Please act as an impartial judge to evaluate the responses provided by two AI assistants to the user question below. \
Your evaluation should focus on the following criteria: helpfulness, relevance, accuracy, depth, creativity, and level \
of detail.

- Do not let the order of presentation, response length, or assistant names influence your judgment.
- Base your decision solely on how well each response addresses the user’s question and adheres to the instructions.

Your final reply must be structured in the following format:
{
  "Choice": "[Model A or Model B]"
}

User Question: {question}

Model A's Response: {answer_a}

Model B's Response: {answer_b}

Now it's your turn. Please provide selection result as required:
""",
    ("User Question:", "Model A's Response:", "Model B's Response:", "Now it's your turn.", '"Choice"'),
)
_FIRST = Template(
    FIRST,
    """Please read the dialogue between the two assistants and the user to determine which assistant performed better \
during the conversation.Here is the dialogue content:
[Dialogue Begin]
{dialogue}
[Dialogue End]
If you believe Assistant A performed better, please output A directly.
If you believe Assistant B performed better, please output B directly.
Do not output any other content, just the option. Please output:""",
    ("[Dialogue Begin]", "[Dialogue End]"),
)
_CHOICE = re.compile(r"\bchoice\b[\s*_`\"'“”]{0,20}[:=]", re.IGNORECASE)


def compass_judger() -> JudgeForm:
    """CompassJudger-2."""

    def request(task: JudgeTask, replies: Sequence[Reply]) -> ChatMessages:
        refuse_reference(SECOND, task)
        text = _SECOND.filled(
            question=instruction_of(task.prompt), answer_a=task.responses[0], answer_b=task.responses[1]
        )
        return [{"role": "user", "content": text}]

    return JudgeForm(
        name=SECOND,
        mode="pairwise",
        source="https://arxiv.org/abs/2507.09104",
        request=request,
        read=read_letter(SECOND, _second_verdict),
        parse=_second_verdict,
        checkpoints=tuple(
            Checkpoint(f"opencompass/CompassJudger-2-{size}-Instruct", license="apache-2.0") for size in ("7B", "32B")
        ),
        max_tokens=MAX_TOKENS,
    )


def compass_judger_1() -> JudgeForm:
    """CompassJudger-1."""

    def request(task: JudgeTask, replies: Sequence[Reply]) -> ChatMessages:
        refuse_reference(FIRST, task)
        dialogue = "\n".join(_dialogue(task.prompt, *task.responses))
        return [{"role": "user", "content": _FIRST.filled(dialogue=dialogue)}]

    return JudgeForm(
        name=FIRST,
        mode="pairwise",
        source="https://arxiv.org/abs/2410.16256",
        request=request,
        read=read_letter(FIRST, _first_verdict),
        parse=_first_verdict,
        checkpoints=tuple(
            Checkpoint(f"opencompass/CompassJudger-1-{size}-Instruct", license="apache-2.0")
            for size in ("1.5B", "7B", "14B", "32B")
        ),
        max_tokens=MAX_TOKENS,
    )


def _dialogue(prompt: Sequence[Message], a: str, b: str) -> Iterator[str]:
    for message in prompt:
        if message.role == "assistant":
            yield from (f"Assistant {name}: {message.text}" for name in "AB")
        else:
            yield f"{message.role.capitalize()}: {message.text}"
    yield f"Assistant A: {a}"
    yield f"Assistant B: {b}"


def _second_verdict(text: str) -> str:
    return behind(((_CHOICE, LETTER),), without_thinking(text), a_or_b)


def _first_verdict(text: str) -> str:
    """The letter is the whole reply."""
    letter = re.fullmatch(rf"{BEFORE_LETTER}(?P<letter>[ABab])[\s.*_`\"'”’)\]]*", without_thinking(text), re.IGNORECASE)
    return agreed([] if letter is None else [letter["letter"].upper()])


FORMS = (compass_judger, compass_judger_1)
