"""RM-Bench: the matrix of styles, its bands and the domains."""

from __future__ import annotations

import random
from typing import Any

import pytest
from bench_examples import FEW, examples, failed, flat, pair
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.bench.rules import rm_bench
from reward_hub.data.rows import RowFormatError

TOLERANCE = 1e-9  # that of the worked examples
BANDS = ("hard", "normal", "easy")


def test_the_worked_items_come_out() -> None:
    example = examples("rm_bench")
    rows = [
        pair(i, row["score_chosen"], row["score_rejected"], row["domain"]) for i, row in enumerate(example["items"])
    ]
    metrics = rm_bench.score(rows).metrics
    for domain, bands in example["per_domain"].items():
        entry = metrics["subsets"][domain]
        assert {f"{band}_acc": entry[band] for band in BANDS} == pytest.approx(bands, abs=TOLERANCE)
    total = {name: entry["accuracy"] for name, entry in metrics["subsets"].items()}
    total |= {f"{band}_acc": metrics["sections"][band]["accuracy"] for band in BANDS}
    total["total_avg_acc"] = metrics["overall"]["accuracy"]
    assert total == pytest.approx(example["total"], abs=TOLERANCE)


def test_a_band_is_about_which_side_is_plainer() -> None:
    # The chosen responses win only against a plainer rejected one: all of easy, nothing else.
    rows = [pair(0, [0.0, 1.0, 2.0], [0.0, 1.0, 2.0], "math")]
    entry = rm_bench.score(rows).metrics["subsets"]["math"]
    assert (entry["easy"], entry["normal"], entry["hard"]) == (1.0, 0.0, 0.0)
    assert entry["matrix"] == [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    assert entry["accuracy"] == pytest.approx(1 / 3)
    assert entry["ties"] == 1


def test_the_kinds_of_safety_are_pooled_by_row() -> None:
    won, lost = [1.0] * 3, [0.0] * 3
    rows = [pair(i, won, lost, "safety-refuse") for i in range(3)] + [pair(3, lost, won, "safety-response")]
    metrics = rm_bench.score(rows).metrics
    assert metrics["subsets"]["safety"]["accuracy"] == 0.75
    assert metrics["subsets"]["safety"]["n"] == 4


def test_a_failed_item_loses_all_nine_comparisons() -> None:
    result = rm_bench.score([pair(0, [1.0] * 3, [0.0] * 3, "chat"), failed(1, "chat")])
    assert result.metrics["overall"]["accuracy"] == 0.5
    assert (result.n_failed, result.items[1].correct) == (1, 0.0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (pair(5, [1.0, 2.0], [0.0] * 3, "chat"), "item 5 has 2 chosen and 3 rejected scores"),
        (pair(5, [1.0] * 3, [0.0] * 3), "item 5 has no subset"),
    ],
)
def test_rows_that_fit_no_matrix_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(RowFormatError, match=message):
        rm_bench.score([row])


SCORES = st.lists(st.integers(-2, 2), min_size=3, max_size=3)
ROWS = st.lists(
    st.tuples(st.sampled_from(["chat", "math", "code", "safety-refuse", "safety-response"]), SCORES, SCORES),
    min_size=1,
    max_size=20,
)


@FEW
@given(ROWS)
def test_overall_is_the_mean_of_the_domains_cells_and_of_the_bands(
    drawn: list[tuple[str, list[int], list[int]]],
) -> None:
    result = rm_bench.score([pair(i, chosen, rejected, name) for i, (name, chosen, rejected) in enumerate(drawn)])
    cells: dict[str, list[bool]] = {}
    for name, chosen, rejected in drawn:
        cells.setdefault(name.split("-")[0], []).extend(c > r for c in chosen for r in rejected)
    domains = [sum(won) / len(won) for won in cells.values()]
    overall = result.metrics["overall"]["accuracy"]
    assert overall == pytest.approx(sum(domains) / len(domains))
    assert overall == pytest.approx(sum(result.metrics["sections"][band]["accuracy"] for band in BANDS) / 3)
    for i, (_, chosen, rejected) in enumerate(drawn):
        assert result.items[i].correct == pytest.approx(sum(c > r for c in chosen for r in rejected) / 9)


@FEW
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_items_moves_nothing(
    drawn: list[tuple[str, list[int], list[int]]], shuffler: random.Random
) -> None:
    rows = [pair(i, chosen, rejected, name) for i, (name, chosen, rejected) in enumerate(drawn)]
    first = flat(rm_bench.score(rows).metrics)
    shuffler.shuffle(rows)
    assert flat(rm_bench.score(rows).metrics) == pytest.approx(first, abs=1e-12)


def test_a_row_that_could_not_be_read_is_in_no_domain_and_named() -> None:
    result = rm_bench.score([pair(0, [1.0] * 3, [0.0] * 3, "chat"), failed(1)])
    assert result.metrics["overall"]["accuracy"] == 1.0
    assert (result.n_failed, result.items[1].correct) == (1, 0.0)
    assert "1 failed items have no domain and are not in the overall score." in result.notes
    with pytest.raises(RowFormatError, match="none has a domain"):
        rm_bench.score([failed(1)])
