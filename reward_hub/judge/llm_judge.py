"""LLMJudge: a language model that judges by a rubric, or in the form of a published judge, as a reward model.

    judge = LLMJudge(model="gpt-4", api_base="https://api.openai.com/v1", rubric="Score the response from 1-5 ...")
    judge.score(prompt="Explain gravity", response="...")

What is asked and how replies are read is a `JudgeForm`; this file asks it, as often as samples, orders and replies
without a verdict want it, and makes one score of the verdicts.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, SupportsIndex, TypeVar, Unpack

from reward_hub.aggregation import aggregation_name
from reward_hub.base import BaseRM, RankOptions
from reward_hub.calls import Messages
from reward_hub.encoding import refuse_template_arguments
from reward_hub.errors import (
    InvalidConversationError,
    RewardHubError,
)
from reward_hub.http.sending import Sender
from reward_hub.judge.chat.client import ChatClient
from reward_hub.judge.chat.limits import Ledger, LimitedChat, Limits, Usage
from reward_hub.judge.chat.vllm import VllmChat
from reward_hub.judge.form import JudgeForm, JudgeTask, Mode
from reward_hub.judge.judge_details import JudgeDetails, position_of
from reward_hub.judge.judging import Judgement, Judging, Plan
from reward_hub.judge.published import form_named, form_of_checkpoint, forms
from reward_hub.judge.rubrics import forms as rubric_forms
from reward_hub.judge.rubrics.fencing import text_of
from reward_hub.judge.rubrics.rubric import Rubric
from reward_hub.judge.samples import PositionBias, PositionTally, Reduce, reversed_task
from reward_hub.load_call import LoadCall
from reward_hub.ranking import rank_by_comparing
from reward_hub.reward_model import CallOptions, Capabilities, Result, gathered
from reward_hub.types import AtLeast, Conversation, Kind, Message, ModelInput, Pair, ScoreDetails
from reward_hub.work import Work, awaited

logger = logging.getLogger(__name__)

TIMEOUT_S = 120.0
MAX_RETRIES = 4
REFERENCE = "reference"
"""The key of a message that holds a reference answer."""

KINDS: Mapping[Mode, Kind] = {
    "pointwise": "outcome",
    "pairwise": "pairwise",
    "listwise": "pairwise",
    "stepwise": "process",
}
T = TypeVar("T")

_LOAD_METHODS = {"api": "api", "openai": "api", "vllm": "vllm"}


class LLMJudge(BaseRM):
    """A language model as a judge. Nothing is called, opened or started before the first judgement.

    Args:
        model: the model's name at the endpoint; a hub id or a folder for vLLM.
        rubric: what to judge by, in plain words or as a `Rubric`. A text may name its score range ("from 1-5") and
            weighted criteria ("Correctness (weight: 0.5)"): each gets a score, and they are combined here.
        mode: "pointwise" (`score`), "pairwise" (`compare`), "listwise" (`rank`), "stepwise" (`score_steps`).
        form: in place of a rubric: a `JudgeForm`, or the name of a published judge's. Without `rubric` and `form` the
            published judge that `model` is.
        load_method: "api" (also "openai"), an OpenAI-compatible endpoint; "vllm", an engine in this process.
        api_base: the endpoint's address; else OPENAI_BASE_URL, else OpenAI's.
        api_key: else REWARD_HUB_API_KEY or OPENAI_API_KEY.
        engine: a `vllm.LLM` that runs already.
        engine_options: arguments of `vllm.LLM`.
        temperature: of each reply; by default the form's (0 for rubrics).
        max_tokens: of each reply; by default the form's (1024 for rubrics).
        seed: requests get seeds made from it; None sends none.
        n_samples: replies per judgement.
        reduce: how several replies become one verdict: by their "mean", "median" or "majority".
        use_logprobs: rubrics: the expected score over the tokens of the score, in place of the one written.
        both_orders: pairs and lists are judged in the given and in the reverse order, and the two averaged.
        structured: True holds replies to a JSON schema; "auto" does where the server can; False asks in words alone.
        parse_retries: how often a reply without a verdict is asked for again (at temperature 0.5 or more).
        aggregation: stepwise: how step scores become the score of `score`; "min" by default.
        extra_body: further fields of each request (`chat_template_kwargs`, ...); for vLLM, arguments of `LLM.chat`.
        prices: of a million prompt tokens and a million generated tokens, in any currency.
        budget: in the currency of `prices`. The call that could go over it is not sent: `BudgetExceededError`.
        token_budget: a budget in tokens.
        requests_per_minute, tokens_per_minute: requests wait until they are within these.
        max_concurrency: requests, and judgements, under way at a time, over all threads and event loops.
        deadline_s: for one judgement, from when its turn has come, waits and further attempts included.
        timeout_s: endpoints: for one attempt; 120 by default.
        max_retries: endpoints: further attempts of a request that failed in a way that may pass (429, 5xx, timeouts);
            4 by default.

    Raises:
        TypeError: arguments that do not go together.
        ValueError: the rubric cannot be read.
        UnsupportedError: `use_logprobs` where a verdict is not a single token.

    Attributes:
        deterministic: False for a temperature above 0.
        form: what is asked.
    """

    def __init__(
        self,
        model: str,
        *,
        rubric: str | Rubric | None = None,
        mode: Mode | None = None,
        form: JudgeForm | str | None = None,
        load_method: Literal["api", "openai", "vllm"] = "api",
        api_base: str | None = None,
        api_key: str | None = None,
        engine: Any = None,
        engine_options: Mapping[str, Any] | None = None,
        temperature: Annotated[float | None, AtLeast(0)] = None,
        max_tokens: Annotated[int | None, AtLeast(1)] = None,
        seed: int | None = 0,
        n_samples: Annotated[int, AtLeast(1)] = 1,
        reduce: Reduce = "mean",
        use_logprobs: bool = False,
        both_orders: bool = True,
        structured: bool | Literal["auto"] = "auto",
        parse_retries: Annotated[int, AtLeast(0)] = 2,
        aggregation: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        prices: tuple[float, float] | None = None,
        budget: float | None = None,
        token_budget: Annotated[int | None, AtLeast(1)] = None,
        requests_per_minute: Annotated[float | None, AtLeast(1)] = None,
        tokens_per_minute: Annotated[float | None, AtLeast(1)] = None,
        max_concurrency: Annotated[int, AtLeast(1)] = 32,
        deadline_s: Annotated[float | None, AtLeast(0.001)] = None,
        timeout_s: Annotated[float | None, AtLeast(0.001)] = None,
        max_retries: Annotated[int | None, AtLeast(0)] = None,
    ) -> None:
        given = dict(locals())
        del given["self"]
        self.name = model
        self.form = _form_of(model, rubric, mode, form, use_logprobs)
        self.family = self.form.name
        self.kind = KINDS[self.form.mode]
        self._plan = Plan(
            temperature=self.form.temperature if temperature is None else float(temperature),
            max_tokens=self.form.max_tokens if max_tokens is None else max_tokens,
            seed=seed,
            n_samples=n_samples,
            reduce=reduce,
            both_orders=both_orders,
            parse_retries=parse_retries,
            deadline_s=deadline_s,
        )
        self.deterministic = self._plan.temperature == 0.0
        if aggregation is not None and self.kind != "process":
            raise TypeError(f"aggregation={aggregation!r}: only a stepwise judge has steps to aggregate.")
        self._aggregation = "min" if aggregation is None else aggregation_name(aggregation)
        # The other forms have the rubric in their own words already.
        self._rubric_text = rubric if isinstance(rubric, str) and isinstance(form, JudgeForm) else None
        self._reference: str | None = None
        self._top_n: int | None = None
        endpoint = {"api_base": api_base, "api_key": api_key, "timeout_s": timeout_s, "max_retries": max_retries}
        in_process = _load_method(load_method, engine) == "vllm"
        self._client = _client_of(
            model, in_process, endpoint, engine=engine, engine_options=engine_options, structured=structured,
            extra_body=extra_body,
        )  # fmt: skip
        retries = 0 if in_process else MAX_RETRIES if max_retries is None else max_retries
        self._sent_settings = {"structured": structured, "extra_body": dict(extra_body or {})}
        if engine_options:
            self._sent_settings["engine_options"] = dict(engine_options)
        limits = Limits(
            prices=prices,
            budget=budget,
            token_budget=token_budget,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )
        self._ledger = Ledger(limits)
        sender = Sender(max_concurrency=max_concurrency, max_retries=retries)
        chat = LimitedChat(self._client, self._ledger, sender)
        self._judging = Judging(model, self.form, self._plan, chat, max_concurrency=max_concurrency)
        self._details = JudgeDetails(self.form, model, "vllm" if in_process else "api")
        self._positions = PositionTally(model)
        self._warned: set[str] = set()
        if type(self) is LLMJudge:
            folders = ("model",) if in_process else ()
            self.load_call = LoadCall.of(LLMJudge, given, self, keys=("api_key",), folders=folders, by_name=("engine",))

    @property
    def runs_on(self) -> Mapping[str, Any]:
        return {"backend": "vllm" if isinstance(self._client, VllmChat) else "api", "at": self.place}

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """The call that made it, with what `with_reference` left. Budgets and counts are each process's own."""
        if self.load_call is None:
            return super().__reduce_ex__(protocol)
        return self.load_call.reduced(self, _reference=self._reference)

    @property
    def mode(self) -> Mode:
        return self.form.mode

    @property
    def place(self) -> str:
        """Where the model is: an address without credentials, or the engine."""
        return self._client.place

    @property
    def usage(self) -> Usage:
        """What all calls so far used, those of replies without a verdict included."""
        return self._ledger.used

    @property
    def position_bias(self) -> PositionBias | None:
        """Over all pairs that were judged in both orders; None before the first."""
        return self._positions.total

    @property
    def fingerprint(self) -> str:
        """Identifies model, place, words of the request and settings; not the key, and nothing that only costs time."""
        probe = _probe(self.form.mode, self._rubric_text, self._reference)
        schema = self.form.response_schema(probe) if self.form.response_schema else None
        plan = dataclasses.asdict(self._plan)
        del plan["deadline_s"]
        settings = {
            "model": self.name,
            "place": self.place,
            "form": [self.form.name, self.form.source, self.form.stop, self.form.logprobs, self.form.score_range],
            "weights": self.form.weights,
            "request": self.form.request(probe, ()),
            "schema": schema,
            "aggregation": self._aggregation,
            "reading": rubric_forms.VERSION,
            **plan,
            **self._sent_settings,
        }
        text = json.dumps(settings, sort_keys=True, default=str)
        return f"judge:{self.form.name}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def close(self) -> None:
        self._client.close()

    def with_reference(self, reference: str) -> LLMJudge:
        """The same judge, shown this reference answer wherever a conversation brings none of its own.

        It shares connections, limits and counts with this one.
        """
        if not isinstance(reference, str):
            raise TypeError(f"reference is {type(reference).__name__}; a text is needed.")
        other = copy.copy(self)
        other._reference = reference
        return other

    def rank(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        responses: Sequence[str],
        return_details: bool = False,
        top_n: int | None = None,
        **options: Unpack[RankOptions],
    ) -> Any:
        """Indices of the responses, best first; ties keep input order.

        Args:
            top_n: the best so many alone. A listwise judge is then asked for no more than them.
        """
        given: dict[str, Any] = {
            "prompt": prompt,
            "responses": responses,
            "return_details": return_details,
            **options,
        }
        return _first(super(LLMJudge, self._naming(top_n)).rank(messages, **given), top_n)

    async def arank(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        responses: Sequence[str],
        return_details: bool = False,
        top_n: int | None = None,
        **options: Unpack[RankOptions],
    ) -> Any:
        """`rank` without blocking the event loop."""
        given: dict[str, Any] = {
            "prompt": prompt,
            "responses": responses,
            "return_details": return_details,
            **options,
        }
        return _first(await super(LLMJudge, self._naming(top_n)).arank(messages, **given), top_n)

    def _naming(self, top_n: int | None) -> LLMJudge:
        if top_n is not None and top_n < 1:
            raise TypeError(f"top_n={top_n}; at least 1 is needed.")
        other = copy.copy(self)
        other._top_n = top_n
        return other

    # -- the inner protocol ----------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        return replace(
            super().capabilities,
            aggregation=self._aggregation,
            compares_itself=self.kind == "pairwise",
            ranks_itself=self.kind == "pairwise",
            ranks_lists=self.mode == "listwise",
            is_judge=True,
            score_range=self.form.score_range,
        )

    async def ascore_conversations(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        async def one(conversation: Conversation) -> ScoreDetails:
            judgement = await self._judging.judge(self._response_task(conversation))
            details = self._details.of_score(judgement, conversation, options.aggregation or self._aggregation)
            return replace(details, dropped=self._dropped(conversation.messages))

        return await _each(conversations, one, options)

    def comparison_of(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> Work[list[Result]]:
        if self.kind != "pairwise":
            return super().comparison_of(pairs, both_orders, options)

        async def one(pair: Pair) -> ScoreDetails:
            return self._pair_details(pair, await self._judging.judge(self._pair_task(pair), both_orders=both_orders))

        return awaited(lambda: _each(pairs, one, options))

    def ranking_of(self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Work[Result]:
        if self.kind != "pairwise":
            return (yield from super().ranking_of(prompt, responses, options))
        if len(set(responses)) == 1:
            # Equal texts need no judge.
            return replace(self._details.bare(0.5), scores=[0.5] * len(responses))
        if self.mode == "listwise":

            async def one(texts: Sequence[str]) -> ScoreDetails:
                details = self._details.of_list(await self._judging.judge(self._task(prompt, tuple(texts))))
                return replace(details, dropped=self._dropped(prompt))

            return (yield from awaited(lambda: _each([responses], one, options)))[0]
        return (yield from self._ranking_by_comparing(prompt, responses, options))

    def _ranking_by_comparing(
        self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions
    ) -> Work[Result]:
        judgements: list[Judgement] = []

        async def one(pair: Pair) -> ScoreDetails:
            judgements.append(await self._judging.judge(self._pair_task(pair)))
            return self._pair_details(pair, judgements[-1])

        def compare(pairs: Sequence[Pair]) -> Work[list[Result]]:
            return awaited(lambda: _each(pairs, one, options))

        ranking = yield from rank_by_comparing(compare, prompt, responses)
        if isinstance(ranking, Exception):
            return ranking
        usage = Usage.total([judgement.usage for judgement in judgements])
        return replace(ranking, extra={**ranking.extra, "usage": usage.to_dict()})

    def join_details(self, parts: Sequence[ScoreDetails]) -> ScoreDetails:
        return self._details.of_several(parts)

    def inputs_of(self, value: Conversation | Pair) -> list[ModelInput]:
        """The request of one judgement in each order; where several follow each other, the first of them."""
        if isinstance(value, Pair) and self.kind != "pairwise":
            return super().inputs_of(value)
        task = self._pair_task(value) if isinstance(value, Pair) else self._response_task(value)
        turns = self._judging.turns()
        orders = {False: "a before b", True: "b before a"} if len(turns) > 1 else {False: ""}
        n = self.form.n_replies(task)
        inputs = []
        for turned in turns:
            messages = self.form.request(reversed_task(task) if turned else task, ())
            several = f"the first of {n} requests" if n > 1 else ""
            title = ", ".join(filter(None, (orders[turned], several)))
            inputs.append(ModelInput(title, messages=tuple(messages)))
        return inputs

    def _pair_details(self, pair: Pair, judgement: Judgement) -> ScoreDetails:
        position = position_of(judgement)
        if position is not None and self.mode == "pairwise":
            self._positions.add(position)
        return replace(self._details.of_pair(judgement), dropped=self._dropped(pair.prompt))

    def _dropped(self, messages: Sequence[Message]) -> list[str] | None:
        """What the judge is not shown of these messages: it sees their texts and the tool calls."""
        unseen = [(i, key) for i, message in enumerate(messages) for key in message.further_keys if key != REFERENCE]
        for _, key in unseen:
            if key not in self._warned:
                self._warned.add(key)
                logger.warning("%s is not shown %r of a message: its verdict does not depend on it.", self.name, key)
        return [f"messages[{i}].{key}" for i, key in unseen] or None

    # -- one judgement -----------------------------------------------------------------------------------------------

    def _response_task(self, conversation: Conversation) -> JudgeTask:
        if not conversation.has_response:
            raise InvalidConversationError(
                "a judge is shown a prompt and a response, and this conversation has none.", field="messages"
            )
        return self._task(conversation.prompt, (text_of(conversation.messages[-1]),), conversation)

    def _pair_task(self, pair: Pair) -> JudgeTask:
        return self._task(pair.prompt, (pair.a, pair.b))

    def _task(
        self, prompt: Sequence[Message], responses: tuple[str, ...], conversation: Conversation | None = None
    ) -> JudgeTask:
        refuse_template_arguments(prompt, f"{self.name} is a judge, which is shown messages alone")
        given = _reference_in(prompt if conversation is None else conversation.messages)
        return JudgeTask(
            tuple(prompt),
            responses,
            steps=conversation.steps if conversation is not None else None,
            reference=self._reference if given is None else given,
            rubric=self._rubric_text,
            top_n=self._top_n,
        )


def _form_of(
    model: str, rubric: str | Rubric | None, mode: Mode | None, form: JudgeForm | str | None, use_logprobs: bool
) -> JudgeForm:
    """The form that the arguments mean: the one given, else the one published with the model, else the rubric's."""
    name = form if isinstance(form, str) else _published(model, mode) if form is None else None
    if name is not None:
        form = form_named(name, None if rubric is None else {"rubric": rubric})
    elif isinstance(form, JudgeForm) and rubric is not None and not (form.takes_rubric and isinstance(rubric, str)):
        raise TypeError(f"{form.name} takes no rubric=" + (" but a text." if form.takes_rubric else "."))
    if not isinstance(form, JudgeForm):
        if rubric is None:
            raise TypeError(f"{model!r} is not a published judge that is known here; give rubric= (or form=).")
        if not isinstance(rubric, str | Rubric):
            raise TypeError(f"rubric is {type(rubric).__name__}; a text or a Rubric is needed.")
        parsed = Rubric.parse(rubric) if isinstance(rubric, str) else rubric
        return rubric_forms.rubric_form(parsed, mode or "pointwise", use_logprobs=use_logprobs)
    if mode not in (None, form.mode):
        raise TypeError(f"mode={mode!r}: {form.name} is {form.mode}.")
    if use_logprobs:
        raise TypeError(f"use_logprobs is for rubrics; {form.name} says itself what it reads.")
    return form


def _published(model: str, mode: Mode | None) -> str | None:
    """The form that a published judge is asked in: of the mode wanted, where it has several."""
    first = form_of_checkpoint(model)
    if first is None:
        return None
    of_mode = (form.name for form in forms() if form.mode == mode and any(c.id == model for c in form.checkpoints))
    return next(of_mode, first.name)


def _client_of(
    model: str,
    in_process: bool,
    endpoint: Mapping[str, Any],
    *,
    engine: Any,
    engine_options: Mapping[str, Any] | None,
    structured: bool | str,
    extra_body: Mapping[str, Any] | None,
) -> ChatClient:
    """The client of an engine in this process, or of an endpoint."""
    if structured not in (True, False, "auto"):
        raise TypeError(f"structured={structured!r}; known: True, False, 'auto'.")
    if in_process:
        _refuse(**endpoint)
        return VllmChat(
            model,
            engine=engine,
            engine_options=engine_options,
            structured=structured is not False,
            chat_options=extra_body,
        )
    _refuse(engine_options=engine_options)
    # Late, as it imports the HTTP client: `reward-hub --help` shows the options of this class.
    from reward_hub.judge.chat.openai import OpenAIChat

    return OpenAIChat(
        model,
        api_base=endpoint["api_base"],
        api_key=endpoint["api_key"],
        timeout_s=TIMEOUT_S if endpoint["timeout_s"] is None else endpoint["timeout_s"],
        structured=structured,
        extra_body=extra_body,
    )


def _load_method(load_method: str, engine: Any) -> str:
    if load_method not in _LOAD_METHODS:
        raise TypeError(f"load_method={load_method!r}; a judge knows {', '.join(map(repr, _LOAD_METHODS))}.")
    return "vllm" if engine is not None else _LOAD_METHODS[load_method]


def _refuse(**arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise TypeError(f"{name}= has no meaning for this judge; load_method= says where it runs.")


def _reference_in(messages: Sequence[Message]) -> str | None:
    """The reference answer that a conversation brings: the last message's that has one."""
    for place, message in reversed(list(enumerate(messages))):
        reference = message.extra.get(REFERENCE)
        if reference is None:
            continue
        if not isinstance(reference, str):
            raise InvalidConversationError(
                f"messages[{place}].{REFERENCE} is {type(reference).__name__}; a text is needed.",
                field=f"messages[{place}].{REFERENCE}",
            )
        return reference
    return None


async def _each(
    items: Sequence[T], judge: Callable[[T], Awaitable[ScoreDetails]], options: CallOptions
) -> list[Result]:
    """Judge all items at once; a failure is its item's result."""

    async def one(item: T) -> list[Result]:
        try:
            return [await judge(item)]
        except RewardHubError as error:
            return [error]
        finally:
            options.done()

    return await gathered([one(item) for item in items], [1] * len(items), options)


def _first(ranking: Any, n: int | None) -> Any:
    """The first so many of a ranking, with or without its details."""
    return (ranking[0][:n], ranking[1]) if isinstance(ranking, tuple) else ranking[:n]


def _probe(mode: Mode, rubric: str | None, reference: str | None) -> JudgeTask:
    """A task that shows the words of a form's request."""
    n = {"pointwise": 1, "pairwise": 2, "listwise": 3, "stepwise": 1}[mode]
    return JudgeTask(
        (Message("user", "prompt"),),
        tuple(f"response {i}" for i in range(n)),
        steps=("step 1", "step 2") if mode == "stepwise" else None,
        reference=reference,
        rubric=rubric,
    )
