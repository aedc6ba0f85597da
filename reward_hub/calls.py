"""The border of every call: what a caller passes becomes validated conversations, and results what the caller sees.

Here arguments are checked once, the first failure is raised with its place in the caller's batch, or shown as None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from reward_hub import messages as border
from reward_hub.aggregation import AggregationMethod, PRMResult, aggregation_name
from reward_hub.errors import InvalidConversationError, RewardHubError, UnsupportedError
from reward_hub.reward_model import CallOptions, Result, RewardModel, at, first_failure, in_places, label_of, sound
from reward_hub.types import TEMPLATE_ARGUMENTS, TOOLS, Conversation, ScoreDetails

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""One conversation in the OpenAI form."""
OnError: TypeAlias = Literal["raise", "none"]

_STEP_ITEM = frozenset(
    {
        *("messages", "prompt", "response", TOOLS, TEMPLATE_ARGUMENTS),
        *("steps", "step_delimiter", "step_sep", "step_separator"),
    }
)


@dataclass(frozen=True)
class Call:
    """One call: what is to be scored, what is invalid, and how results are shown.

    Attributes:
        entries: the conversations, or why an item is not one.
        show: a result -> what the caller sees of it.
        single: the caller gave one conversation and not a list.
    """

    entries: list[Conversation | Exception]
    show: Callable[[Result], Any]
    options: CallOptions
    on_error: OnError
    single: bool

    @property
    def conversations(self) -> list[Conversation]:
        """Those to be scored."""
        return sound(self.entries)

    def merged(self, results: Sequence[Result]) -> list[Result]:
        """One result for each entry."""
        return in_places(self.entries, results)

    def shown(self, results: Sequence[Result]) -> Any:
        """Values in input order; the one value of a single call."""
        merged = self.merged(results)
        if self.on_error == "raise":
            raise_first(merged, single=self.single)
        values = [self.show(result) for result in merged]
        return values[0] if self.single else values


def score_call(
    rm: RewardModel, messages: Any, *, prompt: str | None = None, response: str | None = None, **options: Any
) -> Call:
    """The call of `score`: one conversation or a list of them. Options as `_call`."""
    if messages is not None and not border.is_single(messages):
        if prompt is not None or response is not None:
            raise InvalidConversationError("give messages= or prompt= and response=, not both.", field="messages")
        return _call(rm, list(messages), border.parse, single=False, **options)

    def parse(raw: Any, *, require_response: bool) -> Conversation:
        return border.parse(raw, prompt=prompt, response=response, require_response=require_response)

    return _call(rm, [messages], parse, single=True, **options)


def batch_call(rm: RewardModel, batch: Sequence[Messages], **options: Any) -> Call:
    """The call of `score_batch`. Options as `_call`."""
    if isinstance(batch, (str, Mapping)) or (len(batch) > 0 and isinstance(batch[0], Mapping)):
        raise InvalidConversationError(
            "score_batch takes a list of conversations; for one conversation call score.", field="messages"
        )
    return _call(rm, list(batch), border.parse, single=False, **options)


def _call(
    rm: RewardModel,
    batch: list[Any],
    parse: Callable[..., Conversation],
    *,
    single: bool,
    require_response: bool = True,
    return_details: bool = False,
    on_error: OnError = "raise",
    batch_size: int | None = None,
    step_delimiter: str | None = None,
    aggregation: str | AggregationMethod | None = None,
    return_full_prm_result: bool = False,
    tools: Any = None,
    chat_template_kwargs: Any = None,
) -> Call:
    how = None if aggregation is None else aggregation_name(aggregation)
    require_score(rm, by_steps=return_full_prm_result or how is not None)
    require_splitting(rm, step_delimiter, how)
    if not require_response:
        require_whole(rm)

    def show(result: ScoreDetails) -> Any:
        return PRMResult(list(result.step_scores or []), result.score) if return_full_prm_result else result.score

    def entry(raw: Any) -> Conversation:
        conversation = _with(parse(raw, require_response=require_response), tools, chat_template_kwargs)
        rm.note_ending(conversation)
        return rm.with_steps(conversation, how, step_delimiter)

    return Call(
        _entries(batch, entry, on_error, single=single),
        _shower(show, return_details),
        CallOptions(how, batch_size, fail_fast=on_error == "raise"),
        on_error,
        single,
    )


