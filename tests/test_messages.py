"""What callers may pass as a conversation, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reward_hub import messages as border
from reward_hub.errors import InvalidConversationError

USER = {"role": "user", "content": "What is 2+2?"}
ASSISTANT = {"role": "assistant", "content": "4"}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("messages", "field", "words"),
    [
        ([], "messages", "no messages"),
        ("What is 2+2?", "messages", "prompt= and response="),
        ([USER], "messages[0].role", "role 'user'"),
        ([ASSISTANT], "messages", "no user message"),
        ([USER, {"role": "bot", "content": "4"}], "messages[1].role", "unknown role 'bot'"),
        ([USER, {"content": "4"}], "messages[1].role", "no role"),
        ([USER, {"role": "assistant"}], "messages[1].content", "no content"),
        ([USER, {"role": "assistant", "content": None}], "messages[1].content", "no content"),
        ([USER, {"role": "assistant", "content": 4}], "messages[1].content", "neither a text"),
        ([USER, {"role": "assistant", "content": [{"type": "image_url"}]}], "messages[1].content", "text parts"),
        ([USER, "4"], "messages[1]", "is str"),
        ([USER, {"role": "assistant", "content": "\ud800"}], "messages[1].content", "surrogate"),
        ([USER, ASSISTANT, {"role": "tool", "content": "ok"}], "messages[2].role", "role 'tool'"),
    ],
)
def test_a_conversation_that_cannot_be_scored_is_refused_with_its_place(messages, field, words):
    with pytest.raises(InvalidConversationError, match="conversation 3: ") as caught:
        border.parse(messages, index=3)
    assert caught.value.field == field
    assert caught.value.index == 3
    assert words in str(caught.value)


def test_text_parts_become_one_text():
    parts = [{"type": "text", "text": "2 + 2 "}, {"type": "text", "text": "= 4"}]
    assert border.parse([USER, {"role": "assistant", "content": parts}]).response == "2 + 2 = 4"


def test_tool_calls_are_kept_and_stand_for_content():
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "4"},
        ASSISTANT,
    ]
    assert border.parse(turns).messages[1].to_dict() == {"role": "assistant", "content": None, "tool_calls": [CALL]}


def test_other_keys_reach_the_template():
    parsed = border.parse([{**USER, "name": "Ada"}, {**ASSISTANT, "reasoning_content": "easy"}])
    assert [m.to_dict() for m in parsed.messages] == [
        {**USER, "name": "Ada"},
        {**ASSISTANT, "reasoning_content": "easy"},
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        {"messages": [USER, ASSISTANT], "prompt": "a"},
        {"prompt": "a"},
        {"response": "a"},
        {},
        {"prompt": 1, "response": "a"},
    ],
)
def test_prompt_and_response_come_together_and_alone(arguments):
    with pytest.raises(InvalidConversationError):
        border.parse(**arguments)


def test_an_empty_response_is_a_response():
    assert border.parse(prompt="Hi", response="").response == ""


def test_given_steps_must_stand_in_the_response_in_order():
    turns = [USER, {"role": "assistant", "content": "one\n\n two \n three"}]
    parsed = border.parse_steps(turns, steps=["one", "two", "", "three"], step_delimiter="\n\n")
    assert parsed.step_spans == ((0, 3), (6, 9), (9, 9), (12, 17))
    for wrong in (["two", "one"], ["one", "three"], ["one", "two"], ["one", "two", "three", "four"]):
        with pytest.raises(InvalidConversationError):
            border.parse_steps(turns, steps=wrong, step_delimiter="\n\n")


def test_given_steps_after_a_user_message_make_the_response():
    parsed = border.parse_steps([USER], steps=["a", "", "b"], step_delimiter="x")
    assert parsed.response == "a\n\n\n\nb"
    assert [parsed.response[start:end] for start, end in parsed.step_spans] == ["a", "", "b"]


@pytest.mark.parametrize("steps", [[], "abc", ["a", 1], [None]])
def test_steps_that_are_no_list_of_texts_are_refused(steps):
    with pytest.raises(InvalidConversationError):
        border.parse_steps([USER], steps=steps, step_delimiter="\n\n")


@given(st.text(alphabet="ab \n", max_size=40), st.sampled_from(["\n", "\n\n", "ab"]))
def test_a_split_drops_blank_pieces_and_keeps_the_others_as_they_are(response, delimiter):
    split = re.split("\n *\n", response) if delimiter == "\n\n" else response.split(delimiter)
    pieces = [piece for piece in split if piece.strip()]
    conversation = border.parse(prompt="Hi", response=response)
    if not pieces:
        with pytest.raises(InvalidConversationError, match="no step"):
            border.split_steps(conversation, delimiter)
        return
    parsed = border.split_steps(conversation, delimiter)
    assert list(parsed.steps) == pieces
    assert [response[start:end] for start, end in parsed.step_spans] == pieces


LINE_BREAKS = ("\n", "\r\n", "\r")
DELIMITERS = ("\n", "\n\n", "\n\n\n", "###", "\n---\n", "\n\nStep", " \n")


@given(
    st.lists(st.sampled_from(["a", "b ", " c", "---", "###", "Step", ""]), max_size=12),
    st.sampled_from(LINE_BREAKS),
    st.sampled_from(LINE_BREAKS),
    st.sampled_from(DELIMITERS),
)
@example(["a", "b"], "\r\n", "\n", "\n\n")  # one CRLF is one line break, not two
def test_steps_are_the_same_however_lines_end(lines, line_break, typed, delimiter):
    plain = steps_or_none("\n".join(lines), delimiter)
    other = steps_or_none(line_break.join(lines), delimiter.replace("\n", typed))
    assert other == (None if plain is None else [step.replace("\n", line_break) for step in plain])


@given(
    st.lists(st.sampled_from(["a", "b", "c"]) | st.sampled_from(["", " ", "\t", " \u00a0 ", "\x0b"]), max_size=12),
    st.sampled_from(LINE_BREAKS),
    st.sampled_from(["\n", "\n\n", "\n\n\n"]),
)
def test_white_space_in_blank_lines_makes_no_other_steps(lines, line_break, delimiter):
    plain = steps_or_none("\n".join(line.strip() for line in lines), delimiter)
    other = steps_or_none(line_break.join(lines), delimiter)
    assert stripped(other) == stripped(plain)


def steps_or_none(response, delimiter):
    """The steps, whose spans are exact; None where nothing is left."""
    try:
        parsed = border.split_steps(border.parse(prompt="Hi", response=response), delimiter)
    except InvalidConversationError:
        return None
    assert tuple(response[start:end] for start, end in parsed.step_spans) == parsed.steps
    return list(parsed.steps)


def stripped(steps):
    return None if steps is None else [step.split() for step in steps]


def test_a_long_blank_response_is_split_in_time_that_grows_with_its_length():
    response = "a\n" + " \n" * 100_000 + " " * 1_000_000 + "b"
    assert steps_or_none(response, "\n\n")[0] == "a"


@given(st.lists(st.text(alphabet="ab \n", max_size=6), min_size=1, max_size=6), st.sampled_from(["", " ", "\n\n"]))
def test_steps_joined_by_white_space_are_found_again(steps, gap):
    turns = [USER, {"role": "assistant", "content": gap.join(steps)}]
    parsed = border.parse_steps(turns, steps=steps, step_delimiter="\n\n")
    assert [parsed.response[start:end] for start, end in parsed.step_spans] == steps


@pytest.mark.parametrize(
    ("messages", "single"), [([USER, ASSISTANT], True), ([[USER, ASSISTANT]], False), ([], True), ("x", True)]
)
def test_one_conversation_is_told_from_several(messages, single):
    assert border.is_single(messages) is single


def test_the_prompt_of_a_comparison_does_not_end_with_an_answer():
    with pytest.raises(InvalidConversationError, match="give the prompt alone"):
        border.parse_prompt([USER, ASSISTANT])
    with pytest.raises(InvalidConversationError, match="a is NoneType"):
        border.parse_pair(prompt="Hi", a=None, b="")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"reasoning_content": "two and two"}, "has reasoning_content"),
        ({"tool_calls": [CALL], "name": "bob"}, "calls tools"),
        ({"content": [{"type": "text", "text": "4"}]}, "is not a text"),
    ],
)
def test_a_response_that_says_more_than_its_text_is_not_compared(more, words) -> None:
    conversations = [[USER, {**ASSISTANT, "tool_calls": None, "name": ""}], [USER, {**ASSISTANT, **more}]]
    with pytest.raises(InvalidConversationError, match=f"the response {words}; texts are compared") as error:
        border.prompt_and_responses(conversations)
    assert error.value.index == 1
    assert border.prompt_and_responses(conversations[:1]) == ([USER], ["4"])


class Text(str):
    """A text that is not quite a `str`."""


STRINGS = st.sampled_from(["", "4", "é∑", "\ud800", "user", Text("4"), Text("user")])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | STRINGS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(STRINGS | st.integers(0, 1), inner, max_size=2),
    max_leaves=4,
)
PARTS = st.fixed_dictionaries(
    {},
    optional={"type": st.sampled_from(["text", "image_url", Text("text"), 1]), "text": STRINGS | VALUES, "x": VALUES},
)
CALLS = st.lists(
    st.dictionaries(st.sampled_from(["id", "function", Text("id"), 1]), VALUES, max_size=2) | VALUES, max_size=2
)
RAW = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from([*border.ROLES, *border.ROLES, "bot", Text("user"), None, 1, []]),
        "content": STRINGS | st.lists(PARTS, max_size=2) | VALUES,
        "tool_calls": CALLS | VALUES,
        "name": VALUES,
        "tools": VALUES,
        "chat_template_kwargs": VALUES,
        Text("other"): VALUES,
        3: VALUES,
    },
) | VALUES  # fmt: skip


@settings(max_examples=500)
@given(st.lists(RAW, max_size=3))
@example([USER, {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "two and two"}])
@example([USER, {"role": "assistant", "content": [{"type": "text", "text": "4", "cache_control": {}}], "name": "Ann"}])
@example([{**USER, "tools": [{"name": "add"}], "chat_template_kwargs": {"x": 1}}, ASSISTANT])
def test_plain_messages_are_read_as_the_checked_ones_are(messages: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(border, "_plain_parts", lambda raw: None)
        expected = parsed(messages)
    assert parsed(messages) == expected


def parsed(messages: list[Any]) -> object:
    try:
        turns = border.parse_messages(messages, 3)
    except InvalidConversationError as error:
        return str(error), error.field, error.index
    return [(turn, type(turn.role), type(turn.content), type(turn.tool_calls), type(turn.extra)) for turn in turns]


def test_a_parsed_message_does_not_change_with_what_it_was_made_of() -> None:
    call, raw = dict(CALL), {"role": "assistant", "content": "4", "name": "Ann"}
    turns = border.parse_messages([USER, {**raw, "tool_calls": [call]}])
    call["id"], raw["name"] = "2", "Ben"
    assert turns[1].tool_calls == (CALL,)
    assert turns[1].extra == {"name": "Ann"}
