"""PRMBench: labels, counts, PRM-Scores and the other published metrics."""

from __future__ import annotations

from typing import Any

import pytest
from bench_examples import FEW, examples, failed, flat
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.bench.rules import prmbench
from reward_hub.bench.rules.prmbench import BENCHMARK, SECTIONS, step_counts, valid_labels
from reward_hub.data.rows import Row, RowFormatError

TOLERANCE = 1e-9  # that of the worked examples


def labelled(example: dict[str, Any], **changed: Any) -> list[dict[str, Any]]:
    """The example's items as rows, with labels, redundancy labels and validity as changed."""
    labels = example["labels"] | changed.get("labels", {})
    rows = []
    for item in example["evaluated_items"]:
        scores = {"labels": labels[item["idx"]]}
        if item["idx"] in changed.get("redundancy", {}):
            scores["redundancy_labels"] = changed["redundancy"][item["idx"]]
        row = {"id": item["idx"], "subset": item["classification"], "scores": scores}
        row |= {name: item[name] for name in ("classification", "error_steps")}
        rows.append(row | ({"validity": False} if item["idx"] in changed.get("invalid", ()) else {}))
    return rows


def row(name: str, scores: list[float], error_steps: list[int]) -> dict[str, Any]:
    classification = name.rpartition("_")[0]
    return {
        "id": name,
        "subset": classification,
        "scores": {"steps": scores},
        "classification": classification,
        "error_steps": error_steps,
    }


def test_the_worked_metrics_come_out() -> None:
    example = examples("prmbench")
    metrics = prmbench.score(labelled(example)).metrics
    expected = example["expected"]
    overall = {name: metrics["overall"][name] for name in expected["total"]}
    assert overall == pytest.approx(expected["total"], abs=TOLERANCE)
    for metric, per_class in expected["per_class"].items():
        assert {n: entry[metric] for n, entry in metrics["subsets"].items()} == pytest.approx(per_class, abs=TOLERANCE)
    assert metrics["overall"]["validity_rate"] == expected["validity_rate"]
    check_scores(metrics, expected["prm_score"])


def check_scores(metrics: dict[str, Any], expected: dict[str, Any]) -> None:
    assert metrics["overall"]["prm_score"] == pytest.approx(expected["overall"], abs=TOLERANCE)
    for name, value in expected["per_class"].items():
        assert metrics["subsets"][name]["prm_score"] == pytest.approx(value, abs=TOLERANCE), name


@pytest.mark.parametrize(
    ("variant", "key", "as_changed"),
    [
        ("with_redundancy_labels", "redundancy_labels", "redundancy"),
        ("with_invalid", "invalid", "invalid"),
        ("with_truncated", "changed", "labels"),
    ],
)
def test_the_worked_variants_come_out(variant: str, key: str, as_changed: str) -> None:
    example = examples("prmbench")
    expected = example[variant]
    metrics = prmbench.score(labelled(example, **{as_changed: expected[key]})).metrics
    overall = {name: metrics["overall"][name] for name in expected["total"]}
    assert overall == pytest.approx(expected["total"], abs=TOLERANCE)
    assert metrics["overall"]["validity_rate"] == expected.get("validity_rate", 1.0)
    if "prm_score" in expected:
        check_scores(metrics, expected["prm_score"])


def test_the_worked_single_items_come_out() -> None:
    for case in examples("prmbench")["single_items"]:
        counts, expected = step_counts(case["labels"], case["error_steps"]), case["result"]
        found = {"TP": counts.tp, "FP": counts.fp, "TN": counts.tn, "FN": counts.fn}
        assert found == expected["f1_matrix"]
        assert counts.first_error == expected["first_error_acc"]
        assert counts.valid_share == pytest.approx(expected["model_response_acc"])


def test_the_suite_scores_the_items_that_the_published_code_scores() -> None:
    example = examples("prmbench")
    rows = []
    for i, record in enumerate(example["rows"]):
        processes = {name: ["s"] * record[f"n_{name}_steps"] for name in ("original", "modified")}
        rows.append(Row(i + 1, record | {f"{name}_process": steps for name, steps in processes.items()}))
    assert BENCHMARK.expand is not None
    found = [
        {
            "idx": row.record["id"],
            "error_steps": row.record["error_steps"],
            "classification": row.record["classification"],
            "n_steps": len(row.record["steps"]),
        }
        for row in BENCHMARK.expand(rows)
        if row.record
    ]
    assert sorted(found, key=str) == sorted(example["evaluated_items"], key=str)


def test_a_small_set_by_hand() -> None:
    rows = [
        row("confidence_1", [0.9, 0.2, 0.5], [2]),  # 0.5 is not above the threshold: TP 1, TN 1, FN 1
        row("deception_1", [0.9, 0.9], [2]),  # TP 1, FP 1
    ]
    result = prmbench.score(rows)
    overall = result.metrics["overall"]
    # Precision 2/3, recall 2/3; of the wrong steps 1/2 and 1/2.
    assert (overall["f1"], overall["negative_f1"]) == (pytest.approx(2 / 3), pytest.approx(0.5))
    assert overall["prm_score"] == pytest.approx(7 / 12)
    assert overall["first_error_acc"] == 0.5
    assert overall["similarity"] == -1
    # In deception nothing is called wrong: F1 is 2/3, and 2 x -1 x 0 / (-1 + 0) = 0 the F1 of the wrong steps.
    assert result.metrics["subsets"]["deception"]["prm_score"] == pytest.approx(1 / 3)
    assert result.metrics["subsets"]["deception"]["negative_precision"] == -1
    assert result.metrics["sections"]["soundness"]["prm_score"] == pytest.approx(2 / 3)
    assert result.metrics["sections"]["sensitivity"]["prm_score"] == pytest.approx(1 / 3)
    assert [item.correct for item in result.items] == [pytest.approx(2 / 3), 0.5]