def steps_call(
    rm: RewardModel,
    items: Sequence[Mapping[str, Any]],
    step_delimiter: str | None = None,
    *,
    batch_size: int | None = None,
    on_error: OnError = "raise",
    return_details: bool = False,
    single: bool = False,
    tools: Any = None,
    chat_template_kwargs: Any = None,
) -> Call:
    """The call of `score_steps` and `score_steps_batch`."""
    require_steps(rm)

    def parse(item: Any) -> Conversation:
        unknown = sorted(set(item) - _STEP_ITEM) if isinstance(item, Mapping) else type(item).__name__
        if unknown:
            raise InvalidConversationError(
                f"an item is a dict of {', '.join(sorted(_STEP_ITEM))}; got {unknown}.", field="items"
            )
        own = one_of("step_delimiter", *(item.get(k) for k in ("step_delimiter", "step_sep", "step_separator")))
        delimiter = next(d for d in (own, step_delimiter, rm.step_delimiter) if d is not None)
        conversation = border.parse_steps(
            item.get("messages"),
            prompt=item.get("prompt"),
            response=item.get("response"),
            steps=item.get("steps"),
            step_delimiter=delimiter,
        )
        conversation = _with(conversation, item.get(TOOLS), item.get(TEMPLATE_ARGUMENTS))
        conversation = _with(conversation, tools, chat_template_kwargs)
        if item.get("steps") is None:
            rm.note_split(conversation, delimiter)
        return conversation

    return Call(
        _entries(items, parse, on_error, single=single),
        _shower(lambda result: list(result.step_scores or []), return_details),
        CallOptions(None, batch_size, fail_fast=on_error == "raise"),
        on_error,
        single,
    )


def _with(conversation: Conversation, tools: Any, chat_template_kwargs: Any) -> Conversation:
    """The conversation with what the chat template takes besides."""
    turns = border.with_template_arguments(conversation.messages, tools, chat_template_kwargs)
    return conversation if turns is conversation.messages else replace(conversation, messages=turns)


def _entries(
    batch: Iterable[Any], parse: Callable[[Any], Conversation], on_error: OnError, *, single: bool
) -> list[Conversation | Exception]:
    """Every item validated. What is invalid is raised before anything is scored, or fails alone."""
    if on_error not in ("raise", "none"):
        raise TypeError(f"on_error={on_error!r}; known: 'raise', 'none'.")
    entries: list[Conversation | Exception] = []
    for place, raw in enumerate(batch):
        try:
            entries.append(parse(raw))
        except RewardHubError as error:
            if not single:
                at(error, place)
            if on_error == "raise":
                raise
            entries.append(error)
    return entries


def _shower(show: Callable[[ScoreDetails], Any], return_details: bool) -> Callable[[Result], Any]:
    def shown(result: Result) -> Any:
        if isinstance(result, Exception):
            return (None, _error_details(result)) if return_details else None
        return (show(result), result.to_dict()) if return_details else show(result)

    return shown


def _error_details(error: Exception) -> dict[str, Any]:
    message = error.message if isinstance(error, RewardHubError) else str(error)  # without the place, which is known
    return {"error": {"type": type(error).__name__, "message": message}}


def raise_first(results: Sequence[object], *, single: bool = False) -> None:
    """Raise the first failure; in a list it says its place, unless it is that of a whole batch."""
    failure = first_failure(results)
    if failure is not None:
        place, error = failure
        shared = sum(result is error for result in results) > 1
        raise error if single or shared else at(error, place)


