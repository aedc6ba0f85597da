"""The folder of a cache: what others may have written into it is never run, opened, deleted or taken for a score."""

from __future__ import annotations

import json
import logging
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import diskcache
import pytest

from reward_hub import BaseRM, CacheError
from reward_hub.cache.cached_rm import CachedRM
from reward_hub.cache.store import ScoreStore, TextDisk, checksum

PROCESSES = Path(__file__).parents[1] / "cache_processes.py"
SHORT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "abc"}]


class LengthRM(BaseRM):
    def score(self, messages):
        return len(messages[-1]["content"]) / 100


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


def execute(folder: Path, statement: str, *values: Any) -> None:
    connection = sqlite3.connect(folder / "cache.db")
    with connection:
        connection.execute(statement, values)
    connection.close()


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    return tmp_path / "executed"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache that holds one score."""
    with CachedRM(LengthRM(), cache_dir=tmp_path / "cache") as rm:
        assert rm.score(SHORT) == 0.03
    return tmp_path / "cache"


# what is planted: columns of the row that holds the score


def pickled_in_the_row(folder: Path, proof: Path) -> dict[str, Any]:
    return {"mode": 4, "value": pickle.dumps(Payload(proof))}


def pickled_in_a_file(folder: Path, proof: Path) -> dict[str, Any]:
    (folder / "planted.val").write_bytes(pickle.dumps(Payload(proof)))
    return {"mode": 4, "value": None, "filename": "planted.val"}


def pickled_in_a_text_row(folder: Path, proof: Path) -> dict[str, Any]:
    return {"mode": 1, "value": pickle.dumps(Payload(proof))}


def text_in_a_file_elsewhere(folder: Path, proof: Path) -> dict[str, Any]:
    (folder.parent / "elsewhere.txt").write_text('{"details": {"score": 9.0}}')
    return {"mode": 3, "value": None, "filename": "../elsewhere.txt"}


def another_score(folder: Path, proof: Path) -> dict[str, Any]:
    """As a flipped bit on the disk would."""
    (text,) = rows(folder, "value")[0]
    return {"value": text.replace("0.03", "0.83")}


def a_number(folder: Path, proof: Path) -> dict[str, Any]:
    return {"value": 0.5}


def an_unknown_mode(folder: Path, proof: Path) -> dict[str, Any]:
    return {"mode": 77}


def no_json(folder: Path, proof: Path) -> dict[str, Any]:
    return with_sum(folder, "not json")


def no_number(folder: Path, proof: Path) -> dict[str, Any]:
    return with_sum(folder, '{"details": {"score": "9", "raw_logits": [], "normalized_score": 0.5}}')


def nan(folder: Path, proof: Path) -> dict[str, Any]:
    return with_sum(folder, '{"details": {"score": NaN, "raw_logits": [], "normalized_score": 0.5}}')


def unknown_fields(folder: Path, proof: Path) -> dict[str, Any]:
    return with_sum(folder, '{"details": {"score": 9.0, "raw_logits": [], "normalized_score": 0.5, "new": 1}}')


def with_sum(folder: Path, text: str) -> dict[str, Any]:
    ((key,),) = rows(folder, "key")
    return {"value": text, "tag": checksum(key, text)}


def rows(folder: Path, columns: str) -> list[Any]:
    connection = sqlite3.connect(folder / "cache.db")
    found = connection.execute(f"SELECT {columns} FROM Cache").fetchall()
    connection.close()
    return found


PLANTED = [
    pickled_in_the_row,
    pickled_in_a_file,
    pickled_in_a_text_row,
    text_in_a_file_elsewhere,
    another_score,
    a_number,
    an_unknown_mode,
    no_json,
    no_number,
    nan,
    unknown_fields,
]


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_row_is_computed_again_with_a_warning(plant, folder, proof, caplog):
    columns = plant(folder, proof)
    execute(folder, f"UPDATE Cache SET {', '.join(f'{name} = ?' for name in columns)}", *columns.values())
    with CachedRM(LengthRM(), cache_dir=folder) as rm:
        score, details = rm.score(SHORT, return_details=True)
        assert (score, details["cached"]) == (0.03, False)
        assert rm.stats()["errors"] == 1
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "corrupt" in caplog.text
        # The row was replaced by a good one.
        assert rm.score(SHORT, return_details=True)[1]["cached"] is True
    assert not proof.exists()


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_row_is_an_error_where_that_is_asked_for(plant, folder, proof):
    columns = plant(folder, proof)
    execute(folder, f"UPDATE Cache SET {', '.join(f'{name} = ?' for name in columns)}", *columns.values())
    with (
        CachedRM(LengthRM(), cache_dir=folder, on_corrupt="raise") as rm,
        pytest.raises(CacheError, match="is corrupt"),
    ):
        rm.score(SHORT)
    assert not proof.exists()


def test_the_planted_pickles_do_execute_in_diskcache_itself(folder, proof):
    """Else the tests above would prove nothing."""
    for n, plant in enumerate((pickled_in_the_row, pickled_in_a_file)):
        payload = proof.with_name(f"executed-{n}")
        columns = {"filename": None, **plant(folder, payload)}
        execute(folder, f"UPDATE Cache SET {', '.join(f'{name} = ?' for name in columns)}", *columns.values())
        with diskcache.Cache(str(folder), disk=diskcache.JSONDisk) as cache:
            key = rows(folder, "key")[0][0]
            execute(folder, "UPDATE Cache SET key = ?", cache.disk.put(key)[0])
            with pytest.raises(TypeError):  # the payload has run; what it gives is no JSON
                cache.get(key)
            execute(folder, "UPDATE Cache SET key = ?", key)
        assert payload.exists()


def test_a_pickled_key_is_never_unpickled(folder, proof, tmp_path):
    execute(
        folder,
        "INSERT INTO Cache (key, raw, mode, value, store_time) VALUES (?, 0, 1, '{}', 0)",
        pickle.dumps(Payload(proof)),
    )
    with CachedRM(LengthRM(), cache_dir=folder) as rm:
        assert rm.export(tmp_path / "out.jsonl") == 1
        assert rm.stats()["entries"] == 2
        assert rm.score(SHORT) == 0.03
        assert rm.clear() == 2
    assert not proof.exists()


def test_files_that_rows_name_are_not_deleted(folder, tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("keep me")
    execute(folder, "UPDATE Cache SET filename = '../precious.txt', mode = 3")
    with CachedRM(LengthRM(), cache_dir=folder) as rm:
        rm.score(SHORT)  # replaces the row
        execute(folder, "UPDATE Cache SET filename = '../precious.txt', mode = 3")
        rm.clear()
    assert precious.read_text() == "keep me"


def test_what_is_expired_or_evicted_deletes_no_file_either(folder, tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("keep me")
    execute(folder, "UPDATE Cache SET filename = '../precious.txt', mode = 3, expire_time = 1.0")
    with CachedRM(LengthRM(), cache_dir=folder, size_limit=1) as rm:
        rm.score(prompt="Hi", response="another one, whose writing removes all rows")
        assert rm.stats()["entries"] == 0
    assert precious.read_text() == "keep me"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("disk_reader", "x"),
        ("_directory", "/somewhere/else"),
        ("get", 1),
        ("sqlite_mmap_size", "0; DROP TABLE Cache"),
        ("sqlite_temp_store_directory", "x"),
        ("size_limit", "big"),
        ("eviction_policy", "whatever"),
        ("size_limit", b"\x80\x04."),
    ],
)
def test_a_planted_setting_is_not_followed(name, value, folder, caplog):
    execute(folder, "INSERT OR REPLACE INTO Settings VALUES (?, ?)", name, value)
    with pytest.raises(CacheError, match="setting"):
        CachedRM(LengthRM(), cache_dir=folder, on_corrupt="raise")
    with CachedRM(LengthRM(), cache_dir=folder) as rm:
        assert "setting" in caplog.text
        assert rm.score(SHORT, return_details=True)[1]["cached"] is False
        assert rm.score(SHORT, return_details=True)[1]["cached"] is True
    assert [path.name for path in folder.glob("*.corrupt-*")]


def test_the_disk_stores_texts_and_nothing_else(tmp_path):
    disk = TextDisk(str(tmp_path))
    for call in (lambda: disk.put(1), lambda: disk.store({}, False), lambda: disk.store("a", True), disk.filename):
        with pytest.raises(TypeError):
            call()
    assert disk.store("é" * 100_000, False)[1:3] == (1, None)


# broken files


def test_a_broken_file_is_moved_aside_and_another_begun(folder, caplog):
    (folder / "cache.db").write_bytes(b"this is no database" * 1000)
    with CachedRM(LengthRM(), cache_dir=folder) as rm:
        assert rm.score(SHORT) == 0.03
        assert rm.score(SHORT, return_details=True)[1]["cached"] is True
        assert rm.stats()["errors"] == 1
    (aside,) = folder.glob("cache.db.corrupt-*")
    assert aside.read_bytes().startswith(b"this is no database")
    assert aside.name in caplog.text


@pytest.mark.parametrize("plant", PLANTED)
def test_export_leaves_out_what_is_corrupt(plant, folder, proof, tmp_path):
    columns = plant(folder, proof)
    with CachedRM(LengthRM(), cache_dir=folder, on_corrupt="raise") as rm:
        rm.score(prompt="Hi", response="another")
        names = ", ".join(f"{name} = ?" for name in columns)
        execute(folder, f"UPDATE Cache SET {names} WHERE rowid = 1", *columns.values())
        kept = [no_number, nan, unknown_fields]  # sound JSON, if no score
        assert rm.export(tmp_path / "out.jsonl") == 1 + (plant in kept)
        assert rm.stats()["errors"] == 1 - (plant in kept)
    assert "another" not in (tmp_path / "out.jsonl").read_text(), "conversations are not kept"
    assert not proof.exists()


@pytest.mark.parametrize("on_corrupt", ["recompute", "raise"])
def test_a_file_whose_schema_is_no_text_is_broken(on_corrupt, folder):
    """SQLite quotes the schema's bytes in its message, and Python cannot decode them."""
    content = (folder / "cache.db").read_bytes()
    assert b"CREATE TABLE Cache" in content
    (folder / "cache.db").write_bytes(content.replace(b"CREATE TABLE Cache", b"CRE\xe5TE TABLE Cache"))
    if on_corrupt == "raise":
        with pytest.raises(CacheError, match="cannot be opened"):
            CachedRM(LengthRM(), cache_dir=folder, on_corrupt="raise")
        return
    with CachedRM(LengthRM(), cache_dir=folder) as rm:
        assert [rm.score(SHORT, return_details=True)[1]["cached"] for _ in range(2)] == [False, True]
    assert list(folder.glob("cache.db.corrupt-*"))


