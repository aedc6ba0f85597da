"""Score files: what a model gave, recorded row by row, read strictly.

A row has an `id` and one of

- `chosen_score` and `rejected_score`, or `scores_chosen` and `scores_rejected` as RewardBench writes them: a pair;
- `scores`: one score a response;
- `step_scores`: one score a step;
- `score`: of one response;

each a number or a list of one where it is one number, and optionally a `subset`. All rows of a file have the same.
Files are what `rows.read_rows` reads, the `items.jsonl` of `reward-hub bench`, or one JSON object of columns as in
https://huggingface.co/datasets/allenai/reward-bench-results (`eval-set-scores/`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reward_hub.data.rows import Row, RowFormatError, read_rows

RowId: TypeAlias = str | int
Form: TypeAlias = Literal["pair", "scores", "step_scores", "score"]
"""What the scores of a row are of."""

# Form -> the columns that it is known by, each under any of its names.
_FORMS: Mapping[Form, tuple[tuple[str, ...], ...]] = {
    "pair": (("chosen_score", "scores_chosen"), ("rejected_score", "scores_rejected")),
    "scores": (("scores",),),
    "step_scores": (("step_scores",),),
    "score": (("score",),),
}
_SEVERAL = ("scores", "step_scores")
# The names inside `scores` of items.jsonl.
_ITEM_COLUMNS = {
    "chosen": "chosen_score",
    "rejected": "rejected_score",
    "candidates": "scores",
    "steps": "step_scores",
    "response": "score",
}


@dataclass(frozen=True)
class RecordedRow:
    """One row's scores: of a pair the chosen one's and the rejected one's, of a single response one number."""

    id: RowId
    number: int
    """Its line in a text file, else its place from 1."""
    form: Form
    scores: tuple[float, ...]
    subset: str | None


@dataclass(frozen=True)
class Recorded:
    """A file of scores; `rows` by id, in the order of the file."""

    path: str
    form: Form
    rows: Mapping[RowId, RecordedRow]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Every score of the file."""
        return np.array([score for row in self.rows.values() for score in row.scores])

    def of(self, ids: Iterable[RowId]) -> list[RecordedRow]:
        """The rows of these ids, in their order.

        Raises:
            RowFormatError: an id that the file does not have.
        """
        wanted = list(ids)
        missing = [id_ for id_ in wanted if id_ not in self.rows]
        if missing:
            raise RowFormatError(f"{self.path} has no row with the id {missing[0]!r} ({len(missing)} missing in all).")
        return [self.rows[id_] for id_ in wanted]


def read_recorded(path: str) -> Recorded:
    """Read a file of scores.

    Raises:
        RowFormatError: naming file and row: a row that cannot be read, without id or scores, with an error in place of
            them, with a score that is no finite number, with an id twice, or of another form than the first; or there
            is no row.
        OSError: the file cannot be opened.
    """
    found: dict[RowId, RecordedRow] = {}
    for row in _rows(path):
        recorded = _recorded(row, path)
        first = next(iter(found.values()), recorded)
        if recorded.id in found:
            raise _bad(path, row, f"the id {recorded.id!r} is that of row {found[recorded.id].number} too.")
        if recorded.form != first.form:
            raise _bad(path, row, f"holds {recorded.form!r}, and row {first.number} holds {first.form!r}.")
        found[recorded.id] = recorded
    if not found:
        raise RowFormatError(f"{path} holds no rows.")
    return Recorded(path, next(iter(found.values())).form, found)


def read_subsets(path: str) -> dict[RowId, str]:
    """Id -> subset of the rows of a data file.

    Raises:
        RowFormatError: a row without one of the two, or an id twice.
        OSError: the file cannot be opened.
    """
    subsets: dict[RowId, str] = {}
    for row in _rows(path):
        record, id_ = _identified(row, path)
        subset = _subset(record, row, path)
        if subset is None:
            raise _bad(path, row, "has no subset.")
        if id_ in subsets:
            raise _bad(path, row, f"the id {id_!r} is there twice.")
        subsets[id_] = subset
    return subsets


def _rows(path: str) -> Iterator[Row]:
    columns = _columns(path) if Path(path).suffix.lower() == ".json" else None
    return read_rows(path) if columns is None else _rows_of_columns(columns, path)


def _columns(path: str) -> dict[str, Any] | None:
    """A JSON file that is one object of columns; any other is read as rows."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RowFormatError(f"{path}: not JSON: {error}") from error
    return found if isinstance(found, dict) and isinstance(found.get("id"), list) else None


