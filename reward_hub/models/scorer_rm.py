"""ScorerRM: a server of others taken at its word. It is sent messages, or the rendered text, and gives the score.

For servers whose family is not known, or that take no token ids. Outcome scores only: what the numbers mean is up to
the server. `details["rendered_by"]` says who applied the chat template.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reward_hub.base import BaseRM
from reward_hub.encoding import chat_ids, opening_length, read_last, refuse_template_arguments
from reward_hub.errors import InputTooLongError, RewardHubError, ServerError, UnsupportedError
from reward_hub.family import Family, Setup, never
from reward_hub.http.dialects.base import NO_SUCH_ROUTE, Connection, ServerInput, ServerScore, check_count
from reward_hub.loops import run_sync
from reward_hub.models.completeness import Completeness, Missing
from reward_hub.models.shown_tokens import unread
from reward_hub.numerics import sigmoid
from reward_hub.reads import TokenLogprobs
from reward_hub.reward_model import CallOptions, Result, gathered
from reward_hub.tokenizer import Tokenizer
from reward_hub.types import Array, Conversation, Message, ModelInput, Pair, Scored, ScoreDetails

logger = logging.getLogger(__name__)

_PROBES = tuple(
    Conversation((Message("user", "What is 2 + 2?"), Message("assistant", text)))
    for text in ("It is 4.", "It is 5, as far as I know.")
)


def _never_scored(outputs: Array, setup: Setup) -> Scored:
    raise NotImplementedError("the server scores")


# What is rendered here for a server that scores.
_RENDERED = Family(
    name="the server",
    kind="outcome",
    source="",
    matches=never,
    encode=lambda conversation, setup: read_last(chat_ids(conversation.messages, setup.tokenizer)),
    read=TokenLogprobs(),
    score=_never_scored,
)


@dataclass(frozen=True)
class _Route:
    """One route of one server, and how a conversation is put to it."""

    connection: Connection
    path: str
    tokenizer: Tokenizer | None

    @property
    def renders_here(self) -> bool:
        return self.connection.dialect.takes != "messages" and self.tokenizer is not None

    @cached_property
    def completeness(self) -> Completeness | None:
        """What tells of parts that are not rendered; None where the server renders."""
        if not self.renders_here or self.tokenizer is None:
            return None
        return Completeness(self.connection.served.model or self.path, _RENDERED, Setup(self.tokenizer, {}, {}))

    def input_of(self, conversation: Conversation) -> ServerInput:
        turns = [message.to_dict() for message in conversation.messages]
        if not self.renders_here:
            name = self.connection.dialect.name
            refuse_template_arguments(conversation.messages, f"a {name} server renders the messages itself")
            return ServerInput(turns)
        assert self.tokenizer is not None
        text = self.tokenizer.render(conversation.messages)
        bos = text[: opening_length(text, self.tokenizer)]
        return ServerInput(turns, text, self.tokenizer.encode(text), bos)

    async def score_of(self, item: ServerInput, *, activated: bool = False, in_slot: bool = False) -> ServerScore:
        dialect, served = self.connection.dialect, self.connection.served
        request, read = dialect.routes[self.path]
        limit = served.max_length
        if dialect.takes == "token_ids" and limit is not None and len(item.token_ids) > limit:
            n = len(item.token_ids)
            raise InputTooLongError(f"{n} tokens, and the server takes {limit}.", n_tokens=n, max_length=limit)
        body = request(served, item)
        if activated and dialect.activation is not None:
            name, _, on = dialect.activation
            body[name] = on
        answer = read(await self.connection.client.post(self.path, body, in_slot=in_slot))
        if dialect.takes == "token_ids":
            check_count(answer.n_tokens, [item.token_ids])
        return answer


class ScorerRM(BaseRM):
    """A model behind a server of others, of which only the scores are known; made by `scorer`."""

    def __init__(self, route: _Route, *, name: str) -> None:
        self._route = route
        self.name = name
        self.max_length = route.connection.served.max_length

    @property
    def fingerprint(self) -> str:
        served = self._route.connection.served
        # None where the server renders: what it makes of the messages is not known here.
        fingerprint = getattr(self._route.tokenizer, "fingerprint", None) if self._route.renders_here else None
        template = fingerprint() if fingerprint is not None else self._rendered_by
        parts = (self._route.connection.client.address, served.model, served.root, self._route.path, template)
        return f"scorer-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"

    @property
    def _rendered_by(self) -> str:
        return "client" if self._route.renders_here else "server"

    def close(self) -> None:
        self._route.connection.client.close()

    @property
    def runs_on(self) -> Mapping[str, Any]:
        return {"backend": "api", "device": f"as served at {self._route.connection.client.address}"}

    async def ascore_conversations(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        return await gathered([self._result(c, options) for c in conversations], [1] * len(conversations), options)

    def inputs_of(self, value: Conversation | Pair) -> list[ModelInput]:
        """What is sent: the messages, or what was rendered of them; where the server reads it is not known."""
        route = self._route
        if isinstance(value, Pair) or not route.renders_here:
            return super().inputs_of(value)
        assert route.tokenizer is not None
        sent = route.input_of(value)
        if route.connection.dialect.takes == "token_ids":
            return [ModelInput(tokens=unread(sent.token_ids, route.tokenizer))]
        return [ModelInput(text=sent.text_without_bos)]

    async def _result(self, conversation: Conversation, options: CallOptions) -> list[Result]:
        # Conversations are rendered when they are sent, not all at once.
        async with self._route.connection.client.slot():
            try:
                sent = self._route.input_of(conversation)
                logger.debug("%s is sent %r", self.name, sent.text or sent.messages)
                answer = await self._route.score_of(sent, in_slot=True)
                check = self._route.completeness
                return [self._details(answer, None if check is None else check.encode(conversation)[1])]
            except RewardHubError as error:
                return [error]
            finally:
                options.done()

    def _details(self, answer: ServerScore, missing: Missing | None) -> ScoreDetails:
        return ScoreDetails(
            score=answer.score,
            raw_logits=[answer.score],
            normalized_score=sigmoid(answer.score),
            tokens_scored=answer.n_tokens,
            truncated=missing is not None and missing.of_response,
            dropped=None if missing is None else list(missing.names),
            backend="api",
            model=self.name,
            attributes=None if answer.attributes is None else dict(answer.attributes),
            extra={"rendered_by": self._rendered_by, "dialect": self._route.connection.dialect.name},
        )


def scorer(connection: Connection, *, name: str, tokenizer: Tokenizer | None, why: str) -> ScorerRM:
    """Take a server as a scorer of messages.

    Args:
        tokenizer: renders where the server does not.
        why: what stands in the way of more, for the log.

    Raises:
        UnsupportedError: the server takes rendered text, and no chat template is known.
        ServerError: it gives no single raw score.
    """
    dialect = connection.dialect
    if tokenizer is not None and tokenizer.chat_template is None:
        tokenizer = None
    if dialect.takes in ("text", "token_ids") and tokenizer is None:
        raise UnsupportedError(
            f"A {dialect.name} server applies no chat template, and none is known here ({why}). Say with checkpoint= "
            "or tokenizer= whose it is."
        )
    try:
        route = run_sync(_working(connection, tokenizer))
    except BaseException:
        connection.client.close()
        raise
    logger.info(
        "%s at %s (%s%s) is taken as a scorer of messages: %s. Rendered by the %s; outcome scores only, as the server "
        "gives them.",
        name,
        connection.client.address,
        dialect.name,
        route.path,
        why,
        "client" if route.renders_here else "server",
    )
    return ScorerRM(route, name=name)


async def _working(connection: Connection, tokenizer: Tokenizer | None) -> _Route:
    """The first route that is there, found to give raw scores where the dialect has another mode."""
    routes = [_Route(connection, path, tokenizer) for path in connection.dialect.routes]
    if connection.dialect.activation is None:
        return routes[0]
    missing: list[ServerError] = []
    for route in routes:
        inputs = [route.input_of(probe) for probe in _PROBES]
        try:
            raw = [(await route.score_of(item)).score for item in inputs]
        except ServerError as error:
            if error.status not in NO_SUCH_ROUTE:
                raise
            missing.append(error)
            continue
        if all(0 <= score <= 1 for score in raw):
            on = [(await route.score_of(item, activated=True)).score for item in inputs]
            if all(abs(a - b) <= 1e-4 for a, b in zip(raw, on, strict=True)):
                raise _activated(connection, raw)
        return route
    raise missing[0]


def _activated(connection: Connection, scores: Sequence[float]) -> ServerError:
    name, off, _ = connection.dialect.activation or ("", "", "")
    shown: list[Any] = [round(score, 4) for score in scores]
    return ServerError(
        f"{connection.client.address} gives {shown} with and without activation ({name}={off!r} changes nothing): it "
        "seems to give probabilities in place of raw scores. If its scores do lie between 0 and 1, say with "
        "checkpoint= which model it is.",
        status=200,
    )
