"""What the members of an ensemble are asked: those on servers all at once, those in this process in turn.

Models in one process share its CPU or GPU, and two of them at once are no faster than one after the other. A server
has its own. Without members on servers a synchronous call stays in the thread it was made in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from reward_hub.base import BaseRM
from reward_hub.ensemble.members import Member
from reward_hub.reward_model import CallOptions, Result, SkippedError, counted, each, first_failure, through
from reward_hub.types import Conversation, Message, Pair
from reward_hub.work import Work, together

MemberResults: TypeAlias = list[list[Result]]
"""One list of results for each member, in the members' order."""
Question: TypeAlias = Callable[[BaseRM], Work[list[Result]]]
"""What one member is asked."""


def ask_members(members: Sequence[Member], n: int, options: CallOptions, question: Question) -> Work[MemberResults]:
    """Ask every member for `n` results. One that fails as a whole has failed at each.

    Args:
        options: with `fail_fast` a failure ends what the others are doing.
    """

    def one(member: Member) -> Work[list[Result]]:
        results: list[Result]
        try:
            results = list(counted((yield from question(member.rm)), n))
        except Exception as error:
            results = [error] * n
        failure = first_failure(results)
        if failure is not None and options.fail_fast:
            failure[1].add_note(f"(raised by {member.name}, member {member.place} of an ensemble)")
            raise _MemberFailedError(member, results)
        return results

    try:
        return (yield from together([one(member) for member in members], [member.on_server for member in members]))
    except _MemberFailedError as failed:
        skipped: list[Result] = [SkippedError()] * n
        return [failed.results if member is failed.member else skipped for member in members]


class _MemberFailedError(Exception):
    """A member failed, and the ensemble with it."""

    def __init__(self, member: Member, results: list[Result]) -> None:
        super().__init__(member.name)
        self.member = member
        self.results = results


def scoring(conversations: Sequence[Conversation], options: CallOptions, *, by_steps: bool) -> Question:
    """Score conversations.

    Args:
        by_steps: the conversations are cut into steps already; else a process model cuts them as it does by itself.
    """

    def question(rm: BaseRM) -> Work[list[Result]]:
        whole = by_steps or not rm.capabilities.scores_steps
        ready = list(conversations) if whole else each(conversations, rm.with_steps, fail_fast=options.fail_fast)
        return through(ready, lambda able: rm.scoring_of(able, options), fail_fast=options.fail_fast)

    return question


def comparing(pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> Question:
    """Compare the responses of pairs, with models that compare."""
    return lambda rm: rm.comparison_of(pairs, both_orders, options)


def ranking(prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Question:
    """Rank responses, with models that compare; each member's one result holds a score for each response."""

    def question(rm: BaseRM) -> Work[list[Result]]:
        return [(yield from rm.ranking_of(prompt, responses, options))]

    return question


class SharedProgress:
    """A conversation is done when every member has scored it: `report` gets the whole ones."""

    def __init__(self, report: Callable[[int], None] | None, *, n_members: int, n_conversations: int) -> None:
        self._report = report
        self._n_members = n_members
        self._n_conversations = n_conversations
        self._scores = 0
        self._reported = 0
        self._lock = threading.Lock()

    def __call__(self, n: int) -> None:
        with self._lock:
            self._scores += n
            self._advance(min(self._scores // self._n_members, self._n_conversations))

    def finish(self) -> None:
        with self._lock:
            self._advance(self._n_conversations)

    def _advance(self, done: int) -> None:
        if self._report is not None and done > self._reported:
            self._report(done - self._reported)
            self._reported = done
