"""ThinkPRM: a verifier that thinks through a solution step by step and is then asked whether it is correct.

Prompt and score: utils/helper.py and prm/thinkprm_api.py of https://github.com/mukhal/ThinkPRM, the code of the search
experiments (model cards: Apache-2.0). Paper: https://arxiv.org/abs/2504.16828.
`thinkprm`: the score of step k is that of the solution up to it. The reply is made to begin with "Let's verify step by
step:"; when it is done, "Is the solution correct? " is added and p(yes) / (p(yes) + p(no)) read from the next token.
Two requests a step.
`thinkprm-steps`: one request; each step's own label, \\boxed{correct} 1.0 or \\boxed{incorrect} 0.0. The chain ends
with the first wrong step, and those behind it are 0.0: a solution that holds an error stays wrong.
Departs from it: all spellings of yes and no among the returned alternatives count (the authors compare the
continuations "yes" and "no"), and one that is not among them is replaced by the smallest. A chain that goes on to
verify steps that do not exist is cut there, where the authors stop it. "Step 3:" is taken from the beginning of a step
alone; the authors take it out wherever it stands. Decoding is greedy, as on the model card; the
experiments sample at 0.7 and take the mean of several chains.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from reward_hub.errors import JudgeParseError
from reward_hub.judge.form import ChatMessages, JudgeForm, JudgeTask, Reply, Verdict
from reward_hub.judge.marks import BOX, YES_NO, NotAVerdictError, agreed, behind, verdict_in, yes_probability
from reward_hub.judge.templates import Template, instruction_of, steps_of
from reward_hub.types import Checkpoint

SOURCE = "https://arxiv.org/abs/2504.16828"
CHECKPOINTS = tuple(Checkpoint(f"launch/ThinkPRM-{size}", license="apache-2.0") for size in ("1.5B", "7B", "14B"))
PREFIXES, LABELS = "thinkprm", "thinkprm-steps"
MAX_TOKENS = 4096
QUESTION = "Is the solution correct?"
# What the chat template opens the reply with, and what the authors add to it.
THINK, VERIFY = "<think>\n", "\nLet's verify step by step:"
STOP = (QUESTION, "</think>")

_TEXT = """You are given a math problem and a proposed step-by-step solution:

[Math Problem]

{problem}

[Solution]

{solution}

