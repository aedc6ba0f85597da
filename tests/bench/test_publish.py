from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hub_server import USER, HubServer

CARD = "---\nlicense: apache-2.0\n---\n# A model\n\nIts own words stay.\n"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    card = tmp_path / "model"
    card.mkdir()
    (card / "README.md").write_text(CARD, encoding="utf-8")
    with HubServer(tokens={"hf_write"}) as server:
        server.add("org/model", card)
        yield server


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The options of a run over six pairs with recorded scores, four of them right."""
    pairs = [{"id": i, "subset": "ab"[i % 2], "prompt": "Q?", "chosen": "yes", "rejected": "no"} for i in range(6)]
    scores = [{"id": i, "chosen_score": float(i), "rejected_score": 1.5} for i in range(6)]
    for name, rows in (("pairs", pairs), ("scores", scores)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in ("pairs", "scores")}
    return ["--data", paths["pairs"], "--scores", paths["scores"], "--out", str(tmp_path / "out")]


def bench(hub: HubServer, *arguments: str, token: str = "hf_write") -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads the hub's address when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "reward_hub", "bench", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_scores_are_pushed_as_a_data_set_that_says_what_it_is(hub: HubServer, files: list[str], tmp_path: Path) -> None:
    done = bench(hub, *files, "--push-to-hub", "org/scores")
    assert done.returncode == 0, done.stderr
    pushed = hub.files("datasets/org/scores")
    assert pushed["items.jsonl"] == (tmp_path / "out" / "items.jsonl").read_bytes()
    assert pushed["results.json"] == (tmp_path / "out" / "results.json").read_bytes()
    card = pushed["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert head["configs"] == [{"config_name": "default", "data_files": "items.jsonl"}]
    assert f"| overall | Accuracy | {4 / 6:.4f} |" in card
    assert [r.status for r in hub.requests if r.path.endswith("/commit/main")] == [200]
    assert "hf_write" not in done.stdout + done.stderr


def test_what_is_pushed_without_a_folder_is_kept_under_results(
    hub: HubServer, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in rewardbench's command lines, which name no folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=":")
    monkeypatch.chdir(tmp_path)
    done = bench(hub, *files[:2], "--scores", "scores.jsonl", "--push_to_hub", "org/scores")
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "results" / "scores.jsonl" / "items.jsonl"
    assert hub.files("datasets/org/scores")["items.jsonl"] == kept.read_bytes()


def test_a_second_push_goes_into_the_same_data_set(hub: HubServer, files: list[str]) -> None:
    for _ in range(2):
        assert bench(hub, *files, "--push-results-to-hub").returncode == 0
    (name,) = [name for name in hub.repos if name.startswith("datasets/")]
    assert name.startswith(f"datasets/{USER}/")


def test_a_name_without_an_owner_is_ones_own_and_may_be_private(hub: HubServer, files: list[str]) -> None:
    done = bench(hub, *files, "--push-to-hub", "mine", "--private")
    assert done.returncode == 0, done.stderr
    assert set(hub.files(f"datasets/{USER}/mine")) == {"items.jsonl", "results.json", "README.md"}
    assert hub.repos[f"datasets/{USER}/mine"].private


def test_a_card_whose_metadata_cannot_be_read_is_left_and_named(
    hub: HubServer, files: list[str], tmp_path: Path
) -> None:
    broken = CARD.replace("license:", "{")
    (tmp_path / "model" / "README.md").write_text(broken, encoding="utf-8")
    hub.add("org/broken", tmp_path / "model")
    done = bench(hub, *files, "--model-card", "org/broken")
    assert done.returncode == 1
    assert "error: The metadata in the card of org/broken cannot be read" in done.stderr
    assert hub.files("org/broken")["README.md"].decode() == broken


def test_metrics_go_into_the_cards_metadata_and_leave_its_words(hub: HubServer, files: list[str]) -> None:
    done = bench(hub, *files, "--model-card", "org/model")
    assert done.returncode == 0, done.stderr
    _, head, text = hub.files("org/model")["README.md"].decode().split("---", 2)
    metadata = yaml.safe_load(head)
    assert metadata["license"] == "apache-2.0"
    assert "Its own words stay." in text
    (model,) = metadata["model-index"]
    found = {(r["dataset"]["config"], r["metrics"][0]["type"]): r["metrics"][0]["value"] for r in model["results"]}
    # Items 2 to 5 are right: of subset a 2 and 4 of three, of subset b 3 and 5 of three.
    assert found == {
        key: pytest.approx(2 / 3) for key in (("overall", "accuracy"), ("a", "accuracy"), ("b", "accuracy"))
    }


def test_metrics_of_a_later_run_take_the_place_of_earlier_ones(
    hub: HubServer, files: list[str], tmp_path: Path
) -> None:
    bench(hub, *files, "--model-card", "org/model")
    scores = [{"id": i, "chosen_score": 1.0, "rejected_score": 0.0} for i in range(6)]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores), encoding="utf-8")
    assert bench(hub, *files, "--model-card", "org/model").returncode == 0
    metadata = yaml.safe_load(hub.files("org/model")["README.md"].decode().split("---")[1])
    assert [r["metrics"][0]["value"] for r in metadata["model-index"][0]["results"]] == [1.0, 1.0, 1.0]


def test_without_a_token_or_a_hub_the_error_says_what_to_look_at_and_the_results_stay(
    hub: HubServer, files: list[str], tmp_path: Path
) -> None:
    nameless = bench(hub, *files, "--push-results-to-hub", token="")
    hub.stop()
    away = [bench(hub, *files, *option) for option in (("--push-to-hub", "org/s"), ("--model-card", "org/model"))]
    for done in (nameless, *away):
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert f"The results are in {tmp_path / 'out'}; check network, HF_ENDPOINT and HF_TOKEN" in done.stderr
    assert json.loads((tmp_path / "out" / "results.json").read_text())["n"] == 6


def test_a_refusal_of_the_hub_is_an_error_and_the_results_stay(
    hub: HubServer, files: list[str], tmp_path: Path
) -> None:
    done = bench(hub, *files, "--push-to-hub", "org/scores", token="hf_stranger")
    assert done.returncode == 1
    assert "org/scores" in done.stderr
    assert json.loads((tmp_path / "out" / "results.json").read_text())["n"] == 6
