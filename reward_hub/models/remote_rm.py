"""RemoteRM: a reward model behind `reward-hub serve`, with the scores and details of the model itself.

    rm = connect("http://localhost:8000/v1")

Every reply is checked: as many results as were asked for, in order, finite, and from the model that was connected to.
Anything else is a `ServerError`, never a number.
"""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import pydantic

from reward_hub import registry
from reward_hub.aggregation import AggregationMethod, aggregation_name
from reward_hub.base import BaseRM
from reward_hub.encoding import refuse_template_arguments
from reward_hub.errors import RewardHubError, ServerError, UnsupportedError
from reward_hub.family import Family
from reward_hub.http.client import HttpClient, api_key_from
from reward_hub.http.protocol import (
    PROTOCOL,
    RankReply,
    Reply,
    ResultItem,
    ServerInfo,
    details_of,
    error_from_wire,
    step_item_of,
)
from reward_hub.load_call import LoadCall
from reward_hub.loops import run_sync
from reward_hub.reward_model import CallOptions, Capabilities, Result, at, each, gathered, through
from reward_hub.types import Conversation, Message, Pair, ScoreDetails
from reward_hub.work import Work, awaited

logger = logging.getLogger(__name__)

# Conversations of one request. With 32 requests under way that fills four batches of a server with the usual settings:
# enough to keep it busy, and not so much that a request has to wait for longer than its time because of the others.
REQUEST_SIZE = 8

T = TypeVar("T")
R = TypeVar("R", bound=pydantic.BaseModel)
Read: TypeAlias = Callable[[int, ResultItem], ScoreDetails]


def connect(
    api_base: str,
    model: str | None = None,
    *,
    api_key: str | None = None,
    timeout_s: float = 60.0,
    max_retries: int = 4,
    max_concurrency: int = 32,
    aggregation: str | AggregationMethod | None = None,
) -> RemoteRM:
    """The model that a `reward-hub serve` at this address serves.

    Args:
        api_base: with or without `/v1` at its end.
        model: the served name; None takes what is served.
        api_key: else REWARD_HUB_API_KEY or OPENAI_API_KEY.
        timeout_s: for one attempt of one request.
        max_retries: further attempts where one fails that may succeed later.
        max_concurrency: requests under way at a time.
        aggregation: process models: in place of the server's.

    Raises:
        ServerError: there is no server, it is not a `reward-hub serve`, or it serves another model.
    """
    call = dict(locals())
    client = client_for(
        api_base, api_key=api_key, timeout_s=timeout_s, max_retries=max_retries, max_concurrency=max_concurrency
    )
    try:
        info = run_sync(served_by(client, model))
        if info is None:
            raise ServerError(f"{client.address} answers, but is not a reward-hub serve.")
        rm = RemoteRM(client, info, model=model, aggregation=aggregation)
    except BaseException:
        client.close()
        raise
    rm.load_call = LoadCall.of(connect, call, rm, keys=("api_key",))
    return rm


def client_for(api_base: str, *, api_key: str | None = None, **limits: Any) -> HttpClient:
    """The client of a server that may be ours: our server's errors come back as what they were."""
    return HttpClient(api_base, api_key=api_key_from(api_key), error_of=_error_of, **limits)


async def served_by(client: HttpClient, model: str | None = None) -> ServerInfo | None:
    """What our server says of its model; None where another server answers.

    Raises:
        ServerError: nobody answers, the key is refused, or the model is another one.
    """
    try:
        listing = await client.get("/v1/models")
    except ServerError as error:
        if error.status in (404, 405):
            return None
        raise
    entries = listing.get("data") if isinstance(listing, dict) else None
    entry = entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    if "reward_hub" not in entry:
        return None
    try:
        info = ServerInfo.model_validate(entry["reward_hub"])
    except pydantic.ValidationError as error:
        raise ServerError(f"{client.address}/v1/models does not describe its model: {_first(error)}.") from error
    if info.protocol != PROTOCOL:
        raise ServerError(
            f"{client.address} is reward_hub {info.version} and speaks protocol {info.protocol}, this is protocol "
            f"{PROTOCOL}: install the same version at both ends."
        )
    if model is not None and model not in (entry.get("id"), info.name):
        raise ServerError(f"{client.address} serves {entry.get('id')!r}, not {model!r}.", status=404)
    return info


