"""Runs over rows: order, resuming, what a bad row costs, and what is refused."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_hub.base import BaseRM
from reward_hub.cli.row_commands import Speed, run_rows
from reward_hub.cli.score import SCORE
from reward_hub.cli.usage import UsageError
from reward_hub.data.out_file import identity_of
from reward_hub.data.row_run import Advance, RowRun, Summary
from reward_hub.errors import BackendError, InvalidConversationError, ServerError


class LengthRM(BaseRM):
    """Scores the length of the response; refuses "refuse", is broken for "broken"; remembers what it scored."""

    name = "length"

    def __init__(self, *, broken: str = "broken", fingerprint: str = "length-1") -> None:
        self.seen: list[str] = []
        self._broken = broken
        self._fingerprint = fingerprint

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def score(self, messages: Any, **kwargs: Any) -> float:
        response = messages[-1]["content"]
        if response == "refuse":
            raise InvalidConversationError("the response is refused.")
        if response == self._broken:
            raise ServerError("the server is gone.")
        self.seen.append(response)
        return float(len(response))


def write_rows(path: Path, rows: Sequence[dict[str, Any] | str]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def responses(*texts: str) -> list[dict[str, Any]]:
    return [{"prompt": "p", "response": text} for text in texts]


class Case:
    """An input, an out file, and a model that remembers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "scores.jsonl"
        self.source = str(folder / "rows.jsonl")

    def write(self, rows: Sequence[dict[str, Any] | str]) -> None:
        write_rows(Path(self.source), rows)

    def run(
        self,
        rm: BaseRM | None = None,
        *,
        settings: dict[str, Any] | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> Summary:
        run = RowRun(
            source=self.source,
            out=str(self.out),
            settings=settings or {"model": "length"},
            **{"chunk_size": 2} | options,
        )
        return run_rows(SCORE, run, lambda: rm or LengthRM(), progress=progress)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_scores_stand_in_input_order_under_the_id_or_the_line_number(case: Case) -> None:
    case.write([*responses("a"), "", {"id": "x", "prompt": "p", "response": "bb"}])
    case.run()
    assert rows_of(case.out) == [{"id": 1, "score": 1.0}, {"id": "x", "score": 2.0}]


def test_details_are_written_only_where_asked_for(case: Case) -> None:
    case.write(responses("a"))
    case.run(details=True)
    (row,) = rows_of(case.out)
    assert row["details"]["raw_logits"] == [1.0]


def test_bad_rows_become_error_rows_and_are_named_with_their_line(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    case.write([*responses("a"), '{"prompt": ', {"id": "y", "text": "?"}, *responses("refuse", "bbb")])
    summary = case.run()
    assert (summary.rows, summary.scored, summary.failed) == (5, 2, 3)
    first, torn, columns, refused, last = rows_of(case.out)
    assert (first["score"], last["score"]) == (1.0, 3.0)
    assert (torn["id"], torn["line"]) == (None, 2)
    assert torn["error"]["message"].startswith("not JSON")
    assert columns["id"] == "y"
    assert columns["error"]["type"] == "InvalidConversationError"
    assert refused["error"]["message"] == "the response is refused."
    said = capsys.readouterr().err
    assert f"{case.source}:2: InvalidConversationError: not JSON" in said
    assert f"{case.source}:4: InvalidConversationError: the response is refused." in said


def test_a_flood_of_bad_rows_is_not_named_row_by_row(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.write(["?"] * 100)
    assert case.run().failed == 100
    assert len(capsys.readouterr().err.splitlines()) == 21


def test_a_finished_run_scores_nothing_again_and_loads_no_model(case: Case) -> None:
    case.write(responses("a", "bb", "ccc"))
    case.run()
    before = case.out.read_bytes()

    def fail() -> BaseRM:
        raise AssertionError("the model was loaded")

    run = RowRun(source=case.source, out=str(case.out), settings={"model": "length"})
    summary = run_rows(SCORE, run, fail)
    assert case.out.read_bytes() == before
    assert (summary.rows, summary.resumed, summary.to_dict()["mean"]) == (3, 3, 2.0)


def test_a_run_goes_on_after_the_last_complete_line(case: Case) -> None:
    case.write(responses("a", "bb", "ccc", "dddd", "eeeee"))
    case.run()
    whole = case.out.read_bytes()
    # Three rows and a torn fourth are left.
    end = [i for i, byte in enumerate(whole) if byte == ord("\n")][2] + 1
    case.out.write_bytes(whole[: end + 7])
    rm = LengthRM()
    assert case.run(rm).resumed == 3
    assert rm.seen == ["dddd", "eeeee"]
    assert case.out.read_bytes() == whole


@given(cut=st.floats(0, 1), chunk_size=st.integers(1, 5))
@settings(max_examples=60)
def test_wherever_a_run_was_cut_off_it_ends_with_the_same_rows(cut: float, chunk_size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder))
        case.write([*responses("a", "refuse", "ccc", "dddd", "é\u2028\x85"), "?", *responses("eeeeee")])
        case.run(details=True)
        whole = case.out.read_bytes()
        kept = whole[: int(cut * len(whole))]
        case.out.write_bytes(kept)
        summary = case.run(details=True, chunk_size=chunk_size)
        assert case.out.read_bytes() == whole
        assert (summary.rows, summary.failed, summary.resumed) == (7, 2, kept.count(b"\n"))


def test_rows_with_one_and_the_same_id_are_told_apart_by_their_place(case: Case) -> None:
    case.write([row | {"id": "same"} for row in responses("a", "bb", "ccc")])
    case.run()
    whole = case.out.read_bytes()
    case.out.write_bytes(whole.splitlines(keepends=True)[0])
    rm = LengthRM()
    case.run(rm)
    assert rm.seen == ["bb", "ccc"]
    assert case.out.read_bytes() == whole


def test_an_input_that_has_grown_is_the_same_input(case: Case) -> None:
    case.write(responses("a", "bb"))
    case.run()
    case.write(responses("a", "bb", "ccc"))
    rm = LengthRM()
    case.run(rm)
    assert rm.seen == ["ccc"]
    assert [row["score"] for row in rows_of(case.out)] == [1.0, 2.0, 3.0]


def changed_input(case: Case) -> None:
    case.write(responses("x", "bb"))


def shorter_input(case: Case) -> None:
    case.write(responses("a"))


def lost_record(case: Case) -> None:
    (case.folder / "scores.jsonl.run.json").unlink()


def foreign_record(case: Case) -> None:
    (case.folder / "scores.jsonl.run.json").write_text("[]")


def foreign_line(case: Case) -> None:
    case.out.write_text('{"score": 1.0}\n')


def foreign_id(case: Case) -> None:
    case.out.write_text('{"id": "other", "score": 1.0}\n')


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed_input, "was made from other input"),
        (shorter_input, "was made from other input"),
        (lost_record, "without scores.jsonl.run.json"),
        (foreign_record, "is not what a run wrote"),
        (foreign_line, "line 1 is not a row of an earlier run"),
        (foreign_id, "has a row of id 'other' where"),
    ],
)
def test_what_another_run_made_is_neither_appended_to_nor_touched(
    case: Case, change: Callable[[Case], None], reason: str
) -> None:
    case.write(responses("a", "bb"))
    case.run()
    change(case)
    before = case.out.read_bytes()
    with pytest.raises(UsageError, match=reason):
        case.run()
    assert case.out.read_bytes() == before
    case.run(overwrite=True)
    assert len(rows_of(case.out)) == len(rows_of(case.source))


