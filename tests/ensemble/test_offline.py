"""Recorded score files are read strictly, and combined as RewardBench's offline script combines them."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from reward_hub import BackendError
from reward_hub.bench import EXAMPLE_COUNTS, SUBSET_MAPPING, calculate_scores_per_section
from reward_hub.data.recorded import read_recorded, read_subsets
from reward_hub.data.rows import RowFormatError
from reward_hub.ensemble.normalization import NORMALIZATIONS
from reward_hub.ensemble.offline import RecordedEnsemble, RecordedMember
from reward_hub.ensemble.reduction import REDUCTIONS, Reduction

SHARED = Path(__file__).parents[3] / "shared" / "data"
EXAMPLES = SHARED / "benchmarks" / "examples.json"
JUDGEBENCH = SHARED / "judgebench"
needs_examples = pytest.mark.skipif(not EXAMPLES.exists(), reason=f"needs {EXAMPLES}")
needs_judgebench = pytest.mark.skipif(not JUDGEBENCH.exists(), reason=f"needs {JUDGEBENCH}")
MODES = {"Mean": "mean", "Worst": "min", "Uncertainty": "mean_minus_std"}


@pytest.fixture
def write(tmp_path):
    def write_file(*rows, name="scores.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write_file


# reading


@pytest.mark.parametrize(
    ("row", "form", "scores"),
    [
        ({"chosen_score": 1.5, "rejected_score": -2}, "pair", (1.5, -2.0)),
        ({"scores_chosen": [0.1], "scores_rejected": [0.2]}, "pair", (0.1, 0.2)),
        ({"scores": [3, 1, 2]}, "scores", (3.0, 1.0, 2.0)),
        ({"step_scores": [0.5]}, "step_scores", (0.5,)),
        ({"score": 7}, "score", (7.0,)),
        ({"scores": {"chosen": [1.0], "rejected": [2.0]}, "label": None}, "pair", (1.0, 2.0)),
        ({"scores": {"steps": [1.0, 2.0]}}, "step_scores", (1.0, 2.0)),
        ({"scores": {"candidates": [1.0, 2.0]}}, "scores", (1.0, 2.0)),
        ({"scores": {"response": [1.0]}}, "score", (1.0,)),
    ],
)
def test_every_form_of_a_row_is_known(write, row, form, scores):
    recorded = read_recorded(write({"id": "a", "subset": "s", **row}))
    assert recorded.form == form
    [read] = recorded.rows.values()
    assert (read.id, read.number, read.scores, read.subset) == ("a", 1, scores, "s")


def test_rewardbenchs_columns_are_read_with_what_belongs_to_the_whole_file_left_out(tmp_path):
    columns = {"model": "m", "id": [2, 1], "subset": ["x", "y"], "scores_chosen": [[1.0], [2.0]]}
    path = tmp_path / "m.json"
    path.write_text(json.dumps(columns | {"scores_rejected": [0.5, 3.0]}))
    recorded = read_recorded(str(path))
    assert [(row.id, row.scores, row.subset) for row in recorded.rows.values()] == [
        (2, (1.0, 0.5), "x"),
        (1, (2.0, 3.0), "y"),
    ]
    assert recorded.scores.tolist() == [1.0, 0.5, 2.0, 3.0]
    path.write_text(json.dumps(columns | {"scores_rejected": [0.5]}))
    with pytest.raises(RowFormatError, match="columns differ in length"):
        read_recorded(str(path))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"score": 1.0}, "has no id"),
        ({"id": None, "score": 1.0}, "has no id"),
        ({"id": 1.5, "score": 1.0}, "id 1.5 is neither"),
        ({"id": True, "score": 1.0}, "id True is neither"),
        ({"id": "a", "score": 1.0}, "id 'a' is that of row 1 too"),
        ({"id": "b", "score": math.nan}, "score holds nan"),
        ({"id": "b", "score": math.inf}, "score holds inf"),
        ({"id": "b", "score": "1.0"}, "score holds '1.0'"),
        ({"id": "b", "score": True}, "score holds True"),
        ({"id": "b", "score": [1.0, 2.0]}, "score has 2 numbers"),
        ({"id": "b", "score": None}, "has no scores"),
        ({"id": "b", "reward": 1.0}, r"has no scores; .* its columns are 'id', 'reward'"),
        ({"id": "b", "chosen_score": 1.0}, "has no scores"),
        ({"id": "b", "score": None, "error": {"type": "X", "message": "m"}}, "an error in place of scores"),
        ({"id": "b", "scores": [1.0]}, "holds 'scores', and row 1 holds 'score'"),
        ({"id": "b", "score": 1.0, "scores": [1.0]}, "several kinds of scores: scores, score"),
        ({"id": "b", "chosen_score": 1, "scores_chosen": 1, "rejected_score": 1}, "under two names"),
        ({"id": "b", "scores": []}, "a list of at least one number"),
        ({"id": "b", "scores": 1.0}, "a list of at least one number"),
        ({"id": "b", "score": 1.0, "subset": 3}, "subset 3 is not a text"),
        (["b", 1.0], "a JSON list"),
    ],
)
def test_a_bad_row_is_an_error_that_names_file_and_row(write, row, complaint):
    path = write({"id": "a", "score": 0.5}, row)
    with pytest.raises(RowFormatError, match=complaint) as caught:
        read_recorded(path)
    assert str(caught.value).startswith(f"{path}, row 2: ")


def test_a_file_without_rows_and_one_that_is_no_json_are_errors(write, tmp_path):
    with pytest.raises(RowFormatError, match="holds no rows"):
        read_recorded(write())
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(RowFormatError, match="not JSON"):
        read_recorded(str(tmp_path / "broken.json"))


def test_rows_are_found_by_id_and_a_missing_one_is_an_error(write):
    recorded = read_recorded(write({"id": "a", "score": 1}, {"id": 1, "score": 2}, {"id": "1", "score": 3}))
    assert [row.scores for row in recorded.of(["1", 1])] == [(3.0,), (2.0,)]
    with pytest.raises(RowFormatError, match=r"no row with the id 2 \(2 missing"):
        recorded.of([1, 2, 3])


def test_subsets_of_a_data_file_are_read_by_id(write):
    assert read_subsets(write({"id": 1, "subset": "x"}, {"id": 2, "subset": "y"})) == {1: "x", 2: "y"}
    for row, complaint in (({"id": 1}, "no subset"), ({"subset": "x"}, "no id"), ({"id": 0, "subset": "x"}, "twice")):
        with pytest.raises(RowFormatError, match=f"row 2: .*{complaint}"):
            read_subsets(write({"id": 0, "subset": "x"}, row))


# RewardBench's offline ensembles


@pytest.fixture
def offline(write):
    """The published example: three models on four pairs, one of them in another order and as one-element lists."""
    example = json.loads(EXAMPLES.read_text())["ensemble_offline"]
    members = {}
    for name, columns in example["models"].items():
        names = list(columns)
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        members[name] = RecordedMember(read_recorded(write(*rows, name=f"{name}.jsonl")), name=name)
    return members, example["expected"]


@needs_examples
def test_the_statistics_of_the_published_example_come_out(offline):
    members, expected = offline
    for name, member in members.items():
        assert member.statistics.mean == pytest.approx(expected["baseline"][name]["mean"], rel=1e-15)
        assert member.statistics.std == pytest.approx(expected["baseline"][name]["std_dev"], rel=1e-15)
        scaled = member.scores_of(list(member.recorded.rows.values()), "zscore").reshape(-1, 2)
        assert scaled[:, 0] == pytest.approx(expected["normalised_scores"][name]["chosen"], rel=1e-12)
        assert scaled[:, 1] == pytest.approx(expected["normalised_scores"][name]["rejected"], rel=1e-12)


@needs_examples
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("models", "normalize"), [("a+b", "normalised"), ("a+b+c", "normalised"), ("a+b", "raw")])
def test_the_three_modes_win_the_pairs_of_the_published_example(offline, models, mode, normalize):
    members, expected = offline
    published = expected[f"{mode}|{models}|{normalize}"]
    ensemble = RecordedEnsemble([members[name] for name in models.split("+")])
    combined = ensemble.combined(Reduction.of(MODES[mode]), "zscore" if normalize == "normalised" else None)
    assert ensemble.ids == published["ids"]
    assert [int(chosen > rejected) for chosen, rejected in ensemble.by_row(combined)] == published["per_pair"]
    found = calculate_scores_per_section(EXAMPLE_COUNTS, SUBSET_MAPPING, ensemble.accuracy(combined).subsets)
    assert found == pytest.approx(published["sections"], abs=1e-10)


@needs_examples
def test_the_sweep_over_all_subsets_of_models_is_that_of_the_published_example(offline):
    members, expected = offline
    ensemble = RecordedEnsemble(list(members.values()))
    names = list(members)
    found = []
    for mode, reduce in MODES.items():
        for places in (p for size in (2, 3) for p in combinations(range(3), size)):
            accuracy = ensemble.accuracy(ensemble.combined(Reduction.of(reduce), "zscore", places))
            sections = calculate_scores_per_section(EXAMPLE_COUNTS, SUBSET_MAPPING, accuracy.subsets)
            found.append({"models": "|".join(names[p] for p in places), "mode": mode, **sections})
    for ours, published in zip(found, expected["sweep"], strict=True):
        assert {key: ours[key] for key in published} == pytest.approx(published, abs=1e-10)


@needs_judgebench
def test_each_recorded_model_has_its_published_accuracy():
    expected = json.loads((JUDGEBENCH / "expected_accuracy.json").read_text())
    subsets = read_subsets(str(JUDGEBENCH / "pairs_gpt4o.jsonl"))
    for name, published in expected.items():
        member = RecordedMember(read_recorded(str(JUDGEBENCH / f"scores_{name}.jsonl")), name=name)
        ensemble = RecordedEnsemble([member], subsets=subsets)
        accuracy = ensemble.accuracy(ensemble.combined(Reduction.of("mean"), None))
        found = {"overall": accuracy.overall, **accuracy.subsets}
        assert {key: round(100 * share, 2) for key, share in found.items()} == published


@pytest.fixture(scope="module")
def real_ensemble():
    paths = sorted(JUDGEBENCH.glob("scores_*.jsonl"))
    return RecordedEnsemble([RecordedMember(read_recorded(str(path)), name=path.stem) for path in paths])


@needs_judgebench
@pytest.mark.parametrize("normalize", [None, *NORMALIZATIONS])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_every_mode_has_the_accuracy_of_a_plain_computation(real_ensemble, reduce, normalize):
    paths = sorted(JUDGEBENCH.glob("scores_*.jsonl"))
    rows = [{r["id"]: r for r in map(json.loads, path.read_text().splitlines())} for path in paths]
    ids = list(rows[0])
    every = [np.array([row[side] for row in r.values() for side in SIDES]) for r in rows]
    scaled = np.array(
        [
            [plain(r[i][k], all_scores, normalize) for i in ids for k in SIDES]
            for r, all_scores in zip(rows, every, strict=True)
        ]
    )
    if reduce == "vote":
        pairs = scaled.reshape(3, -1, 2)
        beats = (pairs[:, :, 0] > pairs[:, :, 1]) + (pairs[:, :, 0] == pairs[:, :, 1]) / 2
        won = beats.mean(axis=0) > 0.5
    else:
        combined = PLAIN[reduce](scaled).reshape(-1, 2)
        won = combined[:, 0] - combined[:, 1] > 1e-12  # of 1,400 ranks some means are equal
    found = real_ensemble.accuracy(real_ensemble.combined(Reduction.of(reduce), normalize))
    assert found.overall == won.mean()


SIDES = ("chosen_score", "rejected_score")
PLAIN = {
    "mean": lambda x: x.mean(axis=0),
    "median": lambda x: np.median(x, axis=0),
    "min": lambda x: x.min(axis=0),
    "max": lambda x: x.max(axis=0),
    "uncertainty": lambda x: x.mean(axis=0) - x.var(axis=0),
    "mean_minus_std": lambda x: x.mean(axis=0) - x.std(axis=0),
    "trimmed_mean": lambda x: (np.sort(x, axis=0) * [[0.4], [1.0], [0.4]]).sum(axis=0) / 1.8,
    "softmin": lambda x: -np.log(np.exp(-x).mean(axis=0)),
}


def plain(score, every, normalize):
    return {
        None: lambda: score,
        "zscore": lambda: (score - every.mean()) / every.std(),
        "minmax": lambda: (score - every.min()) / np.ptp(every),
        "rank": lambda: ((every < score).sum() + (every == score).sum() / 2) / every.size,
        "sigmoid": lambda: 1 / (1 + math.exp(-score)),
    }[normalize]()


# what does not fit together


def ensemble_of(*files, **options):
    members = [RecordedMember(read_recorded(path), name=path, **options) for path in files]
    return RecordedEnsemble(members)


def test_rows_that_only_other_files_have_count_in_the_statistics_alone(write):
    a = write({"id": 1, "scores": [0, 2]}, name="a.jsonl")
    b = write({"id": 2, "scores": [5, 7]}, {"id": 1, "scores": [1, 3]}, name="b.jsonl")
    ensemble = ensemble_of(a, b)
    combined = ensemble.combined(Reduction.of("mean"), "zscore")
    std = np.std([5, 7, 1, 3])
    assert ensemble.by_row(combined) == [pytest.approx([(-1 + (1 - 4) / std) / 2, (1 + (3 - 4) / std) / 2])]
    with pytest.raises(RowFormatError, match=r"a.jsonl has no row with the id 2"):
        ensemble_of(b, a)


def test_steps_and_candidates_keep_their_rows(write):
    a = write({"id": 1, "step_scores": [1, 2]}, {"id": 2, "step_scores": [3]}, name="a.jsonl")
    b = write({"id": 2, "step_scores": [5]}, {"id": 1, "step_scores": [3, 0]}, name="b.jsonl")
    ensemble = ensemble_of(a, b)
    assert ensemble.by_row(ensemble.combined(Reduction.of("min"), None)) == [[1.0, 0.0], [3.0]]
    # Steps are no responses to be held against each other: a vote takes their ranks in the file.
    voted = ensemble.by_row(ensemble.combined(Reduction.of("vote"), None))
    assert voted == [pytest.approx([(1 / 6 + 1 / 2) / 2, (1 / 2 + 1 / 6) / 2]), pytest.approx([5 / 6])]


def test_a_vote_over_candidates_is_their_mean_rank(write):
    a = write({"id": 1, "scores": [1, 2, 3]}, name="a.jsonl")
    b = write({"id": 1, "scores": [5, 9, 5]}, name="b.jsonl")
    ensemble = ensemble_of(a, b)
    assert ensemble.by_row(ensemble.combined(Reduction.of("vote"), None)) == [[0.125, 0.75, 0.625]]


def test_a_cost_enters_with_its_sign_turned(write):
    path = write({"id": 1, "chosen_score": 1, "rejected_score": 5}, {"id": 2, "chosen_score": 2, "rejected_score": 0})
    ensemble = ensemble_of(path, cost=True)
    assert ensemble.accuracy(ensemble.combined(Reduction.of("mean"), None)).overall == 0.5
    assert ensemble.by_row(ensemble.combined(Reduction.of("mean"), None))[0] == [-1.0, -5.0]


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"id": 1, "scores": [1.0, 2.0]}, "b.jsonl holds 'scores', .*a.jsonl holds 'pair'"),
        ({"id": "1", "chosen_score": 1, "rejected_score": 2}, "no row with the id 1 "),
    ],
)
def test_files_that_do_not_fit_together_are_refused(write, other, complaint):
    a = write({"id": 1, "chosen_score": 1, "rejected_score": 2}, name="a.jsonl")
    with pytest.raises(RowFormatError, match=complaint):
        ensemble_of(a, write(other, name="b.jsonl"))


def test_unlike_numbers_of_candidates_and_unlike_subsets_are_refused(write):
    a = write({"id": 1, "scores": [1, 2], "subset": "x"}, name="a.jsonl")
    with pytest.raises(RowFormatError, match=r"b.jsonl, row 1: 3 scores; .*a.jsonl has 2 for the id 1"):
        ensemble_of(a, write({"id": 1, "scores": [1, 2, 3]}, name="b.jsonl"))
    with pytest.raises(RowFormatError, match="subset of the id 1: x, y"):
        _ = ensemble_of(a, write({"id": 1, "scores": [1, 2], "subset": "y"}, name="b.jsonl")).subsets


def test_pairs_of_very_small_scores_are_won_and_equal_ones_are_not(write):
    pairs = [(3e-14, 1e-14), (1e-300, 2e-300), (5e-15, 5e-15), (0.0, 0.0)]
    rows = [{"id": i, "chosen_score": a, "rejected_score": b} for i, (a, b) in enumerate(pairs)]
    ensemble = ensemble_of(write(*rows))
    assert ensemble.accuracy(ensemble.combined(Reduction.of("mean"), None)).overall == 1 / 4


def test_a_tie_is_not_decided_by_the_order_in_which_scores_are_added(write):
    # 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1
    scores = [(0.1, 0.3), (0.2, 0.2), (0.3, 0.1)]
    files = [
        write(
            {"id": 0, "chosen_score": a, "rejected_score": b},
            {"id": 1, "chosen_score": b, "rejected_score": a},
            name=f"{i}.jsonl",
        )
        for i, (a, b) in enumerate(scores)
    ]
    ensemble = ensemble_of(*files)
    assert ensemble.accuracy(ensemble.combined(Reduction.of("mean"), None)).overall == 0


def test_a_constant_file_cannot_be_spread(write):
    ensemble = ensemble_of(write({"id": 1, "chosen_score": 1, "rejected_score": 1}))
    with pytest.raises(BackendError, match="gave 1 for all 2 of what was fitted: zscore needs"):
        ensemble.combined(Reduction.of("mean"), "zscore")
