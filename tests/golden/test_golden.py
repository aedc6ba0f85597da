"""Token ids, read positions and scores equal the golden sets: the project's own, and ../shared/golden if it exists."""

from __future__ import annotations

import pytest
from golden_sets import SHARED, GoldenModels, GoldenSet, differences, golden_sets
from real_tokenizers.forwards import forward_of
from real_tokenizers.miniatures import MINIATURES


def check(golden: GoldenSet, models: GoldenModels, table: dict[tuple[str, str], tuple[int, int, float, float]]) -> None:
    if not golden.registered:
        pytest.skip(f"family {golden.family} is not registered")
    found = list(differences(models.load(golden), golden))
    fitting = sum(not wrong for _, _, wrong in found)
    worst = max(difference for _, difference, _ in found)
    table[golden.place, golden.slug] = (len(found), fitting, worst, golden.tolerance)
    assert {name: wrong for name, _, wrong in found if wrong} == {}


@pytest.mark.parametrize("golden", golden_sets("own"), ids=str)
def test_own_golden_set(golden: GoldenSet, golden_models: GoldenModels, golden_table: dict) -> None:
    check(golden, golden_models, golden_table)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there; the project's own golden sets are tested")
@pytest.mark.parametrize("golden", golden_sets("shared"), ids=str)
def test_shared_golden_set(golden: GoldenSet, golden_models: GoldenModels, golden_table: dict) -> None:
    check(golden, golden_models, golden_table)


# ReasonFlux's card reads the end of a response, its steps are ours; a pair is read in both orders.
PLAIN = dict.fromkeys(miniature.slug for miniature in MINIATURES if miniature.slug != "rlhflow-pair-pm")


@pytest.mark.parametrize("slug", PLAIN)
def test_golden_scores_are_those_of_plain_forwards(slug: str, golden_models: GoldenModels) -> None:
    """The forwards that `make test-tokenizers` compares with, in plain transformers and torch."""
    golden = GoldenSet(slug, "own")
    forward = forward_of(slug, golden_models.checkpoint(golden), golden.data.get("beta", 1.0))
    for case in golden.cases:
        expected = case.get("step_scores") or [case["score"]]
        found = forward(case["input_ids"], case["positions"])
        if slug == "reasonflux-prm-1.5b":
            expected = expected[-1:]
        assert found == pytest.approx(expected, abs=golden.tolerance)
