"""BaseRM: the public face of every reward model, and what a subclass of a user's inherits.

A subclass of a user's overrides `score` alone (or `score_batch`, `ascore`, `score_steps`); everything else is derived.
A model of ours implements the inner protocol instead (`reward_model.RewardModel`).
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, SupportsIndex, TypedDict, Unpack, overload

from reward_hub import messages as border
from reward_hub.aggregation import AggregationMethod as AggregationMethod
from reward_hub.aggregation import PRMResult as PRMResult
from reward_hub.calls import (
    Call,
    ProgressBar,
    batch_call,
    joined_spellings,
    one_of,
    order_of,
    ranking_options,
    require_whole,
    responses_of,
    score_call,
    steps_call,
)
from reward_hub.calls import Messages as Messages
from reward_hub.calls import OnError as OnError
from reward_hub.encoding import refuse_template_arguments
from reward_hub.errors import BackendError, InvalidConversationError, RewardHubError
from reward_hub.loops import run_sync
from reward_hub.numerics import aggregate, in_unit_interval, sigmoid
from reward_hub.reward_model import CallOptions as CallOptions
from reward_hub.reward_model import (
    Capabilities,
    RewardModel,
    SkippedError,
    at,
    each,
    failure_among,
    first_failure,
    gathered,
    in_places,
    label_of,
    required,
    sound,
    through,
)
from reward_hub.reward_model import Result as Result
from reward_hub.types import (
    TEMPLATE_ARGUMENTS,
    TOOLS,
    Conversation,
    Message,
    ModelInput,
    Pair,
    ScoreDetails,
    joined_details,
)
from reward_hub.work import Work, arun, awaited, in_thread, run

if TYPE_CHECKING:
    from reward_hub.load_call import LoadCall


class StepDelimiter(TypedDict, total=False):
    """Process models: where a response is split, in any of its spellings."""

    step_delimiter: str | None
    step_sep: str | None
    step_separator: str | None


class Ending(TypedDict, total=False):
    """Whether the last message must be the assistant's."""

    require_response: bool


class TemplateArguments(TypedDict, total=False):
    """What the chat template takes besides the messages."""

    tools: Sequence[Mapping[str, Any]] | None
    chat_template_kwargs: Mapping[str, Any] | None


class RankOptions(StepDelimiter, TemplateArguments, total=False):
    """What `rank` and its like take besides prompt and responses."""


class ScoreOptions(StepDelimiter, TemplateArguments, Ending, total=False):
    """What `score` and its like take besides the conversation; see `BaseRM.score`."""

    on_error: OnError
    batch_size: int | None
    show_progress: bool
    aggregation: str | AggregationMethod | None
    aggregation_method: str | AggregationMethod | None
    return_full_prm_result: bool


logger = logging.getLogger(__name__)

# Lines of a response that is worth a word where all of it is one step.
_MANY_LINES = 3
# Conversations that `score_iter` holds at a time: enough to sort by length, little enough to stay in memory.
ITER_WINDOW = 256
# Calls of a user's own `ascore` that one call of ours has under way: as many as a client of ours sends requests.
_ASCORES_AT_A_TIME = 32


_OWN = (
    *("score", "score_batch", "ascore", "score_steps"),
    *("scoring_of", "score_conversations", "ascore_conversations"),
    *("comparison_of", "compare_pairs", "acompare_pairs"),
    *("ranking_of", "rank_responses", "arank_responses"),
)


