"""What a judge may use: money, tokens, requests a minute. `Ledger` admits every attempt before `LimitedChat` sends it.

A budget is kept before the call: the request's tokens (estimated from its length, at the worst rate seen so far) and as
many as it may generate are set aside, and what was used takes their place when the reply is there. Requests go one by
one until a reply has shown a rate: many at once could go over the budget by as many wrong estimates.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from reward_hub.errors import BackendError, BudgetExceededError
from reward_hub.http.sending import Sender, wake
from reward_hub.judge.chat.client import ChatClient, ChatRequest, Completion

# Tokens a byte of text, until a server has told how many there were: English has one token in about four bytes.
FIRST_TOKENS_PER_BYTE = 0.3
# What templates put around a message.
_TOKENS_PER_MESSAGE = 8


@dataclass(frozen=True)
class Usage:
    """What calls used. None: a server did not say, or no prices are known."""

    calls: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    cost: float | None = 0.0

    @classmethod
    def total(cls, parts: Sequence[Usage]) -> Usage:
        return cls(
            calls=sum(part.calls for part in parts),
            prompt_tokens=_sum([part.prompt_tokens for part in parts]),
            completion_tokens=_sum([part.completion_tokens for part in parts]),
            cost=_sum([part.cost for part in parts]),
        )

    def to_dict(self) -> dict[str, Any]:
        """As it stands in details; the cost only where it is known."""
        shown = {name: getattr(self, name) for name in ("calls", "prompt_tokens", "completion_tokens")}
        return shown if self.cost is None else {**shown, "cost": self.cost}


def _sum(values: Sequence[Any]) -> Any:
    return None if None in values else sum(values)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """See `LLMJudge`. `period_s` is what requests and tokens are counted over."""

    prices: tuple[float, float] | None = None
    budget: float | None = None
    token_budget: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    period_s: float = 60.0

    def __post_init__(self) -> None:
        if self.prices is not None and (len(self.prices) != 2 or any(price < 0 for price in self.prices)):
            raise TypeError(f"prices={self.prices!r}: (input, output) per million tokens, neither negative.")
        if self.budget is not None and self.prices is None:
            raise TypeError(f"budget={self.budget} needs prices=(input, output) per million tokens; or token_budget=.")
        for name in ("budget", "token_budget", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise TypeError(f"{name}={value}: it must be positive.")
        if self.requests_per_minute is not None and self.requests_per_minute < 1:
            raise TypeError(f"requests_per_minute={self.requests_per_minute}: at least 1.")

    def cost(self, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
        """What tokens cost, where prices and both counts are known."""
        if self.prices is None or prompt_tokens is None or completion_tokens is None:
            return None
        return (prompt_tokens * self.prices[0] + completion_tokens * self.prices[1]) / 1e6


class Admission:
    """One admitted attempt, to be settled when its reply is there; unsettled, it cost nothing."""

    def __init__(self, request: ChatRequest, entry: _Sent) -> None:
        self.request = request
        self.entry = entry
        self.completion: Completion | None = None

    def settle(self, completion: Completion) -> None:
        self.completion = completion


@dataclass(eq=False)
class _Sent:
    """One request in the window of the rate limits."""

    at: float
    n_tokens: float


@dataclass
class Ledger:
    """What a judge has used and may still use. Safe for several threads and event loops."""

    limits: Limits
    used: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._reserved: list[Admission] = []
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._window: deque[_Sent] = deque()
        self._tokens_per_byte = FIRST_TOKENS_PER_BYTE
        self._rate_is_known = False

    @asynccontextmanager
    async def admitted(self, request: ChatRequest) -> AsyncIterator[Admission]:
        """Wait until the request may be sent, and count what it used.

        Raises:
            BudgetExceededError: it could go over the budget. Nothing was sent.
            BackendError: it is larger than the limit of tokens a minute; or a budget is set and the server does not
                say how many tokens it used.
        """
        admission = await self._reserve(request)
        try:
            await self._wait_for_rate(admission.entry)
            yield admission
        finally:
            self._close(admission)
        self._require_counts()

    async def _reserve(self, request: ChatRequest) -> Admission:
        loop = asyncio.get_running_loop()
        while True:
            self._require_counts()
            with self._lock:
                others = [other.request for other in self._reserved]
                guessed = self._budgeted and not self._rate_is_known
                if self._fits([*others, request]) and not (guessed and others):
                    admission = Admission(request, _Sent(0.0, self._foreseen(request)[0]))
                    self._reserved.append(admission)
                    return admission
                if not self._fits([request]):
                    raise self._exceeded(*self._foreseen(request))
                # What others have set aside may turn out to be more than they use.
                freed: asyncio.Future[None] = loop.create_future()
                self._waiting.append((loop, freed))
            await freed

    @property
    def _budgeted(self) -> bool:
        return self.limits.budget is not None or self.limits.token_budget is not None

    def _require_counts(self) -> None:
        if self._budgeted and None in (self.used.prompt_tokens, self.used.completion_tokens):
            raise BackendError("The server does not say how many tokens it used; a budget cannot be kept with it.")

    def _foreseen(self, request: ChatRequest) -> tuple[float, float]:
        """The tokens and the cost that a request could come to, by what is known now."""
        prompt = request.n_bytes * self._tokens_per_byte + _TOKENS_PER_MESSAGE * len(request.messages)
        return prompt + request.max_tokens, self.limits.cost(round(prompt), request.max_tokens) or 0.0

    def _fits(self, requests: Sequence[ChatRequest]) -> bool:
        """Whether the budget holds what was used and what all of these could come to."""
        limits = self.limits
        if not self._budgeted:
            return True
        n_tokens, cost = (sum(parts) for parts in zip(*map(self._foreseen, requests), strict=True))
        used = (self.used.prompt_tokens or 0) + (self.used.completion_tokens or 0)
        if limits.token_budget is not None and used + n_tokens > limits.token_budget:
            return False
        return limits.budget is None or (self.used.cost or 0.0) + cost <= limits.budget

    def _exceeded(self, n_tokens: float, cost: float) -> BudgetExceededError:
        limits, used = self.limits, self.used
        n_used = (used.prompt_tokens or 0) + (used.completion_tokens or 0)
        states = []
        if limits.budget is not None:
            states.append(f"budget={limits.budget:g}, {used.cost or 0.0:.6g} used, {cost:.6g} for the next call")
        if limits.token_budget is not None:
            states.append(f"token_budget={limits.token_budget}, {n_used} used, {n_tokens:.0f} for the next call")
        return BudgetExceededError(
            f"The next call could go over the budget: {'; '.join(states)} (at most, with max_tokens). Raise the "
            "budget, or lower max_tokens.",
            used_tokens=n_used,
            used_cost=used.cost,
        )

    async def _wait_for_rate(self, entry: _Sent) -> None:
        limits = self.limits
        if limits.requests_per_minute is None and limits.tokens_per_minute is None:
            return
        if limits.tokens_per_minute is not None and entry.n_tokens > limits.tokens_per_minute:
            raise BackendError(
                f"A request of about {entry.n_tokens:.0f} tokens (max_tokens included) is more than "
                f"tokens_per_minute={limits.tokens_per_minute:g} ever lets through."
            )
        while (wait_s := self._enter(entry)) > 0.0:
            await asyncio.sleep(wait_s)

    def _enter(self, entry: _Sent) -> float:
        """Put a request into the window; or the seconds until there may be room."""
        limits = self.limits
        with self._lock:
            now = time.monotonic()
            while self._window and self._window[0].at <= now - limits.period_s:
                self._window.popleft()
            n, tokens = len(self._window), sum(sent.n_tokens for sent in self._window)
            free = limits.requests_per_minute is None or n + 1 <= limits.requests_per_minute
            if free and (limits.tokens_per_minute is None or tokens + entry.n_tokens <= limits.tokens_per_minute):
                entry.at = now
                self._window.append(entry)
                return 0.0
            return self._window[0].at + limits.period_s - now + 1e-3

    def _close(self, admission: Admission) -> None:
        completion = admission.completion
        with self._lock:
            self._reserved.remove(admission)
            if completion is not None:
                self._count(completion, admission)
            waiting, self._waiting = self._waiting, []
        for loop, freed in waiting:
            wake(loop, freed)

    def _count(self, completion: Completion, admission: Admission) -> None:
        self.used = Usage.total([self.used, self.usage_of(completion)])
        if completion.prompt_tokens is None:
            return
        request = admission.request
        if request.n_bytes:
            seen = (completion.prompt_tokens - _TOKENS_PER_MESSAGE * len(request.messages)) / request.n_bytes
            self._tokens_per_byte = max(self._tokens_per_byte, seen)
        self._rate_is_known = True
        admission.entry.n_tokens = completion.prompt_tokens + (completion.completion_tokens or 0)

    def usage_of(self, completion: Completion) -> Usage:
        """What one reply used."""
        counts = completion.prompt_tokens, completion.completion_tokens
        return Usage(1, *counts, self.limits.cost(*counts))


class LimitedChat:
    """A chat client, the `Sender` of its requests, and the `Ledger` that every attempt of them is entered in."""

    def __init__(self, client: ChatClient, ledger: Ledger, sender: Sender) -> None:
        self.client = client
        self.ledger = ledger
        self._sender = sender

    async def complete(self, request: ChatRequest) -> Completion:
        """The completion of a request.

        Raises:
            ServerError, BackendError: it failed, for good or too often.
            BudgetExceededError: it could go over the budget.
        """
        return await self._sender.send(lambda: self._attempt(request), label=self.client.place)

    async def _attempt(self, request: ChatRequest) -> Completion:
        async with self.ledger.admitted(request) as admission:
            completion = await self.client.attempt(request)
            admission.settle(completion)
        return completion
