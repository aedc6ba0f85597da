"""The commands as users type them: numbers, formats, exit codes, and what is said where."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reward_hub import AutoRM, builtin
from reward_hub.cli import commands
from reward_hub.judge import published

Call = Callable[..., Any]

PROBLEM = "Ann has 16 eggs. She sells 3. Then she buys 5 more. How many eggs are there?"
RIGHT = "16 - 3 = 13\n13 + 5 = 18"
WRONG = "16 - 3 = 12\n12 + 5 = 17"
PAIRS = [{"prompt": PROBLEM, "response": response} for response in (RIGHT, WRONG, "")]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def messages_of(row: dict[str, Any]) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]


def test_score_takes_rows_without_a_response_where_it_is_said(reward_hub: Call, orm: str, tmp_path: Path) -> None:
    thanks = [*messages_of(PAIRS[0]), {"role": "user", "content": "Thanks."}]
    file = write(tmp_path / "rows.jsonl", [{"prompt": PROBLEM}, {"messages": thanks}, PAIRS[0]])
    refused, out = tmp_path / "refused.jsonl", tmp_path / "scores.jsonl"
    assert reward_hub("score", file, "--model", orm, "--out", str(refused)).code == 1
    assert [set(row) & {"score", "error"} for row in rows_in(refused)] == [{"error"}, {"error"}, {"score"}]
    assert reward_hub("score", file, "--model", orm, "--out", str(out), "--no-require-response").code == 0
    with AutoRM.load(orm) as rm:
        chats = [thanks[:1], thanks, messages_of(PAIRS[0])]
        expected = rm.score_batch(chats, require_response=False)
    assert [row["score"] for row in rows_in(out)] == pytest.approx(expected, abs=1e-5)
    # Other rows are read, so it is another run.
    assert reward_hub("score", file, "--model", orm, "--out", str(out)).code == 2


def test_score_writes_what_the_library_gives(reward_hub: Call, orm: str, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    ended = reward_hub("score", write(tmp_path / "rows.jsonl", PAIRS), "--model", orm, "--out", str(out), "--details")
    assert ended.code == 0
    with AutoRM.load(orm) as rm:
        expected = rm.score_batch([messages_of(row) for row in PAIRS], return_details=True)
    assert [(row["id"], row["score"], row["details"]) for row in rows_in(out)] == [
        (i, score, details) for i, (score, details) in enumerate(expected, start=1)
    ]


def test_a_checkpoint_without_the_template_it_needs_ends_the_run(reward_hub: Call, orm: str, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(builtin.path(orm.removeprefix("builtin/")), bare)
    (bare / "tokenizer_config.json").write_text("{}")
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    source = write(tmp_path / "rows.jsonl", PAIRS)
    ended = reward_hub("score", source, "--model", str(bare), "--out", str(tmp_path / "scores.jsonl"))
    assert ended.code == 1
    assert "has no chat template" in ended.err
    assert "every row failed" in ended.err
    assert rows_in(tmp_path / "scores.jsonl") == []


def test_steps_writes_what_the_library_gives(reward_hub: Call, prm: str, tmp_path: Path) -> None:
    steps = ["16 - 3 = 12", "", "12 + 5 = 17"]
    rows = [{"problem": PROBLEM, "steps": steps}, {"id": "b", "prompt": PROBLEM, "response": RIGHT}]
    out = tmp_path / "steps.jsonl"
    source = write(tmp_path / "rows.jsonl", rows)
    ended = reward_hub("steps", source, "--model", prm, "--out", str(out), "--step-delimiter", r"\n")
    assert ended.code == 0
    with AutoRM.load(prm) as rm:
        given = rm.score_steps([{"role": "user", "content": PROBLEM}], steps=steps)
        split = rm.score_steps(prompt=PROBLEM, response=RIGHT, step_delimiter="\n")
    assert (len(given), len(split)) == (3, 2)
    first, second = rows_in(out)
    assert (first["id"], second["id"]) == (1, "b")
    assert first["step_scores"] == pytest.approx(given, abs=1e-5)  # the bound that api.md sets on batch mates
    assert second["step_scores"] == pytest.approx(split, abs=1e-5)


def test_rank_writes_what_the_library_gives(reward_hub: Call, orm: str, tmp_path: Path) -> None:
    out = tmp_path / "ranks.jsonl"
    responses = [WRONG, RIGHT, "12"]
    source = write(tmp_path / "rows.jsonl", [{"prompt": PROBLEM, "responses": responses}])
    assert reward_hub("rank", source, "--model", orm, "--out", str(out)).code == 0
    with AutoRM.load(orm) as rm:
        ranking, details = rm.rank(prompt=PROBLEM, responses=responses, return_details=True)
    assert rows_in(out) == [{"id": 1, "ranking": ranking, "scores": details["scores"], "best": ranking[0]}]


def test_score_and_rank_split_responses_where_they_are_told(reward_hub: Call, prm: str, tmp_path: Path) -> None:
    responses = [WRONG.replace("\n", "\t"), RIGHT.replace("\n", "\t")]
    rows = [{"prompt": PROBLEM, "response": response, "responses": responses} for response in responses]
    source = write(tmp_path / "rows.jsonl", rows)
    with AutoRM.load(prm) as rm:
        expected = rm.score_batch([messages_of(row) for row in rows], step_delimiter="\t")
        assert expected != pytest.approx(rm.score_batch([messages_of(row) for row in rows]), abs=1e-3)
    given = [source, "--model", prm, "--step-delimiter", r"\t", "--ignore-column"]
    scored = reward_hub("score", *given, "responses")
    assert [json.loads(row)["score"] for row in scored.out.splitlines()] == pytest.approx(expected, abs=1e-5)
    ranked = json.loads(reward_hub("rank", *given, "response").out.splitlines()[0])
    assert ranked["scores"] == pytest.approx(expected, abs=1e-5)


def as_json(path: Path, rows: list[dict[str, Any]]) -> Path:
    path = path.with_suffix(".json")
    path.write_text(json.dumps(rows))
    return path


def as_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    path = path.with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    path = path.with_suffix(".parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("written", [as_json, as_csv, as_parquet])
def test_every_file_format_gives_the_same_scores(
    reward_hub: Call, orm: str, tmp_path: Path, written: Callable[[Path, list[dict[str, Any]]], Path]
) -> None:
    plain = reward_hub("score", write(tmp_path / "rows.jsonl", PAIRS), "--model", orm)
    other = reward_hub("score", str(written(tmp_path / "rows", PAIRS)), "--model", orm)
    assert [row["score"] for row in map(json.loads, other.out.splitlines())] == [
        row["score"] for row in map(json.loads, plain.out.splitlines())
    ]


def test_rows_go_to_standard_output_alone_where_no_file_is_named(reward_hub: Call, orm: str, tmp_path: Path) -> None:
    ended = reward_hub("score", write(tmp_path / "rows.jsonl", PAIRS), "--model", orm, "--json")
    assert [row["id"] for row in map(json.loads, ended.out.splitlines())] == [1, 2, 3]
    assert '"rows": 3' in ended.err


def test_rows_come_from_standard_input_too(orm: str, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", PAIRS)
    command = [sys.executable, "-m", "reward_hub", "score", "-", "--model", orm]
    text = Path(source).read_text()
    ended = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert [json.loads(line)["id"] for line in ended.stdout.splitlines()] == [1, 2, 3]


def test_the_summary_for_machines_adds_up(reward_hub: Call, orm: str, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", [*PAIRS, {"prompt": "no response"}])
    out = tmp_path / "scores.jsonl"
    ended = reward_hub("score", source, "--model", orm, "--out", str(out), "--json")
    assert ended.code == 1
    summary = json.loads(ended.out)
    scores = [row["score"] for row in rows_in(out) if "score" in row]
    assert (summary["rows"], summary["scored"], summary["failed"], summary["resumed"]) == (4, 3, 1, 0)
    assert summary["mean"] == pytest.approx(sum(scores) / 3)
    assert (summary["min"], summary["max"]) == (min(scores), max(scores))
    assert summary["tokens"] > 0


def test_a_conversation_that_is_too_long_is_an_error_row(reward_hub: Call, orm: str, tmp_path: Path) -> None:
    long = {"prompt": PROBLEM, "response": "1 + 1 = 2\n" * 50}
    source = write(tmp_path / "rows.jsonl", [PAIRS[0], long])
    ended = reward_hub("score", source, "--model", orm, "--max-length", "100")
    good, bad = map(json.loads, ended.out.splitlines())
    assert ended.code == 1
    assert "score" in good
    assert bad["error"]["type"] == "InputTooLongError"
    assert f"{source}:2: InputTooLongError" in ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["score", "{rows}", "--modle", "x"], 2, "--modle"),
        (["score", "{rows}"], 2, "--model"),
        (["scor", "{rows}"], 2, "scor"),
        (["score", "nothing.jsonl", "-m", "{orm}"], 2, "nothing.jsonl cannot be read: No such file or directory."),
        (["score", "{folder}", "-m", "{orm}"], 2, "cannot be read: Is a directory."),
        (["score", "{rows}", "-m", "{orm}", "-o", "{folder}/no/out.jsonl"], 2, "out.jsonl cannot be written"),
        (["score", "{rows}", "-m", "{orm}", "-o", "{rows}"], 2, "is the input"),
        (["score", "{rows}", "-m", "{orm}", "--overwrite"], 2, "need --out"),
        (["score", "{rows}", "-m", "{orm}", "--truncation", "middle"], 2, "middle"),
        (["score", "{rows}", "-m", "{orm}", "--option", "a"], 2, "--option 'a': write NAME=VALUE."),
        (["score", "{rows}", "-m", "{orm}", "--option", "a=1", "--option", "a=2"], 2, "--option a is given twice."),
        (["score", "{rows}", "-m", "{orm}", "--option", "a=1"], 2, "no option"),
        (["score", "{rows}", "-m", "{orm}", "--engine-option", "no_such=1"], 2, "no_such"),
        (["score", "{rows}", "-m", "{orm}", "--engine-option", "device=cpu"], 2, "an option of its own"),
        (["score", "{rows}", "-m", "{orm}", "--family", "no-such"], 1, "no-such"),
        (["score", "{rows}", "-m", "{folder}"], 1, "{folder}"),
        (["steps", "{rows}", "-m", "{orm}"], 1, "outcome"),
        (["families", "no-such"], 1, "no-such"),
        (["families", "armorm", "--markdown"], 2, "whole table"),
        (["inspect", "{folder}"], 1, "{folder}"),
    ],
)
def test_bad_usage_ends_with_2_and_a_failure_with_1_and_no_traceback(
    reward_hub: Call, orm: str, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    values = {"rows": write(tmp_path / "rows.jsonl", PAIRS), "orm": orm, "folder": str(tmp_path)}
    ended = reward_hub(*(argument.format(**values) for argument in arguments))
    assert ended.code == code
    assert said.format(**values) in ended.err
    assert "Traceback" not in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_debug_shows_where_an_error_arose(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "reward_hub", "inspect", str(tmp_path), "--debug"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_verbose_says_what_was_loaded(tmp_path: Path, orm: str) -> None:
    command = [sys.executable, "-m", "reward_hub", "score", write(tmp_path / "rows.jsonl", PAIRS), "-m", orm]
    plain = subprocess.run(command, capture_output=True, text=True, check=True)
    verbose = subprocess.run([*command, "-v"], capture_output=True, text=True, check=True)
    assert "INFO" not in plain.stderr
    assert f"INFO: Loaded {orm}" in verbose.stderr


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    command = f"'{sys.executable}' -m reward_hub families --json | head -n 1"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert ended.stdout == "[\n"
    assert ended.stderr == ""


def test_families_are_those_of_the_registry(reward_hub: Call) -> None:
    shown = {family["name"]: family for family in json.loads(reward_hub("families", "--json").out)}
    assert list(shown) == [*(family.name for family in AutoRM.families()), *published.names()]
    assert shown["armorm"]["checkpoints"][0]["id"] == "RLHFlow/ArmoRM-Llama3-8B-v0.1"
    table = reward_hub("families").out
    assert all(f"│ {name} " in table for name in shown)


@pytest.mark.parametrize("name", published.names())
def test_a_published_judge_is_shown_alone(reward_hub: Call, name: str) -> None:
    ended = reward_hub("families", name)
    assert ended.code == 0
    assert ended.out.split()[:2] == ["judge", name]
    assert json.loads(reward_hub("families", name, "--json").out)["name"] == name


@pytest.mark.parametrize("name", [family.name for family in AutoRM.families()])
def test_a_family_is_shown_alone(reward_hub: Call, name: str) -> None:
    ended = reward_hub("families", name)
    assert ended.code == 0
    assert ended.out.split()[:2] == ["family", name]
    assert json.loads(reward_hub("families", name, "--json").out)["name"] == name


def test_the_page_of_families_is_what_the_registry_says(reward_hub: Call) -> None:
    page = Path(__file__).parents[2] / "docs" / "families.md"
    assert page.read_text() == reward_hub("families", "--markdown").out, "write it anew: make docs"


def test_inspect_shows_what_would_be_loaded(reward_hub: Call, orm: str) -> None:
    found = json.loads(reward_hub("inspect", orm, "--json").out)
    assert found == AutoRM.inspect(orm)
    table = reward_hub("inspect", orm).out
    assert found["family"] in table
    assert f"{found['parameters']:,}" in table


@pytest.mark.parametrize("arguments", [["--help"], ["score", "--help"], ["families"], ["--version"]])
def test_what_needs_no_engine_loads_none(arguments: list[str]) -> None:
    code = (
        "import sys, atexit\n"
        "from reward_hub.cli import main\n"
        "atexit.register(lambda: print(*({'torch', 'transformers', 'httpx'} & set(sys.modules)), file=sys.stderr))\n"
        f"main({arguments!r})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr == "\n"


def test_help_names_every_command(reward_hub: Call) -> None:
    ended = reward_hub("--help")
    assert ended.code == 0
    assert all(f" {name} " in ended.out for name in ("score", "steps", "rank", "families", "inspect"))


def names_in(help_text: str) -> list[str]:
    return re.findall(r"^│ ([a-z-]+)  ", help_text.partition("Commands")[2], flags=re.MULTILINE)


def test_help_names_the_commands_in_their_order(reward_hub: Call) -> None:
    assert names_in(reward_hub("--help").out) == [
        *("score", "steps", "rank", "judge", "ensemble", "bench"),
        *("families", "inspect", "serve-args", "serve", "verify", "cache"),
    ]
    assert names_in(reward_hub("bench", "--help").out) == ["compare", "report"]


def test_a_file_that_is_no_command_is_none(reward_hub: Call) -> None:
    ended = reward_hub("tables")
    assert (ended.code, "No such command 'tables'" in ended.err) == (2, True)


def test_columns_of_other_names_are_said_and_others_left_out(reward_hub: Call, orm: str, tmp_path: Path) -> None:
    row = {"question": "What is 3 + 4?", "answer": "3 + 4 = 7", "context": "Sums."}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "response": "unread"}) + "\n")
    out = tmp_path / "scores.jsonl"
    said = ("--column", "response=answer", "--ignore-column", "context", "--out", str(out))
    assert reward_hub("score", str(path), "--model", orm, *said).code == 0
    with AutoRM.load(orm) as rm:
        expected = rm.score(prompt=row["question"], response=row["answer"])
    assert [json.loads(line)["score"] for line in out.read_text().splitlines()] == pytest.approx([expected] * 2)
    other = reward_hub("score", str(path), "--model", orm, "--column", "response=answer", "--out", str(out))
    assert (other.code, "was made with ignore_column" in other.err) == (2, True)
    refused = reward_hub("score", str(path), "--model", orm, "--column", "response=answer")
    assert refused.code == 1
    assert "the column 'context' is 'Sums.'" in refused.err
    for wrong, words in (("response", "write ROLE=NAME"), ("answer=response", "no column is read as 'answer'")):
        bad = reward_hub("score", str(path), "--model", orm, "--column", wrong)
        assert (bad.code, words in bad.err) == (2, True)


def test_a_folder_of_datasets_is_scored_and_gone_on_with(reward_hub: Call, orm: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": "What is 3 + 4?", "response": f"3 + 4 = {n}", "id": f"n{n}"} for n in (6, 7)]
    folder, out = tmp_path / "data", tmp_path / "scores.jsonl"
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(folder)
    assert reward_hub("score", str(folder), "--model", orm, "--out", str(out)).code == 0
    whole = out.read_text()
    assert [json.loads(line)["id"] for line in whole.splitlines()] == ["n6", "n7"]
    out.write_text(whole.splitlines(keepends=True)[0])
    assert reward_hub("score", str(folder), "--model", orm, "--out", str(out)).code == 0
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["n6", "n7"]
    datasets.Dataset.from_list(rows[:1]).save_to_disk(tmp_path / "data" / "train")
    changed = reward_hub("score", str(folder), "--model", orm, "--out", str(out))
    assert (changed.code, "was made from other input" in changed.err) == (2, True)


def test_help_says_of_each_command_what_its_own_help_says(monkeypatch: pytest.MonkeyPatch, reward_hub: Call) -> None:
    listed = {arguments: reward_hub(*arguments, "--help").out for arguments in ((), ("bench",))}
    monkeypatch.setattr(commands, "_listed", lambda module: None)
    assert {arguments: reward_hub(*arguments, "--help").out for arguments in listed} == listed
