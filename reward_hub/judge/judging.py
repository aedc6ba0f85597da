"""One judgement: a task is put before the judge as often as samples, orders and replies without a verdict want it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from reward_hub.errors import JudgeParseError, RewardHubError, ServerTimeoutError
from reward_hub.http.sending import Slots
from reward_hub.judge.chat.client import ChatRequest, Completion
from reward_hub.judge.chat.limits import LimitedChat, Usage
from reward_hub.judge.form import JudgeForm, JudgeTask, Reply
from reward_hub.judge.samples import REDUCES, Reduce, Reduced, Sample, reduced, reversed_task, turned_back
from reward_hub.loops import in_order

logger = logging.getLogger(__name__)

# A greedy judge would say the same again; a reply without a verdict is asked for again at no less than this.
RETRY_TEMPERATURE = 0.5
# Reasons for an end that is not the model's own, as OpenAI, vLLM, Mistral, DeepSeek and gateways to others name them.
_CUT = ("length", "max_tokens", "MAX_TOKENS", "model_length")
_BROKEN_OFF = ("abort", "error", "cancelled", "insufficient_system_resource")


@dataclass(frozen=True)
class Plan:
    """How often and with what settings each task is asked."""

    temperature: float
    max_tokens: int
    seed: int | None
    n_samples: int
    reduce: Reduce
    both_orders: bool
    parse_retries: int
    deadline_s: float | None

    def __post_init__(self) -> None:
        at_least = (self.n_samples, 1), (self.parse_retries, 0), (self.max_tokens, 1), (self.temperature, 0)
        if any(not least <= value < math.inf for value, least in at_least):
            raise TypeError(
                f"n_samples={self.n_samples}, parse_retries={self.parse_retries}, max_tokens={self.max_tokens}, "
                f"temperature={self.temperature}: at least 1, 0, 1 and 0."
            )
        if self.reduce not in REDUCES:
            raise TypeError(f"reduce={self.reduce!r}; known: {', '.join(map(repr, REDUCES))}.")
        if self.n_samples > 1 and self.temperature == 0:
            raise TypeError(
                f"n_samples={self.n_samples} at temperature 0 asks for the same reply {self.n_samples} times; "
                "set temperature= (0.7, say)."
            )
        if self.deadline_s is not None and self.deadline_s <= 0:
            raise TypeError(f"deadline_s={self.deadline_s}: it must be positive.")

    def seed_of(self, *place: int) -> int | None:
        """The seed of one request: its own for each sample, order, attempt and turn, the same whenever it is asked."""
        if self.seed is None:
            return None
        digest = hashlib.sha256(":".join(map(str, (self.seed, *place))).encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1


@dataclass(frozen=True)
class Judgement:
    """All samples of one task, each in all its orders, and what they make together."""

    groups: list[list[Sample]]
    reduced: Reduced

    @property
    def usage(self) -> Usage:
        return Usage.total([sample.usage for group in self.groups for sample in group])


class Judging:
    """A form, asked over one client as its plan says.

    Args:
        name: what the judge is called in errors.
        max_concurrency: judgements under way at a time.
    """

    def __init__(self, name: str, form: JudgeForm, plan: Plan, chat: LimitedChat, *, max_concurrency: int) -> None:
        self.name = name
        self.form = form
        self.plan = plan
        self.chat = chat
        self._slots = Slots(max_concurrency)

    async def judge(self, task: JudgeTask, *, both_orders: bool = False) -> Judgement:
        """Every sample of a task, in one or both orders.

        Raises:
            JudgeParseError: one of them got no verdict, however often it was asked for.
            ServerTimeoutError: the deadline passed.
        """
        plan = self.plan
        turns = self.turns(both_orders)
        async with self._slots.one():
            try:
                async with asyncio.timeout(plan.deadline_s):
                    samples = await in_order(
                        [self._sample(task, i, turned) for i in range(plan.n_samples) for turned in turns]
                    )
            except TimeoutError as error:
                if isinstance(error, RewardHubError):
                    raise
                raise ServerTimeoutError(f"{self.name}: no verdict within deadline_s={plan.deadline_s:g}.") from error
        groups = [samples[i : i + len(turns)] for i in range(0, len(samples), len(turns))]
        return Judgement(groups, reduced(groups, plan.reduce, self.form.weights))

    def turns(self, both_orders: bool = False) -> tuple[bool, ...]:
        """For each order in which a task is put before the judge, whether it is the reverse one."""
        ordered = self.form.mode in ("pairwise", "listwise") and (self.plan.both_orders or both_orders)
        return (False, True) if ordered else (False,)

    async def _sample(self, task: JudgeTask, i: int, turned: bool) -> Sample:
        """One judgement in one order; a reply without a verdict is asked for again."""
        shown = reversed_task(task) if turned else task
        usages: list[Usage] = []
        for attempt in range(self.plan.parse_retries + 1):
            replies: list[Reply] = []
            try:
                for turn in range(self.form.n_replies(shown)):
                    request = self._request(shown, replies, i, turned, attempt, turn)
                    logger.debug("%s is asked %r", self.name, request)
                    completion = await self.chat.complete(request)
                    usages.append(self.chat.ledger.usage_of(completion))
                    logger.debug("%s replied %r", self.name, completion.text)
                    replies.append(_reply_of(completion))
                verdict = self.form.read(shown, replies)
                break
            except _DeclinedError as error:
                raise JudgeParseError(f"{self.name}: {error.message}", text=error.text) from None
            except JudgeParseError as error:
                failed = error
        else:
            n = self.plan.parse_retries + 1
            raise JudgeParseError(f"{self.name}: {failed.message} ({n} replies.)", text=failed.text) from failed
        return Sample(
            verdict=turned_back(verdict, self.form.mode) if turned else verdict,
            replies=tuple(replies),
            usage=Usage.total(usages),
            seed=self.plan.seed_of(i, turned, attempt, 0),
            attempts=attempt + 1,
            turned=turned,
        )

    def _request(
        self, task: JudgeTask, replies: Sequence[Reply], i: int, turned: bool, attempt: int, turn: int
    ) -> ChatRequest:
        form, plan = self.form, self.plan
        return ChatRequest(
            messages=form.request(task, replies),
            temperature=max(plan.temperature, RETRY_TEMPERATURE) if attempt else plan.temperature,
            max_tokens=plan.max_tokens,
            seed=plan.seed_of(i, turned, attempt, turn),
            stop=form.stop,
            schema=form.response_schema(task) if form.response_schema is not None else None,
            logprobs=form.logprobs,
        )


class _DeclinedError(JudgeParseError):
    """The model gave no verdict on purpose, or its provider kept the reply back; asking again does not help."""


def _reply_of(completion: Completion) -> Reply:
    """A complete reply.

    Raises:
        JudgeParseError: it was cut, kept back, declined, or is empty.
    """
    text = completion.text
    if completion.finish_reason == "content_filter":
        raise _DeclinedError("The provider's content filter stopped the judge's reply; there is no verdict.", text=text)
    if completion.refusal:
        raise _DeclinedError(f"The judge declined: {completion.refusal[:300]}", text=completion.refusal)
    if completion.finish_reason in _BROKEN_OFF:
        raise JudgeParseError(
            f"The judge's reply was broken off (finish_reason {completion.finish_reason!r}), which is not a verdict.",
            text=text,
        )
    if completion.finish_reason in _CUT:
        n = completion.completion_tokens or "too many"
        raise JudgeParseError(
            f"The judge's reply was cut after {n} tokens, which is not a verdict; raise max_tokens.", text=text
        )
    if not text.strip():
        raise JudgeParseError("The judge's reply is empty.", text=text)
    return Reply(text, completion.tokens)
