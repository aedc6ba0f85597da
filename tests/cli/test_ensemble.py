"""`reward-hub ensemble` on recorded scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

JUDGEBENCH = Path(__file__).parents[3] / "shared" / "data" / "judgebench"
needs_judgebench = pytest.mark.skipif(not JUDGEBENCH.exists(), reason=f"needs {JUDGEBENCH}")
SUBSETS = ("alpacaeval-easy", "alpacaeval-easy", "math-prm")


@pytest.fixture
def files(tmp_path):
    """Three models on three pairs of RewardBench's subsets; the third one's lower scores are better."""
    paths = []
    for name, scores in {
        "a": [(2, 1), (0, 1), (1, 2)],
        "b": [(5, 4), (3, 1), (0, 9)],
        "c": [(0, 1), (3, 1), (2, 9)],
    }.items():
        path = tmp_path / f"scores_{name}.jsonl"
        rows = [
            {"id": i, "subset": SUBSETS[i], "chosen_score": chosen, "rejected_score": rejected}
            for i, (chosen, rejected) in enumerate(scores)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths.append(str(path))
    return paths


def found(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@needs_judgebench
def test_the_table_shows_every_mode_on_real_scores(reward_hub):
    paths = sorted(map(str, JUDGEBENCH.glob("scores_*.jsonl")))
    arguments = ("ensemble", *paths, "--pairs", str(JUDGEBENCH / "pairs_gpt4o.jsonl"), "--table")
    result = found(reward_hub(*arguments, "--json"))
    assert result["n"] == 350
    published = json.loads((JUDGEBENCH / "expected_accuracy.json").read_text())
    for member in result["members"]:
        shares = {"overall": member["accuracy"], **member["subsets"]}
        assert {name: round(100 * share, 2) for name, share in shares.items()} == published[member["model"]]
    by_mode = {(entry["reduce"], entry["normalize"]): entry["accuracy"] for entry in result["ensembles"]}
    assert len(by_mode) == 9 * 5
    shown = reward_hub(*arguments).out
    for reduce in {reduce for reduce, _ in by_mode}:
        line = next(line for line in shown.splitlines() if f" {reduce} " in line)
        cells = [cell.strip() for cell in line.strip("│").split("│")][1:]
        scales = ("none", "zscore", "minmax", "rank", "sigmoid")
        assert cells == [f"{100 * by_mode[reduce, scale]:.2f}" for scale in scales]


def test_modes_are_every_reduce_with_every_normalize(reward_hub, files):
    modes = ("--reduce", "mean", "--reduce", "min", "--normalize", "none", "--normalize", "sigmoid")
    result = found(reward_hub("ensemble", *files[:2], *modes, "--json"))
    assert [member["model"] for member in result["members"]] == ["a", "b"]
    assert [(e["reduce"], e["normalize"]) for e in result["ensembles"]] == [
        ("mean", "none"),
        ("mean", "sigmoid"),
        ("min", "none"),
        ("min", "sigmoid"),
    ]
    mean = result["ensembles"][0]
    assert mean["accuracy"] == pytest.approx(2 / 3)
    assert mean["subsets"] == {"alpacaeval-easy": 1.0, "math-prm": 0.0}
    assert mean["sections"] == {"Chat": 1.0, "Chat Hard": 0, "Safety": 0, "Reasoning": 0.0}


def test_a_sweep_has_every_subset_of_two_or_more_models(reward_hub, files):
    result = found(reward_hub("ensemble", *files, "--sweep", "--json"))
    assert [e["models"] for e in result["ensembles"]] == [["a", "b"], ["a", "c"], ["b", "c"], ["a", "b", "c"]]


def test_sections_and_percents_are_shown_to_people(reward_hub, files):
    shown = reward_hub("ensemble", *files[:2], "--normalize", "none").out
    assert [title in shown for title in ("Chat Hard", "Reasoning", "mean, none: a + b", "66.67")] == [True] * 4
    assert "Percent of 3 pairs" in shown


def test_weights_and_costs_count(reward_hub, files):
    alone = found(
        reward_hub("ensemble", *files[:2], "--weight", "1", "--weight", "1e-9", "--normalize", "none", "--json")
    )
    assert alone["ensembles"][0]["accuracy"] == alone["members"][0]["accuracy"] == pytest.approx(1 / 3)
    costs = found(reward_hub("ensemble", files[0], "--cost", files[2], "--normalize", "none", "--json"))
    # The cost prefers chosen in the first and the last pair, and there by 7 against 1.
    assert costs["members"][1]["accuracy"] == pytest.approx(2 / 3)
    assert costs["ensembles"][0]["subsets"] == {"alpacaeval-easy": 0.5, "math-prm": 1.0}


def test_combined_scores_are_written_in_the_form_they_were_read_in(reward_hub, files, tmp_path):
    out = tmp_path / "combined.jsonl"
    arguments = ("ensemble", *files[:2], "--reduce", "max", "--normalize", "none", "--out", str(out))
    assert reward_hub(*arguments).code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[0] == {"id": 0, "subset": "alpacaeval-easy", "chosen_score": 5.0, "rejected_score": 4.0}
    assert [(row["chosen_score"], row["rejected_score"]) for row in rows] == [(5, 4), (3, 1), (1, 9)]
    again = found(reward_hub("ensemble", str(out), files[0], "--json"))
    assert again["members"][0]["accuracy"] == pytest.approx(2 / 3)
    refused = reward_hub(*arguments)
    assert (refused.code, "exists" in refused.err) == (2, True)
    assert reward_hub(*arguments, "--overwrite").code == 0
    printed = reward_hub(*arguments[:-1], "-").out
    assert printed == out.read_text()
    table = tmp_path / "combined.csv"
    assert reward_hub(*arguments[:-1], str(table)).code == 0
    assert table.read_text().splitlines()[:2] == ["id,subset,chosen_score,rejected_score", "0,alpacaeval-easy,5.0,4.0"]
    assert reward_hub(*arguments[:-1], str(tmp_path / "combined.xlsx")).code == 2


def test_scores_without_pairs_are_combined_but_have_no_accuracy(reward_hub, tmp_path):
    paths = []
    for name, value in (("a", 1.0), ("b", 3.0)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps({"id": 1, "score": value}) + "\n" + json.dumps({"id": 2, "score": 0.0}) + "\n")
        paths.append(str(path))
    written = reward_hub("ensemble", *paths, "--normalize", "none", "--out", "-")
    assert [json.loads(line) for line in written.out.splitlines()] == [{"id": 1, "score": 2.0}, {"id": 2, "score": 0.0}]
    refused = reward_hub("ensemble", *paths)
    assert (refused.code, "say --out" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--reduce", "average"), "known: mean"),
        (("--normalize", "z"), "known are none, zscore"),
        (("--beta", "2"), "--beta has no part in mean"),
        (("--reduce", "softmin", "--beta", "0"), "above 0"),
        (("--table", "--reduce", "mean"), "--table shows every mode"),
        (("--weight", "1"), "--weight is given 1 times for 2 files"),
        (("--weight", "1", "--weight", "-1"), "--weight -1.0"),
        (("--out", "x.jsonl", "--table"), "--out holds the scores of one mode"),
        (("--out", "x.jsonl", "--sweep"), "--out holds the scores of one mode"),
    ],
)
def test_bad_usage_is_told_in_one_line(reward_hub, files, arguments, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = reward_hub("ensemble", *files[:2], *arguments)
    assert outcome.code == 2
    assert complaint in outcome.err
    assert not Path("x.jsonl").exists()


def test_one_file_has_no_sweep_but_a_table(reward_hub, files):
    refused = reward_hub("ensemble", files[0], "--sweep")
    assert (refused.code, "--sweep combines two or more models" in refused.err) == (2, True)
    table = found(reward_hub("ensemble", files[0], "--table", "--json"))
    assert {entry["accuracy"] for entry in table["ensembles"]} == {table["members"][0]["accuracy"]}


def test_a_bad_row_is_told_with_file_and_row(reward_hub, files):
    with Path(files[1]).open("a") as file:
        file.write('{"id": 3, "chosen_score": NaN, "rejected_score": 0}\n')
    outcome = reward_hub("ensemble", *files)
    assert outcome.code == 2
    assert f"{files[1]}, row 4: chosen_score holds nan" in outcome.err
    assert reward_hub("ensemble", files[0], "missing.jsonl").code == 1
    assert reward_hub("ensemble", files[0], files[0]).code == 2
