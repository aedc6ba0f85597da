"""Rows of files, and what their columns mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reward_hub.data.columns import conversation_of, responses_of, stepwise_of
from reward_hub.data.rows import RowFormatError, read_rows
from reward_hub.errors import InvalidConversationError

QUESTION = {"role": "user", "content": "2+2?"}
ANSWER = {"role": "assistant", "content": "4"}


def write(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_jsonl_rows_carry_the_line_they_stand_on(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"prompt": "a"}\n\n  \n{"prompt": "b", "id": "x"}\n')
    assert [(row.number, row.id) for row in read_rows(path)] == [(1, 1), (4, "x")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "torn', "not JSON"),
        (b"[1, 2]", "a JSON list; a row is an object"),
        (b'"text"', "a JSON str"),
        (b'{"prompt": "\xff"}', "not UTF-8 (byte 13 of the line)"),
        (b"[" * 100_000, "not JSON"),
        (b'{"prompt": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_bad_jsonl_line_costs_that_line_alone(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path, "a.jsonl", b'{"id": 1}\n' + line + b'\n{"id": 3}\n')
    first, bad, last = read_rows(path)
    assert (first.id, bad.id, last.id) == (1, 2, 3)
    assert bad.record is None
    assert bad.error is not None
    assert reason in bad.error


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    jsonl = write(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"id": 7}\n')
    table = write(tmp_path, "a.csv", b"\xef\xbb\xbfid,prompt\n7,x\n")
    assert [row.id for row in read_rows(jsonl)] == [7]
    assert [row.id for row in read_rows(table)] == ["7"]


def test_json_is_a_list_of_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", '[{"prompt": "a"}, 5]')
    good, bad = read_rows(path)
    assert good.record == {"prompt": "a"}
    assert bad.error == "a JSON int; a row is an object with columns as keys"


def test_json_of_one_object_a_line_is_read_as_such(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", '{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": torn\n')
    rows = list(read_rows(path))
    assert [row.record for row in rows] == [{"prompt": "a"}, {"prompt": "b"}, None]
    assert rows[2].number == 3


@pytest.mark.parametrize(("name", "text"), [("a.json", "{}"), ("a.json", "["), ("a.txt", "x"), ("a.parquet", "x")])
def test_a_file_of_another_format_is_refused_as_a_whole(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(RowFormatError, match=name):
        list(read_rows(write(tmp_path, name, text)))


def test_csv_cells_may_span_lines_and_hold_json(tmp_path: Path) -> None:
    text = 'id,prompt,responses\n,"one\ntwo","[""a"", ""b""]"\nlast,[1],[]\n'
    first, last = read_rows(write(tmp_path, "a.csv", text))
    assert (first.id, first.record) == (2, {"prompt": "one\ntwo", "responses": ["a", "b"]})
    # A prompt in CSV is text, whatever it looks like.
    assert (last.id, last.number, last.record) == ("last", 4, {"id": "last", "prompt": "[1]", "responses": []})


def test_csv_cells_may_hold_lists_as_python_writes_them(tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path, "a.csv", "prompt,steps\nx,\"['a', 'it is']\"\n"))
    assert row.record == {"prompt": "x", "steps": ["a", "it is"]}


@pytest.mark.parametrize(
    ("cells", "reason"), [("a,b,c", "more cells"), ("a,[", "'steps' is not JSON"), ('a,"b"c', "not CSV")]
)
def test_a_bad_csv_row_costs_that_row_alone(tmp_path: Path, cells: str, reason: str) -> None:
    first, bad, last = read_rows(write(tmp_path, "a.csv", f"prompt,steps\nx,\n{cells}\ny,\n"))
    assert (first.record, last.record) == ({"prompt": "x"}, {"prompt": "y"})
    assert bad.number == 3
    assert bad.error is not None
    assert reason in bad.error


def test_a_csv_cell_may_be_longer_than_the_csv_module_allows_by_default(tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path, "a.csv", f"prompt\n{'x' * 200_000}\n"))
    assert row.record == {"prompt": "x" * 200_000}


def test_parquet_messages_come_back_without_the_nulls_that_columns_add(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"messages": [QUESTION, call, ANSWER]}] * 300), path)
    rows = list(read_rows(path))
    assert [row.number for row in rows] == list(range(1, 301))
    assert rows[-1].record == {"messages": [QUESTION, call, ANSWER]}


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [QUESTION, ANSWER]},
        {"conversation": [QUESTION, ANSWER]},
        {"messages": None, "conversation": [QUESTION, ANSWER]},
        {"prompt": "2+2?", "response": "4"},
        {"prompt": [QUESTION], "response": "4"},
        {"instruction": "2+2?", "response": "4"},
    ],
)
def test_a_conversation_has_four_spellings(record: dict[str, Any]) -> None:
    assert conversation_of(record).to_dicts() == [QUESTION, ANSWER]


def test_an_empty_response_is_a_response() -> None:
    found = conversation_of({"prompt": "2+2?", "response": ""}).to_dicts()
    assert found == [QUESTION, {"role": "assistant", "content": ""}]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "its columns: none"),
        ({"prompt": "x", "text": "y"}, "its columns: 'prompt', 'text'"),
        ({"prompt": "x", "response": None}, "'prompt' and 'response'"),
        ({"id": 1, "messages": []}, r"its columns: 'id', 'messages' \(empty\)"),
        ({"messages": "hello"}, "'messages' is 'hello'; a list of messages"),
    ],
)
def test_a_row_without_a_conversation_says_what_it_has(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidConversationError, match=reason):
        conversation_of(record)


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        ({"messages": [QUESTION]}, [QUESTION]),
        ({"prompt": "2+2?"}, [QUESTION]),
        ({"problem": "2+2?"}, [QUESTION]),
        ({"prompt": "2+2?", "response": "4"}, [QUESTION, ANSWER]),
    ],
)
def test_steps_stand_beside_a_prompt_or_a_whole_conversation(
    record: dict[str, Any], messages: list[dict[str, str]]
) -> None:
    assert stepwise_of(record | {"steps": ["4"]}) == {"messages": messages, "steps": ["4"]}


def test_without_steps_the_conversation_alone_is_passed_on() -> None:
    assert stepwise_of({"prompt": "2+2?", "response": "4"}) == {"messages": [QUESTION, ANSWER]}


@pytest.mark.parametrize("record", [{"prompt": "x", "steps": "one"}, {"steps": ["one"]}])
def test_steps_that_cannot_be_used_are_an_error(record: dict[str, Any]) -> None:
    with pytest.raises(InvalidConversationError, match="steps"):
        stepwise_of(record)


@pytest.mark.parametrize("prompt", [{"prompt": "2+2?"}, {"prompt": [QUESTION]}, {"messages": [QUESTION]}])
def test_responses_stand_beside_a_prompt(prompt: dict[str, Any]) -> None:
    assert responses_of(prompt | {"responses": ["4", ""]}) == ([QUESTION], ["4", ""])


@pytest.mark.parametrize("responses", [None, [], "4", ["4", 5]])
def test_responses_must_be_a_list_of_texts(responses: Any) -> None:
    with pytest.raises(InvalidConversationError, match=r"'responses(\[1\])?'"):
        responses_of({"prompt": "2+2?", "responses": responses})


def test_a_million_character_row_is_one_row(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", json.dumps({"prompt": "x" * 1_000_000, "id": "long"}) + "\n")
    assert [row.id for row in read_rows(path)] == ["long"]


@pytest.mark.parametrize(
    "cell",
    [
        *(json.dumps([ANSWER]), f" [ {json.dumps(ANSWER)} ]", json.dumps([ANSWER], indent=2), repr([ANSWER])),
        *(json.dumps(ANSWER), "\n" + json.dumps(ANSWER, indent=2)),
    ],
)
def test_messages_in_a_cell_are_read_however_they_are_spaced(tmp_path: Path, cell: str) -> None:
    quoted = cell.replace('"', '""')
    (row,) = read_rows(write(tmp_path, "a.csv", f'prompt,response\n2+2?,"{quoted}"\n'))
    assert conversation_of(row.record).to_dicts() == [QUESTION, ANSWER]


@pytest.mark.parametrize("cell", ["[]", "{}", "[1", "{{1}}", "{[]: 1}", '{"sum": 4}', '[{"sum": 4}]', "[4] is it", "{"])
def test_a_cell_with_brackets_that_holds_no_messages_is_text(tmp_path: Path, cell: str) -> None:
    quoted = cell.replace('"', '""')
    (row,) = read_rows(write(tmp_path, "a.csv", f'prompt,response\n2+2?,"{quoted}"\n'))
    assert row.record == {"prompt": "2+2?", "response": cell}
