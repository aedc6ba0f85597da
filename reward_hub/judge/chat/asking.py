"""Ask a chat client as its limits allow: so many requests at a time, in budget, and again where that may help."""

from __future__ import annotations

import asyncio
import logging

from reward_hub.errors import ServerError
from reward_hub.http.sending import FIRST_DELAY_S, AttemptError, Slots, delay_s
from reward_hub.judge.chat.client import ChatClient, ChatRequest, Completion
from reward_hub.judge.chat.limits import Ledger

logger = logging.getLogger(__name__)


class Asker:
    """A chat client with its slots, its ledger and its patience.

    Args:
        max_retries: further attempts of one request, where it failed in a way that may pass.
        max_concurrency: requests under way at a time, those that wait for a further attempt included.
    """

    def __init__(
        self,
        client: ChatClient,
        ledger: Ledger,
        *,
        max_retries: int,
        max_concurrency: int,
        first_delay_s: float = FIRST_DELAY_S,
    ) -> None:
        if max_retries < 0:
            raise TypeError(f"max_retries={max_retries}: it must not be negative.")
        self.client = client
        self.ledger = ledger
        self._max_retries = max_retries
        self._slots = Slots(max_concurrency)
        self._first_delay_s = first_delay_s

    async def ask(self, request: ChatRequest) -> Completion:
        """The completion of a request.

        Raises:
            ServerError, BackendError: it failed, for good or too often.
            BudgetExceededError: it could go over the budget.
        """
        attempt = 0
        # The slot is kept while waiting: a server in trouble gets fewer requests, not more.
        async with self._slots.one():
            while True:
                try:
                    async with self.ledger.admitted(request) as admission:
                        completion = await self.client.attempt(request)
                        admission.settle(completion)
                    return completion
                except AttemptError as failed:
                    error, asked_s = failed.error, failed.wait_s
                if not getattr(error, "retryable", False) or attempt >= self._max_retries:
                    if attempt and isinstance(error, ServerError):
                        error.message += f" ({attempt + 1} attempts.)"
                    raise error
                wait_s = delay_s(attempt, asked_s, first_delay_s=self._first_delay_s)
                attempt += 1
                status = getattr(error, "status", None)
                reason = type(error).__name__ if status is None else f"status {status}"
                logger.info(
                    "%s: %s; attempt %d of %d in %.1f s.",
                    self.client.place, reason, attempt + 1, self._max_retries + 1, wait_s,
                )  # fmt: skip
                await asyncio.sleep(wait_s)
