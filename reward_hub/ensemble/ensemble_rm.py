"""EnsembleRM: several reward models as one. Their scores are put on one scale, and reduced to one.

    rm = EnsembleRM([(rm_a, 0.5), (rm_b, 0.3), (rm_c, 0.2)], normalize="zscore")
    rm.fit(conversations)           # once; rm.save("statistics.json"), rm.load("statistics.json")
    rm.score(prompt="What is 2+2?", response="4")

"mean", "min" and mean minus spread after z-scores are what RewardBench's offline ensembles do
(https://github.com/allenai/reward-bench, `analysis/run_ensemble_offline.py`); "uncertainty" (mean minus variance) and
"min" (worst case) are those of Coste et al. (arXiv 2310.02743).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reward_hub.aggregation import AggregationMethod, aggregation_name
from reward_hub.base import BaseRM
from reward_hub.calls import Messages, ProgressBar, batch_call, raise_first, steps_call
from reward_hub.ensemble.combination import Combination, joined_responses, one_by_one, raw_values
from reward_hub.ensemble.dispatch import MemberResults, SharedProgress, ask_members, comparing, ranking, scoring
from reward_hub.ensemble.members import Member, kind_of
from reward_hub.ensemble.normalization import (
    NEED_STATISTICS,
    NORMALIZATIONS,
    Fitted,
    Statistics,
    load_statistics,
    save_statistics,
)
from reward_hub.ensemble.reduction import WITHOUT_WEIGHTS, Reduction
from reward_hub.errors import UnsupportedError
from reward_hub.fingerprints import fingerprint_of
from reward_hub.numerics import sigmoid
from reward_hub.reward_model import (
    CallOptions,
    Capabilities,
    Result,
    SkippedError,
    at,
    each,
    first_failure,
    in_places,
    required,
    sound,
)
from reward_hub.types import Conversation, Message, Pair, ScoreDetails
from reward_hub.work import Work, run
from reward_hub.wrapper_rm import refuse_own

logger = logging.getLogger(__name__)

_UNBOUNDED = (-math.inf, math.inf)
# Of values below zero a product has no direction: two bad steps would make a good one.
_NOT_OF_ZSCORES = ("product", "geometric_mean")


class EnsembleRM(BaseRM):
    """Reward models combined. Its score is higher for the better response, whatever the members' direction.

    Members are all outcome or process models, or all pairwise. Of process models alone the ensemble is one too: it
    combines step by step and then aggregates. Beside outcome models each process model aggregates by itself.

    Args:
        members: `(rm, weight)` pairs, or models, whose weight is 1. Any `BaseRM`, other ensembles included.
        reduce: "mean", "median", "min" (worst case), "max", "uncertainty" (mean minus `uncertainty_penalty` times the
            variance), "mean_minus_std", "trimmed_mean", "softmin" (-1/beta log E exp(-beta r)) or "vote" (mean rank).
            Weights count in all of them but "min" and "max".
        normalize: None, "zscore", "minmax", "rank" or "sigmoid"; all but the last from statistics that `fit` takes
            once. It has no part in a vote, whose ranks it would not change. Scores of pairwise models are
            probabilities already.
        uncertainty_penalty: 1 unless given. trim: share dropped at either end by "trimmed_mean", 0.2. beta: 1.
        aggregation: process ensembles: how combined step scores become the score; the members', where they agree.
        step_delimiter: process ensembles: where responses are split; the members', where they agree.
        on_member_error: "raise", or "skip": the others stand in for a member that failed, which the details name.
        quorum: with "skip": how many members must succeed, as a number (int) or a share of them (float); 0.5 unless
            given. Below it the score is a `BackendError`.

    Attributes:
        members: tuple of (rm, weight), as given. `close()` closes them.
    """

    def __init__(
        self,
        members: Sequence[BaseRM | tuple[BaseRM, float]],
        *,
        reduce: str = "mean",
        normalize: str | None = None,
        uncertainty_penalty: float | None = None,
        trim: float | None = None,
        beta: float | None = None,
        aggregation: str | AggregationMethod | None = None,
        step_delimiter: str | None = None,
        on_member_error: Literal["raise", "skip"] = "raise",
        quorum: int | float | None = None,
    ) -> None:
        if isinstance(members, BaseRM):
            raise TypeError(f"members is one {type(members).__name__}; give a list: EnsembleRM([rm]).")
        self._members = [Member.of(given, place) for place, given in enumerate(members)]
        if not self._members:
            raise TypeError("An ensemble has at least one member.")
        self.kind = kind_of(self._members)
        self.reduction = Reduction.of(reduce, uncertainty_penalty=uncertainty_penalty, trim=trim, beta=beta)
        self.normalize = self._checked_normalization(normalize)
        self.on_member_error = on_member_error
        self.quorum = _checked_quorum(quorum, on_member_error, n_members=len(self._members))
        self.name = f"{reduce} of {', '.join(member.name for member in self._members)}"
        self.max_length = min((m.rm.max_length for m in self._members if m.rm.max_length is not None), default=None)
        self.deterministic = all(member.rm.deterministic for member in self._members)
        self._aggregation = self._of_process_members(
            "aggregation",
            None if aggregation is None else aggregation_name(aggregation),
            lambda rm: rm.capabilities.aggregation,
        )
        delimiter = self._of_process_members("step_delimiter", step_delimiter, lambda rm: rm.step_delimiter)
        self.step_delimiter = BaseRM.step_delimiter if delimiter is None else delimiter
        self._statistics: tuple[Statistics, ...] | None = None
        self._identified_without = False
        self._how(CallOptions())
        self._warn_of_unlike_members()

    def __repr__(self) -> str:
        members = ", ".join(f"({rm!r}, {weight:g})" for rm, weight in self.members)
        return f"EnsembleRM([{members}], reduce={self.reduction.name!r}, normalize={self.normalize!r})"

    @property
    def members(self) -> tuple[tuple[BaseRM, float], ...]:
        return tuple((member.rm, member.weight) for member in self._members)

    @property
    def statistics(self) -> tuple[Statistics, ...] | None:
        """What `fit` or `load` left, one a member; None before."""
        return self._statistics

    @property
    def score_range(self) -> tuple[float, float]:
        """Between which numbers scores lie, as far as the members tell."""
        if self.kind == "pairwise" or self._scale in ("minmax", "rank", "sigmoid"):
            return (0.0, 1.0)
        if self._scale is not None:
            return _UNBOUNDED
        known = {member.score_range for member in self._members}
        return (next(iter(known)) if len(known) == 1 else None) or _UNBOUNDED

    @property
    def n_trainings(self) -> int:  # type: ignore[override]
        return sum(member.rm.n_trainings for member in self._members)

    @property
    def capabilities(self) -> Capabilities:
        members = [member.rm.capabilities for member in self._members]
        own = super().capabilities
        return replace(
            own,
            aggregation=self._aggregation or own.aggregation,
            is_judge=all(member.is_judge for member in members),
            waits_elsewhere=all(member.waits_elsewhere for member in members),
        )

    @property
    def fingerprint(self) -> str:
        """Of the members, their weights, the settings and the statistics.

        Raises:
            UnsupportedError: statistics are needed and not there: without them there are no scores to identify.
        """
        self._require_statistics(among=True)
        # A vote that ranks responses among each other: a cache that knows it so must not meet it fitted.
        self._identified_without = self._scale in NEED_STATISTICS and self._statistics is None
        total = sum(member.weight for member in self._members)
        used = self._statistics if self._scale in NEED_STATISTICS else None
        members = [
            (fingerprint_of(m.rm), f"{m.weight / total:.12g}", "" if used is None else used[m.place].digest)
            for m in self._members
        ]
        settings = [self.reduction.name, self.reduction.parameter, self.normalize, self._aggregation]
        settings += [self.step_delimiter, self.on_member_error, self.quorum]
        digest = hashlib.sha256(json.dumps([sorted(members), settings]).encode())
        return f"ensemble-{digest.hexdigest()[:32]}"

    def close(self) -> None:
        """Close every member, also where one cannot be closed."""
        with ExitStack() as stack:
            for member in self._members:
                stack.callback(member.rm.close)

    # -- statistics --------------------------------------------------------------------------------------------------

    def fit(
        self,
        conversations: Sequence[Messages] | Sequence[Mapping[str, Any]],
        *,
        batch_size: int | None = None,
        show_progress: bool = False,
    ) -> EnsembleRM:
        """Take each member's statistics from these conversations, once, and return the ensemble.

        Give some hundred conversations like those to be scored. A member that fails is an error here in any case.

        Args:
            conversations: as `score_batch` takes them; process ensembles take those of `score_steps_batch` too.

        Raises:
            BackendError: too few scores, or a member whose scores are all the same where they are to be spread.
        """
        self._require_fittable()
        batch: list[Any] = list(conversations)
        by_steps = self.kind == "process"
        call = (steps_call if by_steps and batch and isinstance(batch[0], Mapping) else batch_call)(self, batch)
        parsed = call.conversations
        with ProgressBar(len(parsed), show_progress) as update:
            options = CallOptions(batch_size=batch_size, progress=update, fail_fast=True)
            progress = self._progress(options, len(parsed))
            inside = replace(options, progress=progress)
            by_member = run(ask_members(self._members, len(parsed), inside, scoring(parsed, inside, by_steps=by_steps)))
            progress.finish()
        for results in by_member:
            raise_first(results)
        fitted = []
        for member, results in zip(self._members, by_member, strict=True):
            scores = [raw_values(member, *pair, by_step=by_steps) for pair in zip(parsed, results, strict=True)]
            fitted.append(Statistics.of(np.concatenate([np.array([]), *scores]), name=member.name))
        self._statistics = self._with_spread(tuple(fitted))
        return self

    def save(self, path: str | Path) -> None:
        """Write the statistics as JSON, for `load` of an ensemble with the same members.

        Raises:
            UnsupportedError: there are none yet.
        """
        if self._statistics is None:
            raise UnsupportedError("There are no statistics to save: call fit(conversations) first.")
        save_statistics(Path(path), self._identities(), self._statistics, of=self._fitted_to)

    def load(self, path: str | Path) -> EnsembleRM:
        """Take the statistics of a file that `save` wrote, and return the ensemble.

        Weights, `reduce` and `normalize` may be others than those of the ensemble that was fitted.

        Raises:
            CheckpointError: they are not those of these members, which their fingerprints tell.
        """
        self._require_fittable()
        self._statistics = self._with_spread(load_statistics(Path(path), self._identities(), of=self._fitted_to))
        return self

    @property
    def _fitted_to(self) -> Fitted:
        return "step_scores" if self.kind == "process" else "scores"

    def _identities(self) -> list[tuple[str, str]]:
        return [(member.name, fingerprint_of(member.rm)) for member in self._members]

    def _with_spread(self, statistics: tuple[Statistics, ...]) -> tuple[Statistics, ...]:
        for member, fitted in zip(self._members, statistics, strict=True):
            fitted.check_spread(self._scale, name=member.name)
        return statistics

    def _require_fittable(self) -> None:
        if self.kind == "pairwise":
            raise UnsupportedError("Pairwise models give probabilities; an ensemble of them needs no statistics.")
        if self._statistics is not None or self._identified_without:
            raise UnsupportedError(
                "The statistics of an ensemble are fitted once, and before it is cached or served, for caches and "
                "servers hold its scores: make another EnsembleRM of the same members."
            )

    # -- inside: scores ----------------------------------------------------------------------------------------------

    def scoring_of(self, conversations: Sequence[Conversation], options: CallOptions) -> Work[list[Result]]:
        self._require_statistics()
        how = self._how(options)
        combination = self._combination()
        by_member = yield from self._scores(conversations, options)
        return combination.each_response(conversations, by_member, how)

    def comparison_of(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> Work[list[Result]]:
        if self.kind != "pairwise":
            return (yield from self._differences(pairs, options))
        for member in self._members:
            refuse_own(member.rm, "compare")
        combination = self._combination()
        progress = self._progress(options, len(pairs))
        inside = self._for_members(options, progress)
        by_member = yield from ask_members(self._members, len(pairs), inside, comparing(pairs, both_orders, inside))
        progress.finish()
        return one_by_one(len(pairs), lambda i: combination.pair([results[i] for results in by_member]))

    def ranking_of(self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Work[Result]:
        combination = self._combination()
        if self.kind == "pairwise":
            for member in self._members:
                refuse_own(member.rm, "rank")
            inside = self._for_members(options, None)
            by_member = yield from ask_members(self._members, 1, inside, ranking(prompt, responses, inside))
            (result,) = one_by_one(
                1, lambda i: combination.ranking([results[i] for results in by_member], len(responses))
            )
            return result
        self._require_statistics(among=True)
        how = self._how(options)
        whole = [_candidate(prompt, text) for text in responses]
        candidates = each(whole, lambda c: self.with_steps(c, delimiter=options.step_delimiter))
        failure = first_failure(candidates)
        if failure is not None:
            return at(failure[1], failure[0])
        able = sound(candidates)
        by_member = yield from self._scores(able, replace(options, progress=None))
        failures = [first_failure(results) for results in by_member]
        if self.on_member_error == "raise" and (failure := next(filter(None, failures), None)) is not None:
            return at(failure[1], failure[0])
        (result,) = one_by_one(1, lambda _: joined_responses(combination.responses(able, by_member, how, among=True)))
        return result

    def _differences(self, pairs: Sequence[Pair], options: CallOptions) -> Work[list[Result]]:
        """Comparisons of an ensemble that scores: both responses of a pair are held against each other."""
        self._require_statistics(among=True)
        how = self._how(options)
        combination = self._combination()
        single = [_candidate(pair.prompt, text) for pair in pairs for text in (pair.a, pair.b)]
        candidates = each(single, self.with_steps, fail_fast=options.fail_fast)
        able = sound(candidates)
        scores: MemberResults
        if options.fail_fast and len(able) < len(candidates):
            scores = [[SkippedError() for _ in able] for _ in self._members]
        else:
            scores = yield from self._scores(able, options, n=len(pairs))
        by_member = [in_places(candidates, results) for results in scores]

        def one(i: int) -> ScoreDetails:
            both = [required(candidate) for candidate in candidates[2 * i : 2 * i + 2]]
            a, b = combination.responses(both, _at(by_member, 2 * i, 2 * i + 2), how, among=True)
            probability = sigmoid(a.score - b.score)
            return replace(joined_responses([a, b]), score=probability, normalized_score=probability)

        return one_by_one(len(pairs), one)

    def _scores(
        self, conversations: Sequence[Conversation], options: CallOptions, *, n: int | None = None
    ) -> Work[MemberResults]:
        """Every member's scores.

        Args:
            n: how many items the caller counts them as, for its progress; by default one each.
        """
        progress = self._progress(options, len(conversations) if n is None else n)
        inside = self._for_members(options, progress)
        question = scoring(conversations, inside, by_steps=self.kind == "process")
        by_member = yield from ask_members(self._members, len(conversations), inside, question)
        progress.finish()
        return by_member

    def _combination(self) -> Combination:
        needed = None if self.on_member_error == "raise" else _needed(self.quorum, len(self._members))
        return Combination(
            name=self.name,
            kind=self.kind,
            members=self._members,
            reduction=self.reduction,
            scale=self._scale,
            statistics=self._statistics,
            quorum=needed,
            score_range=self.score_range,
        )

    def _for_members(self, options: CallOptions, progress: SharedProgress | None) -> CallOptions:
        """A member's failure ends the call only where it is the ensemble's."""
        fail_fast = options.fail_fast and self.on_member_error == "raise"
        return replace(options, fail_fast=fail_fast, aggregation=None, progress=progress)

    def _progress(self, options: CallOptions, n: int) -> SharedProgress:
        return SharedProgress(options.progress, n_members=len(self._members), n_conversations=n)

    # -- inside: settings --------------------------------------------------------------------------------------------

    @property
    def _scale(self) -> str | None:
        """How a score by itself is normalised: under "vote" it is its rank among the fitted scores."""
        return "rank" if self.reduction.name == "vote" and self.kind != "pairwise" else self.normalize

    def _how(self, options: CallOptions) -> str:
        """How step scores become the score."""
        how = options.aggregation or self.capabilities.aggregation
        if self.kind == "process" and self._scale == "zscore" and how in _NOT_OF_ZSCORES:
            raise UnsupportedError(
                f"The {how} of z-scores has no direction, for they may be negative: two bad steps would make a good "
                "one. Say another aggregation= ('min', 'mean'), or normalize='rank'."
            )
        return how

    def _require_statistics(self, *, among: bool = False) -> None:
        """`among`: responses to one prompt are asked for, of which a vote needs nothing else."""
        vote = self.reduction.name == "vote"
        if self._scale not in NEED_STATISTICS or self._statistics is not None or (vote and among):
            return
        raise UnsupportedError(
            f"{'A vote on a single response' if vote else f'normalize={self.normalize!r}'} needs statistics: call "
            "fit(conversations) or load(path) before; they are never taken from the conversations being scored."
            + (" rank, best_of_n and compare vote among the responses at hand." if vote else "")
        )

    def _checked_normalization(self, normalize: str | None) -> str | None:
        if normalize is not None and normalize not in NORMALIZATIONS:
            raise TypeError(f"normalize={normalize!r}; known: None, {', '.join(map(repr, NORMALIZATIONS))}.")
        if normalize is not None and self.kind == "pairwise":
            raise TypeError(f"normalize={normalize!r}: pairwise models give probabilities, which are on one scale.")
        return normalize

    def _of_process_members(self, name: str, given: str | None, own: Callable[[BaseRM], str]) -> str | None:
        """A setting of process ensembles: as given, or the one that every member has."""
        if self.kind != "process":
            if given is not None:
                raise TypeError(f"{name}={given!r} belongs to ensembles of process models; this one is {self.kind}.")
            return None
        if given is not None:
            return given
        values = [own(member.rm) for member in self._members]
        if len(set(values)) > 1:
            listed = ", ".join(f"{member.name}: {value!r}" for member, value in zip(self._members, values, strict=True))
            raise TypeError(f"The members differ in {name} ({listed}): say {name}= for the ensemble.")
        return values[0]

    def _warn_of_unlike_members(self) -> None:
        if self.reduction.name in WITHOUT_WEIGHTS and len({member.weight for member in self._members}) > 1:
            logger.warning("%s: weights have no part in reduce=%r.", self.name, self.reduction.name)
        if self.reduction.name == "vote" and self.normalize is not None:
            logger.warning("%s: normalize=%r has no part in a vote, which takes ranks.", self.name, self.normalize)
        if self.kind == "pairwise":
            return
        calibrated = [member.name for member in self._members if member.rm.capabilities.calibrated]
        if calibrated:
            logger.warning(
                "%s: compare is made of scores, in which the calibration of %s has no part; calibrate the ensemble.",
                self.name,
                ", ".join(calibrated),
            )
        if self._scale is not None:
            return
        ranges = [(member.name, member.score_range) for member in self._members]
        known = [(name, low_high) for name, low_high in ranges if low_high is not None]
        if len({low_high for _, low_high in known}) > 1:
            logger.warning(
                "%s: scores of unlike ranges (%s) are combined as they are; normalize= puts them on one scale.",
                self.name,
                ", ".join(f"{name} {low_high}" for name, low_high in known),
            )


def _candidate(prompt: tuple[Message, ...], response: str) -> Conversation:
    return Conversation((*prompt, Message("assistant", response)))


def _at(by_member: MemberResults, start: int, stop: int) -> MemberResults:
    """The members' results at these places."""
    return [results[start:stop] for results in by_member]


def _checked_quorum(quorum: Any, on_member_error: str, *, n_members: int) -> int | float:
    if on_member_error not in ("raise", "skip"):
        raise TypeError(f"on_member_error={on_member_error!r}; known: 'raise', 'skip'.")
    if quorum is None:
        return 0.5
    if on_member_error == "raise":
        raise TypeError("quorum= belongs to on_member_error='skip': with 'raise' every member must succeed.")
    if isinstance(quorum, bool) or not isinstance(quorum, (int, float)):
        raise TypeError(f"quorum={quorum!r}; a number of members (int) or a share of them (float) is needed.")
    if isinstance(quorum, int) and not 1 <= quorum <= n_members:
        raise TypeError(f"quorum={quorum}; of {n_members} members 1 to {n_members} can be asked for.")
    if isinstance(quorum, float) and not 0 < quorum <= 1:
        raise TypeError(f"quorum={quorum}; a share is above 0 and at most 1.")
    return quorum


def _needed(quorum: int | float, n_members: int) -> int:
    # 0.6 of 5 members is 3, though 0.6 * 5 may come out a little above.
    return quorum if isinstance(quorum, int) else max(1, math.ceil(quorum * n_members - 1e-9))
