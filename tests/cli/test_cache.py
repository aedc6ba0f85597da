"""`reward-hub cache` shows, empties and writes out a folder of cached scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reward_hub import AutoRM, CachedRM

Call = Callable[..., Any]
PROBLEM = "Ann has 16 eggs. She sells 3. How many eggs are there?"


@pytest.fixture
def folder(orm: str, tmp_path: Path) -> Path:
    """A cache of two scores of the built-in model."""
    with CachedRM(AutoRM.load(orm), cache_dir=tmp_path / "cache", size_limit=5_000_000) as rm:
        rm.rank(prompt=PROBLEM, responses=["16 - 3 = 13", "16 - 3 = 12"])
    return tmp_path / "cache"


def test_stats_shows_how_much_there_is_and_changes_no_setting(reward_hub: Call, folder: Path) -> None:
    for _ in range(2):
        told = json.loads(reward_hub("cache", "stats", str(folder), "--json").out)
        assert (told["entries"], told["size_limit_bytes"], told["eviction"]) == (2, 5_000_000, "least-recently-stored")
    assert "entries" in reward_hub("cache", "stats", str(folder)).out


def test_without_a_folder_it_is_that_of_cached_rm(
    reward_hub: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    folder.rename("rm_cache")
    assert json.loads(reward_hub("cache", "stats", "--json").out)["entries"] == 2


def test_clear_empties_the_folder(reward_hub: Call, folder: Path) -> None:
    assert json.loads(reward_hub("cache", "clear", str(folder), "--json").out)["removed"] == 2
    assert json.loads(reward_hub("cache", "stats", str(folder), "--json").out)["entries"] == 0


def test_export_writes_the_scores_with_their_details(reward_hub: Call, orm: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    ended = reward_hub("cache", "export", str(folder), "--out", str(out), "--json")
    assert (ended.code, json.loads(ended.out)["exported"]) == (0, 2)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    with AutoRM.load(orm) as rm:
        scores = [rm.score(prompt=PROBLEM, response=r) for r in ("16 - 3 = 13", "16 - 3 = 12")]
        assert [row["details"]["score"] for row in rows] == pytest.approx(scores, abs=1e-5)
        assert {row["fingerprint"] for row in rows} == {rm.fingerprint}


def test_bad_usage_says_what_to_type(reward_hub: Call, folder: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (("stats", str(tmp_path)), "holds no cache"),
        (("export", str(folder)), "--out FILE"),
        (("stats", str(folder), "--out", "x"), "no meaning for stats"),
    ):
        ended = reward_hub("cache", *arguments)
        assert (ended.code, said in ended.err) == (2, True)
    assert reward_hub("cache", "shrink", str(folder)).code == 2
    assert not (tmp_path / "cache.db").exists()


def test_a_broken_file_is_a_failure(reward_hub: Call, folder: Path) -> None:
    (folder / "cache.db").write_bytes(b"no database at all" * 500)
    ended = reward_hub("cache", "stats", str(folder))
    assert (ended.code, "not a database" in ended.err) == (1, True)


def test_an_export_is_json_lines_and_nothing_else(reward_hub: Call, folder: Path) -> None:
    refused = reward_hub("cache", "export", str(folder), "--out", str(folder.parent / "scores.csv"))
    assert (refused.code, "say --out FILE.jsonl" in refused.err) == (2, True)
    assert not (folder.parent / "scores.csv").exists()
