"""What an ensemble makes of its members' results: one scale, one score, and details that name every member.

No model is asked here. A cost enters with its sign turned, so that all values are higher for the better response.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import numpy as np

from reward_hub.ensemble.members import Member
from reward_hub.ensemble.normalization import Statistics, normalized
from reward_hub.ensemble.reduction import Floats, Reduction, ranks
from reward_hub.errors import BackendError, RewardHubError
from reward_hub.numerics import aggregate, in_unit_interval, sigmoid
from reward_hub.reward_model import Result, failure_among, required
from reward_hub.types import Conversation, Kind, ScoreDetails, joined_details

T = TypeVar("T")

# Fewer numbers than these numpy adds one after the other, however they lie; a sum of more rounds otherwise in a column
# by itself than beside others.
_ADDED_IN_ORDER = 8
ByPlace: TypeAlias = dict[int, T]
"""Something of each member that answered, by its place."""


@dataclass(frozen=True)
class Combination:
    """How the members' results are combined.

    Attributes:
        name: of the ensemble, for details and errors.
        kind: process ensembles combine the scores of steps.
        scale: how members are normalised.
        statistics: one a member where `scale` needs them.
        quorum: how many members must have answered; None: all, and the first failure is raised as it is.
        score_range: of the combined score, decides `normalized_score`.
    """

    name: str
    kind: Kind
    members: Sequence[Member]
    reduction: Reduction
    scale: str | None
    statistics: Sequence[Statistics] | None
    quorum: int | None
    score_range: tuple[float, float]

    # -- models that score -------------------------------------------------------------------------------------------

    def responses(
        self, conversations: Sequence[Conversation], by_member: Sequence[Sequence[Result]], how: str, *, among: bool
    ) -> list[ScoreDetails]:
        """The scores of responses that are held against each other, by the members that answered for all of them.

        Args:
            by_member: one list a member, one result a conversation.
            how: the aggregation of step scores.
            among: they are responses to one prompt: without fitted scores "vote" takes ranks among them.
        """
        present, failed = self._present(
            lambda member: [
                self._raw(member, conversation, result)
                for conversation, result in zip(conversations, by_member[member.place], strict=True)
            ]
        )
        votes = among and self.reduction.name == "vote" and self.statistics is None
        values = _votes(present, how) if votes else self._on_one_scale(present)
        by_step = self.kind == "process" and not votes
        return [
            self._response(
                conversation,
                {place: required(by_member[place][i]) for place in present},
                {place: values[place][i] for place in present},
                failed,
                how if by_step else None,
            )
            for i, conversation in enumerate(conversations)
        ]

    def each_response(
        self, conversations: Sequence[Conversation], by_member: Sequence[Sequence[Result]], how: str
    ) -> list[Result]:
        """The score of each response by itself, by the members that answered for it. Arguments as `responses`."""
        in_one_go = self.kind != "process" and len(self.members) < _ADDED_IN_ORDER
        known = self._of_all_members(by_member) if in_one_go else {}

        def one(i: int) -> ScoreDetails:
            if i in known:
                return known[i]
            return self.responses(conversations[i : i + 1], [r[i : i + 1] for r in by_member], how, among=False)[0]

        return one_by_one(len(conversations), one)

    def _of_all_members(self, by_member: Sequence[Sequence[Result]]) -> dict[int, ScoreDetails]:
        """What `responses` gives, for those places where every member gave a score and all is finite: in one go."""
        answers = [(i, parts) for i, parts in enumerate(zip(*by_member, strict=True)) if all(map(_has_score, parts))]
        if not answers:
            return {}
        signs = [member.sign for member in self.members]
        raw = np.array([[sign * part.score for sign, part in zip(signs, parts, strict=True)] for _, parts in answers])
        scaled = self._on_one_scale({place: [raw[:, place]] for place in range(len(self.members))})
        values = np.stack([scaled[place][0] for place in scaled])
        weights = np.array([member.weight for member in self.members])
        combined = self.reduction(values, weights)
        able = np.flatnonzero(np.isfinite(combined))  # what is said of the others `responses` knows
        spread = values[:, able].std(axis=0).tolist()
        records = {}
        for k, apart in zip(able.tolist(), spread, strict=True):
            i, parts = answers[k]
            details = dict(enumerate(parts))
            entries = {
                place: _entry_of(part, {"score": part.score, "normalized": float(values[place, k])})
                for place, part in details.items()
            }
            records[i] = self._summary(float(combined[k]), details, entries, {}, apart)
        return records

    def _raw(self, member: Member, conversation: Conversation, result: Result) -> Floats:
        return raw_values(member, conversation, result, by_step=self.kind == "process")

    def _on_one_scale(self, raw: ByPlace[list[Floats]]) -> ByPlace[list[Floats]]:
        fitted = self.statistics
        return {
            place: [normalized(values, self.scale, None if fitted is None else fitted[place]) for values in each]
            for place, each in raw.items()
        }

    def _response(
        self,
        conversation: Conversation,
        details: ByPlace[ScoreDetails],
        values: ByPlace[Floats],
        failed: ByPlace[Exception],
        how: str | None,
    ) -> ScoreDetails:
        """One score from the members' values of one response, which with `how` are those of its steps."""
        stacked = np.stack(list(values.values()))
        combined = self._reduced(stacked, details)
        spread = stacked.std(axis=0)
        entries: ByPlace[dict[str, Any]] = {}
        for place, part in details.items():
            numbers: dict[str, Any] = {"score": part.score, "normalized": float(values[place][0])}
            if how is not None:
                numbers |= {"step_scores": part.step_scores, "normalized": values[place].tolist()}
            entries[place] = _entry_of(part, numbers)
        summary = self._summary(combined[0], details, entries, failed, float(spread.mean()))
        if how is None:
            return summary
        steps = combined.tolist()
        score = self._finite(aggregate(steps, how))
        spans = conversation.step_spans
        return replace(
            summary,
            score=score,
            normalized_score=in_unit_interval(score, self.score_range),
            step_scores=steps,
            step_spans=None if spans is None else [list(span) for span in spans],
            extra={**summary.extra, "step_spread": spread.tolist()},
        )

    # -- models that compare -----------------------------------------------------------------------------------------

    def pair(self, results: Sequence[Result]) -> ScoreDetails:
        """One probability from each member's.

        `a` has the members' probabilities p, `b` has 1 - p; both are reduced, and the difference of the two lies
        evenly around a half. So the answer for (b, a) is one minus the answer for (a, b) under every reduction, and
        for the mean it is the mean of the probabilities.
        """
        details, failed = self._present(lambda member: _finite_details(member, results[member.place]))
        first = np.array([part.score for part in details.values()])
        both = np.stack([first, 1.0 - first], axis=1)
        if self.reduction.name == "vote":
            both = ranks(both)
        a, b = self._reduced(both, details)
        probability = sigmoid(a - b) if self.reduction.name == "vote" else (1.0 + a - b) / 2.0
        entries = {place: {**part.extra, "score": part.score} for place, part in details.items()}
        return self._summary(probability, details, entries, failed, float(first.std()))

    def ranking(self, results: Sequence[Result], n_responses: int) -> ScoreDetails:
        """One score a response from the scores that each member ranks by."""
        details, failed = self._present(lambda member: self._scores_of(member, results[member.place], n_responses))
        signs = np.array([self.members[place].sign for place in details])
        values = signs[:, None] * np.array([part.scores for part in details.values()])
        if self.reduction.name == "vote":
            values = ranks(values)
        scores = self._reduced(values, details).tolist()
        entries = {place: {**part.extra, "scores": part.scores} for place, part in details.items()}
        spread = values.std(axis=0)
        summary = self._summary(max(scores), details, entries, failed, float(spread.mean()))
        return replace(summary, scores=scores)

    def _scores_of(self, member: Member, result: Result, n_responses: int) -> ScoreDetails:
        details = _finite_details(member, result)
        if len(details.scores or ()) != n_responses:
            raise BackendError(f"{member.name} gave {len(details.scores or ())} scores for {n_responses} responses.")
        return details

    # -- both --------------------------------------------------------------------------------------------------------

    def _present(self, read: Callable[[Member], T]) -> tuple[ByPlace[T], ByPlace[Exception]]:
        """What is read of each member's answer, and the failures.

        Raises:
            BackendError: fewer members answered than the quorum.
        """
        present: ByPlace[T] = {}
        failed: ByPlace[Exception] = {}
        for member in self.members:
            try:
                present[member.place] = read(member)
            except Exception as error:  # a member of a user's own may fail in any way
                failed[member.place] = error
        failure = failure_among(failed.values())
        if self.quorum is None and failure is not None:
            raise failure
        if self.quorum is not None and len(present) < self.quorum:
            reasons = "; ".join(
                f"{self.members[place].name}: {type(error).__name__}: {_message(error)}"
                for place, error in failed.items()
            )
            raise BackendError(
                f"{len(present)} of {len(self.members)} members answered, {self.quorum} must. Failed: {reasons}"
            ) from next(iter(failed.values()))
        return present, failed

    def _reduced(self, values: Floats, present: Mapping[int, Any]) -> Floats:
        """[n_present, n] -> [n]."""
        reduced = self.reduction(values, np.array([self.members[place].weight for place in present]))
        for value in reduced:
            self._finite(value)
        return reduced

    def _finite(self, score: float) -> float:
        if not math.isfinite(score):
            raise BackendError(f"The scores of the members combine to {score}, which is not a score.")
        return float(score)

    def _summary(
        self,
        score: float,
        details: ByPlace[ScoreDetails],
        entries: ByPlace[dict[str, Any]],
        failed: ByPlace[Exception],
        spread: float,
    ) -> ScoreDetails:
        joined = joined_details(list(details.values()))
        backends = {part.backend for part in details.values()}
        return joined.changed(
            score=float(score),
            normalized_score=in_unit_interval(score, self.score_range),
            family=None,
            backend=backends.pop() if len(backends) == 1 else None,
            model=self.name,
            revision=None,
            scores=None,
            extra={"members": [self._entry(member, entries, failed) for member in self.members], "spread": spread},
        )

    @cached_property
    def _known(self) -> list[dict[str, Any]]:
        """What is said of each member whatever it answered."""
        return [{"name": m.name, "family": m.rm.family, "weight": m.weight} for m in self.members]

    def _entry(self, member: Member, entries: ByPlace[dict[str, Any]], failed: ByPlace[Exception]) -> dict[str, Any]:
        known = self._known[member.place]
        if member.place in entries:
            return {**known, **entries[member.place], **known}  # nothing of a member's own takes its name
        error = failed[member.place]
        return {**known, "error": {"type": type(error).__name__, "message": _message(error)}}


