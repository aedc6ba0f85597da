"""Lines of recorded scores that are not as they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_hub.bench.items import preference_item
from reward_hub.bench.recorded_scores import recorded
from reward_hub.data.rows import RowFormatError

ITEMS = [preference_item({"id": name, "prompt": "p", "chosen": "a", "rejected": "b"}) for name in ("x_1", "x_2")]
GOOD = '{"id": "x_1", "chosen_score": 1, "rejected_score": 0}\n'


def written(folder: Path, *lines: str) -> str:
    path = folder / "scores.jsonl"
    path.write_text("".join(lines))
    return str(path)


@pytest.mark.parametrize(
    ("recorded_error", "error"),
    [
        ('{"type": "InputTooLongError", "message": "9 tokens"}', {"type": "InputTooLongError", "message": "9 tokens"}),
        ('"out of memory"', {"type": "RecordedError", "message": "out of memory"}),
        ('{"code": 500}', {"type": "RecordedError", "message": "{'code': 500}"}),
    ],
)
def test_the_reason_why_a_line_has_no_scores_is_kept_in_whatever_form_it_stands(
    recorded_error: str, error: dict[str, str], tmp_path: Path
) -> None:
    path = written(tmp_path, GOOD, f'{{"id": "x_2", "error": {recorded_error}}}\n')
    assert recorded(ITEMS, path, "preference") == [{"scores": {"chosen": [1.0], "rejected": [0.0]}}, {"error": error}]


@pytest.mark.parametrize("number", ["1" + "0" * 400, "NaN", "-Infinity", "1e308", "true", '"high"', "null"])
def test_what_is_no_finite_number_is_refused_with_its_line(number: str, tmp_path: Path) -> None:
    path = written(tmp_path, GOOD, f'{{"id": "x_2", "chosen_score": [{number}], "rejected_score": 0}}\n')
    with pytest.raises(RowFormatError, match=r"scores\.jsonl, row 2: .* among the scores 'chosen'; finite numbers"):
        recorded(ITEMS, path, "preference")


def test_ids_of_other_data_and_ids_that_stand_twice_are_told_beside_an_id_of_the_data(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("x_1", "1"))
    with pytest.raises(RowFormatError, match=r"for example '1'; are they of other data\? The first id .* is 'x_1'"):
        recorded(ITEMS, path, "preference")
    path = written(tmp_path, GOOD, GOOD)
    with pytest.raises(RowFormatError, match=r"row 2: the id 'x_1' is that of row 1 too; .* is 'x_1#2'"):
        recorded(ITEMS, path, "preference")
