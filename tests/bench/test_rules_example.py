"""The example over recorded scores runs and prints what the documentation quotes."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_example_prints_what_the_page_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "compare_two_models.py"))
    printed = capsys.readouterr().out
    page = (ROOT / "docs" / "bench_rules.md").read_text(encoding="utf-8")
    assert printed in page


def test_the_code_of_the_page_runs_and_gives_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "bench_rules.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    promised = [line.partition("  # ")[2] for block in blocks for line in block.splitlines() if "print(" in line]
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert capsys.readouterr().out.splitlines() == promised
    assert promised
