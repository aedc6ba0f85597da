"""Judges under the wrappers, and the code that the documentation shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from judge_server import JudgeOn, judge_server, verdict

from reward_hub import CachedRM, EnsembleRM

ROOT = Path(__file__).parents[2]


def test_a_jury_is_an_ensemble_of_judges(judge_on: JudgeOn) -> None:
    (strict, _), (kind, _) = judge_on(verdict(2)), judge_on(verdict(5))
    assert EnsembleRM([(strict, 0.75), (kind, 0.25)]).score(prompt="q", response="r") == pytest.approx(2.75)


def test_a_cached_judge_is_asked_once_and_one_that_samples_is_refused(judge_on: JudgeOn, tmp_path: Path) -> None:
    judge, server = judge_on(verdict(4))
    with CachedRM(judge, cache_dir=tmp_path) as cached:
        first = cached.score(prompt="q", response="r", return_details=True)
        again = cached.score(prompt="q", response="r", return_details=True)
    assert first[0] == again[0] == 4.0
    assert first[1]["samples"] == again[1]["samples"]
    assert len(server.asked) == 1
    sampling, _ = judge_on(verdict(4), temperature=1.0)
    with pytest.raises(ValueError, match="samples"):
        CachedRM(sampling, cache_dir=tmp_path)


def test_a_cache_tells_reference_answers_apart(judge_on: JudgeOn, tmp_path: Path) -> None:
    judge, server = judge_on(verdict(4))
    with CachedRM(judge, cache_dir=tmp_path) as cached:
        for reference in ("a", "b", "a"):
            question = {"role": "user", "content": "q", "reference": reference}
            cached.score([question, {"role": "assistant", "content": "r"}])
    assert len(server.asked) == 2


def test_the_first_code_block_of_the_page_runs() -> None:
    block = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "judges.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    with judge_server(verdict({"Correctness": 4, "Clarity": 5, "Completeness": 3})) as server:
        names: dict = {}
        exec(block.replace("https://api.openai.com/v1", server.api_base), names)
        names["judge"].close()
    assert names["score"] == pytest.approx(0.5 * 4 + 0.3 * 5 + 0.2 * 3)
    assert names["details"]["attributes"] == {"Correctness": 4.0, "Clarity": 5.0, "Completeness": 3.0}


def test_the_example_runs() -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    example = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "judge.py")],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert example.returncode == 0, example.stderr
    # Three words, and 4 for clarity: 0.7 * 3 + 0.3 * 4.
    assert example.stdout.startswith("3.30 {'Correctness': 3.0, 'Clarity': 4.0}")
    assert "1.0 PositionBias(pairs=1, agreement=1.0, bias=0.0)" in example.stdout
