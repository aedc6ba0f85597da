"""An ensemble file that says no ensemble is refused before any model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_hub.bench.ensemble_file import ensemble_of

MEMBERS = "members: [{model: nowhere}]\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds a NoneType"),
        ("- a", "holds a list"),
        ("members: [", "not YAML"),
        ("reduce: mean", "'members' must be a list"),
        ("members: {model: a}", "'members' must be a list"),
        ("members: [a]", "member 0 must have a 'model' or a 'judge'"),
        ("members: [{model: a, judge: b}]", "member 0 must have a 'model' or a 'judge'"),
        (MEMBERS + "statistics: 5", "'statistics' is 5; the path of a file"),
        (MEMBERS + "statistics: [a.json]", r"'statistics' is \['a.json'\]"),
    ],
)
def test_a_file_that_says_no_ensemble_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "ensemble.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        ensemble_of(file)
