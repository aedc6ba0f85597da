"""RewardModel: what reward models offer each other, and the rest of this package.

Callers from outside use `BaseRM.score` and its like, which take plain messages, check them, and raise. Behind them
everything speaks this protocol: validated conversations in, one result for each out. An ensemble asks its members so, a
cache its model, the server and the benchmarks theirs.

A result is a `ScoreDetails`, or the exception that tells why there is none: **an item that fails never raises**. The
border alone (the public methods of `BaseRM`, the routes of the server) raises the first failure and says its place.
What makes the whole call impossible (an aggregation that does not exist, missing statistics) raises at once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from reward_hub.errors import BackendError, RewardHubError
from reward_hub.loops import in_order
from reward_hub.types import Conversation, Kind, Message, ModelInput, Pair, ScoreDetails
from reward_hub.work import Work, arun, run

T = TypeVar("T")
R = TypeVar("R")

Result: TypeAlias = ScoreDetails | Exception
"""A score, or why there is none."""


@dataclass(frozen=True)
class CallOptions:
    """What one call asks beyond the items themselves.

    Attributes:
        aggregation: how step scores become the score; None: as the model does by default.
        batch_size: most items of one forward pass, or of one request.
        progress: called with the number of items that were just finished.
        fail_fast: the caller raises the first failure, so that after one nothing more need be computed. What was left
            out for that is a `SkippedError`.
        step_delimiter: of a ranking by a process model: where responses are split; None: at the model's own.
    """

    aggregation: str | None = None
    batch_size: int | None = None
    progress: Callable[[int], None] | None = None
    fail_fast: bool = False
    step_delimiter: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise TypeError(f"batch_size={self.batch_size}; at least 1 is needed.")

    def done(self, n: int = 1) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(n)


@dataclass(frozen=True)
class Capabilities:
    """What a model can do, and how, beyond its kind. A wrapper has those of its model.

    Attributes:
        has_score: there is a score for a single response; models that compare have none, some documented ones apart.
        splits_steps: process models: `score` cuts the response into steps. A class with a `score` of its own does not.
        scores_steps: process models: each step gets a score.
        aggregation: how step scores become the score unless a call says otherwise.
        compares_itself: a comparison may be more than the difference of two scores.
        ranks_itself: a ranking may be more than the order of scores.
        ranks_lists: it is shown all responses at once and puts them in order (a listwise judge).
        calibrated: its comparisons went through a map that was fitted to labelled pairs.
        is_judge: it says in words what it thinks of a response; some benchmarks count judges by a rule of their own.
        waits_elsewhere: it waits for another process (a server, a provider) more than it computes, so that several
            calls at once are faster than one after the other.
        score_range: the numbers between which its scores lie; None where that is not known.
        chat_template: of its tokenizer, where it is known here.
    """

    has_score: bool = True
    splits_steps: bool = False
    scores_steps: bool = False
    aggregation: str = "min"
    compares_itself: bool = False
    ranks_itself: bool = False
    ranks_lists: bool = False
    calibrated: bool = False
    is_judge: bool = False
    waits_elsewhere: bool = False
    score_range: tuple[float, float] | None = None
    chat_template: str | None = None


class RewardModel:
    """The inner protocol. `BaseRM` implements it over whatever a subclass brings.

    Each of the three calls is a piece of `Work`, which runs from synchronous and from asynchronous code; the pairs of
    methods below do that. A model overrides one of the three forms (`scoring_of`, or `score_conversations`, or
    `ascore_conversations`), and the others follow from it; likewise for comparisons and rankings.

    Attributes:
        name: what the user loaded.
        family: the family's name; None for models outside the table.
        kind: "outcome", "process" or "pairwise".
        higher_is_better: False for costs.
        max_length: most tokens of one conversation, where there is a limit.
        deterministic: False where one conversation may get another score the next time.
        step_delimiter: where a response is split when a process model is given no steps.
        n_trainings: how often this object was trained, after which its fingerprint is another one.
    """

    name: str = ""
    family: str | None = None
    kind: Kind = "outcome"
    higher_is_better: bool = True
    max_length: int | None = None
    deterministic: bool = True
    step_delimiter: str = "\n\n"
    n_trainings: int = 0

    # -- what is asked -----------------------------------------------------------------------------------------------

    def scoring_of(self, conversations: Sequence[Conversation], options: CallOptions) -> Work[list[Result]]:
        """Score validated conversations; one result each, in order.

        Conversations with `steps` want `step_scores` in their details.
        """
        raise NotImplementedError

    def comparison_of(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> Work[list[Result]]:
        """For each pair the probability that `a` is the better response."""
        raise NotImplementedError

    def ranking_of(self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Work[Result]:
        """One record for all responses to a prompt, with one score a response in `scores`."""
        raise NotImplementedError

    def score_conversations(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        """`scoring_of`, now."""
        return run(self.scoring_of(conversations, options))

    async def ascore_conversations(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        """`scoring_of`, in the event loop."""
        return await arun(self.scoring_of(conversations, options))

    def compare_pairs(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> list[Result]:
        """`comparison_of`, now."""
        return run(self.comparison_of(pairs, both_orders, options))

    async def acompare_pairs(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> list[Result]:
        """`comparison_of`, in the event loop."""
        return await arun(self.comparison_of(pairs, both_orders, options))

    def rank_responses(self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Result:
        """`ranking_of`, now."""
        return run(self.ranking_of(prompt, responses, options))

    async def arank_responses(
        self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions
    ) -> Result:
        """`ranking_of`, in the event loop."""
        return await arun(self.ranking_of(prompt, responses, options))

    # -- what is known -----------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What it can do, and how."""
        raise NotImplementedError

    @property
    def runs_on(self) -> Mapping[str, Any]:
        """Where it runs, for `repr`: backend, dtype, device."""
        return {}

    @property
    def shared_share(self) -> float | None:
        """What part of the tokens of all inputs so far was not computed again, as conversations share it.

        None where that is not known.
        """
        return None

    @property
    def load_report(self) -> Mapping[str, Any]:
        """What is known of how it was loaded and runs, in plain words: for whoever looks at a score from outside."""
        return self.runs_on

    def inputs_of(self, value: Conversation | Pair) -> list[ModelInput]:
        """What the model is given of a conversation, cut into steps where it wants them, or of a pair.

        Raises:
            RewardHubError: as scoring it does.
        """
        raise NotImplementedError

    def with_steps(
        self, conversation: Conversation, how: str | None = None, delimiter: str | None = None
    ) -> Conversation:
        """The conversation as `score` takes it: its response cut into steps where this model does that.

        Args:
            how: the aggregation that is asked for.
            delimiter: in place of the model's own.

        Raises:
            InvalidConversationError: nothing is left of the response.
        """
        raise NotImplementedError

    def note_split(self, conversation: Conversation, delimiter: str) -> None:
        """Say once, for this model, where a response of many lines that was split is a single step."""
        raise NotImplementedError

    def note_ending(self, conversation: Conversation) -> None:
        """Say once, for this model, where a conversation without a response is read as it stands."""
        raise NotImplementedError

    def join_details(self, parts: Sequence[ScoreDetails]) -> ScoreDetails:
        """The details of responses to one prompt, each scored on its own, as one record."""
        raise NotImplementedError