Review and critique each step in the proposed solution to determine whether each step is correct. If the solution is \
incomplete, only verify the provided steps."""
_MARKS = ("[Math Problem]", "[Solution]", QUESTION, "\\boxed{correct}", "\\boxed{incorrect}", "</think>")
_IS_CORRECT = re.compile(r"is\s+the\s+solution\s+correct\s{0,5}\?", re.IGNORECASE)
_STEP_OR_BOX = re.compile(rf"(?:^|\n)[ \t*_#>-]{{0,20}}step\s{{1,5}}(?P<step>\d+)\b|{BOX.pattern}", re.IGNORECASE)


def thinkprm(*, begin_reply: bool = True) -> JudgeForm:
    """Scores of growing parts of the solution, from the probability of yes.

    Args:
        begin_reply: False leaves out "Let's verify step by step:", as a later version of the authors' code does.
    """
    template, start = Template(PREFIXES, _TEXT, _MARKS), THINK + (VERIFY if begin_reply else "")

    def request(task: JudgeTask, replies: Sequence[Reply]) -> ChatMessages:
        steps = steps_of(PREFIXES, task)[: len(replies) // 2 + 1]
        opening = start
        if len(replies) % 2:
            opening += f"{_chain(replies[-1], len(steps))}\n{QUESTION} "
        return _messages(template, task, steps, opening)

    def read(task: JudgeTask, replies: Sequence[Reply]) -> Verdict:
        chain = _chain(replies[-2], len(replies) // 2)
        return Verdict(
            tuple(_said_yes(decision) for decision in replies[1::2]),
            reasoning=f"{chain.strip()}\n{QUESTION} {replies[-1].text.strip()}",
        )

    return JudgeForm(
        name=PREFIXES,
        mode="stepwise",
        source=SOURCE,
        request=request,
        read=read,
        parse=_verdict,
        n_replies=lambda task: 2 * len(steps_of(PREFIXES, task)),
        checkpoints=CHECKPOINTS,
        max_tokens=MAX_TOKENS,
        stop=STOP,
        logprobs=True,
    )


def thinkprm_steps(*, begin_reply: bool = True) -> JudgeForm:
    """The label of each step, from one chain.

    Args:
        begin_reply: as for `thinkprm`.
    """
    template, start = Template(LABELS, _TEXT, _MARKS), THINK + (VERIFY if begin_reply else "")

    def request(task: JudgeTask, replies: Sequence[Reply]) -> ChatMessages:
        return _messages(template, task, steps_of(LABELS, task), start)

    def read(task: JudgeTask, replies: Sequence[Reply]) -> Verdict:
        n_steps = len(steps_of(LABELS, task))
        text = replies[-1].text
        labels = verdict_in(_chain(replies[-1], n_steps), _labels, LABELS)
        if len(labels) > n_steps or (len(labels) < n_steps and 0.0 not in labels):
            raise JudgeParseError(f"The chain labels {len(labels)} of {n_steps} steps, all correct.", text=text)
        return Verdict(labels + (0.0,) * (n_steps - len(labels)), reasoning=text.strip())

    return JudgeForm(
        name=LABELS,
        mode="stepwise",
        source=SOURCE,
        request=request,
        read=read,
        parse=_labels,
        checkpoints=CHECKPOINTS,
        max_tokens=MAX_TOKENS,
        stop=STOP,
    )


def _messages(template: Template, task: JudgeTask, steps: Sequence[str], opening: str) -> ChatMessages:
    # The authors put their own numbers in place of those that steps may begin with.
    bare = [re.sub(r"^\s*Step \d+:", "", step).strip() for step in steps]
    solution = "\n".join(f"Step {number}: {step}" for number, step in enumerate(bare, start=1))
    text = template.filled(problem=instruction_of(task.prompt), solution=solution)
    return [{"role": "user", "content": text}, {"role": "assistant", "content": opening}]


def _chain(reply: Reply, n_steps: int) -> str:
    return reply.text.split(f"Step {n_steps + 1}:")[0]


def _said_yes(decision: Reply) -> float:
    """The probability of yes at the first token that says yes or no."""
    for token in decision.tokens or ():
        if _spelling(token.text) in ("yes", "no"):
            others = [value for text, value in token.logprobs.items() if _spelling(text) not in ("yes", "no")]
            yes, no = _sum_of(token.logprobs, "yes"), _sum_of(token.logprobs, "no")
            probability = yes_probability(yes, no, others)
            if probability is not None:
                return probability
            break
        if token.text.strip():
            break
    return verdict_in(f"{QUESTION} {decision.text}", _verdict, PREFIXES)


def _spelling(token: str) -> str:
    return token.strip(" \n*_`.").lower()


def _sum_of(logprobs: Mapping[str, float], word: str) -> float | None:
    """log of the summed probabilities of a word's spellings."""
    ways = [value for text, value in logprobs.items() if _spelling(text) == word]
    if not ways:
        return None
    return max(ways) + math.log(math.fsum(math.exp(value - max(ways)) for value in ways))


def _verdict(text: str) -> float:
    """The chain itself is the model's thinking, so that no tags are looked at."""
    return behind(((_IS_CORRECT, YES_NO),), text, lambda match: 1.0 if match["word"].lower() == "yes" else 0.0)


def _labels(text: str) -> tuple[float, ...]:
    """One label a step; several boxes of one step must agree."""
    labels: dict[int, list[str]] = {}
    current = 0
    for match in _STEP_OR_BOX.finditer(text):
        if match["step"]:
            current = int(match["step"])
        elif (word := match["word"].lower()) in ("correct", "incorrect"):
            labels.setdefault(current, []).append(word)
    if 0 in labels and len(labels) == 1:
        # No step is named: the boxes stand in the order of the steps.
        labels = {number: [label] for number, label in enumerate(labels[0], start=1)}
    if not labels or sorted(labels) != list(range(1, len(labels) + 1)):
        raise NotAVerdictError(f"labels the steps {sorted(labels)}, not each from the first on")
    return tuple(1.0 if agreed(labels[number]) == "correct" else 0.0 for number in sorted(labels))


FORMS = (thinkprm, thinkprm_steps)