def test_a_file_of_the_users_own_is_not_cut_at_its_last_line(case: Case) -> None:
    case.write(responses("a"))
    case.out.write_text("precious notes without a line end")
    with pytest.raises(UsageError, match="exists"):
        case.run()
    assert case.out.read_text() == "precious notes without a line end"


def test_other_settings_do_not_go_on_with_the_rows(case: Case) -> None:
    case.write(responses("a", "bb"))
    case.run(settings={"model": "length", "truncation": "error"})
    with pytest.raises(UsageError, match="truncation = 'error'; this run has 'left'"):
        case.run(settings={"model": "length", "truncation": "left"})


def test_other_weights_under_the_same_name_do_not_go_on_with_the_rows(case: Case) -> None:
    case.write(responses("a", "bb", "ccc"))
    case.run()
    case.out.write_bytes(case.out.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(UsageError, match="its fingerprint was length-1, this one's is length-2"):
        case.run(LengthRM(fingerprint="length-2"))
    assert len(rows_of(case.out)) == 1


def test_the_input_is_never_the_output(case: Case) -> None:
    case.write(responses("a"))
    case.out.symlink_to(case.source)
    with pytest.raises(UsageError, match="is the input"):
        case.run(overwrite=True)
    assert len(rows_of(case.source)) == 1


def test_one_file_is_written_by_one_run_at_a_time(case: Case) -> None:
    case.write(responses("a", "bb", "ccc"))

    class Nested(LengthRM):
        def score(self, messages: Any, **kwargs: Any) -> float:
            with pytest.raises(UsageError, match="is being written by another run"):
                case.run()
            return super().score(messages)

    case.run(Nested())
    assert [row["score"] for row in rows_of(case.out)] == [1.0, 2.0, 3.0]


def test_errors_are_scored_again_on_request_and_good_rows_are_not(case: Case) -> None:
    case.write(responses("a", "broken", "ccc", "dddd"))
    assert case.run().failed == 1
    untried = LengthRM(broken="")
    assert case.run(untried).failed == 1
    assert untried.seen == []
    rm = LengthRM(broken="")
    assert case.run(rm, retry_errors=True).failed == 0
    assert rm.seen == ["broken"]
    assert [row["score"] for row in rows_of(case.out)] == [1.0, 6.0, 3.0, 4.0]
    assert {path.name for path in case.folder.iterdir()} == {"rows.jsonl", "scores.jsonl", "scores.jsonl.run.json"}


def test_a_retry_that_was_killed_loses_no_row(case: Case) -> None:
    case.write(responses("a", "broken", "ccc", "dddd", "eeeee"))
    case.run()

    class Killed(LengthRM):
        def score(self, messages: Any, **kwargs: Any) -> float:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        case.run(Killed(), retry_errors=True)
    rm = LengthRM(broken="")
    case.run(rm)
    assert rm.seen == ["broken"]
    assert [row["score"] for row in rows_of(case.out)] == [1.0, 6.0, 3.0, 4.0, 5.0]


def test_a_dead_engine_ends_the_run_and_its_rows_stay_to_be_scored(case: Case) -> None:
    # The first chunk holds a good row, so its failures count as bad rows; the second has none.
    case.write([*responses("a"), *responses("broken") * 31])
    with pytest.raises(BackendError, match=r"every row failed; the first with ServerError: .*the server is gone"):
        case.run(chunk_size=16)
    assert [row.get("score") for row in rows_of(case.out)] == [1.0, *[None] * 15]
    case.run(LengthRM(broken=""), chunk_size=16)
    assert [row.get("score") for row in rows_of(case.out)] == [1.0, *[None] * 15, *[6.0] * 16]


def test_nothing_is_left_behind_where_the_model_cannot_be_loaded(case: Case) -> None:
    case.write(responses("a"))

    def fail() -> BaseRM:
        raise BackendError("no such model")

    with pytest.raises(BackendError):
        run_rows(SCORE, RowRun(source=case.source, out=str(case.out), settings={}), fail)
    assert [path.name for path in case.folder.iterdir()] == ["rows.jsonl"]


KILLED = """
import sys, time
from reward_hub.base import BaseRM
from reward_hub.cli.row_commands import run_rows
from reward_hub.cli.score import SCORE
from reward_hub.data.row_run import RowRun

class SlowRM(BaseRM):
    def score(self, messages, **kwargs):
        time.sleep(0.001)
        return float(len(messages[-1]["content"]))

run = RowRun(source=sys.argv[1], out=sys.argv[2], settings={}, chunk_size=7)
print(run_rows(SCORE, run, SlowRM).resumed)
"""


def test_a_run_killed_at_any_point_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    n_rows = 600
    source = write_rows(tmp_path / "rows.jsonl", responses(*("x" * (i % 37) for i in range(n_rows))))
    out = tmp_path / "scores.jsonl"
    command = [sys.executable, "-c", KILLED, source, str(out)]
    for wanted in (100, 300, 450):
        with subprocess.Popen(command) as process:
            deadline = time.monotonic() + 60
            while n_lines(out) < wanted and time.monotonic() < deadline:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert wanted <= n_lines(out) < n_rows
    last = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(last.stdout) >= 450
    assert rows_of(out) == [{"id": i + 1, "score": float(i % 37)} for i in range(n_rows)]


def n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    import tracemalloc

    def peak(n_rows: int) -> int:
        source = write_rows(tmp_path / f"{n_rows}.jsonl", responses(*["x" * 1000] * n_rows))
        run = RowRun(source=source, out=str(tmp_path / f"{n_rows}-scores.jsonl"), settings={}, chunk_size=50)
        rm = LengthRM()
        rm.seen = _Forgetful()
        tracemalloc.start()
        run_rows(SCORE, run, lambda: rm)
        _, high = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return high

    small = peak(200)
    assert peak(4000) < 1.5 * small + (1 << 21)  # the hash of the input reads a MiB at a time


class _Forgetful(list[str]):
    def append(self, item: str) -> None: ...


def test_a_progress_bar_counts_the_rows_of_earlier_runs_too(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.write(responses("a", "bb", "ccc"))
    case.run()
    case.write(responses("a", "bb", "ccc", "dddd"))
    case.run(progress=True)
    assert "4/4" in capsys.readouterr().err


def test_the_bar_says_how_fast_this_run_is_and_how_much_is_shared() -> None:
    now = [0.0]
    speed = Speed(lambda: now[0])
    now[0] = 100.0
    speed.add(Advance(50, scored=False))  # an earlier run's
    assert str(speed) == ""
    now[0] = 102.0
    speed.add(Advance(20, n_tokens=4000, shared=0.25))
    assert str(speed) == "10.0 rows/s, 2,000 tokens/s, 25% shared"
    now[0] = 110.0
    speed.add(Advance(20))
    assert str(speed) == "4.0 rows/s, 400 tokens/s"


def test_the_identity_of_a_file_is_that_of_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    before = identity_of(path)
    path.write_bytes(b"abcdef")
    assert identity_of(path, n_bytes=3) == before
    assert identity_of(path) != before
    assert before["bytes"] == 3


# -- files of other formats, and how rows are named -------------------------------------------------------------------


def test_a_file_of_another_format_is_made_at_the_end_of_the_lines_beside_it(case: Case) -> None:
    case.write([*responses("a", "refuse"), '{"prompt": ', *responses("dddd")])
    case.run()
    lines = rows_of(case.out)
    case.out = case.folder / "scores.csv"
    case.run()
    with case.out.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["score"] for row in table] == ["1.0", "", "", "4.0"]
    assert [row["id"] for row in table] == ["1", "2", "", "4"]
    assert [json.loads(row["error"]) for row in table[1:3]] == [row["error"] for row in lines[1:3]]
    assert rows_of(case.folder / "scores.csv.jsonl") == lines


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl.gz"])
def test_a_run_into_another_format_resumes_and_loses_nothing(case: Case, ending: str) -> None:
    case.out = case.folder / f"scores.{ending}"
    lines = case.folder / f"scores.{ending}.jsonl"
    case.write(responses("a", "broken", "ccc", "dddd", "eeeee"))

    class Killed(LengthRM):
        def score(self, messages: Any, **kwargs: Any) -> float:
            if messages[-1]["content"] == "eeeee":
                raise KeyboardInterrupt
            return super().score(messages)

    with pytest.raises(KeyboardInterrupt):
        case.run(Killed())
    assert (len(rows_of(lines)), case.out.exists()) == (4, False)
    rm = LengthRM()
    assert case.run(rm).resumed == 4
    assert rm.seen == ["eeeee"]
    assert read_scores_of(case.out) == [1.0, None, 3.0, 4.0, 5.0]
    case.run(LengthRM(broken=""), retry_errors=True)
    assert read_scores_of(case.out) == [1.0, 6.0, 3.0, 4.0, 5.0]
    case.out.unlink()
    assert case.run(LengthRM()).resumed == 5
    assert read_scores_of(case.out) == [1.0, 6.0, 3.0, 4.0, 5.0]


def read_scores_of(path: Path) -> list[float | None]:
    pandas = pytest.importorskip("pandas")
    frame = (
        pandas.read_parquet(path)
        if path.suffix == ".parquet"
        else pandas.read_csv(path)
        if path.suffix == ".csv"
        else pandas.read_json(path, lines=True)
    )
    return [None if math.isnan(score) else score for score in frame["score"]]


def no_model() -> BaseRM:
    raise AssertionError("the model was loaded")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("scores.xlsx", "rows are written to"), ("table.csv", "table.csv exists"), ("folder.csv", "Is a directory")],
)
def test_what_cannot_be_written_is_refused_before_the_model_is_loaded(case: Case, name: str, reason: str) -> None:
    case.write(responses("a"))
    (case.folder / "table.csv").write_text("a table of the user's own")
    (case.folder / "folder.csv").mkdir()
    before = sorted(case.folder.iterdir())
    with pytest.raises(UsageError, match=reason):
        run_rows(SCORE, RowRun(source=case.source, out=case.folder / name, settings={}), no_model)
    assert sorted(case.folder.iterdir()) == before
    assert (case.folder / "table.csv").read_text() == "a table of the user's own"


