"""CachedRM gives what its model gives, in every digit; what it keeps can be counted, exported and removed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cached_models import PROBLEM, RIGHT, WRONG, CountingRM, flag, turns, without_flag
from golden_sets import GoldenModels, GoldenSet

from reward_hub import AutoRM, BaseRM
from reward_hub.messages import parse
from reward_hub.reward_model import CallOptions
from reward_hub.types import ScoreDetails


def ask_outcome(rm: BaseRM, case: dict[str, Any]) -> Any:
    return rm.score(case["messages"], return_details=True)


def ask_process(rm: BaseRM, case: dict[str, Any]) -> Any:
    return rm.score_steps(case["messages"], steps=case["steps"], return_details=True)


def ask_pairwise(rm: BaseRM, case: dict[str, Any]) -> Any:
    return rm.compare(case["prompt_messages"], a=case["response_a"], b=case["response_b"], return_details=True)


@pytest.mark.parametrize(
    ("slug", "ask"),
    [
        ("seqcls-qwen3", ask_outcome),
        ("armorm", ask_outcome),
        ("ldl-gemma2", ask_outcome),
        ("dpo-implicit", ask_outcome),
        ("qwen2.5-math-prm", ask_process),
        ("reasoneval", ask_process),
        ("pairrm-hf", ask_pairwise),
        ("steamshp", ask_pairwise),
    ],
)
def test_a_hit_equals_the_model_itself_in_every_digit(slug, ask, golden_models: GoldenModels, cached):
    golden = GoldenSet(slug, "own")
    rm = golden_models.load(golden)
    wrapped = cached(rm)
    for case in golden.cases:
        own, miss, hit = ask(rm, case), ask(wrapped, case), ask(wrapped, case)
        assert without_flag(miss) == without_flag(hit) == own
        assert (flag(miss), flag(hit)) == (False, True)


def test_details_keep_every_field_and_type(cached):
    details = ScoreDetails(
        score=0.1 + 0.2,
        raw_logits=[-0.0, 1e-308, 1.7976931348623157e308, 3.0],
        normalized_score=1 / 3,
        tokens_scored=7,
        truncated=True,
        dropped_tokens=2,
        family="f",
        backend="b",
        model="m",
        revision="r",
        step_scores=[0.1],
        step_spans=[[0, 3]],
        attributes={"a": 1, "b": [1.0, None], "ü": "\ud7ff"},
        gating={"g": 0.25},
        distribution={"mean": 2.5},
        quantiles=[0.5],
        scores=[1.0, 2.0],
        extra={"usage": {"n": 3}, "reasoning": "long\ntext"},
    )

    class FixedRM(CountingRM):
        def score_conversations(self, conversations, options):
            return [details] * len(conversations)

    rm = cached(FixedRM())
    for expected in (False, True):
        (result,) = rm.score_conversations([parse(turns("a"))], CallOptions())
        assert result == ScoreDetails(**{**vars(details), "extra": {**details.extra, "cached": expected}})
        assert repr(result.raw_logits) == repr(details.raw_logits)


def test_a_whole_number_is_a_score_too(cached):
    class WholeRM(CountingRM):
        def _one(self, conversation):
            return ScoreDetails(**{**vars(super()._one(conversation)), "score": 3})

    rm = cached(WholeRM())
    assert [repr(rm.score(turns("a"))) for _ in range(2)] == ["3.0", "3.0"]


def test_another_object_and_another_load_find_what_was_kept(cached):
    with AutoRM.load("builtin/arithmetic-orm") as first, AutoRM.load("builtin/arithmetic-orm") as second:
        score = cached(first).score(prompt=PROBLEM, response=RIGHT)
        assert cached(second).score(prompt=PROBLEM, response=RIGHT, return_details=True)[0] == score
        assert second.score(prompt=PROBLEM, response=RIGHT) == score


def test_settings_that_change_scores_have_entries_of_their_own(cached):
    with (
        AutoRM.load("builtin/arithmetic-prm") as default,
        AutoRM.load("builtin/arithmetic-prm", aggregation="mean") as mean,
        AutoRM.load("builtin/arithmetic-prm", torch_dtype="bfloat16") as half,
    ):
        models = [cached(default), cached(mean), cached(half)]
        assert not any(flag(rm.score(prompt=PROBLEM, response=WRONG, return_details=True)) for rm in models)
        assert models[0].score(prompt=PROBLEM, response=WRONG) == default.score(prompt=PROBLEM, response=WRONG)
        assert models[1].score(prompt=PROBLEM, response=WRONG) == mean.score(prompt=PROBLEM, response=WRONG)


def test_clear_removes_everything_and_says_how_much(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    wrapped.score_batch([turns("a"), turns("b")])
    assert wrapped.clear() == 2
    assert wrapped.stats()["entries"] == 0
    wrapped.score(turns("a"))
    assert rm.asked == [["a", "b"], ["a"]]


def test_export_writes_what_is_kept(cached, tmp_path):
    wrapped = cached(CountingRM())
    results = wrapped.score_batch([turns("a"), turns("bb")], return_details=True)
    assert wrapped.export(tmp_path / "out.jsonl") == 2
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["details"]["score"] for row in rows] == [score for score, _ in results]
    assert {(row["call"], row["fingerprint"]) for row in rows} == {("score", "counting-1")}
    assert [row["key"] for row in rows] == wrapped._score_keys([parse(turns(r)) for r in ("a", "bb")], CallOptions())
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []
