"""BaseRM: the public face of every reward model, and what a subclass of a user's inherits.

A model of ours implements one inner method, `_score_many` or `_ascore_many` (a pairwise one `_compare_many`). A
subclass of a user's overrides `score` alone (or `score_batch`, `ascore`, `score_steps`); everything else is derived.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, SupportsIndex, TypeAlias, TypedDict, Unpack, overload

from reward_hub import messages as border
from reward_hub.aggregation import AggregationMethod as AggregationMethod
from reward_hub.aggregation import PRMResult as PRMResult
from reward_hub.aggregation import aggregation_name
from reward_hub.encoding import refuse_template_arguments
from reward_hub.errors import BackendError, InvalidConversationError, RewardHubError, UnsupportedError
from reward_hub.loops import run_sync
from reward_hub.numerics import aggregate, in_unit_interval, sigmoid
from reward_hub.types import (
    TEMPLATE_ARGUMENTS,
    TOOLS,
    Conversation,
    Kind,
    Message,
    Pair,
    ScoreDetails,
    joined_details,
)

if TYPE_CHECKING:
    from reward_hub.load_call import LoadCall

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""One conversation in the OpenAI form."""
OnError: TypeAlias = Literal["raise", "none"]
Result: TypeAlias = ScoreDetails | Exception
"""A score, or why there is none."""

_STEP_ITEM = frozenset({"messages", "prompt", "response", "steps", "step_delimiter", "step_sep", "step_separator"})


class ScoreOptions(TypedDict, total=False):
    """What `score` and its like take besides the conversation; see `BaseRM.score`."""

    on_error: OnError
    batch_size: int | None
    show_progress: bool
    step_delimiter: str | None
    step_sep: str | None
    step_separator: str | None
    aggregation: str | AggregationMethod | None
    aggregation_method: str | AggregationMethod | None
    return_full_prm_result: bool


# Conversations that `score_iter` holds at a time: enough to sort by length, little enough to stay in memory.
ITER_WINDOW = 256


@dataclass(frozen=True)
class CallOptions:
    """What one call asks beyond the conversations themselves."""

    on_error: OnError = "raise"
    aggregation: str | None = None
    batch_size: int | None = None
    progress: Callable[[int], None] | None = None
    first_index: int | None = None
    """Place of the first conversation in the caller's batch; None for a call with a single conversation."""

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "none"):
            raise TypeError(f"on_error={self.on_error!r}; known: 'raise', 'none'.")
        if self.batch_size is not None and self.batch_size < 1:
            raise TypeError(f"batch_size={self.batch_size}; at least 1 is needed.")


