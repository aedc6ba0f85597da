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
from reward_hub.bench import plots, report

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
    number = re.match(r"-?\d+(\.\d+)?(e[+-]?\d+)?", cell)
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


def test_runs_side_by_side_say_what_the_comparison_of_two_runs_says(folders: list[Path]) -> None:
    first, second = report.read_runs(folders[:2])
    (group,) = report.page_groups([first, second])
    (found,) = group["comparisons"]
    won = [[r["scores"]["chosen"] > r["scores"]["rejected"] for r in run.rows] for run in (first, second)]
    assert found["difference"] == pytest.approx(sum(won[0]) / 60 - sum(won[1]) / 60)
    assert found["low"] <= found["difference"] <= found["high"]


def test_two_runs_of_one_model_are_told_apart_by_their_folders(folders: list[Path], tmp_path: Path) -> None:
    again = shutil.copytree(folders[0], tmp_path / "again")
    names = [run.name for run in report.read_runs([folders[0], again, folders[2]])]
    assert names == ["first (first)", "first (again)", "critic"]


def test_a_page_holds_no_more_items_than_asked_for_and_says_so(folders: list[Path], tmp_path: Path) -> None:
    runs = report.read_runs(folders[:1])
    (group,) = report.page_groups(runs, max_items=7)
    assert (len(group["items"]), group["items_left_out"]) == (7, 53)


def test_plots_are_png_files_of_every_figure(folders: list[Path], tmp_path: Path) -> None:
    written = plots.write_plots(report.page_groups(report.read_runs(folders)), tmp_path / "png")
    assert len(written) == 9
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000 for path in written)


def test_a_folder_without_a_finished_run_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "report", str(tmp_path), "--out", str(tmp_path / "page.html")])
    assert ended.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