class BaseRM(RewardModel):
    """A reward model.

    Attributes:
        name: what the user loaded.
        family: the family's name; None for models outside the table.
        kind: "outcome", "process" or "pairwise".
        higher_is_better: False for costs; `rank`, `best_of_n` and `compare` honour it.
        max_length: most tokens of one conversation, where there is a limit.
        deterministic: False where one conversation may get another score the next time (a judge that samples).
        score_range: where a class sets it, the numbers between which its scores lie; decides `normalized_score`.
        step_delimiter: where a response is split when a process model is given no steps.
    """

    load_call: LoadCall | None = None
    """The call that made it, which is what its pickle holds; None for classes that pickle as Python objects do."""

    _noted_single_step: bool = False
    _noted_ending: bool = False
    _own: ClassVar[frozenset[str]] = frozenset()
    """Which of the methods that may be overridden a subclass brings."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._own = frozenset(name for name in _OWN if getattr(cls, name) is not getattr(BaseRM, name))
        if {"score_conversations", "ascore_conversations"} <= set(vars(cls)):
            raise TypeError(
                f"{cls.__name__} overrides both score_conversations and ascore_conversations; one is derived from the "
                "other. What differs in both belongs into scoring_of."
            )

    @property
    def fingerprint(self) -> str:
        """Identifies weights, recipe and settings: two models of one fingerprint give one score."""
        return f"{type(self).__module__}.{type(self).__qualname__}:{self.name}"

    def close(self) -> None:
        """Give memory, processes and connections back."""

    def __repr__(self) -> str:
        described = {"family": self.family, "kind": self.kind, **self.runs_on}
        return f"{type(self).__name__}({', '.join([repr(label_of(self)), *_named(described)])})"

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
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        require_response: bool = True,
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
            tools: what the assistant could call, as the chat template takes them; of every conversation of the call
                (for one alone, they stand in its first message). Refused where they would be dropped.
            chat_template_kwargs: its other arguments (`enable_thinking`, `date_string`, ...), likewise.
            require_response: False takes a conversation as it stands, also one that ends with the user's turn (with
                `prompt` alone: that turn), where an outcome model reads it as a whole.

        Returns:
            The raw reward as the model's card computes it.

        Raises:
            InvalidConversationError, InputTooLongError: the input cannot be scored.
            UnsupportedError: a pairwise model, which has no score for one response.
        """
        call = score_call(
            self,
            messages,
            prompt=prompt,
            response=response,
            return_details=return_details,
            on_error=on_error,
            batch_size=batch_size,
            step_delimiter=one_of("step_delimiter", step_delimiter, step_sep, step_separator),
            aggregation=one_of("aggregation", aggregation, aggregation_method),
            return_full_prm_result=return_full_prm_result,
            tools=tools,
            chat_template_kwargs=chat_template_kwargs,
            require_response=require_response,
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
        step_sep: str | None = None,
        step_separator: str | None = None,
        aggregation: str | AggregationMethod | None = None,
        aggregation_method: str | AggregationMethod | None = None,
        return_full_prm_result: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        require_response: bool = True,
    ) -> list[Any]:
        """Score many conversations; one float each, in input order. `[]` gives `[]`. See `score`."""
        call = batch_call(
            self,
            batch,
            return_details=return_details,
            on_error=on_error,
            batch_size=batch_size,
            step_delimiter=one_of("step_delimiter", step_delimiter, step_sep, step_separator),
            aggregation=one_of("aggregation", aggregation, aggregation_method),
            return_full_prm_result=return_full_prm_result,
            tools=tools,
            chat_template_kwargs=chat_template_kwargs,
            require_response=require_response,
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
        call = score_call(self, messages, **joined_spellings(options))
        return call.shown(await self._ascored(call))

    async def ascore_batch(self, batch: Sequence[Messages], **options: Any) -> list[Any]:
        """`score_batch` without blocking the event loop; the same arguments."""
        if "score_batch" in self._own:
            return await asyncio.to_thread(_call_accepting, self.score_batch, batch, options)
        call = batch_call(self, batch, **joined_spellings(options))
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
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Score each step of one response.

        Args:
            messages: a conversation that ends with the assistant's message, or with the user's when `steps` are given.
            steps: the response cut into steps, empty ones included; without it the response is split at
                `step_delimiter` and blank pieces are dropped.
            tools, chat_template_kwargs: as `score`.

        Returns:
            One float per step, higher is better; with `return_details` `(step scores, details)`.

        Raises:
            UnsupportedError: the model is not a process reward model.
            InvalidConversationError: the steps do not stand in the response in order, or there is none.
        """
        item = {"messages": messages, "prompt": prompt, "response": response, "steps": steps}
        delimiter = one_of("step_delimiter", step_delimiter, step_sep, step_separator)
        call = steps_call(
            self,
            [item],
            delimiter,
            on_error=on_error,
            return_details=return_details,
            single=True,
            tools=tools,
            chat_template_kwargs=chat_template_kwargs,
        )
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
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """Score the steps of many responses.

        Args:
            items: dicts with `messages` (or `prompt` and `response`), and `steps`, `step_delimiter`, `tools` or
                `chat_template_kwargs` where wanted.
            tools, chat_template_kwargs: of every item.

        Returns:
            One list of floats per item, in input order.
        """
        call = steps_call(
            self,
            items,
            step_delimiter,
            batch_size=batch_size,
            on_error=on_error,
            return_details=return_details,
            tools=tools,
            chat_template_kwargs=chat_template_kwargs,
        )
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
        items = [{"messages": messages, **item}]
        call = steps_call(self, items, on_error=on_error, return_details=return_details, single=True)
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
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Probability that `a` is the better response to the prompt.

        Args:
            messages: the prompt as messages, in place of `prompt`.
            both_orders: pairwise models: the mean of p(a, b) and 1 - p(b, a). Other models have no order.
            tools, chat_template_kwargs: as `score`.

        Returns:
            A float in (0, 1). Models that score: the sigmoid of the difference of scores (sign turned for costs).
        """
        pair = border.parse_pair(messages, prompt=prompt, a=a, b=b)
        pair = replace(pair, prompt=border.with_template_arguments(pair.prompt, tools, chat_template_kwargs))
        return _compared(self.compare_pairs([pair], both_orders, _FAIL_FAST), return_details)

    async def acompare(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        a: str,
        b: str,
        both_orders: bool = False,
        return_details: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """`compare` without blocking the event loop."""
        pair = border.parse_pair(messages, prompt=prompt, a=a, b=b)
        pair = replace(pair, prompt=border.with_template_arguments(pair.prompt, tools, chat_template_kwargs))
        return _compared(await self.acompare_pairs([pair], both_orders, _FAIL_FAST), return_details)

    def rank(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        responses: Sequence[str],
        step_delimiter: str | None = None,
        step_sep: str | None = None,
        step_separator: str | None = None,
        return_details: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Indices of the responses, best first; ties keep input order.

        Args:
            step_delimiter: process models: where each response is split (also `step_sep`, `step_separator`).
            tools, chat_template_kwargs: as `score`.

        Returns:
            `list[int]`; with `return_details` `(ranking, details)`, where `details["scores"]` has one score a response.
        """
        options = ranking_options(self, step_delimiter, step_sep, step_separator)
        turns, texts = border.parse_prompt(messages, prompt=prompt), responses_of(responses)
        turns = border.with_template_arguments(turns, tools, chat_template_kwargs)
        return self._ranked(self.rank_responses(turns, texts, options), return_details)

    async def arank(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        responses: Sequence[str],
        step_delimiter: str | None = None,
        step_sep: str | None = None,
        step_separator: str | None = None,
        return_details: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """`rank` without blocking the event loop."""
        options = ranking_options(self, step_delimiter, step_sep, step_separator)
        turns, texts = border.parse_prompt(messages, prompt=prompt), responses_of(responses)
        turns = border.with_template_arguments(turns, tools, chat_template_kwargs)
        return self._ranked(await self.arank_responses(turns, texts, options), return_details)

    def best_of_n(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        responses: Sequence[str],
        return_details: bool = False,
        **options: Unpack[RankOptions],
    ) -> Any:
        """The index of the best response; with `return_details` `(index, details)`. Arguments as `rank`."""
        ranking, details = self.rank(messages, prompt=prompt, responses=responses, return_details=True, **options)
        return (ranking[0], details) if return_details else ranking[0]

    async def abest_of_n(
        self,
        messages: Messages | None = None,
        *,
        prompt: str | None = None,
        responses: Sequence[str],
        return_details: bool = False,
        **options: Unpack[RankOptions],
    ) -> Any:
        """`best_of_n` without blocking the event loop."""
        ranking, details = await self.arank(
            messages, prompt=prompt, responses=responses, return_details=True, **options
        )
        return (ranking[0], details) if return_details else ranking[0]

    # -- the inner protocol, over what the subclass brings ---------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        own, steps = self._own, self.kind == "process"
        inner = bool(own & {"scoring_of", "score_conversations", "ascore_conversations"})
        return Capabilities(
            has_score=self.kind != "pairwise",
            splits_steps=steps and "score" not in own,
            scores_steps=steps and ("score_steps" in own or (inner and "score" not in own)),
            compares_itself=bool(own & {"comparison_of", "compare_pairs", "acompare_pairs"}),
            ranks_itself=bool(own & {"ranking_of", "rank_responses", "arank_responses"}),
            waits_elsewhere=bool(own & {"ascore", "ascore_conversations"}),
            score_range=getattr(self, "score_range", None),
        )

    def scoring_of(self, conversations: Sequence[Conversation], options: CallOptions) -> Work[list[Result]]:
        if "ascore_conversations" in self._own:
            return awaited(lambda: self.ascore_conversations(conversations, options))
        if "score_conversations" in self._own:
            return in_thread(lambda: self.score_conversations(conversations, options))
        if "ascore" in self._own and not self._own & {"score", "score_batch", "score_steps"}:
            return awaited(lambda: self._by_own_ascore(conversations, options))
        return in_thread(lambda: self._by_own_methods(conversations, options))

    def comparison_of(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> Work[list[Result]]:
        if "acompare_pairs" in self._own:
            return awaited(lambda: self.acompare_pairs(pairs, both_orders, options))
        if "compare_pairs" in self._own:
            return in_thread(lambda: self.compare_pairs(pairs, both_orders, options))
        return self._by_differences(pairs, options)

    def ranking_of(self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Work[Result]:
        if "arank_responses" in self._own:
            return awaited(lambda: self.arank_responses(prompt, responses, options))
        if "rank_responses" in self._own:
            return in_thread(lambda: self.rank_responses(prompt, responses, options))
        return self._by_scores(prompt, responses, options)

    def with_steps(
        self, conversation: Conversation, how: str | None = None, delimiter: str | None = None
    ) -> Conversation:
        if self.kind != "process":
            return conversation
        able = self.capabilities
        if able.splits_steps and not conversation.has_response:
            require_whole(self)
        if not able.splits_steps or (conversation.steps is not None and delimiter is None and how != "model"):
            return conversation
        if (how or able.aggregation) == "model":
            text = conversation.response
            return replace(conversation, steps=(text,), step_spans=((0, len(text)),))
        delimiter = self.step_delimiter if delimiter is None else delimiter
        split = border.split_steps(conversation, delimiter)
        self.note_split(split, delimiter)
        return split

    def note_split(self, conversation: Conversation, delimiter: str) -> None:
        if self._noted_single_step or len(conversation.steps or ()) != 1:
            return
        n_lines = border.n_lines(conversation.response)
        if n_lines >= _MANY_LINES:
            self._noted_single_step = True
            logger.info(
                "%s: a response of %d lines is a single step, split at %r; step_delimiter= splits elsewhere.",
                label_of(self),
                n_lines,
                delimiter,
            )

    def note_ending(self, conversation: Conversation) -> None:
        if self._noted_ending or conversation.has_response:
            return
        self._noted_ending = True
        last = conversation.messages[-1].role
        logger.info("%s: a conversation that ends with a message by %r is scored as it stands.", label_of(self), last)

    def join_details(self, parts: Sequence[ScoreDetails]) -> ScoreDetails:
        return joined_details(parts)

    def inputs_of(self, value: Conversation | Pair) -> list[ModelInput]:
        """The messages, which is what a class of a user's, or a server, is given; of a pair both responses."""
        if isinstance(value, Conversation):
            return [ModelInput(messages=tuple(value.to_dicts()))]
        texts = {"a": value.a, "b": value.b}
        whole = {name: Conversation((*value.prompt, Message("assistant", text))) for name, text in texts.items()}
        return [
            replace(one, title=f"{name}: {one.title}" if one.title else name)
            for name, conversation in whole.items()
            for one in self.inputs_of(self.with_steps(conversation))
        ]

    def _by_differences(self, pairs: Sequence[Pair], options: CallOptions) -> Work[list[Result]]:
        """Comparisons of a model that scores: the sigmoid of the difference of two scores."""
        responses = [(pair.prompt, text) for pair in pairs for text in (pair.a, pair.b)]
        results = yield from self._scoring_of_responses(responses, options)
        return [self._difference(results[i], results[i + 1]) for i in range(0, len(results), 2)]

    def _by_scores(self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Work[Result]:
        """The ranking of a model that scores: all scores in one record."""
        results = yield from self._scoring_of_responses([(prompt, text) for text in responses], options)
        failure = first_failure(results)
        if failure is not None:
            place, error = failure
            return at(error, place)
        return self.join_details([required(result) for result in results])

    def _scoring_of_responses(
        self, responses: Sequence[tuple[tuple[Message, ...], str]], options: CallOptions
    ) -> Work[list[Result]]:
        """Scores of (prompt, response) pairs, cut into steps where the model does that."""
        whole = [Conversation((*prompt, Message("assistant", text))) for prompt, text in responses]
        ready = each(whole, lambda c: self.with_steps(c, delimiter=options.step_delimiter), fail_fast=options.fail_fast)
        return through(ready, lambda able: self.scoring_of(able, options), fail_fast=options.fail_fast)

    def _difference(self, a: Result, b: Result) -> Result:
        failure = failure_among((a, b))
        if failure is not None:
            return failure
        a, b = required(a), required(b)
        sign = 1.0 if self.higher_is_better else -1.0
        probability = sigmoid(sign * (a.score - b.score))
        return replace(self.join_details([a, b]), score=probability, normalized_score=probability)

    def _scored(self, call: Call, show_progress: bool) -> list[Result]:
        with ProgressBar(len(call.entries), show_progress) as update:
            conversations = call.conversations
            update(len(call.entries) - len(conversations))
            return run(self.scoring_of(conversations, replace(call.options, progress=update))) if conversations else []

    async def _ascored(self, call: Call) -> list[Result]:
        conversations = call.conversations
        return await arun(self.scoring_of(conversations, call.options)) if conversations else []

    def _ranked(self, result: Result, return_details: bool) -> Any:
        details = required(result)
        ranking = order_of(details, higher_is_better=self.higher_is_better)
        return (ranking, details.to_dict()) if return_details else ranking

    # -- what a user's class overrides -------------------------------------------------------------------------------

    def _by_own_methods(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        """Scores by `score`, `score_batch`, `ascore` or `score_steps`, which may fail in any way."""
        if "score_batch" in self._own and not self._own & {"score", "score_steps"}:
            try:
                return self._by_own_batch(conversations, options)
            except Exception as error:
                if options.fail_fast or len(conversations) == 1:
                    return [error] * len(conversations)
        results: list[Result] = []
        for conversation in conversations:
            try:
                results.append(self._by_own_method(conversation, options))
            except Exception as error:
                results.append(error)
                if options.fail_fast:
                    return results + [SkippedError() for _ in conversations[len(results) :]]
            finally:
                options.done()
        return results

    async def _by_own_ascore(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        """Scores by `ascore` alone, several at a time in the caller's event loop, so that cancelling reaches them."""
        places = asyncio.Semaphore(_ASCORES_AT_A_TIME)

        async def one(conversation: Conversation) -> list[Result]:
            async with places:
                try:
                    return [self._own_details(await _call_with(self.ascore, conversation, {}))]
                except Exception as error:
                    return [error]
                finally:
                    options.done()

        return await gathered([one(c) for c in conversations], [1] * len(conversations), options)

    def _by_own_batch(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        ready = each(conversations, self._for_own_batch, fail_fast=options.fail_fast)
        if options.fail_fast and first_failure(ready) is not None:
            return in_places(ready, [SkippedError() for _ in sound(ready)])
        batch = sound(ready)
        scores = self.score_batch(batch)
        if len(scores) != len(batch):
            raise BackendError(f"{type(self).__name__}.score_batch gave {len(scores)} scores for {len(batch)}.")
        options.done(len(batch))
        return in_places(ready, [self._own_details(score) for score in scores])

    def _for_own_batch(self, conversation: Conversation) -> list[dict[str, Any]]:
        refuse_template_arguments(conversation.messages, f"{type(self).__name__}.score_batch takes messages alone")
        if not conversation.has_response:
            raise _no_response(f"{type(self).__name__}.score_batch")
        return conversation.to_dicts()

    def _by_own_method(self, conversation: Conversation, options: CallOptions) -> ScoreDetails:
        if conversation.steps is not None and "score_steps" in self._own:
            steps = _call_with(self.score_steps, conversation, {"steps": list(conversation.steps)})
            if len(steps) != len(conversation.steps) or not all(math.isfinite(step) for step in steps):
                raise BackendError(
                    f"{label_of(self)} gave {len(steps)} step scores for {len(conversation.steps)} steps, "
                    f"{steps!r:.200}; one finite number each is needed."
                )
            total = aggregate(steps, options.aggregation or self.capabilities.aggregation)
            return replace(self._own_details(total), step_scores=[float(s) for s in steps])
        if "score" in self._own:
            return self._own_details(_call_with(self.score, conversation, {}))
        if "ascore" in self._own:
            return self._own_details(run_sync(_call_with(self.ascore, conversation, {})))
        if "score_batch" in self._own:
            return self._own_details(self.score_batch([self._for_own_batch(conversation)])[0])
        raise TypeError(f"{type(self).__name__} must override score (or score_batch, ascore, score_steps).")

    def _own_details(self, value: Any) -> ScoreDetails:
        score = float(value[0] if isinstance(value, tuple) else value)
        if not math.isfinite(score):
            raise BackendError(f"{label_of(self)} gave {score}, which is not a score.")
        # A class may say between which numbers its scores lie.
        declared: tuple[float, float] = getattr(self, "score_range", (-math.inf, math.inf))
        return ScoreDetails(
            score=score,
            raw_logits=[score],
            normalized_score=in_unit_interval(score, declared, higher_is_better=self.higher_is_better),
            tokens_scored=None,
            family=self.family,
            model=label_of(self),
        )


_FAIL_FAST = CallOptions(fail_fast=True)


def _compared(results: Sequence[Result], return_details: bool) -> Any:
    result = required(results[0])
    return (result.score, result.to_dict()) if return_details else result.score


def _named(values: Mapping[str, Any]) -> list[str]:
    """`name=value` of each value that is there."""
    return [f"{name}={value!r}" for name, value in values.items() if value is not None]


def _call_with(function: Callable[..., Any], conversation: Conversation, options: dict[str, Any]) -> Any:
    """Call a method of a user's with a conversation, and what its chat template takes besides where it takes that."""
    first, *others = conversation.messages
    arguments = {name: first.extra[name] for name in (TOOLS, TEMPLATE_ARGUMENTS) if name in first.extra}
    if arguments and not _accepts(function, arguments):
        who = f"{getattr(function, '__qualname__', function)} does not take {', '.join(arguments)}"
        refuse_template_arguments(conversation.messages, who)
    if not conversation.has_response:
        if not _accepts(function, ("require_response",)):
            raise _no_response(getattr(function, "__qualname__", str(function)))
        arguments["require_response"] = False
    first = first.without_template_arguments() if arguments else first
    turns = [message.to_dict() for message in (first, *others)]
    return _call_accepting(function, turns, options | arguments)


def _no_response(who: str) -> InvalidConversationError:
    return InvalidConversationError(
        f"the conversation has no response, and {who} does not take require_response, which says that none is needed.",
        field="messages",
    )


def _accepts(function: Callable[..., Any], names: Iterable[str]) -> bool:
    taken, takes_any = _parameters(getattr(function, "__func__", function))
    return takes_any or set(names) <= taken


@lru_cache(maxsize=256)
def _parameters(function: Callable[..., Any]) -> tuple[frozenset[str], bool]:
    """The names of a function's parameters, and whether it takes any others by name."""
    parameters = inspect.signature(function).parameters.values()
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return frozenset(parameter.name for parameter in parameters), takes_any


def _call_accepting(function: Callable[..., Any], first: Any, options: dict[str, Any]) -> Any:
    """Call with those options that the function takes: a user's override may take none."""
    names, takes_any = _parameters(getattr(function, "__func__", function))
    if takes_any:
        return function(first, **options)
    refused = sorted(name for name, value in options.items() if name not in names and value is not None)
    if refused:
        raise TypeError(f"{getattr(function, '__qualname__', function)} does not take {', '.join(refused)}.")
    return function(first, **{name: value for name, value in options.items() if name in names})