def _rows_of_columns(columns: dict[str, Any], path: str) -> Iterator[Row]:
    """Entries that are no lists (the model's name, its template) belong to the file as a whole."""
    lists = {name: values for name, values in columns.items() if isinstance(values, list)}
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise RowFormatError(f"{path}: its columns differ in length: {lengths}.")
    for place in range(lengths["id"]):
        yield Row(place + 1, {name: values[place] for name, values in lists.items()})


def _recorded(row: Row, path: str) -> RecordedRow:
    record, id_ = _identified(row, path)
    if record.get("error") is not None:
        raise _bad(path, row, f"has an error in place of scores: {record['error']!r:.200}. Score it again, or drop it.")
    if isinstance(record.get("scores"), dict):
        record = {**record, "scores": None, **{_ITEM_COLUMNS.get(k, k): v for k, v in record["scores"].items()}}
    form, columns = _form(record, row, path)
    several = form in _SEVERAL
    scores = [score for column in columns for score in _numbers(column, record[column], row, path, several=several)]
    return RecordedRow(id_, row.number, form, tuple(scores), _subset(record, row, path))


def _identified(row: Row, path: str) -> tuple[dict[str, Any], RowId]:
    if row.record is None:
        raise _bad(path, row, row.error or "cannot be read.")
    id_ = row.record.get("id")
    if isinstance(id_, bool) or not isinstance(id_, (str, int)):
        raise _bad(path, row, "has no id." if id_ is None else f"the id {id_!r} is neither a text nor a whole number.")
    return row.record, id_


def _form(record: Mapping[str, Any], row: Row, path: str) -> tuple[Form, list[str]]:
    """The one form that a row has, and its columns."""
    found: list[tuple[Form, list[str]]] = []
    for form, wanted in _FORMS.items():
        columns = [[name for name in names if record.get(name) is not None] for names in wanted]
        twice = next((names for names in columns if len(names) > 1), None)
        if twice is not None:
            raise _bad(path, row, f"has a score under two names: {', '.join(twice)}.")
        if all(columns):
            found.append((form, [names[0] for names in columns]))
    if len(found) == 1:
        return found[0]
    if found:
        raise _bad(path, row, f"holds several kinds of scores: {', '.join(form for form, _ in found)}.")
    raise _bad(
        path,
        row,
        "has no scores; 'chosen_score' and 'rejected_score', 'scores_chosen' and 'scores_rejected', 'scores', "
        f"'step_scores' or 'score' are read, its columns are {', '.join(map(repr, list(record)[:8]))}.",
    )


def _numbers(column: str, value: Any, row: Row, path: str, *, several: bool) -> list[float]:
    values = value if isinstance(value, list) else [value]
    if several and (not isinstance(value, list) or not value):
        raise _bad(path, row, f"{column} is {value!r}; a list of at least one number is read.")
    if not several and len(values) != 1:
        raise _bad(path, row, f"{column} has {len(values)} numbers; one is read.")
    for number in values:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise _bad(path, row, f"{column} holds {number!r}, which is no finite number.")
    return [float(number) for number in values]


def _subset(record: Mapping[str, Any], row: Row, path: str) -> str | None:
    subset = record.get("subset")
    if subset is not None and not isinstance(subset, str):
        raise _bad(path, row, f"the subset {subset!r} is no text.")
    return subset


def _bad(path: str, row: Row, problem: str) -> RowFormatError:
    return RowFormatError(f"{path}, row {row.number}: {problem}")
