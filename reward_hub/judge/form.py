"""What a judge is asked and how its replies become a verdict: JudgeTask, Reply, Verdict, JudgeForm.

A form stands to judges as a family stands to reward models: data and two functions. It never calls a model; the
chat clients that do know no form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from reward_hub.types import Checkpoint, Message

Mode: TypeAlias = Literal["pointwise", "pairwise", "listwise", "stepwise"]
ChatMessages: TypeAlias = list[dict[str, Any]]
"""What is sent. Where the last message is the assistant's, the judge continues it (vLLM's `continue_final_message`)."""


@dataclass(frozen=True)
class JudgeTask:
    """What is put before a judge."""

    prompt: tuple[Message, ...]
    """Every message before the response."""
    responses: tuple[str, ...]
    """One (pointwise, stepwise), two (pairwise: a, b) or several (listwise)."""
    steps: tuple[str, ...] | None = None
    """stepwise: the response cut into steps."""
    reference: str | None = None
    """A reference answer, where the caller has one."""
    rubric: str | None = None
    """The caller's rubric, for forms that take one (`JudgeForm.takes_rubric`)."""
    top_n: int | None = None
    """listwise: so many of the best are to be named, in order; None for all."""


@dataclass(frozen=True)
class ReplyToken:
    """One generated token with the log-probabilities of the tokens that could have stood there."""

    text: str
    logprobs: Mapping[str, float]
    """Token text -> log-probability; the generated one among them."""


@dataclass(frozen=True)
class Reply:
    """One complete reply of the judge (a cut one never gets here)."""

    text: str
    tokens: tuple[ReplyToken, ...] | None = None
    """Where log-probabilities were asked for."""


@dataclass(frozen=True)
class Verdict:
    """What one judgement says."""

    scores: tuple[float, ...]
    """pointwise: one score; pairwise: the probability that the first response is the better one (1.0, 0.0, 0.5 for a
    stated tie); listwise: one score a response, higher is better; stepwise: one score a step."""
    criteria: Mapping[str, float] = field(default_factory=dict)
    """Score per criterion, where the rubric has several."""
    reasoning: str = ""
    score_mass: float | None = None
    """Where scores are expected values over log-probabilities: the share of probability that was read (the least of
    all scores read)."""


@dataclass(frozen=True, kw_only=True)
class JudgeForm:
    """How one kind of judge is asked and read."""

    name: str
    mode: Mode
    source: str
    """URL of the paper, model card or code that this follows."""
    request: Callable[[JudgeTask, Sequence[Reply]], ChatMessages]
    """The next request, after the replies so far (none at first)."""
    read: Callable[[JudgeTask, Sequence[Reply]], Verdict]
    """All replies -> verdict. Raises JudgeParseError where they hold none, or two."""
    parse: Callable[[str], Any] | None = None
    """The words of the verdict in one reply, for `parse_verdict`. Raises NotAVerdictError."""
    verdict_names: tuple[str, ...] = ()
    """Other names that `parse_verdict` knows the form's verdicts by."""
    n_replies: Callable[[JudgeTask], int] = lambda task: 1
    """Requests that one judgement takes, one after the other (GenPRM asks once a step)."""
    response_schema: Callable[[JudgeTask], dict[str, Any]] | None = None
    """JSON schema of a reply, where structured output is wanted."""
    score_range: tuple[float, float] = (0.0, 1.0)
    checkpoints: tuple[Checkpoint, ...] = ()
    """Published judges that are asked in this form."""
    temperature: float = 0.0
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    """Whether `read` needs `Reply.tokens`."""
    takes_rubric: bool = False
    """Whether `request` puts `JudgeTask.rubric` before the judge."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Criterion -> its share of the score (they add up to 1), where `Verdict.criteria` make it up. Several samples are
    then reduced criterion by criterion."""
