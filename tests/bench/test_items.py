"""Rows become items: every shape of responses, what a bad row says, and which form columns mean."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.bench.items import (
    READERS,
    Item,
    candidates_item,
    form_of,
    instruction_item,
    preference_item,
    process_item,
    read_items,
)
from reward_hub.data.rows import Row, RowFormatError
from reward_hub.errors import InvalidConversationError

USER = {"role": "user", "content": "2+2?"}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def messages_of(item: Item, name: str) -> list[list[tuple[str, str | None]]]:
    return [[(m.role, m.content) for m in c.messages] for c in item.conversations[name]]


def rows(*records: dict[str, Any]) -> list[Row]:
    return [Row(number, record) for number, record in enumerate(records, start=1)]


TURNS = [("user", "2+2?"), ("assistant", "4")]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        {"instruction": "2+2?", "chosen": ["4"], "rejected": ["5"]},
        {"input": "2+2?", "chosen": "4", "rejected": "5"},
        {"prompt": [USER], "chosen": "4", "rejected": "5"},
        {"prompt": [USER], "chosen": [assistant("4")], "rejected": [assistant("5")]},
        {"prompt": "2+2?", "chosen": assistant("4"), "rejected": assistant("5")},
        {"chosen": [USER, assistant("4")], "rejected": [USER, assistant("5")]},
        {"prompt": "2+2?", "chosen": [USER, assistant("4")], "rejected": [USER, assistant("5")]},
        {"prompt": "2+2?", "chosen": [[USER, assistant("4")]], "rejected": [[assistant("5")]]},
    ],
    ids=[
        "texts",
        "lists",
        "input",
        "prompt-messages",
        "responses-as-messages",
        "one-message",
        "whole",
        "whole-and-prompt",
        "list-of-messages",
    ],
)
def test_texts_messages_and_lists_of_them_are_the_same_pair(record: dict[str, Any]) -> None:
    item = preference_item({"id": 1, **record})
    assert messages_of(item, "chosen") == [TURNS]
    assert messages_of(item, "rejected") == [[TURNS[0], ("assistant", "5")]]
    assert [message.content for message in item.prompt] == ["2+2?"]


def test_several_chosen_and_rejected_responses_stay_in_their_order() -> None:
    item = preference_item({"id": "a", "prompt": "p", "chosen": ["x", "y"], "rejected": ["z", "u", "v"]})
    found = {name: [c.response for c in group] for name, group in item.conversations.items()}
    assert found == {"chosen": ["x", "y"], "rejected": ["z", "u", "v"]}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"prompt": "p", "chosen": "a"}, "no 'rejected'"),
        ({"prompt": "p", "chosen": [], "rejected": "b"}, r"'chosen' is \[\]; a text or a list"),
        ({"prompt": "p", "chosen": ["a", 3], "rejected": "b"}, r"'chosen\[1\]' is 3; a text or a list"),
        ({"chosen": "a", "rejected": "b"}, "there is no prompt"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "'prompt' is 3; a text or a list"),
        ({"prompt": "other", "chosen": [USER, assistant("4")], "rejected": "5"}, "'prompt' is not in it: 'other'"),
        ({"prompt": "p", "chosen": [USER], "rejected": "b"}, "'prompt' is not in it: 'p'"),
        ({"chosen": [USER], "rejected": [USER, assistant("4")]}, "role 'user'"),
    ],
)
def test_a_bad_pair_says_what_is_wrong_and_where(record: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConversationError, match=words):
        preference_item({"id": 1, **record})


def test_a_bad_row_costs_that_row_alone_and_is_named_by_its_number() -> None:
    found = read_items(
        [*rows({"prompt": "p", "chosen": "a", "rejected": "b", "subset": "s"}, {"prompt": "p"}), Row(3, None, "torn")],
        preference_item,
    )
    sound, bad, torn = (item.error for item in found)
    assert (sound, torn) == (None, "row 3: torn")
    assert bad is not None
    assert bad.startswith("row 2: there is no 'chosen'; its columns: 'prompt'")
    assert [(item.id, item.subset) for item in found] == [("1", "s"), ("2", None), ("3", None)]


@given(st.lists(st.sampled_from(["a", "a#2", "b", "a#2#2"]), max_size=12))
def test_ids_are_unique_and_the_first_of_each_keeps_its_own(names: list[str]) -> None:
    found = read_items(rows(*({"id": n, "messages": [USER, assistant("4")]} for n in names)), instruction_item)
    ids = [item.id for item in found]
    assert len(set(ids)) == len(ids)
    assert all(item.startswith(name) for item, name in zip(ids, names, strict=True))


def test_labels_count_from_zero_and_error_steps_from_one() -> None:
    steps = ["one", "", "three"]
    labelled = process_item({"id": 1, "problem": "p", "steps": steps, "label": 2})
    assert dict(labelled.truth) == {"label": 2}
    assert labelled.conversations["steps"][0].steps == ("one", "", "three")
    listed = process_item({"id": 1, "prompt": "p", "steps": steps, "error_steps": [1, 9], "classification": "c"})
    assert dict(listed.truth) == {"error_steps": [1, 9], "classification": "c"}


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ({"label": 3}, "from -1 to 2"),
        ({"label": -2}, "from -1 to 2"),
        ({"label": True}, "whole number"),
        ({"label": 1.0}, "whole number"),
        ({"error_steps": [0]}, "at least 1"),
        ({"error_steps": 1}, "a list is read"),
        ({}, "neither 'label' nor 'error_steps'"),
    ],
)
def test_a_label_that_names_no_step_is_refused(truth: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConversationError, match=words):
        process_item({"id": 1, "prompt": "p", "steps": ["a", "b", "c"], **truth})


@pytest.mark.parametrize(
    "record",
    [
        {"candidates": ["x", "y"], "correct": [True, False], "answers": ["1", None]},
        {"candidates": [{"response": "x", "correct": 1, "answer": 1}, {"response": "y", "correct": 0}]},
        {"candidates": [{"text": "x", "grade": 1.0, "answer": "1"}, {"text": "y", "grade": 0.0}]},
        {"responses": ["x", "y"], "grades": [1, 0], "answers": [1, None]},
        {"candidates": [{"content": "x"}, {"content": "y"}], "grade": [1, 0], "answers": [1, None]},
        {"candidates": [{"response": None, "text": "x"}, {"response": "y", "text": None}], "grade": [1, 0]}
        | {"answers": [1, None]},
        {"candidates": [{"role": "assistant", "content": c, "correct": c == "x"} for c in "xy"], "answers": [1, None]},
    ],
)
def test_candidates_carry_their_grades_in_either_place(record: dict[str, Any]) -> None:
    item = candidates_item({"id": 1, "prompt": "p", **record})
    assert [c.response for c in item.conversations["candidates"]] == ["x", "y"]
    assert dict(item.truth) == {"grades": [1.0, 0.0], "answers": ["1", None]}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"candidates": ["x", "y"]}, "one 'correct' or grade for each of the 2"),
        ({"candidates": ["x", "y"], "correct": [True]}, "for each of the 2"),
        ({"candidates": ["x"], "grades": [float("nan")]}, "candidate 0 is nan"),
        ({"candidates": ["x"], "grades": ["good"]}, "'good'; a number"),
        ({"candidates": ["x"], "grades": [10**400]}, "candidate 0 is 1000"),
        ({"candidates": [], "correct": []}, "at least one candidate"),
        ({"candidates": ["x"], "correct": [1], "answers": ["1", "2"]}, "one text a candidate"),
        ({"candidates": [{"reply": "x", "correct": 1}]}, "has none of 'response'"),
    ],
)
def test_a_candidate_without_a_grade_is_refused(record: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConversationError, match=words):
        candidates_item({"id": 1, "prompt": "p", **record})


@pytest.mark.parametrize(
    ("record", "form"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "preference"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "messages": []}, "preference"),
        ({"problem": "p", "steps": ["a"], "label": -1}, "process"),
        ({"problem": "p", "steps": ["a"], "error_steps": []}, "process"),
        ({"prompt": "p", "candidates": ["a"]}, "best-of-n"),
        ({"prompt": "p", "responses": ["a"], "correct": [1]}, "best-of-n"),
        ({"messages": [USER]}, "instruction"),
        ({"prompt": "p", "response": "r"}, "instruction"),
    ],
)
def test_columns_tell_the_form(record: dict[str, Any], form: str) -> None:
    assert form_of([Row(1, None, "torn"), *rows(record)]) == form
    assert form in READERS


def test_columns_of_two_forms_or_of_none_are_refused() -> None:
    both = {"prompt": "p", "chosen": "a", "rejected": "b", "candidates": ["a"]}
    with pytest.raises(RowFormatError, match="preference and best-of-n data; say which is meant with --form"):
        form_of(rows(both))
    with pytest.raises(RowFormatError, match=r"\(text\) fit no form"):
        form_of(rows({"text": "x"}))


def test_data_without_rows_or_without_a_readable_one_say_so() -> None:
    with pytest.raises(RowFormatError, match="there are no rows"):
        form_of([])
    with pytest.raises(RowFormatError, match="no row can be read; row 3: torn"):
        form_of([Row(3, None, "torn"), Row(4, None, "torn too")])


def test_the_digest_changes_with_anything_that_a_score_or_a_metric_depends_on() -> None:
    record = {"id": 1, "prompt": "p", "steps": ["a", "b"], "label": 0, "subset": "s"}
    changes = [{"id": 2}, {"prompt": "q"}, {"steps": ["a", "c"]}, {"label": 1}, {"subset": None}]
    digests = {process_item(record | change).digest for change in [{}, *changes]}
    assert len(digests) == 1 + len(changes)
    assert process_item(dict(record)).digest == process_item(record).digest


def test_a_candidate_that_is_a_message_is_read_whole() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    candidates = [
        {"role": "assistant", "content": "x", "tool_calls": calls, "correct": True, "answer": "1"},
        {"role": "assistant", "content": None, "tool_calls": calls, "correct": False},
        {"role": "assistant", "content": "y", "reasoning_content": "r", "name": None, "correct": False},
        {"role": "assistant", "text": "z", "correct": False},
    ]
    item = candidates_item({"id": 1, "prompt": "p", "candidates": candidates})
    assert [c.messages[-1].to_dict() for c in item.conversations["candidates"]] == [
        {"role": "assistant", "content": "x", "tool_calls": calls},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "assistant", "content": "y", "reasoning_content": "r"},
        {"role": "assistant", "content": "z"},
    ]
    assert item.truth == {"grades": [1.0, 0.0, 0.0, 0.0], "answers": ["1", None, None, None]}


def test_a_candidate_with_two_texts_is_read_where_they_are_one() -> None:
    same = {"text": "t", "response": "t", "correct": True}
    (only,) = candidates_item({"id": 1, "prompt": "p", "candidates": [same]}).conversations["candidates"]
    assert only.response == "t"
    with pytest.raises(InvalidConversationError, match=r"candidates\[0\] has 'response', 'other', and 'text', 't'"):
        candidates_item({"id": 1, "prompt": "p", "candidates": [{**same, "response": "other"}]})
