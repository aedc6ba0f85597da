"""Repositories of the Hub: resolved, read and fetched from a real server on this machine, and from the cache."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from hub_server import HubServer
from huggingface_hub import constants
from safetensors.numpy import save_file

from reward_hub.checkpoints import hub as hub_module
from reward_hub.checkpoints.hub import HubRepo, read_safetensors_header, resolve
from reward_hub.errors import CacheError, CheckpointError, ServerError, ServerTimeoutError, UnknownModelError

SECRET = "hf_0123456789secret"
GOLDEN = Path(__file__).parents[3] / "shared" / "golden"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    # huggingface_hub reads its environment at import: these are HF_HUB_CACHE, HF_TOKEN_PATH, HF_HUB_OFFLINE, and the
    # telemetry switch, without which it asks huggingface.co for a list of agents.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub waits up to half a minute between its attempts."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder of 1.2 MB: a configuration, weights whose header is short, and files nobody asks for."""
    folder = tmp_path / "checkpoint"
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text('{"version": 1}')
    tensors = {"score.weight": np.ones((1, 8), np.float32), "embed.weight": np.zeros((300_000,), np.float32)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "onnx" / "model.onnx").write_bytes(b"o" * 1000)
    (folder / "model[1].txt").write_text("a name with glob characters")
    (folder / "model1.txt").write_text("what that name would match as a pattern")
    return folder


@pytest.fixture
def commit(server: HubServer, checkpoint: Path) -> str:
    return server.add("org/rm", checkpoint, tags=("v1",))


def reworded(checkpoint: Path) -> Path:
    """The same folder with another configuration: the next commit."""
    (checkpoint / "config.json").write_text('{"version": 2}')
    return checkpoint


# Resolve


@pytest.mark.parametrize("revision", [None, "main", "v1", "whole commit", "short commit"])
def test_a_branch_a_tag_and_a_commit_resolve_to_the_commit(commit: str, revision: str | None) -> None:
    asked = {"whole commit": commit, "short commit": commit[:7]}.get(revision or "", revision)
    repo = resolve("org/rm", revision=asked)
    assert (repo.id, repo.revision, repo.offline) == ("org/rm", commit, False)
    assert repo.files == ("config.json", "model.safetensors", "model1.txt", "model[1].txt", "onnx/model.onnx")


def test_revisions_with_other_content_are_kept_apart(server: HubServer, checkpoint: Path, commit: str) -> None:
    other = server.add("org/rm", reworded(checkpoint), branch="experiment")
    contents = {
        repo.revision: (repo.download(["config.json"]) / "config.json").read_text()
        for repo in (resolve("org/rm"), resolve("org/rm", revision="experiment"))
    }
    assert contents == {commit: '{"version": 1}', other: '{"version": 2}'}


def test_a_main_that_moved_after_caching_gives_the_new_commit(server: HubServer, checkpoint: Path, commit: str) -> None:
    resolve("org/rm").download(["config.json"])
    moved = server.add("org/rm", reworded(checkpoint))
    repo = resolve("org/rm")
    assert repo.revision == moved != commit
    assert (repo.download(["config.json"]) / "config.json").read_text() == '{"version": 2}'


def test_a_repo_stays_at_its_commit_while_main_moves(server: HubServer, checkpoint: Path, commit: str) -> None:
    repo = resolve("org/rm")
    server.add("org/rm", reworded(checkpoint))
    folder = repo.download(["config.json"])
    assert folder.name == commit
    assert (folder / "config.json").read_text() == '{"version": 1}'


def test_resolving_is_one_request_and_fetches_no_file(server: HubServer, commit: str) -> None:
    resolve("org/rm")
    assert [request.path for request in server.requests] == ["/api/models/org/rm"]


def test_the_endpoint_is_read_when_it_is_needed(commit: str, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    with HubServer() as mirror:
        on_mirror = mirror.add("org/rm", reworded(checkpoint))
        monkeypatch.setenv("HF_ENDPOINT", mirror.endpoint + "/")
        assert resolve("org/rm").revision == on_mirror != commit


# Headers


def test_a_header_is_read_without_the_weights(server: HubServer, checkpoint: Path, commit: str) -> None:
    size = (checkpoint / "model.safetensors").stat().st_size
    header = resolve("org/rm").safetensors_header("model.safetensors")
    assert header["score.weight"] == {"dtype": "F32", "shape": [1, 8], "data_offsets": [1_200_000, 1_200_032]}
    assert set(header) == {"score.weight", "embed.weight"}
    # huggingface_hub asks for the first 100 kB at once, which saves a request for nearly every file.
    assert 0 < server.bytes_sent("model.safetensors") <= 100_001 < size / 10


def test_a_header_longer_than_the_first_piece_is_read_whole(server: HubServer, tmp_path: Path) -> None:
    many = {f"layers.{index}.weight": np.zeros(64, np.float32) for index in range(2500)}
    (tmp_path / "many").mkdir()
    save_file(many, tmp_path / "many" / "model.safetensors")
    server.add("org/many", tmp_path / "many")
    header = resolve("org/many").safetensors_header("model.safetensors")
    assert header == read_safetensors_header(tmp_path / "many" / "model.safetensors")
    assert len(header) == 2500
    # Two pieces: 100 kB, and then the header of about 230 kB anew; the weights are 640 kB more.
    assert server.bytes_sent("model.safetensors") < 400_000


def test_the_header_of_a_cached_file_is_read_from_the_cache(server: HubServer, checkpoint: Path, commit: str) -> None:
    repo = resolve("org/rm")
    remote = repo.safetensors_header("model.safetensors")
    repo.download(["model.safetensors"])
    server.clear()
    assert repo.safetensors_header("model.safetensors") == remote
    assert server.requests == []


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, (6).to_bytes(8, "little") + b"{ not }"])
def test_a_file_that_is_no_safetensors_file_is_said_to_be_none(
    server: HubServer, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.safetensors").write_bytes(content)
    server.add("org/broken", tmp_path / "broken")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        resolve("org/broken").safetensors_header("model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a safetensors file"):
        read_safetensors_header(tmp_path / "broken" / "model.safetensors")


def test_a_git_lfs_pointer_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read_safetensors_header(path)


# Download


def test_only_the_files_asked_for_are_fetched(server: HubServer, commit: str) -> None:
    folder = resolve("org/rm").download(["config.json", "model[1].txt"])
    assert server.files_sent() == ["config.json", "model[1].txt"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model[1].txt"]


def test_files_of_subfolders_are_fetched_to_their_place(server: HubServer, commit: str) -> None:
    folder = resolve("org/rm").download(["onnx/model.onnx"])
    assert (folder / "onnx" / "model.onnx").read_bytes() == b"o" * 1000
    assert server.files_sent() == ["onnx/model.onnx"]


def test_a_second_load_moves_no_file(server: HubServer, commit: str) -> None:
    resolve("org/rm").download(["config.json", "model.safetensors"])
    server.clear()
    resolve("org/rm").download(["model.safetensors", "config.json"])
    assert [request.path for request in server.requests] == ["/api/models/org/rm"]


def test_files_that_the_cache_lacks_are_added_to_those_it_has(server: HubServer, commit: str) -> None:
    repo = resolve("org/rm")
    repo.download(["model.safetensors"])
    server.clear()
    repo.download(["model.safetensors", "config.json"])
    assert server.files_sent() == ["config.json"]


def test_a_file_that_is_the_same_in_a_new_commit_is_not_fetched_again(
    server: HubServer, checkpoint: Path, commit: str
) -> None:
    resolve("org/rm").download(["config.json", "model.safetensors"])
    server.add("org/rm", reworded(checkpoint))
    server.clear()
    resolve("org/rm").download(["config.json", "model.safetensors"])
    assert server.files_sent() == ["config.json"]


def test_a_repository_of_several_pages_of_files_is_fetched(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for index in range(120):
        (tmp_path / "shards" / f"part-{index:03}.txt").write_text(str(index))
    server.add("org/shards", tmp_path / "shards")
    folder = resolve("org/shards").download(["part-000.txt", "part-119.txt"])
    assert (folder / "part-119.txt").read_text() == "119"
    assert server.files_sent() == ["part-000.txt", "part-119.txt"]


def test_a_name_that_the_repository_lacks_is_refused_before_anything_moves(server: HubServer, commit: str) -> None:
    repo = resolve("org/rm")
    server.clear()
    with pytest.raises(CheckpointError, match=r"org/rm has no file 'model\.bin' at revision 'main'"):
        repo.download(["config.json", "model.bin"])
    assert server.requests == []


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden checkpoints are not here")
@pytest.mark.parametrize("name", ["armorm", "qwen2.5-math-prm", "steamshp"])
def test_a_golden_checkpoint_arrives_as_it_was(server: HubServer, name: str) -> None:
    source = GOLDEN / name / "checkpoint"
    if not source.is_dir():
        pytest.skip(f"no checkpoint in the golden files of {name}")
    server.add("golden/rm", source)
    repo = resolve("golden/rm")
    weights = next(file for file in repo.files if file.endswith(".safetensors"))
    header = repo.safetensors_header(weights)
    folder = repo.download(repo.files)
    assert header == read_safetensors_header(source / weights)
    assert all((folder / file).read_bytes() == (source / file).read_bytes() for file in repo.files)


# Cache


def test_cache_dir_is_where_files_go(commit: str, tmp_path: Path) -> None:
    folder = resolve("org/rm", cache_dir=tmp_path / "elsewhere").download(["config.json"])
    assert folder == tmp_path / "elsewhere" / "models--org--rm" / "snapshots" / commit
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_that_of_huggingface_hub(commit: str) -> None:
    folder = resolve("org/rm").download(["config.json"])
    assert huggingface_hub.try_to_load_from_cache("org/rm", "config.json") == str(folder / "config.json")
    [cached] = huggingface_hub.scan_cache_dir(constants.HF_HUB_CACHE).repos
    assert [(revision.commit_hash, set(revision.refs)) for revision in cached.revisions] == [(commit, {"main"})]


def test_a_cache_filled_by_huggingface_hub_is_used(server: HubServer, commit: str) -> None:
    huggingface_hub.snapshot_download("org/rm", endpoint=server.endpoint, allow_patterns=["config.json"])
    server.stop()
    repo = resolve("org/rm", local_files_only=True)
    assert (repo.revision, repo.files) == (commit, ("config.json",))


def test_hf_home_and_hf_hub_offline_are_honoured_in_a_fresh_process(
    server: HubServer, commit: str, tmp_path: Path
) -> None:
    code = "from reward_hub.checkpoints.hub import resolve; print(resolve('org/rm').download(['config.json']))"
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = {name: value for name, value in environment.items() if name not in ("HF_HUB_CACHE", "HF_XET_CACHE")}

    def load(**extra: str) -> str:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment | extra, cwd=Path(__file__).parents[2], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    online = load()
    server.clear()
    assert Path(online) == tmp_path / "home" / "hub" / "models--org--rm" / "snapshots" / commit
    assert load(HF_HUB_OFFLINE="1") == online
    assert server.requests == []


# Offline


@pytest.mark.parametrize("revision", [None, "main", "whole commit", "short commit"])
def test_a_cached_repo_loads_offline_with_the_server_down(server: HubServer, commit: str, revision: str | None) -> None:
    online = resolve("org/rm").download(["config.json", "model.safetensors"])
    server.stop()
    asked = {"whole commit": commit, "short commit": commit[:7]}.get(revision or "", revision)
    repo = resolve("org/rm", revision=asked, local_files_only=True)
    assert (repo.revision, repo.offline) == (commit, True)
    assert repo.files == ("config.json", "model.safetensors")
    assert repo.download(["config.json"]) == online
    assert repo.safetensors_header("model.safetensors")["score.weight"]["shape"] == [1, 8]


def test_a_cached_tag_loads_offline(server: HubServer, commit: str) -> None:
    resolve("org/rm", revision="v1").download(["config.json"])
    server.stop()
    assert resolve("org/rm", revision="v1", local_files_only=True).revision == commit


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_mode_sends_no_request(
    server: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    resolve("org/rm").download(["config.json"])
    server.clear()
    monkeypatch.setenv(variable, "1")
    assert resolve("org/rm").offline
    assert server.requests == []


def test_what_is_not_cached_cannot_be_loaded_offline_and_the_message_says_how_to_fetch_it(commit: str) -> None:
    with pytest.raises(UnknownModelError, match="local_files_only=True was given: fetch it with `hf download org/rm`"):
        resolve("org/rm", local_files_only=True)


def test_the_command_that_fetches_names_the_cache_that_was_chosen(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=f"`hf download org/rm --revision v1 --cache-dir {tmp_path}`"):
        resolve("org/rm", revision="v1", cache_dir=tmp_path, local_files_only=True)


def test_a_revision_that_is_not_cached_names_those_that_are(commit: str) -> None:
    resolve("org/rm").download(["config.json"])
    with pytest.raises(UnknownModelError, match=f"Cached are the commits {commit}") as raised:
        resolve("org/rm", revision="v2", local_files_only=True)
    assert "hf download org/rm --revision v2" in str(raised.value)
    assert raised.value.near == (commit,)


def test_a_spelling_near_a_cached_id_is_proposed(server: HubServer, checkpoint: Path) -> None:
    server.add("org/reward-model", checkpoint)
    resolve("org/reward-model").download(["config.json"])
    with pytest.raises(UnknownModelError, match="Did you mean org/reward-model") as raised:
        resolve("org/rewrad-model", local_files_only=True)
    assert raised.value.near == ("org/reward-model",)


def test_a_file_that_the_cache_lacks_is_missing_offline(commit: str) -> None:
    resolve("org/rm").download(["config.json"])
    repo = resolve("org/rm", local_files_only=True)
    with pytest.raises(CheckpointError, match=r"hf download org/rm model\.safetensors --revision"):
        repo.download(["config.json", "model.safetensors"])


@pytest.mark.parametrize("revision", ["../snapshots", "/etc/hostname", "..", ""])
def test_a_revision_never_leads_out_of_the_cache(commit: str, revision: str) -> None:
    folder = resolve("org/rm").download(["config.json"])
    (folder.parents[1] / "secret").write_text(commit)
    if revision:
        with pytest.raises(UnknownModelError):
            resolve("org/rm", revision=revision, local_files_only=True)
    else:
        assert resolve("org/rm", revision=revision, local_files_only=True).revision == commit


# The Hub cannot be reached


def test_an_unreachable_hub_is_replaced_by_the_cache_with_one_warning(
    server: HubServer, commit: str, caplog: pytest.LogCaptureFixture
) -> None:
    resolve("org/rm").download(["config.json"])
    server.stop()
    with caplog.at_level(logging.WARNING, logger="reward_hub"):
        repo = resolve("org/rm")
    assert (repo.revision, repo.offline) == (commit, True)
    assert [record.levelname for record in caplog.records if record.name.startswith("reward_hub")] == ["WARNING"]
    assert commit[:8] in caplog.text


def test_an_unreachable_hub_without_a_cached_copy_is_a_retryable_server_error(server: HubServer, commit: str) -> None:
    server.stop()
    with pytest.raises(ServerError, match="HF_ENDPOINT") as raised:
        resolve("org/rm")
    assert (raised.value.status, raised.value.retryable) == (None, True)
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_hub_is_replaced_by_the_cache(server: HubServer, commit: str, status: int) -> None:
    with pytest.raises(ServerError) as raised:
        server.fail(status)
        resolve("org/rm")
    assert (raised.value.status, raised.value.retryable) == (status, True)
    resolve("org/rm").download(["config.json"])
    server.fail(status)
    assert resolve("org/rm").offline


def test_a_hub_that_does_not_answer_in_time_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ServerTimeoutError, match="ReadTimeout"):
            resolve("org/rm")


def test_a_server_that_is_no_hub_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "api" / "models" / "org"
    page.mkdir(parents=True)
    (page / "rm").write_text("<html>Please log in to the network</html>")
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as portal:
        assert portal.stdout is not None
        address = portal.stdout.readline().split("(")[1].split("/)")[0]
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(ServerError, match="does not answer as the Hub does") as raised:
            resolve("org/rm")
        portal.terminate()
    assert not raised.value.retryable


def test_a_download_that_breaks_off_is_resumed(server: HubServer, checkpoint: Path, no_waiting: None) -> None:
    # huggingface_hub writes pieces of 10 MiB, and resumes after the last whole one.
    piece, size = 10 * 2**20, 11 * 2**20
    (checkpoint / "large.bin").write_bytes(os.urandom(size))
    server.add("org/large", checkpoint)
    server.cut("large.bin", after=piece + 1000)
    folder = resolve("org/large").download(["large.bin"])
    assert (folder / "large.bin").read_bytes() == (checkpoint / "large.bin").read_bytes()
    gets = [request for request in server.requests if request.method == "GET" and "/resolve/" in request.path]
    assert [request.range for request in gets] == [None, f"bytes={piece}-"]
    assert server.bytes_sent("large.bin") == size + 1000


def test_a_download_that_keeps_breaking_off_is_a_server_error_and_leaves_no_part(
    server: HubServer, commit: str, no_waiting: None
) -> None:
    repo = resolve("org/rm")
    server.cut("model.safetensors", after=0, times=100)
    with pytest.raises(ServerError, match="broke off") as raised:
        repo.download(["config.json", "model.safetensors"])
    assert raised.value.retryable
    server.clear()
    assert resolve("org/rm", revision=commit, local_files_only=True).files == ("config.json",)


def test_a_hub_that_goes_away_before_the_download_is_a_server_error(
    server: HubServer, commit: str, no_waiting: None
) -> None:
    repo = resolve("org/rm")
    server.stop()
    with pytest.raises(ServerError) as raised:
        repo.download(["config.json"])
    assert raised.value.retryable


def test_a_hub_that_goes_away_between_two_downloads_does_not_pass_for_a_whole_snapshot(
    server: HubServer, commit: str, no_waiting: None
) -> None:
    repo = resolve("org/rm")
    folder = repo.download(["config.json"])
    # As left by versions of huggingface_hub that keep no list of files: the folder is all there is to go by.
    shutil.rmtree(folder.parents[1] / "trees", ignore_errors=True)
    server.stop()
    with pytest.raises(ServerError) as raised:
        repo.download(["config.json", "model.safetensors"])
    assert raised.value.retryable


def test_a_header_read_that_breaks_off_is_a_server_error(server: HubServer, commit: str) -> None:
    repo = resolve("org/rm")
    server.cut("model.safetensors", after=100)
    with pytest.raises(ServerError, match="broke off"):
        repo.safetensors_header("model.safetensors")


def test_a_cache_that_cannot_be_written_is_a_cache_error(commit: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(CacheError, match="cache_dir="):
        resolve("org/rm").download(["config.json"])


# What may not be read


def test_a_missing_repository_says_what_to_check(server: HubServer) -> None:
    with pytest.raises(UnknownModelError) as raised:
        resolve("org/nothing")
    assert "no model 'org/nothing'" in str(raised.value)
    assert "spelling" in str(raised.value)
    assert "hf auth login" in str(raised.value)
    assert "./org/nothing" in str(raised.value)
    assert type(raised.value.__cause__).__name__ == "RepositoryNotFoundError"


def test_a_missing_revision_is_named(commit: str) -> None:
    with pytest.raises(UnknownModelError, match="org/rm has no branch, tag or commit 'v9'"):
        resolve("org/rm", revision="v9")


def test_a_revision_gone_from_the_hub_is_not_loaded_from_the_cache_unasked(server: HubServer, commit: str) -> None:
    resolve("org/rm", revision="v1").download(["config.json"])
    del server.repos["org/rm"].refs["v1"]
    with pytest.raises(UnknownModelError, match="local_files_only=True loads"):
        resolve("org/rm", revision="v1")


def test_a_private_repository_needs_a_token_that_may_read_it(server: HubServer, checkpoint: Path) -> None:
    server.tokens = ["hf_stranger"]
    commit = server.add("org/private", checkpoint, private=True, readers=[SECRET])
    for token in (None, "hf_stranger", False):
        with pytest.raises(UnknownModelError, match="private"):
            resolve("org/private", token=token)
    assert resolve("org/private", token=SECRET).revision == commit


def test_a_gated_repository_is_seen_and_its_files_need_its_licence(server: HubServer, checkpoint: Path) -> None:
    server.tokens = ["hf_stranger"]
    server.add("org/gated", checkpoint, gated=True, readers=[SECRET])
    page = f"{server.endpoint}/org/gated"
    with pytest.raises(UnknownModelError, match=f"accept its licence at {page}, then log in with `hf auth login`"):
        resolve("org/gated").download(["config.json"])
    with pytest.raises(UnknownModelError, match=f"has no access: accept its licence at {page}"):
        resolve("org/gated", token="hf_stranger").safetensors_header("model.safetensors")
    assert (resolve("org/gated", token=SECRET).download(["config.json"]) / "config.json").exists()


def test_a_gated_repository_that_is_cached_loads_without_a_token(server: HubServer, checkpoint: Path) -> None:
    server.add("org/gated", checkpoint, gated=True, readers=[SECRET])
    folder = resolve("org/gated", token=SECRET).download(["config.json"])
    assert resolve("org/gated").download(["config.json"]) == folder


def test_a_token_that_is_not_valid_is_a_server_error(commit: str) -> None:
    with pytest.raises(ServerError, match="Is the token still valid") as raised:
        resolve("org/rm", token="hf_expired")
    assert (raised.value.status, raised.value.retryable) == (401, False)


def test_token_true_without_a_login_says_how_to_log_in(commit: str) -> None:
    with pytest.raises(ServerError, match="hf auth login"):
        resolve("org/rm", token=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./my-checkpoint", "no folder './my-checkpoint'"),
        ("/no/such/folder", "no folder '/no/such/folder'"),
        ("a/b/c", "no folder 'a/b/c'"),
        ("org/two words", "no folder 'org/two words'"),
        ("", "no folder ''"),
        ("https://huggingface.co/org/rm", "give the id, 'org/rm'"),
        ("https://huggingface.co/org/rm/tree/main", "give the id, 'org/rm'"),
        (__file__, "is a file: give the folder"),
    ],
)
def test_what_cannot_be_an_id_is_refused_without_a_request(server: HubServer, name: str, said: str) -> None:
    with pytest.raises(UnknownModelError, match=said):
        resolve(name)
    assert server.requests == []


# Tokens


def test_the_token_goes_with_every_request_and_nowhere_else(
    server: HubServer, checkpoint: Path, caplog: pytest.LogCaptureFixture, no_waiting: None
) -> None:
    server.add("org/private", checkpoint, private=True, readers=[SECRET])
    said = []
    with caplog.at_level(logging.DEBUG):
        repo = resolve("org/private", token=f" {SECRET}\n")
        repo.safetensors_header("model.safetensors")
        repo.download(["config.json"])
        assert server.requests
        assert all(request.authorized for request in server.requests)
        server.stop()
        resolve("org/private", token=SECRET)
        for call in (lambda: repo.download(["model.safetensors"]), lambda: resolve("org/other", token=SECRET)):
            with pytest.raises(ServerError) as raised:
                call()
            said += [str(raised.value), repr(raised.value), str(raised.value.__dict__)]
    assert SECRET not in caplog.text + repr(repo) + repr(repo._connection) + str(server.requests) + "".join(said)


def test_the_token_of_the_environment_is_sent_and_can_be_left_out(
    server: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.tokens = [SECRET]
    monkeypatch.setenv("HF_TOKEN", SECRET)
    resolve("org/rm")
    resolve("org/rm", token=False)
    assert [request.authorized for request in server.requests] == [True, False]


def test_a_token_that_a_server_repeats_is_blacked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = hub_module._Connection(endpoint="https://user:password@mirror/hf", token=SECRET)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    error = ValueError(f"no {SECRET}, no hf_of_the_environment, nor https://user:password@mirror")
    assert connection.text(error) == "ValueError: no ***, no ***, nor https://user:***@mirror"
    assert connection.url == "https://mirror/hf"


def test_the_endpoint_of_a_mirror_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://user:password@127.0.0.1:1/hf")
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:1/hf cannot be reached") as raised:
        resolve("org/rm")
    assert "password" not in str(raised.value)


@pytest.mark.parametrize("token", ["", "hf_two words", f"{SECRET}\n{SECRET}"])
def test_a_token_that_cannot_be_sent_is_refused_without_being_quoted(server: HubServer, token: str) -> None:
    with pytest.raises(ValueError, match="copy it anew") as raised:
        resolve("org/rm", token=token)
    assert SECRET not in str(raised.value)


# The rest


def test_a_repo_can_be_pickled_and_compared(commit: str) -> None:
    repo = resolve("org/rm")
    assert pickle.loads(pickle.dumps(repo)) == repo == HubRepo("org/rm", commit, repo.files, offline=False)


def test_importing_the_module_imports_nothing_heavy() -> None:
    code = "import sys, json, reward_hub.checkpoints.hub; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, check=True)
    heavy = {"huggingface_hub", "safetensors", "numpy", "torch", "transformers", "httpx", "pydantic"}
    assert heavy.isdisjoint(json.loads(done.stdout))


def test_no_environment_variable_is_written(commit: str) -> None:
    before = dict(os.environ)
    resolve("org/rm").download(["config.json"])
    assert dict(os.environ) == before