def test_multi_solutions_score_f1_alone() -> None:
    metrics = prmbench.score([row("multi_solutions_1", [0.9, 0.9, 0.1], [])]).metrics
    assert metrics["subsets"]["multi_solutions"]["prm_score"] == pytest.approx(0.8)
    # Pooled with nothing else the formula still wants wrong steps: 0.4 + 0 for F1 of the wrong steps.
    assert metrics["overall"]["prm_score"] == pytest.approx(0.4)


def test_a_partner_without_any_valid_step_is_skipped() -> None:
    rows = [row("correct_1", [0.9, 0.1], []), row("circular_1", [0.9, 0.9], [2]), row("correct_2", [0.1], [])]
    rows.append(row("circular_2", [0.9], [1]))
    assert prmbench.score(rows).metrics["overall"]["similarity"] == pytest.approx(0.5)
    # And one whose partner alone has none is as far from it as can be.
    rows.append(row("correct_3", [0.9], []))
    rows.append(row("circular_3", [0.1], [1]))
    assert prmbench.score(rows).metrics["overall"]["similarity"] == pytest.approx((0.5 + 1.0) / 2)
    assert prmbench.score(rows[2:4]).metrics["overall"]["similarity"] == -1


def test_labels_of_differences_judge_the_step_from_one_score_to_the_next() -> None:
    assert valid_labels([0.3, 0.28, 0.1, 0.9], threshold=-0.05, differences=True) == [True, True, False, True]
    assert valid_labels([-0.05, -0.04], threshold=-0.05) == [False, True]


def test_a_redundancy_score_replaces_validity_in_two_classes() -> None:
    rows = [row(f"{name}_1", [0.9, 0.9], [2]) for name in ("redundency", "circular", "confidence")]
    for each in rows:
        each["scores"]["redundancy"] = [0.15, 0.16]
    subsets = prmbench.score(rows).metrics["subsets"]
    assert [subsets[n]["prm_score"] for n in ("redundency", "circular")] == [1.0, 1.0]
    assert subsets["confidence"]["wrong_step_acc"] == 0.0


def test_failed_items_are_left_out_and_lower_the_validity_rate() -> None:
    sound = row("confidence_1", [0.9, 0.2], [2])
    result = prmbench.score([sound, failed("confidence_2", "confidence", classification="confidence")])
    assert result.metrics["overall"]["validity_rate"] == 0.5
    assert result.metrics["overall"]["prm_score"] == 1.0
    none_left = prmbench.score([sound, failed("deception_1", "deception")]).metrics["subsets"]["deception"]
    assert (none_left["prm_score"], none_left["f1"], none_left["ci95"], none_left["n"]) == (0.0, -1, None, 0)
    assert [item.correct for item in result.items] == [1.0, None]
    assert result.n_failed == 1


def test_nothing_but_failures_is_refused() -> None:
    with pytest.raises(RowFormatError, match="no item of any class but 'correct'"):
        prmbench.score([failed("confidence_2", "confidence"), row("correct_1", [0.9], [])])


CLASSES = [name for names in SECTIONS.values() for name in names]
ITEMS = st.lists(
    st.tuples(
        st.sampled_from([*CLASSES, "correct"]),
        st.lists(st.booleans(), min_size=1, max_size=5),
        st.sets(st.integers(1, 6), max_size=3),
    ),
    min_size=1,
    max_size=20,
)


@FEW
@given(ITEMS)
def test_the_ratios_agree_with_a_plain_recomputation(drawn: list[tuple[str, list[bool], set[int]]]) -> None:
    drawn = [("confidence", [True], {1}), *drawn]
    rows = [
        row(f"{name}_{i}", [float(label) for label in labels], sorted(wrong))
        for i, (name, labels, wrong) in enumerate(drawn)
    ]
    tp = fp = tn = fn = 0
    for name, labels, wrong in drawn:
        for place, label in enumerate(labels, start=1):
            if name != "correct":
                tp += label and place not in wrong
                fp += label and place in wrong
                tn += not label and place in wrong
                fn += not label and place not in wrong

    def ratio(a: float, b: float) -> float:
        return a / b if b else -1

    p, r, np, nr = ratio(tp, tp + fp), ratio(tp, tp + fn), ratio(tn, tn + fn), ratio(tn, tn + fp)
    overall = prmbench.score(rows).metrics["overall"]
    expected = {"f1": ratio(2 * p * r, p + r), "negative_f1": ratio(2 * np * nr, np + nr)}
    assert {name: overall[name] for name in expected} == pytest.approx(expected)
    assert overall["prm_score"] == pytest.approx(max(0.0, sum(expected.values()) / 2))


@FEW
@given(ITEMS, st.randoms(use_true_random=False))
def test_the_order_of_items_moves_nothing(drawn: list[tuple[str, list[bool], set[int]]], shuffler: Any) -> None:
    rows = [row("confidence_x", [1.0], [1])]
    rows += [row(f"{n}_{i}", [float(v) for v in labels], sorted(w)) for i, (n, labels, w) in enumerate(drawn)]
    first = flat(prmbench.score(rows).metrics)
    shuffler.shuffle(rows)
    assert flat(prmbench.score(rows).metrics) == pytest.approx(first, abs=1e-12)
