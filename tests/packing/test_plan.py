"""Plans: every position is read once, behind exactly its conversation's tokens, and within the limits."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.backends.packing.plan import Costs, Forward, Plan, Span, plans

SHARE_ALL = Costs(link=0)


def seen_at(forwards: Sequence[Forward]) -> dict[int, list[tuple[int, int]]]:
    """For each place in the row: the (position, token id) that its query sees, itself among them, by position.

    What an earlier forward computed is seen only as far as it was kept.
    """
    seen: dict[int, list[tuple[int, int]]] = {}
    kept: dict[int, tuple[int, int]] = {}
    for forward in forwards:
        row = {
            forward.span.start + i: (position, token)
            for i, (position, token) in enumerate(zip(forward.position_ids, forward.token_ids, strict=True))
        }
        known = kept | row
        for segment in forward.segments:
            for place in range(*segment):
                seen[place] = [row[p] for p in range(segment.start, place + 1)]
        for links in forward.links:
            queries = [place for link in links for place in range(*link.queries)]
            assert len(queries) == len(set(queries)), "a query stands twice in one round"
            for link in links:
                assert link.keys.size
                for place in range(*link.queries):
                    assert place in row
                    seen[place] += [known[p] for p in range(*link.keys)]
        kept = {place: known[place] for span in forward.keep for place in range(*span)}
    return {place: sorted(pairs) for place, pairs in seen.items()}


def check(made: Sequence[Plan], token_ids: list[list[int]], positions: list[list[int]], max_tokens: int) -> None:
    assert sorted(i for plan in made for i in plan.conversations) == list(range(len(token_ids)))
    read = []
    for plan in made:
        sizes = [len(forward.token_ids) for forward in plan.forwards]
        assert all(size <= max_tokens for size in sizes)
        assert sum(sizes) == plan.n_unique <= plan.n_tokens == sum(len(token_ids[i]) for i in plan.conversations)
        assert [forward.span.size for forward in plan.forwards] == sizes
        seen = seen_at(plan.forwards)
        for forward in plan.forwards:
            assert forward.segments[0].start == forward.span.start
            for one, following in zip(forward.segments, forward.segments[1:], strict=False):
                assert one.stop == following.start
            for conversation, index, place in forward.reads:
                assert forward.span.start <= place < forward.span.stop
                position = positions[conversation][index]
                expected = list(enumerate(token_ids[conversation][: position + 1]))
                assert seen[place] == expected
                read.append((conversation, index))
    assert sorted(read) == [(i, j) for i, row in enumerate(positions) for j in range(len(row))]


# Few different tokens, so that beginnings are common, equal, and contained in each other.
CONVERSATIONS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


@given(CONVERSATIONS, st.integers(1, 20), st.one_of(st.none(), st.integers(1, 6)), st.booleans(), st.randoms())
def test_every_position_is_read_once_behind_its_own_tokens(
    token_ids: list[list[int]], max_tokens: int, size: int | None, share: bool, numbers: random.Random
) -> None:
    positions = [[numbers.randrange(len(ids)) for _ in range(numbers.randrange(4))] for ids in token_ids]
    costs = Everything() if share else None
    check(
        list(plans(token_ids, positions, max_tokens=max_tokens, conversations=size, costs=costs)),
        token_ids,
        positions,
        max_tokens,
    )


@given(st.integers(0, 10**6), st.integers(16, 200))
def test_groups_of_conversations_are_read_right_at_every_budget(seed: int, max_tokens: int) -> None:
    """Groups as they come: a common system prompt, prompts of groups, responses with common first words."""
    numbers = random.Random(seed)

    def some(n: int) -> list[int]:
        return [numbers.randrange(3, 500) for _ in range(n)]

    system, token_ids = some(numbers.randrange(30)), []
    for _ in range(numbers.randrange(1, 4)):
        prompt, opening = system + some(numbers.randrange(1, 60)), some(numbers.randrange(3))
        for _ in range(numbers.randrange(1, 6)):
            token_ids.append(prompt + opening * numbers.randrange(2) + some(numbers.randrange(1, 30)))
    numbers.shuffle(token_ids)
    positions = [[len(ids) - 1] for ids in token_ids]
    made = list(plans(token_ids, positions, max_tokens=max_tokens, costs=Costs()))
    check(made, token_ids, positions, max_tokens)
    alone = sum(plan.n_unique for plan in plans(token_ids, positions, max_tokens=max_tokens))
    assert sum(plan.n_unique for plan in made) <= alone


class Everything(Costs):
    """Whatever can be shared is shared."""

    def worth(self, saved: int, n_rows: int) -> bool:
        return True


def test_best_of_n_computes_the_prompt_once() -> None:
    prompt = list(range(100))
    token_ids = [[*prompt, 200 + i, *range(300, 320)] for i in range(4)]
    (plan,) = plans(token_ids, [[120]] * 4, max_tokens=1000, costs=Costs())
    (forward,) = plan.forwards
    assert plan.n_unique == 100 + 4 * 21
    assert forward.segments == [Span(0, 121), Span(121, 142), Span(142, 163), Span(163, 184)]
    assert forward.links == [[(Span(121, 184), Span(0, 100))]]


def test_a_conversation_that_begins_another_costs_nothing() -> None:
    turns = list(range(50))
    token_ids = [turns[:10], turns, turns[:30], turns[:30]]
    (plan,) = plans(token_ids, [[9], [49], [29], [3]], max_tokens=100)
    assert plan.n_unique == 50
    assert plan.forwards[0].segments == [Span(0, 50)]
    assert sorted((read.conversation, read.place) for read in plan.forwards[0].reads) == [
        (0, 9),
        (1, 49),
        (2, 29),
        (3, 3),
    ]


def test_steps_read_by_prefix_hang_on_one_segment() -> None:
    steps = [list(range(100 * i, 100 * i + 40)) for i in range(5)]
    end = [7, 8]
    token_ids = [[t for step in steps[:k] for t in step] + end for k in range(1, 6)]
    (plan,) = plans(token_ids, [[len(ids) - 1] for ids in token_ids], max_tokens=1000, costs=Costs())
    (forward,) = plan.forwards
    assert plan.n_unique == 200 + 5 * 2
    assert len(forward.segments) == 5
    assert [len(links) for links in forward.links] == [4]


def test_a_common_beginning_that_saves_too_little_is_not_shared() -> None:
    token_ids = [[*range(15), 100 + i, 200] for i in range(2)]
    (plan,) = plans(token_ids, [[16]] * 2, max_tokens=100, costs=Costs())
    assert plan.n_unique == 34
    (plan,) = plans(token_ids * 1 + [[*range(15), 300]], [[15]] * 3, max_tokens=100, costs=Costs())
    assert plan.n_unique == 17 + 2 + 1


def test_a_group_over_the_budget_keeps_its_prompt_for_the_forwards_behind() -> None:
    prompt = list(range(64))
    token_ids = [[*prompt, 100 + i, *range(200, 215)] for i in range(16)]
    (plan,) = plans(token_ids, [[79]] * 16, max_tokens=80, costs=Costs())
    assert plan.n_unique == 64 + 16 * 16
    assert [len(forward.token_ids) for forward in plan.forwards] == [80, 80, 80, 80]
    assert [forward.keep for forward in plan.forwards] == [[Span(0, 64)]] * 3 + [[]]


@pytest.mark.parametrize("size", [1, 3])
def test_a_plan_holds_no_more_conversations_than_it_may(size: int) -> None:
    token_ids = [[1, 2, i] for i in range(8)]
    made = list(plans(token_ids, [[2]] * 8, max_tokens=100, conversations=size, costs=Costs()))
    assert max(len(plan.conversations) for plan in made) == size
