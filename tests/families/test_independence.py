"""A score depends neither on batch mates nor on order: over the golden set of every family, in float32."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from golden_sets import GoldenModels, GoldenSet, golden_sets

from reward_hub import BaseRM, registry
from reward_hub.backends.packing.check import Packing
from reward_hub.backends.transformers import TransformersBackend
from reward_hub.messages import parse_pair
from reward_hub.reward_model import CallOptions
from reward_hub.types import ScoreDetails

N = 64
WORDS = ("the", "sum", "of", "seven", "and", "four", "eleven", "because", "Zürich", "数学", "🙂", "{x}", "<b>", "\n")


def items(golden: GoldenSet) -> list[dict[str, Any]]:
    """64 inputs of a few to about two hundred tokens, made from the golden cases."""
    numbers = random.Random(golden.slug)
    made = []
    for i in range(N):
        case = golden.cases[i % len(golden.cases)]
        more = " ".join(numbers.choices(WORDS, k=numbers.randrange(0, 60)))
        if "response_a" in case:
            made.append({**case, "response_b": f"{case['response_b']} {more}"})
        elif "steps" in case:
            made.append({"messages": _without_response(case), "steps": [*case["steps"], f"More: {more}"]})
        else:
            *before, last = case["messages"]
            made.append({"messages": [*before, {**last, "content": f"{last['content']} {more}"}]})
    return made


def scores(rm: BaseRM, batch: Sequence[dict[str, Any]]) -> list[list[float]]:
    """One list of numbers an item; all items go to the model at once."""
    if "response_a" in batch[0]:
        pairs = [parse_pair(item["prompt_messages"], a=item["response_a"], b=item["response_b"]) for item in batch]
        results = rm.compare_pairs(pairs, False, CallOptions())
        return [[result.score] for result in results if isinstance(result, ScoreDetails)]
    if "steps" in batch[0]:
        return rm.score_steps_batch(batch)
    return [[score] for score in rm.score_batch([item["messages"] for item in batch])]


@cache
def each_alone(rm: BaseRM, golden: GoldenSet) -> list[list[float]]:
    return [scores(rm, [item])[0] for item in items(golden)]


def bound(golden: GoldenSet) -> float:
    """Relative to max(1, |score|), as api.md promises."""
    if golden.two_models:
        return 1e-4  # sums of log-probabilities
    config = golden.spec["config"]
    return 3e-5 if config["model_type"].startswith("deberta") else 1e-5


@pytest.mark.parametrize("golden", golden_sets("own"), ids=str)
def test_a_score_depends_neither_on_batch_mates_nor_on_order(golden: GoldenSet, golden_models: GoldenModels) -> None:
    if not golden.registered:
        pytest.skip(f"family {golden.family} is not registered")
    rm = golden_models.load(golden)
    batch = items(golden)
    order = random.Random(1).sample(range(N), N // 2)

    alone = each_alone(rm, golden)
    assert worst(alone, scores(rm, batch)) <= bound(golden)
    assert worst([alone[i] for i in order], scores(rm, [batch[i] for i in order])) <= bound(golden)


@pytest.mark.parametrize("golden", golden_sets("own"), ids=str)
def test_padded_batches_read_the_true_positions(
    golden: GoldenSet, golden_models: GoldenModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a model cannot be packed, batches are padded (in float32 on a CPU of one length); both is forced here.

    Padded attention is summed in other blocks, hence three times the bound; a wrong position is off by far more.
    """
    rm = golden_models.load(golden)
    alone = each_alone(rm, golden)[:12]
    monkeypatch.setattr(Packing, "holds", lambda self, item: False)
    monkeypatch.setattr(TransformersBackend, "pads", lambda self: True)
    assert worst(alone, scores(rm, items(golden)[:12])) <= 3 * bound(golden)


def worst(expected: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> float:
    """The largest difference relative to max(1, |score|)."""
    assert [len(row) for row in expected] == [len(row) for row in found]
    pairs = [pair for row, other in zip(expected, found, strict=True) for pair in zip(row, other, strict=True)]
    return max(abs(a - b) / max(1.0, abs(a)) for a, b in pairs)


def test_every_family_has_a_golden_set() -> None:
    covered = {golden.family for golden in golden_sets("own")}
    assert {family.name for family in registry.families()} - covered == set()


def _without_response(case: dict[str, Any]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = case["messages"]
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages
