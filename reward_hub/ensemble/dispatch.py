"""What the members of an ensemble are asked, and how: those on servers at once, those in this process in turn.

Models in one process share its CPU or GPU, and two of them at once are no faster than one after the other. A server
has its own. Without members on servers a synchronous call stays in the thread it was made in.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from reward_hub.base import BaseRM, CallOptions, Result
from reward_hub.ensemble.members import Member
from reward_hub.errors import BackendError, RewardHubError
from reward_hub.loops import start
from reward_hub.types import Conversation, Message, Pair

Answers: TypeAlias = list[list[Result]]
"""One list of results for each member, in the members' order."""


@dataclass(frozen=True)
class Question:
    """One thing asked of each member, from synchronous and from asynchronous code."""

    ask: Callable[[Member], list[Result]]
    aask: Callable[[Member], Awaitable[list[Result]]]


def asked(members: Sequence[Member], question: Question) -> Answers:
    """Ask every member from synchronous code."""
    there, here = _places(members)
    if len(members) == 1 or not there:
        return [question.ask(member) for member in members]
    waiting = start(_side_by_side([[member] for member in there], question))
    try:
        found = [(member.place, question.ask(member)) for member in here]
        return _in_order(found + waiting.result())
    except BaseException:
        waiting.cancel()
        raise


async def aasked(members: Sequence[Member], question: Question) -> Answers:
    """Ask every member from asynchronous code."""
    there, here = _places(members)
    return _in_order(await _side_by_side([*([member] for member in there), here], question))


def _places(members: Sequence[Member]) -> tuple[list[Member], list[Member]]:
    on_server = [member.on_server for member in members]
    there = [member for member, remote in zip(members, on_server, strict=True) if remote]
    return there, [member for member, remote in zip(members, on_server, strict=True) if not remote]


async def _side_by_side(groups: Sequence[list[Member]], question: Question) -> list[tuple[int, list[Result]]]:
    """Groups run together, the members of a group in turn."""
    from reward_hub.loops import in_order

    async def in_turn(group: list[Member]) -> list[tuple[int, list[Result]]]:
        return [(member.place, await question.aask(member)) for member in group]

    return [answer for group in await in_order([in_turn(group) for group in groups]) for answer in group]


def _in_order(found: list[tuple[int, list[Result]]]) -> Answers:
    return [results for _, results in sorted(found, key=lambda answer: answer[0])]


# -- the three questions ---------------------------------------------------------------------------------------------


def scoring(conversations: Sequence[Conversation], options: CallOptions, *, by_steps: bool) -> Question:
    """Score conversations.

    Args:
        options: with `on_error="none"` a member that fails as a whole has failed at each conversation.
        by_steps: the conversations are cut into steps already; else a process model cuts them as it does by itself.
    """

    def ask(member: Member) -> list[Result]:
        ready = _Prepared.of(member, conversations, options, by_steps=by_steps)
        try:
            return ready.merged(member.rm._score_many(ready.conversations, options) if ready.conversations else [])
        except Exception as error:
            return ready.merged(_failed(error, member, len(ready.conversations), options))

    async def aask(member: Member) -> list[Result]:
        ready = _Prepared.of(member, conversations, options, by_steps=by_steps)
        asked = ready.conversations
        try:
            return ready.merged(await member.rm._ascore_many(asked, options) if asked else [])
        except Exception as error:
            return ready.merged(_failed(error, member, len(asked), options))

    return Question(ask, aask)


def comparing(pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> Question:
    """Compare the responses of pairs, with models that compare."""
    return _as_a_whole(
        len(pairs),
        options,
        lambda rm: rm._compare_many(pairs, both_orders, options),
        lambda rm: rm._acompare_many(pairs, both_orders, options),
    )


def ranking(prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Question:
    """Rank responses, with models that compare; each member's one result holds a score for each response."""

    async def arank(rm: BaseRM) -> list[Result]:
        return [await rm._arank(prompt, responses)]

    return _as_a_whole(1, options, lambda rm: [rm._rank(prompt, responses)], arank)


def _as_a_whole(
    n: int,
    options: CallOptions,
    ask: Callable[[BaseRM], list[Result]],
    aask: Callable[[BaseRM], Awaitable[list[Result]]],
) -> Question:
    """A question with `n` results, put to a member as it is."""

    def guarded(member: Member) -> list[Result]:
        try:
            return _counted(ask(member.rm), n)
        except Exception as error:
            return _failed(error, member, n, options)

    async def aguarded(member: Member) -> list[Result]:
        try:
            return _counted(await aask(member.rm), n)
        except Exception as error:
            return _failed(error, member, n, options)

    return Question(guarded, aguarded)


def _counted(results: list[Result], n: int) -> list[Result]:
    if len(results) != n:
        raise BackendError(f"gave {len(results)} results for {n}.")
    return results


def _failed(error: Exception, member: Member, n: int, options: CallOptions) -> list[Result]:
    """The failure of a member as a whole: raised, or the result of everything it was asked."""
    if options.on_error == "raise":
        error.add_note(f"(raised by {member.name}, member {member.place} of an ensemble)")
        raise error
    return [error] * n


@dataclass(frozen=True)
class _Prepared:
    """Conversations as one member takes them, and those that it cannot."""

    conversations: list[Conversation]
    failed: dict[int, Exception]

    @classmethod
    def of(
        cls, member: Member, conversations: Sequence[Conversation], options: CallOptions, *, by_steps: bool
    ) -> _Prepared:
        if by_steps or not member.gives_steps:
            return cls(list(conversations), {})
        ready = cls([], {})
        for i, conversation in enumerate(conversations):
            try:
                ready.conversations.extend(member.rm._with_steps([conversation], replace(options, first_index=None)))
            except RewardHubError as error:
                if options.on_error == "raise":
                    if options.first_index is not None:
                        error.index = options.first_index + i  # type: ignore[attr-defined]
                    raise
                ready.failed[i] = error
        return ready

    def merged(self, results: Sequence[Result]) -> list[Result]:
        given = iter(_counted(list(results), len(self.conversations)))
        return [self.failed[i] if i in self.failed else next(given) for i in range(len(results) + len(self.failed))]


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
