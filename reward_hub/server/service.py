"""One model with its queue: what the routes of every dialect are made of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reward_hub.base import BaseRM
from reward_hub.errors import RewardHubError, UnknownModelError, UnsupportedError
from reward_hub.fingerprints import fingerprint_to_tell
from reward_hub.http.protocol import PROTOCOL, ServerInfo, refused, require_sendable
from reward_hub.reward_model import CallOptions, Result, label_of
from reward_hub.server.batching import Batcher, OverloadedError
from reward_hub.server.gate import ClientGoneError
from reward_hub.server.metrics import Metrics
from reward_hub.server.rendered import RenderedScorer
from reward_hub.types import Message, ScoreDetails
from reward_hub.version import __version__

if TYPE_CHECKING:
    from fastapi import Request

# Batches at a time where the model waits for others (a judge, another server) instead of computing.
PARALLEL_BATCHES = 8


@dataclass(frozen=True)
class ServeOptions:
    """How a model is served.

    Attributes:
        api_key: asked of every route but /health; None: none is needed.
        served_name: the name that requests may give besides the model's own.
        max_batch_size: most conversations scored together.
        max_wait_s: how long a conversation waits for others to share its batch, when the engine is free.
        max_queue: most conversations that wait; beyond, requests get 429.
        max_body_bytes: the size of a request.
    """

    api_key: str | None = None
    served_name: str | None = None
    max_batch_size: int = 64
    max_wait_s: float = 0.003
    max_queue: int = 2048
    max_body_bytes: int = 32 * 2**20


class Service:
    """One model with its queue: what the routes of every dialect are made of."""

    def __init__(self, rm: BaseRM, options: ServeOptions) -> None:
        self.rm = rm
        self.options = options
        self.name = options.served_name or label_of(rm)
        self.fingerprint = fingerprint_to_tell(rm)
        self.started = int(time.time())
        self.draining = False
        self.batcher = Batcher(
            self._run,
            max_batch_size=options.max_batch_size,
            max_wait_s=options.max_wait_s,
            max_queue=options.max_queue,
            parallel=PARALLEL_BATCHES if rm.capabilities.waits_elsewhere else 1,
            on_batch=lambda size, seconds: self.metrics.batch(size, seconds),
        )
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self._rendered: RenderedScorer | UnsupportedError
        try:
            self._rendered = RenderedScorer(rm)
        except UnsupportedError as error:
            self._rendered = error

    @property
    def rendered(self) -> RenderedScorer:
        """Raises UnsupportedError where rendered input has no score in this model."""
        if isinstance(self._rendered, UnsupportedError):
            raise UnsupportedError(self._rendered.message)
        return self._rendered

    def info(self) -> ServerInfo:
        rm, able = self.rm, self.rm.capabilities
        return ServerInfo(
            protocol=PROTOCOL,
            version=__version__,
            name=label_of(rm),
            family=rm.family,
            kind=rm.kind,
            higher_is_better=rm.higher_is_better,
            deterministic=rm.deterministic,
            max_length=rm.max_length,
            fingerprint=self.fingerprint,
            step_delimiter=rm.step_delimiter,
            aggregation=able.aggregation,
            has_score=able.has_score,
            splits_steps=able.splits_steps,
            template_arguments=True,
            takes_any_ending=True,
            max_items=self.options.max_queue,
            max_body_bytes=self.options.max_body_bytes,
        )

    def check_name(self, model: str | None) -> None:
        """Raises UnknownModelError unless the model asked for is the one served."""
        if model is not None and model not in (self.name, self.rm.name):
            raise UnknownModelError(f"The model {model!r} is not served here; {self.name!r} is.", near=[self.name])

    async def results(
        self, key: tuple[Hashable, ...], items: Sequence[Any], request: Request, *, n: int | None = None
    ) -> list[Result]:
        """Have items scored with those of other requests. Given up when the client goes away.

        Args:
            n: how many conversations they are, where that is not one each.
        """
        n = len(items) if n is None else n
        if n > self.options.max_queue:
            raise refused(413, f"{n} conversations in one request, and {self.options.max_queue} are taken.")
        if self.draining:
            raise refused(503, "The server is shutting down.")
        work = asyncio.ensure_future(self.batcher.submit(key, items))
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientGoneError
            results = [_sendable(result) for result in work.result()]
        except OverloadedError:
            self.metrics.turned_away.inc()
            raise
        finally:
            work.cancel()
            gone.cancel()
        scored = [result for result in results if isinstance(result, ScoreDetails)]
        self.metrics.results.labels("ok").inc(len(scored))
        self.metrics.results.labels("error").inc(len(results) - len(scored))
        self.metrics.tokens.inc(sum(result.tokens_scored or 0 for result in scored))
        return results

    async def _run(self, key: Any, items: list[Any]) -> list[Result]:
        """One batch of one kind of question."""
        what, *rest = key
        if what == "score":
            return await self.rm.ascore_conversations(items, CallOptions(aggregation=rest[0]))
        if what == "compare":
            return await self.rm.acompare_pairs(items, rest[0], CallOptions())
        if what == "rendered":
            return await self.rendered.score(items)
        assert what == "rank"
        return [await self._ranked(turns, texts, rest[0]) for turns, texts in items]

    async def _ranked(self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Result:
        try:
            return await self.rm.arank_responses(prompt, responses, options)
        except Exception as error:  # one ranking that fails as a whole is not the failure of the others
            return error


def _sendable(result: Result) -> Result:
    if isinstance(result, Exception):
        return result
    try:
        return require_sendable(result)
    except RewardHubError as error:
        return error


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
