"""What the prompts of published judges are filled with, and what is noticed on the way.

A published prompt is sent as its authors wrote it, so that judged text cannot be fenced as `fencing` does. Text that
holds one of the prompt's own marks could forge a section or a verdict: it is sent as it is, and reported once.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reward_hub.errors import UnsupportedError
from reward_hub.judge.form import JudgeTask, Reply, Verdict
from reward_hub.judge.marks import verdict_in
from reward_hub.judge.rubrics.fencing import conversation_parts
from reward_hub.types import Message

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Template:
    """A published prompt with {names} in it.

    Attributes:
        judge: name of the form that it belongs to.
        marks: words that begin or end a section, or stand before the verdict.
    """

    judge: str
    text: str
    marks: tuple[str, ...]

    def filled(self, **parts: str) -> str:
        """The prompt with its names replaced, all at once: a {name} inside of a part is text."""
        for mark in self.marks_in(*parts.values()):
            _report(self.judge, mark)
        return re.sub(r"\{(\w+)\}", lambda name: parts.get(name[1], name[0]), self.text)

    def marks_in(self, *texts: str) -> tuple[str, ...]:
        """The marks that the texts hold, in any case."""
        return tuple(mark for mark in self.marks if any(mark.lower() in text.lower() for text in texts))


@functools.cache
def _report(judge: str, mark: str) -> None:
    """Once a process for each mark."""
    logger.warning(
        "A judged text holds %r, which marks a part of the prompt of %s: it may steer the verdict. The prompt is sent "
        "as published; LLMJudge with a rubric fences what it judges.",
        mark,
        judge,
    )


def instruction_of(prompt: Sequence[Message]) -> str:
    """The messages before the response as one text: a single user message as it is, a longer one turn by turn."""
    if len(prompt) == 1 and not prompt[0].tool_calls:
        return prompt[0].text
    return transcript(prompt)


def transcript(messages: Sequence[Message]) -> str:
    """`User: ...`, `Assistant: ...`, a blank line between the turns."""
    parts = conversation_parts(messages)
    return "\n\n".join(
        f"{message.role.capitalize()}: {text}" for message, (_, text) in zip(messages, parts, strict=True)
    )


def refuse_reference(judge: str, task: JudgeTask) -> None:
    """For prompts that have no place for a reference answer."""
    if task.reference is not None:
        raise UnsupportedError(f"The prompt of {judge} has no place for a reference answer. Leave it out.")


def steps_of(judge: str, task: JudgeTask) -> tuple[str, ...]:
    """The steps to judge; neither of the published step judges takes a reference answer."""
    refuse_reference(judge, task)
    if task.steps is None:
        raise UnsupportedError(f"{judge} judges steps; call score_steps, or score with a response in steps.")
    return task.steps


def read_letter(judge: str, parse: Callable[[str], str]) -> Callable[[JudgeTask, Sequence[Reply]], Verdict]:
    """The `read` of forms whose verdict is the letter of the better response."""

    def read(task: JudgeTask, replies: Sequence[Reply]) -> Verdict:
        text = replies[-1].text
        return Verdict((1.0 if verdict_in(text, parse, judge) == "A" else 0.0,), reasoning=text.strip())

    return read


def read_score(judge: str, parse: Callable[[str], int]) -> Callable[[JudgeTask, Sequence[Reply]], Verdict]:
    """The `read` of forms whose verdict is a number."""

    def read(task: JudgeTask, replies: Sequence[Reply]) -> Verdict:
        text = replies[-1].text
        return Verdict((float(verdict_in(text, parse, judge)),), reasoning=text.strip())

    return read
