"""`reward-hub judge` over files, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_server import Answer, Asked, JudgeServer, completion, judge_server

from reward_hub.cli import main

N_ROWS = 60


def by_number(asked: Asked) -> Answer:
    """1 to 5 by the number that the response ends with; nothing for a response that says nothing."""
    number = asked.text.split("<<<END RESPONSE")[0].split()[-1]
    text = json.dumps({"reasoning": "r", "score": int(number) % 5 + 1}) if number.isdigit() else "no"
    return completion(text, delay_s=0.02)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judge_server(by_number) as server:
        yield server


def run(server: JudgeServer, *arguments: str) -> int:
    """The exit code of a run in this process."""
    with pytest.raises(SystemExit) as ended:
        main(["judge", *arguments, "--model", "judge", "--api-base", server.api_base])
    return int(ended.value.code or 0)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_row_gets_its_score_by_a_rubric_from_a_file(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": f"r{i}", "prompt": "q", "response": f"answer {i}", "reference": f"ref {i}"} for i in range(7)]
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("Is it a good number? Score from 1-5.", encoding="utf-8")
    source, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    more = ["--rubric", str(rubric), "--out", str(out), "--details", "--json", "--price-in", "1", "--price-out", "2"]
    assert run(server, source, *more) == 0
    written = read_rows(out)
    assert [(row["id"], row["score"]) for row in written] == [(f"r{i}", i % 5 + 1) for i in range(7)]
    assert written[0]["details"]["reasoning"] == "r"
    assert all("Is it a good number?" in asked.text and "REFERENCE ANSWER" in asked.text for asked in server.asked)
    summary = json.loads(capsys.readouterr().out)
    assert (summary["scored"], summary["calls"], summary["cost"]) == (7, 7, pytest.approx(7 * 140e-6))


def test_pairs_are_compared_whatever_their_columns_are_called(server: JudgeServer, tmp_path: Path) -> None:
    def prefers_good(asked: Asked) -> Answer:
        a = asked.text.split("<<<RESPONSE A")[1].split("<<<END RESPONSE A")[0]
        return completion(json.dumps({"winner": "A" if "good" in a else "B"}))

    server.script = prefers_good
    question = {"role": "user", "content": "q"}
    rows = [
        {"prompt": "q", "a": "good", "b": "bad"},
        {"prompt": "q", "chosen": "bad", "rejected": "good"},
        {
            "chosen": [question, {"role": "assistant", "content": "good"}],
            "rejected": [question, {"role": "assistant", "content": "bad"}],
        },
        {"prompt": "q", "a": "good"},
        {"chosen": "good", "rejected": "bad"},
    ]
    source, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    assert run(server, source, "--rubric", "Which is better?", "--mode", "pairwise", "--out", str(out)) == 1
    written = read_rows(out)
    assert [row.get("probability") for row in written] == [1.0, 0.0, 1.0, None, None]
    assert "'a' and 'b'" in written[3]["error"]["message"]
    assert "prompt beside 'chosen' and 'rejected'" in written[4]["error"]["message"]


def test_steps_and_lists_have_their_own_columns(server: JudgeServer, tmp_path: Path) -> None:
    server.script = lambda asked: completion(json.dumps({"steps": [{"score": 5}, {"score": 2}]}))
    source = write_rows(tmp_path / "steps.jsonl", [{"prompt": "q", "steps": ["one", "two"]}])
    out = tmp_path / "steps_out.jsonl"
    assert run(server, source, "--rubric", "from 1-5", "--mode", "stepwise", "--out", str(out)) == 0
    assert read_rows(out)[0]["step_scores"] == [5.0, 2.0]

    server.script = lambda asked: completion('{"ranking": [2, 1]}')
    source = write_rows(tmp_path / "lists.jsonl", [{"prompt": "q", "responses": ["x", "y"]}])
    out = tmp_path / "lists_out.jsonl"
    more = ["--rubric", "Which?", "--mode", "listwise", "--one-order", "--out", str(out)]
    assert run(server, source, *more) == 0
    assert read_rows(out) == [{"id": 1, "ranking": [1, 0], "scores": [0.0, 1.0], "best": 1}]


def test_a_row_without_a_verdict_has_its_error_and_is_done_again_on_request(
    server: JudgeServer, tmp_path: Path
) -> None:
    rows = [{"prompt": "q", "response": text} for text in ("1", "nothing", "3")]
    source, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    arguments = [source, "--rubric", "from 1-5", "--out", str(out)]
    assert run(server, *arguments) == 1
    assert [row.get("score") for row in read_rows(out)] == [2, None, 4]
    assert read_rows(out)[1]["error"]["type"] == "JudgeParseError"
    server.script = lambda asked: completion('{"score": 5}')
    assert run(server, *arguments, "--retry-errors") == 0
    assert [row.get("score") for row in read_rows(out)] == [2, 5, 4]


def test_a_budget_ends_a_run_that_a_larger_one_completes(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "q", "response": f"{i}"} for i in range(N_ROWS)]
    source, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    arguments = [source, "--rubric", "from 1-5", "--out", str(out), "--chunk-size", "20"]
    assert run(server, *arguments, "--token-budget", "4000") == 1
    assert "BudgetExceededError" in capsys.readouterr().err
    assert len(server.asked) * 120 <= 4000
    assert len(read_rows(out)) == 40
    assert run(server, *arguments, "--retry-errors") == 0
    assert [row["score"] for row in read_rows(out)] == [i % 5 + 1 for i in range(N_ROWS)]


def test_a_killed_run_goes_on_where_it_stood(server: JudgeServer, tmp_path: Path) -> None:
    rows = [{"prompt": "q", "response": f"{i}"} for i in range(N_ROWS)]
    source, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    server.script = lambda asked: Answer(**{**vars(by_number(asked)), "delay_s": 0.15})
    arguments = [source, "--rubric", "from 1-5", "--out", str(out), "--chunk-size", "6", "--max-concurrency", "3"]
    command = [
        sys.executable,
        "-m",
        "reward_hub",
        "judge",
        *arguments,
        "--model",
        "judge",
        "--api-base",
        server.api_base,
    ]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}) as process:
        deadline = time.monotonic() + 60
        while not out.exists() or len(out.read_bytes().splitlines()) < 12:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    done = len(read_rows(out))
    assert 12 <= done < N_ROWS
    server.script, server.asked = by_number, []
    assert run(server, *arguments) == 0
    assert len(server.asked) == N_ROWS - done
    assert [row["score"] for row in read_rows(out)] == [i % 5 + 1 for i in range(N_ROWS)]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "give rubric="),
        (["--rubric", "from 1-5 or from 0-9"], "several score ranges"),
        (["--rubric", "none.txt"], "there is no such file"),
        (["--rubric", "from 1-5", "--price-in", "1"], "go together"),
        (["--rubric", "from 1-5", "--n-samples", "3"], "temperature"),
        (["--rubric", "from 1-5", "--extra-body", "x"], "NAME=VALUE"),
    ],
)
def test_bad_usage_is_said_in_one_line(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [{"prompt": "q", "response": "1"}])
    assert run(server, source, *more, "--out", str(tmp_path / "out.jsonl")) == 2
    assert words in capsys.readouterr().err
    assert not server.asked


def test_another_rubric_does_not_append_to_a_file(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [{"prompt": "q", "response": "1"}])
    out = ["--out", str(tmp_path / "out.jsonl")]
    assert run(server, source, "--rubric", "Score from 1-5.", *out) == 0
    assert run(server, source, "--rubric", "Score from 1-5, strictly.", *out) == 2
    assert "rubric" in capsys.readouterr().err
