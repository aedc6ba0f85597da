"""The page and the example run."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "ensembles.md").read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(block, names)
    rm = names["rm"]
    assert capsys.readouterr().out.startswith(f"{rm.score(prompt='What is 17 + 25?', response='17 + 25 = 42.')} ")
    assert len(json.loads((tmp_path / "statistics.json").read_text())["members"][0]["scores"]) == 8


def test_the_example_ranks_right_solutions_first(capsys):
    runpy.run_path(str(ROOT / "examples" / "ensemble.py"))
    problems = capsys.readouterr().out.strip().split("\n\n")
    first = [problem.splitlines()[1] for problem in problems]
    assert len(first) > 3
    assert [line for line in first if "right: " not in line] == []