def test_the_lines_beside_a_table_are_no_input_of_it(case: Case) -> None:
    case.source = str(case.folder / "scores.csv.jsonl")
    case.write(responses("a"))
    case.out = case.folder / "scores.csv"
    with pytest.raises(UsageError, match=r"scores.csv.jsonl is the input"):
        case.run(overwrite=True)
    assert len(rows_of(case.source)) == 1


def test_a_row_that_cannot_be_read_has_its_line_and_no_id(case: Case) -> None:
    case.write([{"id": 2, "prompt": "p", "response": "a"}, "[1]", {"id": "c", "prompt": "p", "response": "ccc"}])
    case.run()
    whole = case.out.read_bytes()
    first, torn, last = rows_of(case.out)
    assert (first["id"], "line" in first) == (2, False)
    assert (torn["id"], torn["line"], torn["error"]["type"]) == (None, 2, "InvalidConversationError")
    assert last["id"] == "c"
    for n_kept in (1, 2):
        case.out.write_bytes(b"".join(whole.splitlines(keepends=True)[:n_kept]))
        assert case.run().resumed == n_kept
        assert case.out.read_bytes() == whole


@pytest.mark.parametrize(
    ("ids", "again"),
    [
        (["a", "b", "c", None], None),
        ([None, None, 7, "1"], None),
        ([True, 1.0, "1", "x"], None),
        (["a", "b", "a", "a"], 3),
        ([None, 1, None, None], 2),
        ([2, None, None, None], 2),
        ([["x"], ["x"], None, None], 2),
    ],
)
def test_an_id_that_stands_again_is_warned_of_once(
    case: Case, caplog: pytest.LogCaptureFixture, ids: list[Any], again: int | None
) -> None:
    case.write([*({"prompt": "p", "response": "a"} | ({} if id_ is None else {"id": id_}) for id_ in ids), "?", "?"])
    case.run()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (again is not None)
    assert all(f"row {again}: the id " in text for text in said)
    case.out.write_bytes(case.out.read_bytes().splitlines(keepends=True)[0])
    caplog.clear()
    case.run()
    assert [record.getMessage() for record in caplog.records] == said


PAIR = {"prompt": "p", "chosen": "good", "rejected": "bad"}


@pytest.mark.parametrize("rows", [[PAIR, *responses("a")], ["?", {"chosen": "good", "rejected": "bad"}]])
def test_rows_of_labelled_pairs_are_refused_before_the_model_is_loaded(case: Case, rows: list[Any]) -> None:
    case.write(rows)
    with pytest.raises(UsageError, match=r"chosen and a rejected .*`reward-hub bench --data.*`reward-hub rank`"):
        run_rows(SCORE, RowRun(source=case.source, out=str(case.out), settings={}), no_model)
    assert [path.name for path in case.folder.iterdir()] == ["rows.jsonl"]


def test_a_row_with_a_response_of_its_own_is_scored_whatever_stands_beside_it(case: Case) -> None:
    case.write([{**PAIR, "response": "a"}])
    case.run()
    assert rows_of(case.out) == [{"id": 1, "score": 1.0}]
