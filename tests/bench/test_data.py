"""Data come from every place as the same rows; the hub is played by a server on this machine."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hub_server import HubServer, _RefusalError
from hub_server import _Answer as Answers

from reward_hub.bench.benchmark import suite_named
from reward_hub.bench.data import DataUnavailableError, read_path
from reward_hub.bench.items import READERS, form_of, read_items
from reward_hub.data.rows import RowFormatError

ROWS = [
    {"id": "a", "prompt": "2+2?", "candidates": ["4", "5"], "correct": [True, False]},
    {"id": "b", "prompt": "3+3?", "candidates": ["7", "6"], "correct": [False, True]},
]


def as_jsonl(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def as_json(folder: Path) -> Path:
    path = folder / "rows.json"
    path.write_text(json.dumps(ROWS))
    return path


def as_csv(folder: Path) -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        for row in ROWS:
            writer.writerow({**row, "candidates": json.dumps(row["candidates"])})
    return path


def as_parquet(folder: Path) -> Path:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    path = folder / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


def on_disk(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "disk")
    return folder / "disk"


def several_splits_on_disk(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict(train=data, test=data.select([0])).save_to_disk(folder / "disk")
    return folder / "disk"


def items_of(path: Path, **options: Any) -> list[tuple[str, list[str], Any]]:
    data = read_path(str(path), **options)
    items = read_items(data.rows, READERS[form_of(data.rows)])
    return [(i.id, [c.response for c in i.conversations["candidates"]], i.truth["grades"]) for i in items]


EXPECTED = [("a", ["4", "5"], [1.0, 0.0]), ("b", ["7", "6"], [0.0, 1.0])]


@pytest.mark.parametrize("write", [as_jsonl, as_json, as_csv, as_parquet, on_disk])
def test_every_format_gives_the_same_items(write: Callable[[Path], Path], tmp_path: Path) -> None:
    assert items_of(write(tmp_path)) == EXPECTED


def test_a_csv_cell_holds_json_or_text_and_no_text_is_altered(tmp_path: Path) -> None:
    chosen = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "True"}]
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "chosen", "rejected", "candidates", "correct", "label"])
        writer.writerow(["[1]", json.dumps(chosen), "[2, 3]", '["True", "no"]', "[True, False]", "A>B"])
    (row,) = read_path(str(path)).rows
    assert row.record == {
        "prompt": "[1]",
        "chosen": chosen,
        "rejected": "[2, 3]",
        "candidates": ["True", "no"],
        "correct": [True, False],
        "label": "A>B",
    }


def test_several_responses_in_cells_of_csv_are_read_where_every_cell_of_the_column_holds_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "chosen", "rejected"])
        writer.writerow(["p", '["a", "b"]', '["c"]'])
        writer.writerow(["p", "['d']", "plain"])
    assert [row.record for row in read_path(str(path)).rows] == [
        {"prompt": "p", "chosen": ["a", "b"], "rejected": '["c"]'},
        {"prompt": "p", "chosen": ["d"], "rejected": "plain"},
    ]
    assert [record.args for record in caplog.records] == [("chosen",)]


def test_an_empty_cell_of_csv_is_no_subset_but_an_empty_response(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,chosen,rejected,subset\np,a,,\n")
    (row,) = read_path(str(tmp_path / "rows.csv")).rows
    assert row.record == {"prompt": "p", "chosen": "a", "rejected": ""}


def test_what_is_not_there_is_no_file_of_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_path(str(tmp_path / "nowhere"))


def test_a_split_is_said_where_there_are_several(tmp_path: Path) -> None:
    path = several_splits_on_disk(tmp_path)
    with pytest.raises(RowFormatError, match="the splits train, test; say which with --split"):
        read_path(str(path))
    assert items_of(path, split="test") == EXPECTED[:1]
    with pytest.raises(RowFormatError, match="has no split"):
        read_path(str(as_json(tmp_path)), split="test")
    # As `datasets` calls the only split of a file, and command lines for `rewardbench` say it.
    assert items_of(as_json(tmp_path), split="train") == EXPECTED


def test_a_folder_of_files_is_one_data_set_and_says_which_file_a_row_is_of(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        as_jsonl(tmp_path / name)
    data = read_path(str(tmp_path))
    assert [row.record and row.record["file"] for row in data.rows] == ["a/rows.jsonl"] * 2 + ["b/rows.jsonl"] * 2
    assert [row.number for row in data.rows] == [1, 2, 3, 4]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RowFormatError, match="holds no file"):
        read_path(str(tmp_path / "empty"))


def test_the_hash_is_of_what_was_read(tmp_path: Path) -> None:
    import hashlib

    path = as_jsonl(tmp_path)
    assert read_path(str(path)).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


class DatasetAnswers(Answers):
    """The hub's pages of data sets, at other addresses than those of models; their files lie in no folders."""

    def _route(self) -> None:
        if "/tree/" in self.path and urlsplit(self.path).path.partition("/tree/")[2].count("/"):
            raise _RefusalError(404, "no such folder", code="EntryNotFound")
        self.path = self.path.replace("/api/datasets/", "/api/models/").replace("/datasets/", "/")
        super()._route()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    pytest.importorskip("datasets")
    monkeypatch.setattr("hub_server._Answer", DatasetAnswers)
    with HubServer() as server:
        yield server