@pytest.mark.parametrize("column", ["key", "value", "tag"])
def test_an_entry_that_is_no_text_is_one_corrupt_entry(column, folder, tmp_path, caplog):
    with CachedRM(LengthRM(), cache_dir=folder) as rm:
        rm.score(prompt="Hi", response="another")
        execute(folder, f"UPDATE Cache SET {column} = CAST(x'e5' AS TEXT) || substr({column}, 2) WHERE rowid = 1")
        assert rm.export(tmp_path / "out.jsonl") == 1
        assert rm.stats()["errors"] == 1
        assert rm.score(SHORT, return_details=True)[1]["cached"] is False
        assert rm.score(SHORT, return_details=True)[1]["cached"] is True
    assert "cannot be read" not in caplog.text


def test_a_setting_that_is_no_text_is_not_followed(folder):
    execute(folder, "UPDATE Settings SET key = CAST(x'e5' AS TEXT) || 'ize_limit' WHERE key = 'size_limit'")
    with CachedRM(LengthRM(), cache_dir=folder) as rm:
        assert [rm.score(SHORT, return_details=True)[1]["cached"] for _ in range(2)] == [False, True]
    assert list(folder.glob("cache.db.corrupt-*"))


def test_a_file_with_a_broken_index_is_moved_aside(folder):
    """Its pages are sound, each by itself; what is removed or replaced is not found."""
    connection = sqlite3.connect(folder / "cache.db")
    ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Cache_key_raw'").fetchall()
    connection.close()
    ((key,),) = rows(folder, "key")
    content = (folder / "cache.db").read_bytes()
    start, end = (page - 1) * 4096, page * 4096
    index = content[start:end].replace(key.encode(), b"x" + key[1:].encode())
    (folder / "cache.db").write_bytes(content[:start] + index + content[end:])
    with CachedRM(LengthRM(), cache_dir=folder) as rm:
        rm.clear()
        assert rm.stats()["entries"] == 0
        assert [rm.score(SHORT, return_details=True)[1]["cached"] for _ in range(2)] == [False, True]
        assert integrity(folder) == "ok"
    assert list(folder.glob("cache.db.corrupt-*"))


