"""A file of rows is what its ending says: each is read back with a reader that is not ours, and with our own."""

from __future__ import annotations

import csv
import gzip
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_hub.data.rows import RowFormatError, endings, read_rows
from reward_hub.data.writing import is_lines, require_format, write_rows

pandas = pytest.importorskip("pandas")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS: list[dict[str, Any]] = [
    {"id": "a", "score": 0.1 + 0.2, "step_scores": [0.5, 1 / 3], "details": {"family": "x", "raw_logits": [1.5]}},
    {"id": 'b, "quoted"\nline', "score": -1e-300, "step_scores": [1.0], "details": {"attributes": {}}},
    {"id": None, "line": 3, "error": {"type": "InvalidConversationError", "message": "not JSON: é 🙂"}},
    {"id": "d\ud800", "score": 7.0, "step_scores": [0.0], "details": {}},
]
ESCAPED = ["a", 'b, "quoted"\nline', None, "d\\ud800"]
SCORES = [0.1 + 0.2, -1e-300, None, 7.0]


def written(folder: Path, ending: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = folder / f"scores{ending}"
    write_rows(path, lambda: rows)
    assert [file.name for file in folder.iterdir()] == [path.name]
    return path


def none_of(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


def test_csv_holds_plain_cells_and_lists_as_json(tmp_path: Path) -> None:
    with written(tmp_path, ".csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "score", "step_scores", "details", "line", "error"]
    assert [row["id"] for row in rows] == [name or "" for name in ESCAPED]
    assert [row["score"] and float(row["score"]) for row in rows] == [score or "" for score in SCORES]
    assert json.loads(rows[0]["step_scores"]) == ROWS[0]["step_scores"]
    assert json.loads(rows[0]["details"]) == ROWS[0]["details"]
    assert (rows[2]["line"], json.loads(rows[2]["error"])) == ("3", ROWS[2]["error"])
    assert (rows[0]["line"], rows[0]["error"]) == ("", "")


@pytest.mark.parametrize(("ending", "separator"), [(".csv", ","), (".tsv", "\t"), (".csv.gz", ","), (".tsv.gz", "\t")])
def test_pandas_reads_the_tables(tmp_path: Path, ending: str, separator: str) -> None:
    frame = pandas.read_csv(written(tmp_path, ending), sep=separator)
    assert [none_of(value) for value in frame["id"]] == ESCAPED
    assert [none_of(value) for value in frame["score"]] == SCORES


def test_parquet_has_numbers_lists_and_errors_as_such(tmp_path: Path) -> None:
    table = parquet.read_table(written(tmp_path, ".parquet"))
    assert [str(table.schema.field(name).type) for name in ("score", "line")] == ["double", "int64"]
    assert table["id"].to_pylist() == ESCAPED
    assert table["score"].to_pylist() == SCORES
    assert table["step_scores"].to_pylist() == [row.get("step_scores") for row in ROWS]
    assert table["error"].to_pylist() == [row.get("error") for row in ROWS]
    assert json.loads(table["details"].to_pylist()[0]) == ROWS[0]["details"]
    frame = pandas.read_parquet(tmp_path / "scores.parquet")
    assert [none_of(value) for value in frame["score"]] == SCORES


@pytest.mark.parametrize(
    ("values", "type_", "read"),
    [
        ([1, 2, None], "int64", [1, 2, None]),
        ([1, "b", True], "string", ["1", "b", "true"]),
        ([2**70, 1, 2], "string", [str(2**70), "1", "2"]),
        ([1, 1.5, None], "string", ["1", "1.5", None]),
        ([True, None, False], "bool", [True, None, False]),
        ([None, None, None], "string", [None, None, None]),
        ([[0, 1], [1, 0], None], "list<element: int64>", [[0, 1], [1, 0], None]),
        ([[], [1.0], [1]], "string", ["[]", "[1.0]", "[1]"]),
        ([{}, {"a": {}}, None], "string", ["{}", '{"a": {}}', None]),
    ],
)
def test_a_column_of_parquet_has_one_type(tmp_path: Path, values: list[Any], type_: str, read: list[Any]) -> None:
    path = written(tmp_path, ".parquet", [{"id": i, "column": value} for i, value in enumerate(values)])
    column = parquet.read_table(path)["column"]
    assert (str(column.type), column.to_pylist()) == (type_, read)


def test_json_lines_packed_and_json_hold_every_value_as_it_is(tmp_path: Path) -> None:
    for name in ("lines", "packed", "list"):
        (tmp_path / name).mkdir()
    assert [json.loads(line) for line in written(tmp_path / "lines", ".jsonl").read_text().splitlines()] == ROWS
    packed = written(tmp_path / "packed", ".jsonl.gz")
    assert [json.loads(line) for line in gzip.decompress(packed.read_bytes()).splitlines()] == ROWS
    first = packed.read_bytes()
    write_rows(packed, lambda: ROWS)
    assert packed.read_bytes() == first
    assert json.loads(written(tmp_path / "list", ".json").read_text()) == ROWS


values = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"id": st.text(min_size=1, max_size=8) | st.integers()},
            optional={
                "score": st.floats(allow_nan=False, allow_infinity=False),
                "step_scores": st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3),
                "details": st.dictionaries(st.text(max_size=4), values, max_size=3),
                "error": st.fixed_dictionaries({"type": st.text(max_size=4), "message": st.text(max_size=8)}),
            },
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(sorted(endings())),
)
def test_our_reader_finds_every_score_again(rows: list[dict[str, Any]], ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), ending, rows)
        found = [row.record for row in read_rows(str(path))]
    assert len(found) == len(rows)
    for row, record in zip(rows, found, strict=True):
        assert record is not None
        assert none_of(record.get("score")) == row.get("score")
        assert record.get("step_scores") == row.get("step_scores")
        if ending in (".jsonl", ".json", ".parquet"):
            assert record.get("error") == row.get("error")


@pytest.mark.parametrize("name", ["scores.txt", "scores.xlsx", "scores.gz", "scores.parquet.gz", "scores.jsonl.zip"])
def test_an_ending_that_names_no_format_is_refused(name: str) -> None:
    with pytest.raises(RowFormatError, match=r"rows are written to \.jsonl"):
        require_format(Path(name))


def test_lines_are_what_has_no_ending_or_says_so() -> None:
    names = ("a", "a.jsonl", "a.NDJSON", "a.csv", "a.jsonl.gz")
    assert [is_lines(Path(name)) for name in names] == [True, True, True, False, False]


def test_what_was_there_stays_where_writing_fails(tmp_path: Path) -> None:
    path = written(tmp_path, ".csv")
    before = path.read_bytes()

    def failing() -> Any:
        yield ROWS[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_rows(path, failing)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("scores.csv", before)]