def bench(hub: HubServer, home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`reward-hub bench` in a process of its own: `datasets` reads the hub's address when it is imported."""
    return subprocess.run(
        [sys.executable, "-m", "reward_hub", "bench", *arguments, "--json"],
        env=os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home / "hf"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_data_come_from_the_hub_by_id_and_split(hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    folder.mkdir()
    shutil.move(as_parquet(tmp_path), folder / "test-00000-of-00001.parquet")
    hub.add("org/sums", folder)
    scores = tmp_path / "scores.jsonl"
    scores.write_text('{"id": "a", "scores": [1, 0]}\n{"id": "b", "scores": [1, 0]}\n')
    ended = bench(hub, tmp_path, "--dataset", "org/sums", "--split", "test", "--scores", str(scores))
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["metrics"]["overall"]["accuracy"] == 0.5
    assert any(name.endswith("test-00000-of-00001.parquet") for name in hub.files_sent())


def test_a_hub_without_the_data_says_what_to_download(hub: HubServer, tmp_path: Path) -> None:
    ended = bench(hub, tmp_path, "--suite", "rm-bench", "--model", "builtin/arithmetic-orm")
    assert ended.returncode == 1
    assert "download https://huggingface.co/datasets/THU-KEG/RM-Bench, split 'train' elsewhere" in ended.stderr
    assert "(total_dataset.json), and say --suite rm-bench --data PATH" in ended.stderr


def test_data_on_the_hub_that_cannot_be_parsed_say_what_to_download(hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "test.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n{"prompt"')
    hub.add("org/torn", folder)
    ended = bench(hub, tmp_path, "--dataset", "org/torn", "--split", "test", "--model", "builtin/arithmetic-orm")
    assert ended.returncode == 1
    assert "org/torn cannot be had from the hub: DatasetGenerationError: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_a_network_the_error_is_the_same(hub: HubServer, tmp_path: Path) -> None:
    ended = bench(hub, tmp_path, "--model", "builtin/arithmetic-orm", HF_HUB_OFFLINE="1")
    assert ended.returncode == 1
    assert "allenai/reward-bench cannot be had from the hub" in ended.stderr
    assert "--suite rewardbench --data PATH" in ended.stderr


def test_a_suite_that_the_hub_does_not_hold_says_where_its_data_are() -> None:
    with pytest.raises(DataUnavailableError, match=r"github.com/princeton-nlp/LLMBar.*--suite llmbar --data PATH"):
        suite_named("llmbar").load()