@pytest.mark.parametrize("statement", ["DELETE FROM Settings", "UPDATE Settings SET value = 'x'"])
@pytest.mark.parametrize("on_corrupt", ["recompute", "raise"])
def test_settings_spoilt_under_an_open_cache_cost_no_score(on_corrupt, statement, folder):
    with CachedRM(LengthRM(), cache_dir=folder, on_corrupt=on_corrupt) as rm:
        execute(folder, statement)
        if on_corrupt == "raise":
            with pytest.raises(CacheError, match="cannot be read"):
                rm.stats()
            return
        rm.stats()
        assert rm.score(SHORT) == 0.03
        assert rm.score(SHORT, return_details=True)[1]["cached"] is True
        assert rm.stats()["entries"] >= 0


def test_a_broken_file_is_not_exported_in_part(folder, tmp_path):
    with CachedRM(LengthRM(), cache_dir=folder) as rm:
        rm.score_batch([[SHORT[0], {"role": "assistant", "content": "a" * n}] for n in range(1, 301)])
        execute(folder, "PRAGMA wal_checkpoint(TRUNCATE)")
        with (folder / "cache.db").open("r+b") as file:
            file.seek(3 * 4096)
            file.write(b"\xff" * 20 * 4096)
        with pytest.raises(CacheError, match="cannot be read"):
            rm.export(tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_broken_file_is_an_error_where_that_is_asked_for(folder):
    (folder / "cache.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(CacheError, match="not a database"):
        CachedRM(LengthRM(), cache_dir=folder, on_corrupt="raise")
    assert list(folder.glob("*.corrupt-*")) == []


@pytest.mark.parametrize("on_corrupt", ["recompute", "raise"])
def test_pages_overwritten_under_an_open_cache_give_no_wrong_score(on_corrupt, folder, caplog):
    with CachedRM(LengthRM(), cache_dir=folder, on_corrupt=on_corrupt) as rm:
        conversations = [[SHORT[0], {"role": "assistant", "content": "a" * n}] for n in range(1, 301)]
        expected = rm.score_batch(conversations)
        execute(folder, "PRAGMA wal_checkpoint(TRUNCATE)")
        size = (folder / "cache.db").stat().st_size
        with (folder / "cache.db").open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(size - 4096))
        if on_corrupt == "raise":
            with pytest.raises(CacheError):
                rm.score_batch(conversations)
            return
        assert rm.score_batch(conversations) == expected
        assert rm.score_batch(conversations) == expected
        assert rm.stats()["hits"] >= 300
        assert list(folder.glob("cache.db.corrupt-*"))


def test_several_threads_that_find_the_file_broken_move_it_once(folder):
    with CachedRM(LengthRM(), cache_dir=folder) as rm:
        execute(folder, "PRAGMA wal_checkpoint(TRUNCATE)")
        with (folder / "cache.db").open("r+b") as file:
            file.write(os.urandom(30_000))
        scores: list[float] = []
        threads = [threading.Thread(target=lambda: scores.append(rm.score(SHORT))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert scores == [0.03] * 4
        assert rm.score(SHORT, return_details=True)[1]["cached"] is True
    assert len([path for path in folder.glob("cache.db.corrupt-*") if not path.name.endswith(("-wal", "-shm"))]) == 1


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    """A place where no folder can be made."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "cache"


def test_without_a_usable_folder_the_model_is_asked_and_one_warning_given(no_folder, caplog):
    with CachedRM(LengthRM(), cache_dir=no_folder) as rm:
        assert [rm.score(SHORT) for _ in range(3)] == [0.03] * 3
        assert rm.stats()["misses"] == 3
        assert (rm.stats()["entries"], rm.clear()) == (0, 0)
        with pytest.raises(CacheError, match="could not be opened"):
            rm.export(no_folder.parents[1] / "out")
    assert len(caplog.records) == 1
    with pytest.raises(CacheError, match="cannot be opened"):
        CachedRM(LengthRM(), cache_dir=no_folder, on_corrupt="raise")


@pytest.mark.parametrize("on_corrupt", ["recompute", "raise"])
def test_a_full_disk_costs_no_score(on_corrupt, tmp_path):
    """The kernel refuses the process files of more than 200 kB, as a full disk would."""
    ended = subprocess.run(
        [sys.executable, PROCESSES, "full", tmp_path / "cache", on_corrupt], capture_output=True, text=True, check=True
    )
    told = json.loads(ended.stdout)
    if on_corrupt == "raise":
        assert told == "CacheError"
    else:
        assert told["scores"] == told["expected"]
        assert told["errors"] >= 1
        assert ended.stderr.count("cannot be written") == 1


def test_a_new_folder_is_for_its_owner_alone(tmp_path):
    with CachedRM(LengthRM(), cache_dir=tmp_path / "a" / "b"):
        assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_home_and_variables_in_the_folders_name_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUN", "run-1")
    with CachedRM(LengthRM(), cache_dir="~/caches/$RUN"):
        assert stat.S_IMODE((tmp_path / "caches" / "run-1").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "wrong", [{"size_limit": 0}, {"size_limit": "1GB"}, {"eviction": "random"}, {"on_corrupt": "ignore"}]
)
def test_wrong_arguments_are_refused_by_name(wrong, tmp_path):
    with pytest.raises(TypeError, match=f"{next(iter(wrong))}="):
        ScoreStore(tmp_path / "cache", **wrong)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("eviction", ["least-recently-stored", "least-recently-used", "least-frequently-used"])
def test_old_entries_make_room_for_new_ones(eviction, tmp_path):
    with CachedRM(LengthRM(), cache_dir=tmp_path / "cache", size_limit=200_000, eviction=eviction) as rm:
        conversations = [[SHORT[0], {"role": "assistant", "content": "a" * n}] for n in range(1, 1001)]
        rm.score_batch(conversations)
        stats = rm.stats()
        assert 0 < stats["entries"] < 1000
        assert stats["size_bytes"] < 250_000
        assert rm.score(conversations[-1], return_details=True)[1]["cached"] is True
        assert rm.score(conversations[0], return_details=True)[1]["cached"] is False


def test_a_limit_that_leaves_no_room_for_entries_is_told(tmp_path, caplog):
    with CachedRM(LengthRM(), cache_dir=tmp_path / "roomy", size_limit=60_000):
        assert caplog.records == []
    with CachedRM(LengthRM(), cache_dir=tmp_path / "cache", size_limit=10_000) as rm:
        assert [rm.score(SHORT) for _ in range(2)] == [0.03] * 2
    assert "size_limit=10000" in caplog.text


def test_nothing_is_evicted_where_that_is_asked_for(tmp_path):
    with CachedRM(LengthRM(), cache_dir=tmp_path / "cache", size_limit=50_000, eviction="none") as rm:
        rm.score_batch([[SHORT[0], {"role": "assistant", "content": "a" * n}] for n in range(1, 501)])
        assert rm.stats()["entries"] == 500


# several processes


def test_four_processes_lose_nothing_and_get_nothing_wrong(tmp_path):
    """1,000 mixed calls each, on one new folder; every value is compared, and all of them are there at the end."""
    commands = [[sys.executable, PROCESSES, "mixed", tmp_path / "cache", str(seed)] for seed in range(4)]
    processes = [subprocess.Popen(c, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for c in commands]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert [(t["calls"], t["wrong"], t["errors"]) for t in told] == [(1000, 0, 0)] * 4
    asked = set().union(*(t["asked"] for t in told))
    with CachedRM(LengthRM(), cache_dir=tmp_path / "cache", fingerprint="mixed") as rm:
        results = rm.score_batch(
            [[SHORT[0], {"role": "assistant", "content": "a" * n}] for n in sorted(asked)], return_details=True
        )
        assert [(score, details["cached"]) for score, details in results] == [(n / 100, True) for n in sorted(asked)]
        assert rm.stats()["entries"] == len(asked)
        assert integrity(tmp_path / "cache") == "ok"


def test_processes_killed_while_they_write_leave_a_sound_file(tmp_path):
    """20 times: what a process said it had stored is there and right, and the file is sound."""
    ended = subprocess.run(
        [sys.executable, PROCESSES, "killed", tmp_path / "cache", "20"], capture_output=True, text=True, check=True
    )
    told = json.loads(ended.stdout)
    assert len(told) == 20
    assert all(n_stored > 0 for n_stored in told)
    assert integrity(tmp_path / "cache") == "ok"
    store = ScoreStore(tmp_path / "cache", on_corrupt="raise")
    for run, n_stored in enumerate(told):
        assert [store.get(f"{run}-{i}", json.loads) for i in range(n_stored)] == [[run, i] for i in range(n_stored)]
    assert store.stats()["entries"] >= sum(told)
    store.close()


def test_a_forked_process_reads_and_writes_beside_its_parent(tmp_path):
    ended = subprocess.run(
        [sys.executable, PROCESSES, "forked", tmp_path / "cache"], capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout) == {"parent": [True, True], "child": 0, "entries": 2}
    assert integrity(tmp_path / "cache") == "ok"


def integrity(folder: Path) -> str:
    connection = sqlite3.connect(folder / "cache.db")
    ((found,),) = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return str(found)
