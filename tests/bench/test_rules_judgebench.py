"""JudgeBench: one game, two games, and what a reply's verdict is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bench_examples import compared, examples, failed, pair, records, text

from reward_hub.bench.rules import judgebench
from reward_hub.bench.rules.judgebench import category_of, parse_verdict, single_game, two_games
from reward_hub.data.rows import RowFormatError

MODELS = ("Ray2333_GRM-Gemma-2B-rewardmodel-ft", "Skywork_Skywork-Reward-Gemma-2-27B", "internlm_internlm2-7b-reward")


@pytest.mark.parametrize("model", MODELS)
def test_the_published_accuracies_follow_from_the_recorded_scores(model: str) -> None:
    expected = json.loads(text("judgebench/expected_accuracy.json"))[model]
    subsets = {row["id"]: row["subset"] for row in records("judgebench/pairs_gpt4o.jsonl")}
    rows = [
        pair(row["id"], row["chosen_score"], row["rejected_score"], subsets[row["id"]])
        for row in records(f"judgebench/scores_{model}.jsonl")
    ]
    metrics = judgebench.score(rows).metrics
    found = {name: entry["accuracy"] for name, entry in metrics["subsets"].items()}
    found["overall"] = metrics["overall"]["accuracy"]
    assert {name: round(100 * value, 2) for name, value in found.items()} == expected


def test_the_worked_single_games_come_out() -> None:
    example = examples("judgebench")["single_game"]
    rows = []
    for i, case in enumerate(example["pairs"]):
        a_is_chosen = case["label"] == "A>B"
        scores = (case["score_A"], case["score_B"]) if a_is_chosen else (case["score_B"], case["score_A"])
        rows.append(pair(i, *scores, case["source"], label=case["label"]))
        right = judgebench.score([rows[-1]]).items[0].correct
        assert right == single_game(case["label"], case["score_A"], case["score_B"])
    metrics = judgebench.score(rows).metrics
    assert 100 * metrics["overall"]["accuracy"] == pytest.approx(example["score"]["overall"], abs=1e-9)
    for prefix, category in judgebench.CATEGORIES.items():
        assert 100 * metrics["subsets"][category]["accuracy"] == pytest.approx(example["score"][prefix], abs=1e-9)
    assert metrics["overall"]["ties"] == 2
    assert metrics["overall"]["macro_accuracy"] == pytest.approx((0.5 + 1 + 0 + 1) / 4)


def test_the_worked_two_games_come_out() -> None:
    example = examples("judgebench")["two_games"]
    rows = []
    for i, case in enumerate(example["cases"]):
        verdicts = [None if case[game] == "missing" else case[game] for game in ("game1", "game2")]
        assert (two_games(case["label"], *verdicts) == "correct") == case["correct"], case
        rows.append({"id": i, "subset": None, "label": case["label"], "scores": {"verdicts": verdicts}})
    result = judgebench.score(rows)
    assert [bool(item.correct) for item in result.items] == [case["correct"] for case in example["cases"]]
    assert 100 * result.metrics["overall"]["accuracy"] == pytest.approx(example["score"], abs=1e-9)
    assert result.metrics["overall"]["n"] == example["n"]


@pytest.mark.parametrize(
    ("probabilities", "correct", "tie"),
    [
        ([0.9, 0.8], 1.0, False),
        ([0.9, 0.5], 1.0, False),
        ([None, 0.8], 1.0, False),
        ([0.99, 0.4], 0.0, True),
        ([None, None], 0.0, True),
        ([0.5, 0.5], 0.0, True),
        ([0.2, None], 0.0, False),
        ([0.7], 1.0, False),
        ([0.5], 0.0, True),
    ],
)
def test_each_order_has_one_vote(probabilities: list[float | None], correct: float, tie: bool) -> None:
    # 0.99 against 0.4 is a tie although the mean is above 0.5: verdicts vote, their confidence does not.
    item = judgebench.score([compared(0, probabilities, "math")]).items[0]
    assert (item.correct, item.tie) == (correct, tie)


def test_a_tie_of_scores_is_right_only_where_the_published_order_says_so() -> None:
    rows = [pair(0, 1.0, 1.0), pair(1, 1.0, 1.0, label="A>B"), pair(2, 1.0, 1.0, label="B>A")]
    result = judgebench.score(rows)
    assert [item.correct for item in result.items] == [0.0, 0.0, 1.0]
    assert result.metrics["overall"]["ties"] == 3
    assert any("Ties count as right" in note for note in result.notes)


def test_a_failed_pair_is_wrong_and_counted() -> None:
    result = judgebench.score([failed(0, "mmlu-pro-law"), pair(1, 1.0, 0.0, "mmlu-pro-law")])
    assert result.metrics["subsets"]["knowledge"]["accuracy"] == 0.5
    assert result.n_failed == 1


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("My final verdict is [[A>B]].", "A>B"),
        ("[[B>>A]]", "B>A"),
        ("[[A=B]]", "A=B"),
        ("[[A>B]] again [[A>B]]", "A>B"),
        ("[[A>>B]] or rather [[A>B]]", None),
        ("A>B", None),
        ("", None),
    ],
)
def test_a_reply_has_one_verdict_or_none(reply: str, verdict: str | None) -> None:
    assert parse_verdict(reply) == verdict


def test_sources_belong_to_categories() -> None:
    sources = ("mmlu-pro-law", "livebench-reasoning", "livebench-math", "livecodebench", "my-own")
    assert [category_of(s) for s in sources] == ["knowledge", "reasoning", "math", "coding", "my-own"]


@pytest.mark.parametrize(
    "row",
    [
        pair(3, 1.0, 1.0, label="A=B"),
        {"id": 3, "subset": None, "scores": {"verdicts": ["A>B", "A>B"]}},
        {"id": 3, "subset": None, "scores": {"verdicts": ["A>B"]}, "label": "A>B"},
    ],
)
def test_games_without_a_label_or_a_second_verdict_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(RowFormatError, match="item 3 has"):
        judgebench.score([row])


def test_the_macro_mean_is_over_categories_alone() -> None:
    rows = [pair(0, 1.0, 0.0, "math"), pair(1, 1.0, 0.0, "math"), pair(2, 0.0, 1.0, "coding"), failed(3)]
    overall = judgebench.score(rows).metrics["overall"]
    assert (overall["accuracy"], overall["macro_accuracy"]) == (0.5, 0.5)
    assert judgebench.score(rows[2:]).metrics["overall"]["macro_accuracy"] == 0.0
