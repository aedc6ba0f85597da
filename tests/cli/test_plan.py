"""`reward-hub inspect --plan`: what a run would take is what it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reward_hub import AutoRM

Call = Callable[..., Any]
PROMPT = "Ann has 16 eggs. She sells 3. Then she buys 5 more. How many eggs are there?"
ANSWERS = [f"16 - 3 = 13\n\n13 + 5 = {n}" for n in range(10, 26)]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    records = [{"prompt": PROMPT, "response": answer} for answer in ANSWERS]
    path.write_text("".join(json.dumps(record) + "\n" for record in [*records, {"prompt": "no response"}]))
    return path


def test_the_plan_counts_what_scoring_counts(reward_hub: Call, rows: Path) -> None:
    ended = reward_hub("inspect", "builtin/arithmetic-orm", "--plan", str(rows), "--json")
    assert ended.code == 0, ended.err
    plan = json.loads(ended.out)
    with AutoRM.load("builtin/arithmetic-orm") as rm:
        batch = [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": text}] for text in ANSWERS]
        details = rm.score_batch(batch, return_details=True)
        n_tokens = sum(one["tokens_scored"] for _, one in details)
        shared = rm.shared_share
    assert (plan["rows"], plan["failed"]) == (16, 1)
    assert plan["tokens"] == n_tokens
    assert plan["tokens_after_sharing"] == round(n_tokens * (1 - shared))
    assert plan["tokens_after_sharing"] < n_tokens / 2
    assert (plan["padding"], plan["forwards"], plan["largest_forward"]) == (0, 1, plan["tokens_after_sharing"])
    assert plan["estimated_seconds"] > 0
    assert plan["estimated_memory_bytes"] > AutoRM.inspect("builtin/arithmetic-orm")["memory_bytes"]


def test_a_smaller_forward_makes_more_of_them(reward_hub: Call, rows: Path) -> None:
    ended = reward_hub("inspect", "builtin/arithmetic-orm", "--plan", str(rows), "--max-batch-tokens", "64", "--json")
    plan = json.loads(ended.out)
    assert plan["forwards"] > 1
    assert plan["largest_forward"] <= 64


def test_padding_is_counted_where_conversations_are_padded(reward_hub: Call, rows: Path) -> None:
    options = ("--attn-implementation", "eager", "--torch-dtype", "bfloat16", "--json")
    plan = json.loads(reward_hub("inspect", "builtin/arithmetic-orm", "--plan", str(rows), *options).out)
    assert plan["tokens_after_sharing"] == plan["tokens"]
    assert plan["largest_forward"] == plan["tokens"] + plan["padding"]


def test_the_plan_reads_well_and_says_what_is_estimated(reward_hub: Call, rows: Path) -> None:
    told = reward_hub("inspect", "builtin/arithmetic-prm", "--plan", str(rows)).out
    assert "16, and 1 that cannot be scored" in told
    assert "% shared)" in told
    assert told.count("an estimate") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--plan", "none.jsonl"), "none.jsonl cannot be read: No such file or directory."),
        (("--plan", "rows.jsonl", "--explain", "a", "b"), "--plan or --explain, not both"),
    ],
)
def test_what_cannot_be_planned_is_refused(reward_hub: Call, arguments: tuple[str, ...], words: str) -> None:
    ended = reward_hub("inspect", "builtin/arithmetic-orm", *arguments)
    assert (ended.code, words in ended.err) == (2, True), ended.err