def raw_values(member: Member, conversation: Conversation, result: Result, *, by_step: bool) -> Floats:
    """A member's score as [1], or its step scores as [n_steps]; higher is better.

    Raises:
        BackendError: what it gave is not usable; else the member's own error.
    """
    details = required(result)
    if not by_step:
        scores: Sequence[float] = [details.score]
    else:
        scores, n_steps = details.step_scores or [], len(conversation.steps or ())
        if len(scores) != n_steps:
            raise BackendError(f"{member.name} gave {len(scores)} step scores for {n_steps} steps.")
    values = member.sign * np.array(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise BackendError(f"{member.name} gave {list(scores)}: not all of it is finite.")
    return values


def _has_score(result: Result) -> bool:
    return isinstance(result, ScoreDetails) and isinstance(result.score, float) and math.isfinite(result.score)


def _entry_of(part: ScoreDetails, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What a member's own details and its numbers say of it."""
    own = {} if part.attributes is None else {"attributes": part.attributes}
    return {**own, **part.extra, **numbers}


def _finite_details(member: Member, result: Result) -> ScoreDetails:
    """The details of a member that compares: a vote or a median would pass over what is not finite in silence."""
    details = required(result)
    numbers = [details.score, *(details.scores or ())]
    if not np.isfinite(numbers).all():
        raise BackendError(f"{member.name} gave {numbers}: not all of it is finite.")
    return details


def joined_responses(parts: Sequence[ScoreDetails]) -> ScoreDetails:
    """The details of several responses to one prompt, whose members are the same, as one record."""
    entries = []
    for same in zip(*(part.extra["members"] for part in parts), strict=True):
        entry = {name: same[0][name] for name in ("name", "family", "weight")}
        if "error" in same[0]:
            entry["error"] = same[0]["error"]
        else:
            entry |= {"scores": [e["score"] for e in same], "normalized": [e["normalized"] for e in same]}
        entries.append(entry)
    spread = [part.extra["spread"] for part in parts]
    return replace(joined_details(parts), extra={"members": entries, "spread": sum(spread) / len(spread)})


def one_by_one(n: int, combine: Callable[[int], ScoreDetails]) -> list[Result]:
    """The results of `combine` for each place; a failure is its place's result."""
    results: list[Result] = []
    for i in range(n):
        try:
            results.append(combine(i))
        except Exception as error:  # a member of a user's own may have failed in any way
            results.append(error)
    return results


def _votes(raw: ByPlace[list[Floats]], how: str) -> ByPlace[list[Floats]]:
    """For each member and response [1]: the share of the other responses that it is better than."""
    single = [[aggregate(values.tolist(), how) for values in each] for each in raw.values()]
    return {place: list(row[:, None]) for place, row in zip(raw, ranks(np.array(single)), strict=True)}


def _message(error: Exception) -> str:
    return error.message if isinstance(error, RewardHubError) else str(error)