class BaseRM:
    """A reward model.

    Attributes:
        name: what the user loaded.
        family: the family's name; None for models outside the table.
        kind: "outcome", "process" or "pairwise".
        higher_is_better: False for costs; `rank`, `best_of_n` and `compare` honour it.
        max_length: most tokens of one conversation, where there is a limit.
        deterministic: False where one conversation may get another score the next time (a judge that samples).
        score_range: where a class sets it, the numbers between which its scores lie; decides `normalized_score`.
    """

    name: str = ""
    family: str | None = None
    kind: Kind = "outcome"
    higher_is_better: bool = True
    max_length: int | None = None
    deterministic: bool = True
    step_delimiter: str = "\n\n"
    """Where a response is split when a process model is given no steps."""

    load_call: LoadCall | None = None
    """The call that made it, which is what its pickle holds; None for classes that pickle as Python objects do."""

    _own: ClassVar[frozenset[str]] = frozenset()
    """Which of the overridable methods a subclass brings."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = ("score", "score_batch", "ascore", "score_steps", "_score_many", "_ascore_many")
        cls._own = frozenset(name for name in names if getattr(cls, name) is not getattr(BaseRM, name))
        if {"_score_many", "_ascore_many"} <= set(vars(cls)) and not getattr(cls, "_sync_and_async", False):
            raise TypeError(
                f"{cls.__name__} overrides both _score_many and _ascore_many; one is derived from the other."
            )

    @property
    def fingerprint(self) -> str:
        """Identifies weights, recipe and settings: two models of one fingerprint give one score."""
        return f"{type(self).__module__}.{type(self).__qualname__}:{self.name}"

    def _n_trainings(self) -> int:
        """How often this object was trained, after which its fingerprint is another one."""
        return 0

    def close(self) -> None:
        """Give memory, processes and connections back."""

    def __repr__(self) -> str:
        described = {"family": self.family, "kind": self.kind, **self._runs_on()}
        return f"{type(self).__name__}({', '.join([repr(self._label()), *_named(described)])})"

    def _runs_on(self) -> dict[str, Any]:
        """What `repr` says of where it runs: backend, dtype, device."""
        return {}

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """The call that made it, where that is known: it is made again where it is unpickled."""
        return super().__reduce_ex__(protocol) if self.load_call is None else self.load_call.reduced(self)

    def __copy__(self) -> Self:
        """Another object over the same engine; without this, a copy would be loaded anew, as from a pickle."""
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __enter__(self) -> BaseRM:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- one inner method a subclass implements -----------------------------------------------------------------

    def _score_many(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        """Score validated conversations. With `options.on_error == "none"` failures are results, else they raise.

        Conversations with `steps` want `step_scores` in their details.
        """
        if "_ascore_many" in self._own:
            return run_sync(self._ascore_many(conversations, options))
        if "score_batch" in self._own and "score" not in self._own and options.on_error == "raise":
            for c in conversations:
                refuse_template_arguments(c.messages, f"{type(self).__name__}.score_batch takes messages alone")
            batch = [c.to_dicts() for c in conversations]
            scores = self.score_batch(batch)
            if len(scores) != len(batch):
                raise BackendError(f"{type(self).__name__}.score_batch gave {len(scores)} scores for {len(batch)}.")
            return [self._own_details(score) for score in scores]
        return [self._guard(lambda c=c: self._call_own(c, options), i, options) for i, c in enumerate(conversations)]  # type: ignore[misc]

    async def _ascore_many(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        return await asyncio.to_thread(self._score_many, conversations, options)

    def _compare_many(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> list[Result]:
        """Probability that `a` is the better one; for models that score, from the difference of two scores."""
        single = [
            Conversation((*pair.prompt, Message("assistant", text))) for pair in pairs for text in (pair.a, pair.b)
        ]
        results = self._score_many(self._with_steps(single, options), options)
        return [self._difference(results[2 * i], results[2 * i + 1]) for i in range(len(pairs))]

    async def _acompare_many(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> list[Result]:
        return await asyncio.to_thread(self._compare_many, pairs, both_orders, options)

    # -- score ---------------------------------------------------------------------------------------------------

    @overload
    def score(
        self,
        messages: Messages | None = ...,
        *,
        prompt: str | None = ...,
        response: str | None = ...,
        return_details: Literal[False] = ...,
        **options: Unpack[ScoreOptions],
    ) -> float: ...
    @overload
    def score(
        self,
        messages: Messages | None = ...,
        *,
        prompt: str | None = ...,
        response: str | None = ...,
        return_details: Literal[True],
        **options: Unpack[ScoreOptions],
    ) -> tuple[float, dict[str, Any]]: ...
    @overload
    def score(
        self,
        messages: Sequence[Messages],
        *,
        return_details: Literal[False] = ...,
        **options: Unpack[ScoreOptions],
    ) -> list[float]: ...
    @overload
    def score(
        self,
        messages: Sequence[Messages],
        *,
        return_details: Literal[True],
        **options: Unpack[ScoreOptions],
    ) -> list[tuple[float, dict[str, Any]]]: ...

    def score(
        self,
        messages: Any = None,
        *,
        prompt: str | None = None,
        response: str | None = None,
        return_details: bool = False,
        on_error: OnError = "raise",
        batch_size: int | None = None,
        show_progress: bool = False,
        step_delimiter: str | None = None,
        step_sep: str | None = None,
        step_separator: str | None = None,
        aggregation: str | AggregationMethod | None = None,
        aggregation_method: str | AggregationMethod | None = None,
        return_full_prm_result: bool = False,
    ) -> Any:
        """Score one conversation, or several.

        Args:
            messages: one conversation whose last message is the assistant's, or a list of such conversations.
            prompt, response: a conversation of two turns, in place of `messages`.
            return_details: give `(score, details)`; for several conversations a list of such pairs.
            on_error: "none" gives None for a failed conversation, with the reason in its details.
            batch_size: most conversations in one forward pass.
            step_delimiter: process models: where the response is split (also `step_sep`, `step_separator`).
            aggregation: process models: how step scores become the score (also `aggregation_method`); default: the
                family's.
            return_full_prm_result: process models: a `PRMResult` in place of the score.

        Returns:
            The raw reward as the model's card computes it.

        Raises:
            InvalidConversationError, InputTooLongError: the input cannot be scored.
            UnsupportedError: a pairwise model, which has no score for one response.
        """
        call = self._score_call(
            messages,
            prompt=prompt,
            response=response,
            return_details=return_details,
            on_error=on_error,
            batch_size=batch_size,
            step_delimiter=_one_of("step_delimiter", step_delimiter, step_sep, step_separator),
            aggregation=_one_of("aggregation", aggregation, aggregation_method),
            return_full_prm_result=return_full_prm_result,
        )
        return call.shown(self._scored(call, show_progress))

    def score_batch(
        self,
        batch: Sequence[Messages],
        *,
        batch_size: int | None = None,
        show_progress: bool = False,
        on_error: OnError = "raise",
        return_details: bool = False,
        step_delimiter: str | None = None,
        aggregation: str | AggregationMethod | None = None,
        aggregation_method: str | AggregationMethod | None = None,
        return_full_prm_result: bool = False,
    ) -> list[Any]:
        """Score many conversations; one float each, in input order. `[]` gives `[]`. See `score`."""
        call = self._batch_call(
            batch,
            return_details=return_details,
            on_error=on_error,
            batch_size=batch_size,
            step_delimiter=step_delimiter,
            aggregation=_one_of("aggregation", aggregation, aggregation_method),
            return_full_prm_result=return_full_prm_result,
        )
        shown: list[Any] = call.shown(self._scored(call, show_progress))
        return shown

    def score_iter(
        self, conversations: Iterable[Messages], *, window: int = ITER_WINDOW, **options: Any
    ) -> Iterator[Any]:
        """Score any iterable in input order, holding at most `window` conversations. Options as `score_batch`."""
        source = iter(conversations)
        start = 0
        while batch := list(itertools.islice(source, window)):
            try:
                yield from _call_accepting(self.score_batch, batch, options)
            except RewardHubError as error:
                if getattr(error, "index", None) is not None:
                    error.index += start  # type: ignore[attr-defined]
                raise
            start += len(batch)

    async def ascore(self, messages: Any = None, **options: Any) -> Any:
        """`score` without blocking the event loop; the same arguments."""
        if "score" in self._own:
            return await asyncio.to_thread(_call_accepting, self.score, messages, options)
        call = self._score_call(messages, **_async_options(options))
        return call.shown(await self._ascored(call))

    async def ascore_batch(self, batch: Sequence[Messages], **options: Any) -> list[Any]:
        """`score_batch` without blocking the event loop; the same arguments."""
        if "score_batch" in self._own:
            return await asyncio.to_thread(_call_accepting, self.score_batch, batch, options)
        call = self._batch_call(batch, **_async_options(options))
        shown: list[Any] = call.shown(await self._ascored(call))
        return shown

    # -- steps ---------------------------------------------------------------------------------------------------

    def score_steps(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        response: str | None = None,
        steps: Sequence[str] | None = None,
        step_delimiter: str | None = None,
        step_sep: str | None = None,
        step_separator: str | None = None,
        return_details: bool = False,
        on_error: OnError = "raise",
    ) -> Any:
        """Score each step of one response.

        Args:
            messages: a conversation that ends with the assistant's message, or with the user's when `steps` are given.
            steps: the response cut into steps, empty ones included; without it the response is split at
                `step_delimiter` and blank pieces are dropped.

        Returns:
            One float per step, higher is better; with `return_details` `(step scores, details)`.

        Raises:
            UnsupportedError: the model is not a process reward model.
            InvalidConversationError: the steps do not stand in the response in order, or there is none.
        """
        item = {"messages": messages, "prompt": prompt, "response": response, "steps": steps}
        delimiter = _one_of("step_delimiter", step_delimiter, step_sep, step_separator)
        call = self._steps_call([item], delimiter, CallOptions(on_error), return_details, single=True)
        return call.shown(self._scored(call, False))

    def score_steps_batch(
        self,
        items: Sequence[Mapping[str, Any]],
        *,
        step_delimiter: str | None = None,
        batch_size: int | None = None,
        show_progress: bool = False,
        on_error: OnError = "raise",
        return_details: bool = False,
    ) -> list[Any]:
        """Score the steps of many responses.

        Args:
            items: dicts with `messages` (or `prompt` and `response`), and `steps` or `step_delimiter` where wanted.

        Returns:
            One list of floats per item, in input order.
        """
        options = CallOptions(on_error, None, batch_size, None, 0)
        call = self._steps_call(list(items), step_delimiter, options, return_details)
        shown: list[Any] = call.shown(self._scored(call, show_progress))
        return shown

    async def ascore_steps(
        self,
        messages: Messages | None = None,
        *,
        return_details: bool = False,
        on_error: OnError = "raise",
        **item: Any,
    ) -> Any:
        """`score_steps` without blocking the event loop; the same arguments."""
        if "score_steps" in self._own:
            item |= {"return_details": return_details or None, "on_error": None if on_error == "raise" else on_error}
            return await asyncio.to_thread(_call_accepting, self.score_steps, messages, item)
        call = self._steps_call(
            [{"messages": messages, **item}], None, CallOptions(on_error), return_details, single=True
        )
        return call.shown(await self._ascored(call))

    # -- compare, rank, best of n --------------------------------------------------------------------------------

    def compare(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        a: str,
        b: str,
        both_orders: bool = False,
        return_details: bool = False,
    ) -> Any:
        """Probability that `a` is the better response to the prompt.

        Args:
            messages: the prompt as messages, in place of `prompt`.
            both_orders: pairwise models: the mean of p(a, b) and 1 - p(b, a). Other models have no order.

        Returns:
            A float in (0, 1). Models that score: the sigmoid of the difference of scores (sign turned for costs).
        """
        pair = border.parse_pair(messages, prompt=prompt, a=a, b=b)
        return _compared(self._compare_many([pair], both_orders, CallOptions()), return_details)

    async def acompare(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        a: str,
        b: str,
        both_orders: bool = False,
        return_details: bool = False,
    ) -> Any:
        """`compare` without blocking the event loop."""
        pair = border.parse_pair(messages, prompt=prompt, a=a, b=b)
        return _compared(await self._acompare_many([pair], both_orders, CallOptions()), return_details)

    def rank(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        responses: Sequence[str],
        return_details: bool = False,
    ) -> Any:
        """Indices of the responses, best first; ties keep input order.

        Returns:
            `list[int]`; with `return_details` `(ranking, details)`, where `details["scores"]` has one score a response.
        """
        turns, texts = border.parse_prompt(messages, prompt=prompt), _responses(responses)
        return self._ranked(self._rank(turns, texts), return_details)

    async def arank(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        responses: Sequence[str],
        return_details: bool = False,
    ) -> Any:
        """`rank` without blocking the event loop."""
        turns, texts = border.parse_prompt(messages, prompt=prompt), _responses(responses)
        return self._ranked(await self._arank(turns, texts), return_details)

    def best_of_n(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        responses: Sequence[str],
        return_details: bool = False,
    ) -> Any:
        """The index of the best response; with `return_details` `(index, details)`."""
        ranking, details = self.rank(messages, prompt=prompt, responses=responses, return_details=True)
        return (ranking[0], details) if return_details else ranking[0]

    async def abest_of_n(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        responses: Sequence[str],
        return_details: bool = False,
    ) -> Any:
        """`best_of_n` without blocking the event loop."""
        ranking, details = await self.arank(messages, prompt=prompt, responses=responses, return_details=True)
        return (ranking[0], details) if return_details else ranking[0]

    # -- inside: a call is prepared, its conversations scored (here or in the event loop), its results shown ---------

    def _score_call(
        self, messages: Any, *, prompt: str | None = None, response: str | None = None, **options: Any
    ) -> _Call:
        if messages is not None and not border.is_single(messages):
            if prompt is not None or response is not None:
                raise InvalidConversationError("give messages= or prompt= and response=, not both.", field="messages")
            return self._call(list(messages), border.parse, single=False, **options)

        def parse(raw: Any, *, index: int | None) -> Conversation:
            return border.parse(raw, prompt=prompt, response=response, index=index)

        return self._call([messages], parse, single=True, **options)

    def _batch_call(self, batch: Sequence[Messages], **options: Any) -> _Call:
        if isinstance(batch, (str, Mapping)) or (len(batch) > 0 and isinstance(batch[0], Mapping)):
            raise InvalidConversationError(
                "score_batch takes a list of conversations; for one conversation call score.", field="messages"
            )
        return self._call(list(batch), border.parse, single=False, **options)

    def _call(
        self,
        batch: list[Any],
        parse: Callable[..., Conversation],
        *,
        single: bool,
        return_details: bool = False,
        on_error: OnError = "raise",
        batch_size: int | None = None,
        step_delimiter: str | None = None,
        aggregation: str | AggregationMethod | None = None,
        return_full_prm_result: bool = False,
    ) -> _Call:
        how = None if aggregation is None else aggregation_name(aggregation)
        options = CallOptions(on_error, how, batch_size, None, None if single else 0)
        self._require_score(options, step_delimiter, return_full_prm_result)

        def prepare(raw: Any, index: int | None) -> Conversation:
            conversation = parse(raw, index=index)
            if self.kind != "process" or "score" in self._own:
                return conversation
            return self._one_with_steps(conversation, how, step_delimiter, index)

        def show(result: Result) -> Any:
            if isinstance(result, Exception):
                return (None, _error_details(result)) if return_details else None
            value: Any = result.score
            if return_full_prm_result:
                value = PRMResult(list(result.step_scores or []), result.score)
            return (value, result.to_dict()) if return_details else value

        return _Call.prepare(batch, prepare, show, options, single)

    def _steps_call(
        self,
        items: list[Mapping[str, Any]],
        delimiter: str | None,
        options: CallOptions,
        return_details: bool,
        *,
        single: bool = False,
    ) -> _Call:
        if self.kind != "process":
            raise UnsupportedError(
                f"{self._label()} is {_article(self.kind)} reward model and has no step scores; "
                + ("call compare, rank or best_of_n." if self.kind == "pairwise" else "call score.")
            )

        def prepare(item: Any, index: int | None) -> Conversation:
            unknown = sorted(set(item) - _STEP_ITEM) if isinstance(item, Mapping) else type(item).__name__
            if unknown:
                raise InvalidConversationError(
                    f"an item is a dict of {', '.join(sorted(_STEP_ITEM))}; got {unknown}.", index=index, field="items"
                )
            own = _one_of("step_delimiter", *(item.get(k) for k in ("step_delimiter", "step_sep", "step_separator")))
            return border.parse_steps(
                item.get("messages"),
                prompt=item.get("prompt"),
                response=item.get("response"),
                steps=item.get("steps"),
                step_delimiter=own if own is not None else delimiter if delimiter is not None else self.step_delimiter,
                index=index,
            )

        def show(result: Result) -> Any:
            if isinstance(result, Exception):
                return (None, _error_details(result)) if return_details else None
            steps = list(result.step_scores or [])
            return (steps, result.to_dict()) if return_details else steps

        return _Call.prepare(items, prepare, show, options, single)

    def _scored(self, call: _Call, show_progress: bool) -> list[Result]:
        with ProgressBar(call.n, show_progress) as update:
            update(call.n - len(call.conversations))
            return (
                self._score_many(call.conversations, replace(call.options, progress=update))
                if call.conversations
                else []
            )

    async def _ascored(self, call: _Call) -> list[Result]:
        return await self._ascore_many(call.conversations, call.options) if call.conversations else []

    def _rank(self, prompt: tuple[Message, ...], responses: Sequence[str]) -> ScoreDetails:
        """Details with one score a response in `scores`."""
        options = CallOptions(first_index=0)
        return self._ranking_of(self._score_many(self._candidates(prompt, responses, options), options))

    async def _arank(self, prompt: tuple[Message, ...], responses: Sequence[str]) -> ScoreDetails:
        options = CallOptions(first_index=0)
        return self._ranking_of(await self._ascore_many(self._candidates(prompt, responses, options), options))

    def _candidates(
        self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions
    ) -> list[Conversation]:
        return self._with_steps([Conversation((*prompt, Message("assistant", text))) for text in responses], options)

    def _ranked(self, details: ScoreDetails, return_details: bool) -> Any:
        scores = details.scores or []
        sign = -1.0 if self.higher_is_better else 1.0
        ranking = sorted(range(len(scores)), key=lambda i: sign * scores[i])
        return (ranking, details.to_dict()) if return_details else ranking

    def _with_steps(self, conversations: list[Conversation], options: CallOptions) -> list[Conversation]:
        if self.kind != "process":
            return conversations
        return [
            self._one_with_steps(c, options.aggregation, None, None if options.first_index is None else i)
            for i, c in enumerate(conversations)
        ]

    def _one_with_steps(
        self, conversation: Conversation, how: str | None, delimiter: str | None, index: int | None
    ) -> Conversation:
        if conversation.steps is not None and delimiter is None and how != "model":
            return conversation
        if (how or self._default_aggregation()) == "model":
            text = conversation.response
            return replace(conversation, steps=(text,), step_spans=((0, len(text)),))
        delimiter = self.step_delimiter if delimiter is None else delimiter
        return border.split_steps(conversation, delimiter, index=index)

    def _default_aggregation(self) -> str:
        return "min"

    def _require_score(self, options: CallOptions, delimiter: str | None, full: bool) -> None:
        if self.kind == "pairwise":
            raise UnsupportedError(
                f"{self._label()} compares two responses and has no score for one; call compare, rank or best_of_n."
            )
        if self.kind != "process" and (full or options.aggregation is not None or delimiter is not None):
            raise UnsupportedError(
                f"{self._label()} is {_article(self.kind)} reward model: it has no steps to split or aggregate."
            )

    def _label(self) -> str:
        return self.name or type(self).__name__

    def _difference(self, a: Result, b: Result) -> Result:
        for result in (a, b):
            if isinstance(result, Exception):
                return result
        assert isinstance(a, ScoreDetails) and isinstance(b, ScoreDetails)
        sign = 1.0 if self.higher_is_better else -1.0
        probability = sigmoid(sign * (a.score - b.score))
        return replace(self._joined([a, b]), score=probability, normalized_score=probability)

    def _ranking_of(self, results: Sequence[Result]) -> ScoreDetails:
        """The ranking that several scores make; raises the first failure."""
        for result in results:
            if isinstance(result, Exception):
                raise result
        return self._joined([result for result in results if isinstance(result, ScoreDetails)])

    def _joined(self, parts: Sequence[ScoreDetails]) -> ScoreDetails:
        """The details of responses to one prompt, each scored on its own, as one record."""
        return joined_details(parts)

    def _guard(self, call: Callable[[], ScoreDetails], index: int, options: CallOptions) -> Result:
        try:
            return call()
        except Exception as error:  # a user's own score may fail in any way; with "none" the failure is that item's
            if options.on_error == "raise":
                raise
            return error
        finally:
            if options.progress is not None:
                options.progress(1)

    def _call_own(self, conversation: Conversation, options: CallOptions) -> ScoreDetails:
        """Score one conversation by what the subclass overrides."""
        if conversation.steps is not None and "score_steps" in self._own:
            steps = _call_with(self.score_steps, conversation, {"steps": list(conversation.steps)})
            total = aggregate(steps, options.aggregation or self._default_aggregation())
            return replace(self._own_details(total), step_scores=[float(s) for s in steps])
        if "score" in self._own:
            return self._own_details(_call_with(self.score, conversation, {}))
        if "ascore" in self._own:
            return self._own_details(run_sync(_call_with(self.ascore, conversation, {})))
        if "score_batch" in self._own:
            refuse_template_arguments(conversation.messages, f"{type(self).__name__}.score_batch takes messages alone")
            return self._own_details(self.score_batch([conversation.to_dicts()])[0])
        raise TypeError(f"{type(self).__name__} must override score (or score_batch, ascore, score_steps).")

    def _own_details(self, value: Any) -> ScoreDetails:
        score = float(value[0] if isinstance(value, tuple) else value)
        if not math.isfinite(score):
            raise BackendError(f"{self._label()} gave {score}, which is no score.")
        # A class may say between which numbers its scores lie.
        declared: tuple[float, float] = getattr(self, "score_range", (-math.inf, math.inf))
        return ScoreDetails(
            score=score,
            raw_logits=[score],
            normalized_score=in_unit_interval(score, declared, higher_is_better=self.higher_is_better),
            tokens_scored=None,
            family=self.family,
            model=self._label(),
        )


@dataclass(frozen=True)
class _Call:
    """One call: what is to be scored, what failed before, and how results are shown."""

    conversations: list[Conversation]
    places: list[int]
    failed: dict[int, Exception]
    show: Callable[[Result], Any]
    options: CallOptions
    single: bool

    @property
    def n(self) -> int:
        return len(self.places) + len(self.failed)

    @classmethod
    def prepare(
        cls,
        batch: Sequence[Any],
        prepare: Callable[[Any, int | None], Conversation],
        show: Callable[[Result], Any],
        options: CallOptions,
        single: bool,
    ) -> _Call:
        """Validate every item; with `on_error="none"` what is invalid fails alone."""
        call = cls([], [], {}, show, options, single)
        for place, raw in enumerate(batch):
            try:
                call.conversations.append(prepare(raw, None if single else place))
                call.places.append(place)
            except RewardHubError as error:
                if options.on_error == "raise":
                    raise
                call.failed[place] = error
        return call

    def shown(self, results: Sequence[Result]) -> Any:
        """Values in input order; the one value of a single call."""
        merged: dict[int, Result] = {**self.failed, **dict(zip(self.places, results, strict=True))}
        for place, result in merged.items():
            # Inside a call conversations are counted without those that failed before it.
            if not self.single and isinstance(result, RewardHubError) and hasattr(result, "index"):
                result.index = place
        values = [self.show(merged[place]) for place in range(self.n)]
        return values[0] if self.single else values


class ProgressBar:
    """A tqdm bar, or nothing."""

    def __init__(self, total: int, show: bool) -> None:
        self._bar = None
        if show:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="conversation")

    def __enter__(self) -> Callable[[int], None]:
        return self._bar.update if self._bar is not None else lambda n: None

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _error_details(error: Exception) -> dict[str, Any]:
    message = error.message if isinstance(error, RewardHubError) else str(error)  # without the place, which is known
    return {"error": {"type": type(error).__name__, "message": message}}


def _responses(responses: Sequence[str]) -> list[str]:
    if isinstance(responses, str) or not responses or not all(isinstance(text, str) for text in responses):
        raise InvalidConversationError("responses must be a list of at least one text.", field="responses")
    return list(responses)


def _one_of(name: str, *spellings: Any) -> Any:
    """The one value that was given among several spellings of an argument."""
    given = [value for value in spellings if value is not None]
    if len(given) > 1:
        raise TypeError(f"{name} was given in more than one spelling.")
    return given[0] if given else None


def _async_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options of an a-form, with spellings joined and the progress bar, which only waits make use of, left out."""
    options = dict(options)
    delimiters = (options.pop(k, None) for k in ("step_delimiter", "step_sep", "step_separator"))
    methods = (options.pop(k, None) for k in ("aggregation", "aggregation_method"))
    options["step_delimiter"] = _one_of("step_delimiter", *delimiters)
    options["aggregation"] = _one_of("aggregation", *methods)
    options.pop("show_progress", None)
    return options