def require_score(rm: RewardModel, *, by_steps: bool = False) -> None:
    """Raises UnsupportedError where a model has no score for one response, or none made of steps (`by_steps`)."""
    able = rm.capabilities
    if not able.has_score or (rm.kind == "pairwise" and by_steps):
        raise UnsupportedError(
            f"{label_of(rm)} compares two responses and has no score for one; call compare, rank or best_of_n."
        )
    if by_steps and rm.kind != "process":
        raise UnsupportedError(
            f"{label_of(rm)} is {_article(rm.kind)} reward model: it has no steps to split or aggregate."
        )
    if by_steps and not able.splits_steps:
        raise UnsupportedError(
            f"{label_of(rm)} has a score of its own, which knows neither step delimiters nor aggregations."
        )


def require_splitting(rm: RewardModel, step_delimiter: str | None, how: str | None = None) -> None:
    """Raises UnsupportedError where a step delimiter is given to a model that would make nothing of it.

    Args:
        how: the aggregation that is asked for.
    """
    if step_delimiter is None:
        return
    require_score(rm, by_steps=True)
    if (how or rm.capabilities.aggregation) == "model":
        raise UnsupportedError(
            f"{label_of(rm)} scores a response as a whole (aggregation 'model'), which a step delimiter does not "
            "change; say another aggregation beside it, or leave it out."
        )


def require_whole(rm: RewardModel) -> None:
    """Raises UnsupportedError where a model reads no conversation without a response (`require_response=False`)."""
    if rm.kind != "outcome":
        what = "the steps of a response" if rm.kind == "process" else "two responses"
        raise UnsupportedError(
            f"require_response=False: {label_of(rm)} is a {rm.kind} reward model and reads {what}; outcome models that "
            "read a conversation as a whole take one without a response."
        )


def ranking_options(rm: RewardModel, *delimiters: str | None) -> CallOptions:
    """The options of a ranking.

    Args:
        delimiters: where a process model splits each response, in the spellings of the argument.

    Raises:
        UnsupportedError: the model would not split at it.
    """
    delimiter = one_of("step_delimiter", *delimiters)
    require_splitting(rm, delimiter)
    return CallOptions(fail_fast=True, step_delimiter=delimiter)


def require_steps(rm: RewardModel) -> None:
    """Raises UnsupportedError where a model has no step scores."""
    if rm.kind != "process":
        raise UnsupportedError(
            f"{label_of(rm)} is {_article(rm.kind)} reward model and has no step scores; "
            + ("call compare, rank or best_of_n." if rm.kind == "pairwise" else "call score.")
        )


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "outcome" else f"a {kind}"


def responses_of(responses: Sequence[str]) -> list[str]:
    """The responses of a ranking.

    Raises:
        InvalidConversationError: there is none, or one is not a text.
    """
    if isinstance(responses, str) or not responses or not all(isinstance(text, str) for text in responses):
        raise InvalidConversationError("responses must be a list of at least one text.", field="responses")
    return list(responses)


def order_of(details: ScoreDetails, *, higher_is_better: bool) -> list[int]:
    """Indices of the responses of a ranking, best first; ties keep input order."""
    scores = details.scores or []
    sign = -1.0 if higher_is_better else 1.0
    return sorted(range(len(scores)), key=lambda i: sign * scores[i])


def one_of(name: str, *spellings: Any) -> Any:
    """The one value that was given among several spellings of an argument."""
    given = [value for value in spellings if value is not None]
    if len(given) > 1:
        raise TypeError(f"{name} was given in more than one spelling.")
    return given[0] if given else None


def joined_spellings(options: dict[str, Any]) -> dict[str, Any]:
    """The options of an a-form, with spellings joined; without the progress bar, which only waits make use of."""
    options = dict(options)
    delimiters = (options.pop(k, None) for k in ("step_delimiter", "step_sep", "step_separator"))
    methods = (options.pop(k, None) for k in ("aggregation", "aggregation_method"))
    options["step_delimiter"] = one_of("step_delimiter", *delimiters)
    options["aggregation"] = one_of("aggregation", *methods)
    options.pop("show_progress", None)
    return options


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