class RemoteRM(BaseRM):
    """A model behind `reward-hub serve`; made by `connect`. Native in asynchronous code, usable from any thread."""

    def __init__(
        self,
        client: HttpClient,
        info: ServerInfo,
        *,
        model: str | None = None,
        aggregation: str | AggregationMethod | None = None,
    ) -> None:
        if aggregation is not None and info.kind != "process":
            raise UnsupportedError(f"aggregation={aggregation!r}: {info.name} is not a process model, it has no steps.")
        self.name = info.name
        self.family = info.family
        self.kind = info.kind
        self.higher_is_better = info.higher_is_better
        self.deterministic = info.deterministic
        self.max_length = info.max_length
        self.step_delimiter = info.step_delimiter
        self.info = info
        self._client = client
        self._model = model
        self._aggregation = None if aggregation is None else aggregation_name(aggregation)

    @property
    def fingerprint(self) -> str:
        """The served model's."""
        if self._aggregation is None or self._aggregation == self.info.aggregation:
            return self.info.fingerprint
        return f"{self.info.fingerprint}-{self._aggregation}"

    def close(self) -> None:
        self._client.close()

    @property
    def runs_on(self) -> Mapping[str, Any]:
        return {"backend": "api", "device": f"as served at {self._client.address}"}

    @property
    def capabilities(self) -> Capabilities:
        info = self.info
        return replace(
            super().capabilities,
            has_score=info.has_score,
            splits_steps=self.kind == "process" and info.splits_steps,
            scores_steps=self.kind == "process" and info.splits_steps,
            aggregation=self._aggregation or info.aggregation,
            # The served model may be a calibrated one, or an ensemble.
            compares_itself=True,
            ranks_itself=self.kind == "pairwise",
            waits_elsewhere=True,
            score_range=None if self._family is None else self._family.score_range,
        )

    @property
    def load_report(self) -> Mapping[str, Any]:
        family = self._family
        return {**({} if family is None else {"reads": family.read_summary}), **self.runs_on}

    @cached_property
    def _family(self) -> Family | None:
        """The served model's, where it is known here too."""
        return next((family for family in registry.families() if family.name == self.family), None)

    def scoring_of(self, conversations: Sequence[Conversation], options: CallOptions) -> Work[list[Result]]:
        async def ask(able: Sequence[Conversation]) -> list[Result]:
            parts = list(self._parts([_item_of(c) for c in able], options))
            calls = [self._score_part([able[i] for i in part], options) for part in parts]
            return await gathered(calls, [len(part) for part in parts], options)

        carried = each(conversations, lambda c: self._carried(self._ending_as_taken(c), c.messages))
        return through(carried, lambda able: awaited(lambda: ask(able)), fail_fast=options.fail_fast)

    def comparison_of(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> Work[list[Result]]:
        async def ask(able: Sequence[Pair]) -> list[Result]:
            items = [{"messages": _turns(pair.prompt), "a": pair.a, "b": pair.b} for pair in able]
            parts = list(self._parts(items, options))
            calls = [self._compare_part([items[i] for i in part], both_orders, options) for part in parts]
            return await gathered(calls, [len(part) for part in parts], options)

        carried = each(pairs, lambda pair: self._carried(pair, pair.prompt))
        return through(carried, lambda able: awaited(lambda: ask(able)), fail_fast=options.fail_fast)

    def ranking_of(self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Work[Result]:
        if self.kind != "pairwise":
            return super().ranking_of(prompt, responses, options)
        return awaited(lambda: self._ranking(prompt, responses))

    async def _ranking(self, prompt: tuple[Message, ...], responses: Sequence[str]) -> Result:
        body = {"messages": _turns(prompt), "responses": list(responses), "return_details": True}
        try:
            self._carried(responses, prompt)
            reply = self._checked(RankReply, "/v1/rank", await self._post("/v1/rank", body))
            details = reply.details or {}
            if len(reply.scores) != len(responses) or details.get("scores") != reply.scores:
                raise self._unusable("/v1/rank", f"{len(reply.scores)} scores for {len(responses)} responses")
            return self._details("/v1/rank", reply.score, details)
        except RewardHubError as error:
            return error

    def _ending_as_taken(self, conversation: Conversation) -> Conversation:
        """The conversation itself, where the server takes one that ends so."""
        if not (conversation.has_response or self.info.takes_any_ending):
            raise UnsupportedError(
                f"{self._client.address} is an older reward-hub serve ({self.info.version}): it needs a response to "
                "score (require_response). Install the same version there."
            )
        return conversation

    def _carried(self, item: T, messages: Sequence[Message]) -> T:
        """The item itself, where the server reads all that stands in these messages."""
        if not self.info.template_arguments:
            older = f"{self._client.address} is an older reward-hub serve ({self.info.version})"
            refuse_template_arguments(messages, older)
        return item

    # -- one request -------------------------------------------------------------------------------------------------

    def _parts(self, items: Sequence[Any], options: CallOptions) -> Iterator[range]:
        """Which items go together: no more than were asked for, than the server takes, and than fit into its bodies."""
        most = min(options.batch_size or REQUEST_SIZE, self.info.max_items)
        room = self.info.max_body_bytes - 1024
        start = size = 0
        for i, item in enumerate(items):
            n_bytes = len(json.dumps(item)) + 2
            if i > start and (i - start >= most or size + n_bytes > room):
                yield range(start, i)
                start, size = i, 0
            size += n_bytes
        if len(items) > start:
            yield range(start, len(items))

    async def _score_part(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        items = [_item_of(c) for c in conversations]
        by_steps = self.kind == "process" and self.info.splits_steps
        path = "/v1/score_steps" if by_steps or conversations[0].steps is not None else "/v1/score"
        body: dict[str, Any] = {"on_error": "none", "return_details": True}
        body["items" if path == "/v1/score_steps" else "messages"] = items
        if not all(conversation.has_response for conversation in conversations):
            body["require_response"] = False
        how = options.aggregation or self._aggregation
        if how is not None:
            body["aggregation"] = how

        def read(place: int, item: ResultItem) -> ScoreDetails:
            details = self._details(path, item.score, item.details)
            steps = conversations[place].steps
            if path == "/v1/score_steps" and len(details.step_scores or ()) != len(steps or ()):
                n = len(details.step_scores or ())
                raise self._unusable(path, f"{n} step scores for {len(steps or ())} steps")
            return details

        return await self._results(path, body, len(items), read, options)

    async def _compare_part(
        self, items: Sequence[Mapping[str, Any]], both_orders: bool, options: CallOptions
    ) -> list[Result]:
        body = {"pairs": items, "both_orders": both_orders, "on_error": "none", "return_details": True}

        def read(place: int, item: ResultItem) -> ScoreDetails:
            if item.probability is not None and not 0.0 <= item.probability <= 1.0:
                raise self._unusable("/v1/compare", f"{item.probability} as a probability")
            return self._details("/v1/compare", item.probability, item.details)

        return await self._results("/v1/compare", body, len(items), read, options)

    async def _results(self, path: str, body: dict[str, Any], n: int, read: Read, options: CallOptions) -> list[Result]:
        """One result for each item of a request. A failed request is the failure of its items."""
        results: list[Result]
        try:
            reply = self._checked(Reply, path, await self._post(path, body))
            if [item.index for item in reply.data] != list(range(n)):
                raise self._unusable(path, f"{len(reply.data)} results for {n} conversations, or in disorder")
            results = each(enumerate(reply.data), lambda placed: self._result(path, *placed, read))
        except RewardHubError as error:
            results = [error, *(copy.copy(error) for _ in range(1, n))]
        options.done(n)
        # A server counts the items of one request.
        return [at(result, None) if isinstance(result, Exception) else result for result in results]

    def _result(self, path: str, place: int, item: ResultItem, read: Read) -> ScoreDetails:
        if item.error is None:
            return read(place, item)
        error = error_from_wire(item.error)
        raise error if error is not None else self._unusable(path, f"an error that is none: {item.error!r:.200}")

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        logger.debug("%s: %s is sent %r", self.name, path, body)
        return await self._client.post(path, body if self._model is None else {"model": self._model, **body})

    def _checked(self, kind: type[R], path: str, reply: Any) -> R:
        """The reply as what it should be, from the model that was connected to."""
        try:
            checked = kind.model_validate(reply)
        except pydantic.ValidationError as error:
            raise self._unusable(path, f"a reply of another form: {_first(error)}") from error
        fingerprint = getattr(checked, "fingerprint", None)
        if fingerprint != self.info.fingerprint:
            raise ServerError(
                f"{self._client.address} now serves another model or other settings ({fingerprint}) than those it was "
                f"connected for ({self.info.fingerprint}). Connect again to use it.",
                status=200,
            )
        return checked

    def _details(self, path: str, score: float | None, wire: dict[str, Any] | None) -> ScoreDetails:
        if score is None or wire is None or not math.isfinite(score):
            raise self._unusable(path, f"score {score!r}, details {'missing' if wire is None else 'there'}")
        try:
            return details_of(score, wire)
        except pydantic.ValidationError as error:
            raise self._unusable(path, f"details of another form: {_first(error)}") from error

    def _unusable(self, path: str, what: str) -> ServerError:
        return ServerError(f"{self._client.address}{path} gave {what}.", status=200)


def _error_of(status: int, body: Any) -> Exception | None:
    """What our server means by a status and its body. Overload and the like stay what the client makes of them."""
    error = error_from_wire(body.get("error")) if isinstance(body, dict) else None
    return None if isinstance(error, ServerError) and not _from_upstream(error, status) else error


def _from_upstream(error: ServerError, status: int) -> bool:
    """Whether it is the error of a server that the served model itself asks, passed on as it was."""
    return status == 500 and error.status not in (None, 500)


def _item_of(conversation: Conversation) -> Any:
    return _turns(conversation.messages) if conversation.steps is None else step_item_of(conversation)


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.to_dict() for message in messages]


def _first(error: pydantic.ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