def _compared(results: list[Result], return_details: bool) -> Any:
    result = results[0]
    if isinstance(result, Exception):
        raise result
    return (result.score, result.to_dict()) if return_details else result.score


def _named(values: Mapping[str, Any]) -> list[str]:
    """`name=value` of each value that is there."""
    return [f"{name}={value!r}" for name, value in values.items() if value is not None]


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "outcome" else f"a {kind}"


def _call_with(function: Callable[..., Any], conversation: Conversation, options: dict[str, Any]) -> Any:
    """Call a method of a user's with a conversation, and what its chat template takes besides where it takes that."""
    first, *others = conversation.messages
    arguments = {name: first.extra[name] for name in (TOOLS, TEMPLATE_ARGUMENTS) if name in first.extra}
    if not _accepts(function, arguments):
        who = f"{getattr(function, '__qualname__', function)} does not take {', '.join(arguments)}"
        refuse_template_arguments(conversation.messages, who)
    turns = [message.to_dict() for message in (first.without_template_arguments(), *others)]
    return _call_accepting(function, turns, options | arguments)


def _accepts(function: Callable[..., Any], names: Iterable[str]) -> bool:
    parameters = inspect.signature(function).parameters
    return set(names) <= set(parameters) or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()
    )


def _call_accepting(function: Callable[..., Any], first: Any, options: dict[str, Any]) -> Any:
    """Call with those options that the function takes: a user's override may take none."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return function(first, **options)
    names = {p.name for p in parameters}
    refused = sorted(name for name, value in options.items() if name not in names and value is not None)
    if refused:
        raise TypeError(f"{getattr(function, '__qualname__', function)} does not take {', '.join(refused)}.")
    return function(first, **{name: value for name, value in options.items() if name in names})
