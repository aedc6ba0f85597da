"""A conversation that grows step by step is rendered once: the text and the ends of its steps are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import cast

import pytest
from golden_sets import OWN
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_hub.encoding import tokens_before, tokens_ending_by
from reward_hub.errors import CheckpointError, InvalidConversationError
from reward_hub.families import rlhflow_prm
from reward_hub.families.rlhflow_prm import WORDS, grown_at_once, grown_by_steps
from reward_hub.family import Rendering, Setup, WatchedTokenizer
from reward_hub.tokenizer import Tokenizer, load_tokenizer
from reward_hub.types import Conversation, Message

TURN = "<|start_header_id|>{{ m['role'] }}\n{{ m['content'] }}<|eot_id|>"
LAST = "{{ 'as the last: ' if loop.last else '' }}"
TEMPLATES = {
    "its own": None,
    "turns": "{% for m in messages %}" + TURN + "{% endfor %}",
    "trims": "{% for m in messages %}{{ '<|start_header_id|>' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}",
    "escapes": "{% for m in messages %}{{ '<|start_header_id|>' + m['content'] | e + '<|eot_id|>' }}{% endfor %}",
    "numbers": "{% for m in messages %}{{ loop.index }}: {{ m['content'] }}<|eot_id|>{% endfor %}",
    "last one": "{% for m in messages %}" + LAST + TURN + "{% endfor %}",
    "counts": "{{ messages | length }}{% for m in messages %}" + TURN + "{% endfor %}",
    "cuts": "{% for m in messages %}{{ '<|start_header_id|>' + m['content'][:12] + '<|eot_id|>' }}{% endfor %}",
    "refuses": "{% for m in messages %}{% if 'zq' in m['content'] %}{{ raise_exception('no') }}{% endif %}" + TURN
    + "{% endfor %}",
}  # fmt: skip
PIECES = ["1 + 1 = 2", " ", "\n", "+", "<|eot_id|>", "<|start_header_id|>user\n", "é∑", "zqstepax", "so", "<b>"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)


@cache
def tokenizer(template: str) -> Tokenizer:
    return load_tokenizer(OWN / "rlhflow-prm", chat_template=TEMPLATES[template])


def renderer(template: str, question: str) -> Callable[[Sequence[str]], str]:
    def render(steps: Sequence[str]) -> str:
        turns = [Message("user", question)]
        for step in steps:
            turns += [Message("user", step), Message("assistant", "+")]
        return tokenizer(template).render(turns)

    return render


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=25)
@given(question=TEXTS, steps=st.lists(TEXTS, min_size=1, max_size=12))
def test_one_rendering_tells_what_growing_ones_tell(template: str, question: str, steps: list[str]) -> None:
    render = renderer(template, question)
    try:
        expected = grown_by_steps(render, steps)
    except (CheckpointError, InvalidConversationError) as error:
        try:
            assert grown_at_once(render, steps) is None
        except InvalidConversationError as other:
            assert str(other) == str(error)
    else:
        assert grown_at_once(render, steps) in (None, expected)


@pytest.mark.parametrize("template", ["its own", "turns", "trims"])
def test_many_steps_are_rendered_as_often_as_five(template: str) -> None:
    seen = {n: renderings(template, n) for n in (5, 200)}
    assert len(seen[200]) == len(seen[5]) == len(WORDS) + 1
    assert seen[200][0].messages[-2].content == "step 199"


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=25)
@given(
    opening=st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXTS), max_size=3),
    question=TEXTS,
    steps=st.lists(TEXTS, min_size=5, max_size=12),
)
def test_ids_and_positions_are_those_of_growing_renderings(
    template: str, opening: list[Message], question: str, steps: list[str]
) -> None:
    given = (*opening, Message("user", question), Message("assistant", "".join(steps)))
    setup = Setup(tokenizer(template), {}, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rlhflow_prm, "grown_at_once", lambda render, steps: None)
        expected = outcome(Conversation(given, steps=tuple(steps)), setup)
    assert outcome(Conversation(given, steps=tuple(steps)), setup) == expected


@given(widths=st.lists(st.integers(0, 3), max_size=20), gaps=st.lists(st.integers(0, 2), min_size=20), ends=st.data())
def test_tokens_are_counted_as_one_character_after_the_other_tells(
    widths: list[int], gaps: list[int], ends: st.DataObject
) -> None:
    offsets, place = [], 0
    for width, gap in zip(widths, gaps, strict=False):
        offsets.append((place + gap, place + gap + width))
        place += gap + width
    characters = sorted(ends.draw(st.lists(st.integers(0, place + 2), max_size=8)))
    before = [
        next((i for i, (begin, end) in enumerate(offsets) if end > begin >= character), len(offsets))
        for character in characters
    ]
    ending = [
        next((i for i, (_, end) in enumerate(offsets) if end > character), len(offsets)) for character in characters
    ]
    assert tokens_before(offsets, characters) == before
    assert tokens_ending_by(offsets, characters) == ending


def renderings(template: str, n_steps: int) -> list[Rendering]:
    watched = WatchedTokenizer(tokenizer(template))
    steps = tuple(f"step {i}" for i in range(n_steps))
    conversation = Conversation((Message("user", "q"), Message("assistant", "r")), steps=steps)
    rlhflow_prm.encode(conversation, Setup(cast("Tokenizer", watched), {}, {}))
    return watched.renderings


def outcome(conversation: Conversation, setup: Setup) -> object:
    try:
        return rlhflow_prm.encode(conversation, setup)
    except (CheckpointError, InvalidConversationError) as error:
        return str(error)