def label_of(rm: RewardModel) -> str:
    """A model's name, or that of its class."""
    return rm.name or type(rm).__name__


# -- results -----------------------------------------------------------------------------------------------------------


class SkippedError(Exception):
    """Not computed, because another item had failed and the caller raises that failure."""


def each(
    values: Iterable[T | Exception], function: Callable[[T], R], *, fail_fast: bool = False
) -> list[R | Exception]:
    """`function` of each value, or its error. A value that is a failure already stays it.

    Args:
        fail_fast: after the first failure the rest is `SkippedError`.
    """
    results: list[R | Exception] = []
    failed = False
    for value in values:
        if isinstance(value, Exception):
            results.append(value)
        elif failed and fail_fast:
            results.append(SkippedError())
        else:
            try:
                results.append(function(value))
            except RewardHubError as error:
                results.append(error)
        failed = failed or isinstance(results[-1], Exception)
    return results


def sound(values: Iterable[T | Exception]) -> list[T]:
    """Those that have not failed."""
    return [value for value in values if not isinstance(value, Exception)]


def in_places(values: Sequence[T | Exception], results: Sequence[R | Exception]) -> list[R | Exception]:
    """The results of `sound(values)` in the places of these values, beside the failures."""
    given = iter(counted(results, len(sound(values))))
    return [value if isinstance(value, Exception) else next(given) for value in values]


def counted(results: Sequence[R], n: int) -> Sequence[R]:
    """The results themselves.

    Raises:
        BackendError: they are not `n`.
    """
    if len(results) != n:
        raise BackendError(f"gave {len(results)} results for {n}.")
    return results


def through(
    values: Sequence[T | Exception], work: Callable[[list[T]], Work[list[R | Exception]]], *, fail_fast: bool = False
) -> Work[list[R | Exception]]:
    """The results of work on those values that have not failed, in their places beside the failures.

    Args:
        fail_fast: with a failure among the values nothing is computed.
    """
    able = sound(values)
    skipped = fail_fast and len(able) < len(values)
    results: Sequence[R | Exception] = (
        [SkippedError() for _ in able] if skipped or not able else (yield from work(able))
    )
    return in_places(values, results)


async def gathered(
    calls: Sequence[Coroutine[Any, Any, list[Result]]], n_results: Sequence[int], options: CallOptions
) -> list[Result]:
    """The results of calls that run together, one after the other in their order.

    Args:
        n_results: how many each call gives. With `options.fail_fast` a failure ends the calls that are under way.
    """
    results: list[list[Result]] = [[SkippedError() for _ in range(n)] for n in n_results]

    async def one(place: int, call: Coroutine[Any, Any, list[Result]]) -> None:
        results[place] = await call
        if options.fail_fast and first_failure(results[place]) is not None:
            raise SkippedError

    with suppress(SkippedError):
        await in_order([one(place, call) for place, call in enumerate(calls)])
    return [result for part in results for result in part]


def first_failure(results: Iterable[object]) -> tuple[int, Exception] | None:
    """The first failure and its place; what was skipped because of one is none."""
    failures = ((place, result) for place, result in enumerate(results) if isinstance(result, Exception))
    return next(((place, error) for place, error in failures if not isinstance(error, SkippedError)), None)


def failure_among(results: Iterable[object]) -> Exception | None:
    """The failure of what is made of all these results; None where none failed."""
    failures = [result for result in results if isinstance(result, Exception)]
    found = first_failure(failures)
    return found[1] if found is not None else next(iter(failures), None)


def at(error: Exception, index: int | None) -> Exception:
    """The error, with its place in the caller's batch where it has room for one."""
    if isinstance(error, RewardHubError) and hasattr(error, "index"):
        error.index = index
    return error


def required(result: T | Exception) -> T:
    """The result itself; a failure is raised."""
    if isinstance(result, Exception):
        raise result
    return result
