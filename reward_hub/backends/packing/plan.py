"""Which tokens go through the model, and in which forwards: every conversation without padding, what they share once.

All conversations of a plan become one row of tokens. It is made of segments. A segment holds the tokens of one
conversation from some depth on: from the beginning, or from where the conversation leaves another one that stands in
the row already. Each segment is causal by itself; a `Link` lets the tokens below it look back at what they share.

    best of 3, prompt P:      row   P a0 | a1 | a2         segments (P a0), (a1), (a2);   link: a1 a2 look at P
    growing conversations:    row   t1 t2 t3               one segment; the shorter ones are read inside it
    steps read by prefix:     row   s1 s2 s3 E | E | E     links: each E looks at its part of the first segment

The row is cut into forwards of at most `max_tokens` tokens. What a later forward looks back at is in an earlier one's
`keep`: its keys and values are kept and nothing is computed twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# Conversations that are planned together where the caller sets no number: their tokens are held in memory at once.
CONVERSATIONS = 1024
# A shared beginning shorter than this is not worth a link, whatever the model.
LEAST_SHARED = 16


class Span(NamedTuple):
    """Places from `start` up to `stop`."""

    start: int
    stop: int

    def __and__(self, other: Span) -> Span:
        """What both hold; empty where `stop <= start`."""
        return Span(max(self.start, other.start), min(self.stop, other.stop))

    def before(self, place: int) -> Span:
        return Span(self.start, min(self.stop, place))

    @property
    def size(self) -> int:
        return max(0, self.stop - self.start)


class Link(NamedTuple):
    """Queries that see, beside their own segment, all of these keys. Both are places in the row of the plan."""

    queries: Span
    keys: Span


class ReadAt(NamedTuple):
    """Which position of which conversation (by its place among the positions) is read at a place in the row."""

    conversation: int
    position: int
    place: int


@dataclass(frozen=True)
class Costs:
    """What sharing costs, in tokens that could go through the model in the same time."""

    link: float = LEAST_SHARED
    row: float = 0.0
    """For each token that looks back."""

    def worth(self, saved: int, n_rows: int) -> bool:
        return saved >= max(LEAST_SHARED, self.link + self.row * n_rows)


@dataclass(frozen=True)
class Forward:
    """One row of tokens for the model: a part of the row of the plan.

    Attributes:
        span: its places in the row of the plan.
        segments: places; each sees itself causally and, but for the links, nothing else.
        links: in rounds, so that no query stands twice in one.
        keep: what later forwards look back at, here or before.
    """

    span: Span
    token_ids: list[int]
    position_ids: list[int]
    segments: list[Span]
    links: list[list[Link]]
    reads: list[ReadAt]
    keep: list[Span]


@dataclass(frozen=True)
class Plan:
    """The forwards for some conversations, in the order in which they are to be run.

    Attributes:
        conversations: their indices.
        n_tokens: of all conversations.
        n_unique: that go through the model.
    """

    conversations: list[int]
    n_tokens: int
    n_unique: int
    forwards: list[Forward]


def plans(
    token_ids: Sequence[list[int]],
    positions: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    conversations: int | None = None,
    costs: Costs | None = None,
) -> Iterator[Plan]:
    """Plan conversations so that those with a common beginning come together.

    Args:
        token_ids: of each conversation, at least one.
        positions: of each conversation, those at which the hidden vectors are read.
        max_tokens: of one forward.
        conversations: of one plan.
        costs: None: nothing is shared but what costs nothing, a conversation that is the beginning of another.
    """
    order = sorted(range(len(token_ids)), key=lambda i: token_ids[i])
    size = conversations or CONVERSATIONS
    for start in range(0, len(order), size):
        yield _plan(order[start : start + size], token_ids, positions, max_tokens, costs)


def _plan(
    order: list[int],
    token_ids: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    max_tokens: int,
    costs: Costs | None,
) -> Plan:
    """One plan for conversations in lexicographic order."""
    row = _Row(_tree([token_ids[i] for i in order], costs))
    reads = sorted(
        (
            ReadAt(order[i], index, _place(row.paths[i], position))
            for i in range(len(order))
            for index, position in enumerate(positions[order[i]])
        ),
        key=lambda read: read.place,
    )
    forwards = _forwards(row, [token_ids[i] for i in order], reads, max_tokens)
    return Plan(order, sum(len(token_ids[i]) for i in order), row.size, forwards)


# What conversations share, as a tree ------------------------------------------------------------------------------


@dataclass(eq=False)
class _Node:
    """Where conversations part from each other, or where one of them ends.

    Attributes:
        depth: how many tokens stand before it.
        ends: conversations that end here or, being the beginning of this one, above.
        n_below: tokens between it and all ends below it.
    """

    depth: int
    children: list[_Node] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    n_below: int = 0

    def size_of(self, child: _Node) -> int:
        return child.depth - self.depth + child.n_below


def _tree(sequences: list[Sequence[int]], costs: Costs | None) -> _Node:
    """The tree of sequences in lexicographic order, with those branchings alone that pay."""
    root = _Node(0)
    stack, waiting = [root], list[int]()
    common = 0  # what the last sequence of its own in the tree shares with this one
    for i, sequence in enumerate(sequences):
        following = _n_common(sequence, sequences[i + 1]) if i + 1 < len(sequences) else 0
        waiting.append(i)
        if following == len(sequence) and i + 1 < len(sequences):
            continue  # the beginning of the next one: it is read there
        _hang(stack, _Node(len(sequence), ends=waiting), common)
        common, waiting = following, []
    _keep_what_pays(root, costs)
    return root


def _hang(stack: list[_Node], leaf: _Node, common: int) -> None:
    """Put a leaf under the last path (the stack) at the depth that both have in common."""
    while stack[-1].depth > common:
        node = stack.pop()
        if stack[-1].depth < common:
            stack[-1].children[-1] = _Node(common, [node])
            stack.append(stack[-1].children[-1])
    stack[-1].children.append(leaf)
    stack.append(leaf)


def _keep_what_pays(root: _Node, costs: Costs | None) -> None:
    """Dissolve each branching that saves less than it costs into the one above it; count the tokens below each."""
    nodes = [root]
    for node in nodes:
        nodes += node.children
    for node in reversed(nodes):
        children: list[_Node] = []
        for child in node.children:
            if not child.children or (costs is not None and _pays(child, node, costs)):
                children.append(child)
            else:
                children += child.children
        node.children = sorted(children, key=node.size_of, reverse=True)
        node.n_below = sum(node.size_of(child) for child in children)


def _pays(node: _Node, above: _Node, costs: Costs) -> bool:
    """Whether its children are better computed from here on than each from the branching above."""
    saved = (node.depth - above.depth) * (len(node.children) - 1)
    return costs.worth(saved, node.n_below - node.size_of(node.children[0]))


def _n_common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


# The tree as one row ----------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """Tokens of a conversation from one depth to another, and where the first of them stands in the row."""

    depths: Span
    place: int


class _Segment(NamedTuple):
    conversation: int
    depth: int
    span: Span
    level: int


class _Row:
    """The tree laid out depth first: what looks back at a segment follows it at once.

    Attributes:
        segments: in their order.
        links: of each level, those that look back at a segment of that level.
        paths: of each conversation, its parts.
    """

    def __init__(self, root: _Node) -> None:
        self.size = 0
        self.segments: list[_Segment] = []
        self.links: dict[int, list[Link]] = {}
        self.paths: dict[int, tuple[_Part, ...]] = {}
        for child in root.children:
            self._add(child, 0, 0, ())

    def _add(self, node: _Node, depth: int, level: int, path: tuple[_Part, ...]) -> None:
        """A segment from this depth on along the largest children, and behind it whatever leaves it."""
        along = [node]
        while along[-1].children:
            along.append(along[-1].children[0])
        leaf, start = along[-1], self.size
        self.size += leaf.depth - depth
        self.segments.append(_Segment(leaf.ends[-1], depth, Span(start, self.size), level))
        own = (*path, _Part(Span(depth, leaf.depth), start))
        self.paths |= dict.fromkeys(leaf.ends, own)
        for parting in along[:-1]:
            before = self.size
            for child in parting.children[1:]:
                self._add(child, parting.depth, level + 1, (*path, _Part(Span(depth, parting.depth), start)))
            keys = Span(start, start + parting.depth - depth)
            self.links.setdefault(level, []).append(Link(Span(before, self.size), keys))


def _place(path: Iterable[_Part], position: int) -> int:
    return next(part.place + position - part.depths.start for part in path if position < part.depths.stop)


# The row as forwards ----------------------------------------------------------------------------------------------


def _forwards(row: _Row, sequences: Sequence[Sequence[int]], reads: list[ReadAt], max_tokens: int) -> list[Forward]:
    """Cut the row. A segment is cut only where it is longer than a forward; its parts then look back at each other."""
    cut: list[list[_Segment]] = []
    links = {level: list(of_level) for level, of_level in row.links.items()}
    room = 0
    for segment in row.segments:
        for piece in _pieces(segment, max_tokens):
            if piece.span.size > room:
                cut.append([])
                room = max_tokens
            cut[-1].append(piece)
            room -= piece.span.size
            if piece.span.start > segment.span.start:
                links.setdefault(segment.level, []).append(Link(piece.span, segment.span.before(piece.span.start)))
    spans = [Span(pieces[0].span.start, pieces[-1].span.stop) for pieces in cut]
    rounds = [_rounds(links, span) for span in spans]
    keeps = _keeps(spans, rounds)
    in_order = iter(reads)
    waiting = next(in_order, None)
    forwards = []
    for pieces, span, linked, keep in zip(cut, spans, rounds, keeps, strict=True):
        here: list[ReadAt] = []
        while waiting is not None and waiting.place < span.stop:
            here.append(waiting)
            waiting = next(in_order, None)
        depths = [Span(piece.depth, piece.depth + piece.span.size) for piece in pieces]
        ids = [sequences[piece.conversation][slice(*part)] for piece, part in zip(pieces, depths, strict=True)]
        forwards.append(
            Forward(
                span=span,
                token_ids=list(itertools.chain.from_iterable(ids)),
                position_ids=[position for part in depths for position in range(*part)],
                segments=[piece.span for piece in pieces],
                links=linked,
                reads=here,
                keep=keep,
            )
        )
    return forwards


def _pieces(segment: _Segment, max_tokens: int) -> Iterator[_Segment]:
    """The segment, in parts of about the same size where it is longer than a forward."""
    n_parts = -(-segment.span.size // max_tokens)
    for i in range(n_parts):
        start, stop = (segment.span.size * j // n_parts for j in (i, i + 1))
        span = Span(segment.span.start + start, segment.span.start + stop)
        yield _Segment(segment.conversation, segment.depth + start, span, segment.level)


def _rounds(links: dict[int, list[Link]], span: Span) -> list[list[Link]]:
    """The links of one forward, each with those of its queries that stand in it."""
    rounds = []
    for level in sorted(links):
        inside = [Link(link.queries & span, link.keys) for link in links[level]]
        rounds.append([link for link in inside if link.queries.size])
    return [links_of_level for links_of_level in rounds if links_of_level]


def _keeps(spans: list[Span], rounds: list[list[list[Link]]]) -> list[list[Span]]:
    """For each forward, the places up to its end that forwards behind it look back at."""
    keeps: list[list[Span]] = []
    needed: list[Span] = []
    for span, linked in zip(reversed(spans), reversed(rounds), strict=True):
        keeps.append(_union(keys.before(span.stop) for keys in needed))
        needed = [*keeps[-1], *(link.keys for links in linked for link in links)]
    return keeps[::-1]


def _union(spans: Iterable[Span]) -> list[Span]:
    joined: list[Span] = []
    for span in sorted(span for span in spans if span.size):
        if joined and span.start <= joined[-1].stop:
            joined[-1] = Span(joined[-1].start, max(joined[-1].stop, span.stop))
        else:
            joined.append(span)
    return joined
