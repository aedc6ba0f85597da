from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, look_at

from reward_hub import cli
from reward_hub.bench.report import page as report
from reward_hub.bench.report import plots
from reward_hub.bench.report.runs import read_runs
from reward_hub.bench.statistics import compare_runs

NASTY = "</script><img src=x onerror=\"throw 'run'\"> {{data}} <!-- <script>"


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def bench(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", *map(str, arguments)])
    assert ended.value.code in (0, None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs over pairs, one over labelled steps, one over graded candidates, from recorded scores."""
    folder = tmp_path_factory.mktemp("runs")
    rng = random.Random(0)
    pairs = [
        {"id": f"pair-{i}", "subset": ["easy", "hard"][i % 2], "prompt": f"Question {i} {NASTY}",
         "chosen": "good " * rng.randrange(1, 40), "rejected": "bad " * rng.randrange(1, 40)}
        for i in range(60)
    ]  # fmt: skip
    steps = [
        {"id": f"proof-{i}", "problem": f"Prove {i}.", "steps": ["First.", f"Then {NASTY}", "So."], "label": i % 4 - 1}
        for i in range(24)
    ]
    problems = [
        {"id": f"sum-{i}", "prompt": f"Add {i}.", "candidates": ["1", "22", "333", "4444"],
         "correct": [rng.random() < 0.4 for _ in range(4)], "answers": ["1", "22", "333", "22"]}
        for i in range(30)
    ]  # fmt: skip
    data = {
        "pairs": write_lines(folder / "pairs.jsonl", pairs),
        "steps": write_lines(folder / "steps.jsonl", steps),
        "problems": write_lines(folder / "problems.jsonl", problems),
    }
    scores = {
        "first": (
            "pairs",
            [{"id": r["id"], "chosen_score": rng.gauss(0.6, 1), "rejected_score": rng.gauss(0, 1)} for r in pairs],
        ),
        "second": (
            "pairs",
            [{"id": r["id"], "chosen_score": rng.gauss(0.1, 1), "rejected_score": rng.gauss(0, 1)} for r in pairs],
        ),
        "critic": ("steps", [{"id": r["id"], "step_scores": [rng.random() for _ in range(3)]} for r in steps]),
        "picker": ("problems", [{"id": r["id"], "scores": [rng.random() for _ in range(4)]} for r in problems]),
    }
    found = []
    for name, (of, rows) in scores.items():
        recorded = write_lines(folder / f"{name}.jsonl", rows)
        bench("--data", data[of], "--scores", recorded, "--out", folder / name, "--json")
        found.append(folder / name)
    return found


@pytest.fixture(scope="module")
def page(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    bench("report", *folders, "--out", path)
    return path


@pytest.fixture(scope="module", params=[400, 1400])
def seen(request: pytest.FixtureRequest, page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here to look at the page with")
    return look_at(page, width=request.param, folder=tmp_path_factory.mktemp("browser")) | {"asked": request.param}


def test_the_page_shows_without_errors_requests_or_anything_run_from_the_data(seen: dict[str, Any]) -> None:
    assert seen["failures"] == []
    assert seen["finished"]
    assert seen["requests"] == []
    assert seen["images"] == 0


def test_the_page_is_no_wider_than_the_window(seen: dict[str, Any]) -> None:
    assert seen["width"] <= seen["asked"]
    assert seen["needed"] <= seen["width"]


def test_every_chart_is_drawn_inside_of_its_width(seen: dict[str, Any]) -> None:
    kinds = [chart["kind"] for chart in seen["charts"]]
    # Pairs: one chart of bars, two histograms, two scatters. Steps: a histogram, the steps. Candidates: curves as well.
    assert sorted(kinds) == sorted(["bars", *["histogram"] * 4, *["scatter"] * 3, "curves", "steps"])
    for chart in seen["charts"]:
        assert chart["marks"], chart["kind"]
        for mark in (*chart["marks"], *chart["texts"]):
            assert mark["x"] >= -1, (chart["kind"], mark)
            assert mark["x"] + mark["width"] <= seen["width"] + 1, (chart["kind"], mark)


def test_bars_are_as_long_as_the_accuracies_recomputed_from_the_items(
    seen: dict[str, Any], folders: list[Path]
) -> None:
    chart = next(chart for chart in seen["charts"] if chart["kind"] == "bars")
    lines = sorted(line["x"] for line in chart["grid"])
    whole = lines[-1] - lines[0]
    expected = []
    for subset in ("easy", "hard"):
        for folder in folders[:2]:
            rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
            won = [r["scores"]["chosen"] > r["scores"]["rejected"] for r in rows if r["subset"] == subset]
            expected.append(sum(won) / len(won))
    assert [mark["width"] / whole for mark in chart["marks"]] == pytest.approx(expected, abs=2 / whole)


def test_whiskers_reach_from_one_end_of_the_interval_to_the_other(seen: dict[str, Any], folders: list[Path]) -> None:
    chart = next(chart for chart in seen["charts"] if chart["kind"] == "bars")
    lines = sorted(line["x"] for line in chart["grid"])
    subsets = [json.loads((folder / "results.json").read_text())["metrics"]["subsets"] for folder in folders[:2]]
    expected = [found[name]["ci95"] for name in ("easy", "hard") for found in subsets]
    drawn = [[whisker["x"], whisker["x"] + whisker["width"]] for whisker in chart["whiskers"]]
    shares = [[(end - lines[0]) / (lines[-1] - lines[0]) for end in ends] for ends in drawn]
    assert shares == [pytest.approx(ends, abs=2 / (lines[-1] - lines[0])) for ends in expected]


def test_the_shown_steps_carry_the_scores_of_their_item(seen: dict[str, Any], folders: list[Path]) -> None:
    rows = [json.loads(line) for line in (folders[2] / "items.jsonl").read_text().splitlines()]
    first_with_an_error = next(row for row in rows if row["label"] >= 0)
    chart = next(chart for chart in seen["charts"] if chart["kind"] == "steps")
    assert chart["scores"] == pytest.approx(first_with_an_error["scores"]["steps"])


def test_tables_sort_in_both_directions(seen: dict[str, Any]) -> None:
    kinds = [table["kind"] for table in seen["tables"]]
    assert kinds == ["summary", "comparisons", "items", "summary", "items", "summary", "items"]
    for table in seen["tables"]:
        for clicks in table["columns"]:
            assert {click["order"] for click in clicks} == {"ascending", "descending"}
            for click in clicks:
                values = [as_value(cell) for cell in click["cells"]]
                assert values == sorted(values, reverse=click["order"] == "descending"), (table["kind"], click)


def as_value(cell: str) -> Any:
    """A number as it is shown, an id by its number, wrong before right, any other text as it is."""
    number = re.match(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", cell)
    if number:
        return float(number[0])
    if cell in ("wrong", "right"):
        return cell == "right"
    counted = re.fullmatch(r"[a-z]+-(\d+)", cell)
    return int(counted[1]) if counted else cell


def test_the_order_of_the_items_is_that_of_their_margins(seen: dict[str, Any], folders: list[Path]) -> None:
    rows = [json.loads(line) for line in (folders[0] / "items.jsonl").read_text().splitlines()]
    margins = sorted((r["scores"]["chosen"][0] - r["scores"]["rejected"][0] for r in rows), reverse=True)
    items = next(table for table in seen["tables"] if table["kind"] == "items")
    down = next(click for click in items["columns"][2] if click["order"] == "descending")
    assert [float(cell) for cell in down["cells"]] == pytest.approx(margins[:25], rel=1e-3)


def test_a_row_opens_to_its_texts(seen: dict[str, Any]) -> None:
    assert NASTY in seen["opened"]
    assert seen["expanded"] == ["false", "true"]
    # Also where the table is wider than the window.
    assert seen["texts"]["x"] + seen["texts"]["width"] <= seen["width"]


def test_runs_side_by_side_say_what_the_comparison_of_two_runs_says(folders: list[Path]) -> None:
    first, second = read_runs(folders[:2])
    (group,) = report.page_groups([first, second])
    (found,) = group["comparisons"]
    won = [[r["scores"]["chosen"] > r["scores"]["rejected"] for r in run.rows] for run in (first, second)]
    assert found["difference"] == pytest.approx(sum(won[1]) / 60 - sum(won[0]) / 60)
    compared = compare_runs(first.rows, second.rows)
    assert (found["first"], found["second"], found["difference"]) == (
        *(first.name, second.name),
        compared.difference.difference,
    )
    assert found["low"] <= found["difference"] <= found["high"]


def test_two_runs_of_one_model_are_told_apart_by_their_folders(folders: list[Path], tmp_path: Path) -> None:
    again = shutil.copytree(folders[0], tmp_path / "again")
    names = [run.name for run in read_runs([folders[0], again, folders[2]])]
    assert names == ["first (first)", "first (again)", "critic"]


def test_runs_in_folders_of_one_name_are_told_apart_all_the_same(folders: list[Path], tmp_path: Path) -> None:
    again = [shutil.copytree(folders[0], tmp_path / part / "run") for part in ("a", "b")]
    assert [run.name for run in read_runs(again)] == ["first (a/run)", "first (b/run)"]
    assert [run.name for run in read_runs([again[0]] * 2)] == ["first (1)", "first (2)"]


def test_files_of_one_name_with_other_data_are_not_compared(tmp_path: Path) -> None:
    found = []
    for folder, right in (("old", [1, 2]), ("new", [3, 4])):
        (tmp_path / folder).mkdir()
        rows = [{"id": i, "prompt": f"{folder} {i}", "chosen": "a", "rejected": "b"} for i in right]
        scores = [{"id": i, "chosen_score": 1, "rejected_score": 0} for i in right]
        data = write_lines(tmp_path / folder / "data.jsonl", rows)
        recorded = write_lines(tmp_path / folder / "scores.jsonl", scores)
        bench("--data", data, "--scores", recorded, "--out", tmp_path / folder / "run", "--json")
        found.append(tmp_path / folder / "run")
    groups = report.page_groups(read_runs(found))
    assert [group["title"] for group in groups] == ["data.jsonl (old)", "data.jsonl (new)"]
    assert [group["comparisons"] for group in groups] == [[], []]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs whose numbers are not those of an accuracy: grades up to 10, large margins, a PRM-Score below 0, logits."""
    folder = tmp_path_factory.mktemp("odd")
    rng = random.Random(1)
    graded = [
        {"id": i, "prompt": "Q", "candidates": list("abcd"), "grades": rng.sample(range(11), 4)} for i in range(20)
    ]
    wide = [{"id": i, "prompt": "Q", "chosen": "aa", "rejected": "b"} for i in range(5)]
    proofs = [
        {"id": i, "prompt": "Q", "steps": ["a", "b"], "error_steps": [2], "classification": name}
        for i, name in enumerate(["circular", "confidence", "deception"] * 4)
    ]
    several = [
        {"id": i, "prompt": "Q", "chosen": ["a" * rng.randrange(1, 50) for _ in range(3)],
         "rejected": ["b" * rng.randrange(1, 50) for _ in range(3)]}
        for i in range(20)
    ]  # fmt: skip
    talk = [
        {"id": i, "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "a" * i}]}
        for i in range(1, 9)
    ]
    margins = [4430.2, 1000.4, 120.04, 12345.6, 0.25]
    jobs = {
        "graded": (graded, [{"id": r["id"], "scores": r["grades"]} for r in graded]),
        "wide": (wide, [{"id": i, "chosen_score": m, "rejected_score": 0} for i, m in enumerate(margins)]),
        "proofs": (proofs, [{"id": r["id"], "step_scores": [0.9, rng.random()]} for r in proofs]),
        "logits": (proofs, [{"id": r["id"], "step_scores": [rng.gauss(3, 4), rng.gauss(0, 4)]} for r in proofs]),
        "several": (
            several,
            [
                {"id": i, **{f"{k}_score": rng.choices(range(9), k=3) for k in ("chosen", "rejected")}}
                for i in range(20)
            ],
        ),
        "talk": (talk, [{"id": r["id"], "score": rng.random()} for r in talk]),
    }
    found = {}
    for name, (rows, scores) in jobs.items():
        data = write_lines(folder / f"{'proofs' if name == 'logits' else name}-data.jsonl", rows)
        recorded = write_lines(folder / f"{name}.jsonl", scores)
        found[name] = folder / name
        bench("--data", data, "--scores", recorded, "--out", found[name], "--json")
    path = found["proofs"] / "results.json"
    results = json.loads(path.read_text())
    results["metrics"]["sections"]["soundness"] |= {"prm_score": -0.4, "ci95": [-0.6, -0.3]}
    path.write_text(json.dumps(results))
    return found


def group_of(*folders: Path) -> dict[str, Any]:
    (group,) = report.page_groups(read_runs(folders))
    return group


def test_the_headline_of_prmbench_is_its_prm_score_with_its_interval(odd: dict[str, Path]) -> None:
    group = group_of(odd["logits"])
    overall = json.loads((odd["logits"] / "results.json").read_text())["metrics"]["overall"]
    assert group["measures"][0]["name"] == "PRM-Score"
    assert group["runs"][0]["measures"][0] == [overall["prm_score"], *overall["ci95"]]
    assert overall["f1"] != overall["prm_score"]
    assert [part["title"] for part in group["bars"]] == ["Sections", "Subsets"]
    assert all(row["values"][0] is not None for part in group["bars"] for row in part["rows"])


def test_grades_beyond_1_are_shown_as_grades_and_not_in_percent(odd: dict[str, Path]) -> None:
    group = group_of(odd["graded"])
    assert (group["share"], group["measures"][0]["name"], group["measures"][0]["share"]) == (False, "Mean grade", False)
    run = group["runs"][0]
    assert (run["curves"]["share"], run["curves"]["y"]) == (False, "mean grade")
    assert [series["name"] for series in run["histogram"]["series"]] == ["candidates"]
    assert {point[2] for point in run["scatter"]["points"]} == {None}


def test_the_correlation_with_length_is_that_of_the_results(odd: dict[str, Path]) -> None:
    scatter = group_of(odd["several"])["runs"][0]["scatter"]
    bias = json.loads((odd["several"] / "results.json").read_text())["metrics"]["bias"]["length"]
    assert len(scatter["points"]) == 20 * 9
    assert f"Spearman's correlation: {bias['margin_correlation']['spearman']:+.2f}." in scatter["note"]


def test_models_that_compare_have_their_position_bias_beside_the_accuracy(tmp_path: Path) -> None:
    rows = [{"id": i, "prompt": "Q", "chosen": "a", "rejected": "bb"} for i in range(4)]
    orders = [[0.9, 0.1], [0.8, 0.3], [0.7, 0.6], [0.6, 0.4]]
    data = write_lines(tmp_path / "data.jsonl", rows)
    recorded = write_lines(tmp_path / "judge.jsonl", [{"id": i, "probabilities": p} for i, p in enumerate(orders)])
    bench("--data", data, "--scores", recorded, "--out", tmp_path / "run", "--json")
    group = group_of(tmp_path / "run")
    shown = dict(zip([measure["name"] for measure in group["measures"]], group["runs"][0]["measures"], strict=True))
    assert shown["prefers first"] == pytest.approx(7 / 8)


def test_responses_without_a_label_are_neither_right_nor_wrong(odd: dict[str, Path]) -> None:
    group = group_of(odd["talk"])
    assert {point[2] for point in group["runs"][0]["scatter"]["points"]} == {None}
    assert "interval" not in group["about"]


def test_the_colours_of_steps_have_the_scale_of_their_own_model(odd: dict[str, Path]) -> None:
    probabilities, logits = group_of(odd["proofs"], odd["logits"])["steps"]["scales"]
    assert probabilities == (0.0, 1.0)
    assert logits[0] < 0 and logits[1] > 1


def test_odd_numbers_are_drawn_inside_of_their_charts_and_written_as_they_are(
    odd: dict[str, Path], tmp_path: Path
) -> None:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here to look at the page with")
    runs = read_runs([odd["graded"], odd["wide"], odd["proofs"]])
    report.write_page(runs, report.page_groups(runs), tmp_path / "page.html")
    seen = look_at(tmp_path / "page.html", width=800, folder=tmp_path)
    assert seen["failures"] == []
    curves = next(chart for chart in seen["charts"] if chart["kind"] == "curves")
    heights = [line["y"] for line in curves["grid"]]
    assert all(min(heights) - 40 < mark["y"] < max(heights) + 40 for mark in curves["marks"])

    items = [table for table in seen["tables"] if table["kind"] == "items"]
    (margins,) = [click["cells"] for click in items[1]["columns"][1] if click["order"] == "descending"]
    assert margins == ["12346", "4430", "1000", "120", "0.25"]

    bars = next(chart for chart in seen["charts"] if chart["kind"] == "bars")
    lines = sorted({line["x"] for line in bars["grid"]})
    assert len(lines) == 8  # From -75 % to 100 %.
    unit = (lines[-1] - lines[0]) / 1.75
    names = list(json.loads((odd["proofs"] / "results.json").read_text())["metrics"]["sections"])
    bar, whisker = (bars[kind][names.index("soundness")] for kind in ("marks", "whiskers"))
    starts = [(mark["x"] - lines[0]) / unit - 0.75 for mark in (bar, whisker)]
    assert starts == pytest.approx([-0.4, -0.6], abs=2 / unit)
    assert [mark["width"] / unit for mark in (bar, whisker)] == pytest.approx([0.4, 0.3], abs=2 / unit)


def test_a_page_holds_no_more_items_than_asked_for_and_says_so(folders: list[Path], tmp_path: Path) -> None:
    runs = read_runs(folders[:1])
    (group,) = report.page_groups(runs, max_items=7)
    assert (len(group["items"]), group["items_left_out"]) == (7, 53)


def test_plots_are_png_files_of_every_figure(folders: list[Path], tmp_path: Path) -> None:
    written = plots.write_plots(report.page_groups(read_runs(folders)), tmp_path / "png")
    assert len(written) == 9
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000 for path in written)


def test_plots_of_any_names_are_files_of_their_own(folders: list[Path], tmp_path: Path) -> None:
    (group,) = report.page_groups(read_runs([*folders[:2], folders[0]]))
    for run, name in zip(group["runs"], ("$\\frac{a$/b", "$\\frac{a$_b", "_" + 300 * "m"), strict=True):
        run["name"] = name
    # A letter that no font has draws a box; that is no error and no warning a letter.
    group["bars"][0]["rows"][0]["name"] = "$\\frac{$ \ue123 日本"
    written = plots.write_plots([group], tmp_path)
    assert len(written) == len(set(written)) == len(list(tmp_path.iterdir())) == 7


def test_a_plot_names_a_run_that_lacks_the_first_subset(folders: list[Path]) -> None:
    from matplotlib.figure import Figure

    (group,) = report.page_groups(read_runs(folders[:2]))
    group["bars"][0]["rows"][0]["values"][1] = None
    figure = Figure(layout="constrained")
    plots._draw_bars(figure, part=group["bars"][0], runs=group["runs"], title="pairs")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "second"]


@pytest.mark.parametrize("kind", ["empty", "file", "other"])
def test_a_folder_without_a_finished_run_is_refused_by_name(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / kind
    if kind == "file":
        place.write_text("{}")
    else:
        place.mkdir()
    if kind == "other":
        (place / "results.json").write_text("[1]")
        (place / "items.jsonl").write_text("")
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "report", str(place), "--out", str(tmp_path / "page.html")])
    assert ended.value.code == 2
    assert str(place) in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
