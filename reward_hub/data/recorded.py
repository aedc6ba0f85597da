"""Score files: what a model gave, recorded row by row, read strictly.

A row has an `id` and one of

- `chosen_score` and `rejected_score`, or `scores_chosen` and `scores_rejected` as RewardBench writes them: a pair;
- `probabilities`: of a pair, one an order;
- `scores`: one score a response;
- `step_scores`: one score a step;
- `score`: of one response;

each a number or a list of numbers, and optionally a `subset`; or an `error` in place of scores. Files are what
`rows.read_rows` reads, the `items.jsonl` of `reward-hub bench`, or one JSON object of columns as in
https://huggingface.co/datasets/allenai/reward-bench-results (`eval-set-scores/`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from reward_hub.data.column_names import Columns, listed
from reward_hub.data.column_turns import shown
from reward_hub.data.rows import Row, RowFormatError, named_rows, read_rows
from reward_hub.numerics import is_finite

RowId: TypeAlias = str | int
Form: TypeAlias = Literal["pair", "scores", "step_scores", "score"]
"""What the scores of a row are of."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "chosen": ("chosen_score", "scores_chosen"),
    "rejected": ("rejected_score", "scores_rejected"),
    "probabilities": ("probabilities",),
    "candidates": ("scores",),
    "steps": ("step_scores",),
    "response": ("score",),
}
"""What is scored, as items.jsonl names it inside `scores` -> the columns that hold its scores."""
_LISTS = ("candidates", "steps")
# In an order that a judge gave no verdict for there is no probability.
_MAY_MISS = ("probabilities",)
# What an ensemble combines: form -> what is scored.
_FORMS: Mapping[Form, tuple[str, ...]] = {
    "pair": ("chosen", "rejected"),
    "scores": ("candidates",),
    "step_scores": ("steps",),
    "score": ("response",),
}


@dataclass(frozen=True)
class ScoreRow:
    """One row of a score file.

    Attributes:
        id: None where the row that was to be scored could not be read.
        number: its line in a text file, else its place from 1.
        scores: by what is scored; empty where there is an error.
        columns: by what is scored the column that its scores stand in.
        nested: the scores stand in one column, as in items.jsonl.
        error: why there are none, in whatever form that stands in the file.
    """

    id: RowId | None
    number: int
    subset: str | None
    scores: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    nested: bool = False
    error: Any = None


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


def read_recorded(path: str, columns: Columns | None = None) -> Recorded:
    """Read a file of scores that are all of one form.

    Raises:
        RowFormatError: naming file and row: a row that cannot be read (see `read_scores`), with an id twice, with an
            error in place of scores, or of another form than the first; or there is no row.
        OSError: the file cannot be opened.
    """
    rows: dict[RowId, RecordedRow] = {}
    for row in read_scores(path, columns):
        recorded = _recorded(row, path)
        first = next(iter(rows.values()), recorded)
        if recorded.id in rows:
            raise bad_row(path, row.number, f"the id {recorded.id!r} is that of row {rows[recorded.id].number} too.")
        if recorded.form != first.form:
            raise bad_row(path, row.number, f"holds {recorded.form!r}, and row {first.number} holds {first.form!r}.")
        rows[recorded.id] = recorded
    if not rows:
        raise RowFormatError(f"{path} holds no rows.")
    return Recorded(path, next(iter(rows.values())).form, rows)


def read_scores(path: str, columns: Columns | None = None) -> Iterator[ScoreRow]:
    """Read the rows of a score file.

    Raises:
        RowFormatError: naming file and row: a row that cannot be read, without id, without scores and without an error,
            or with a score that is not a finite number.
        OSError: the file cannot be opened.
    """
    return (_score_row(row, path) for row in _rows(path, columns))


def read_subsets(path: str, columns: Columns | None = None) -> dict[RowId, str]:
    """Id -> subset of the rows of a data file.

    Raises:
        RowFormatError: a row without one of the two, or an id twice.
        OSError: the file cannot be opened.
    """
    subsets: dict[RowId, str] = {}
    for row in _rows(path, columns):
        record, id_ = _identified(row, path)
        subset = _subset(record, row, path)
        if subset is None:
            raise bad_row(path, row.number, "has no subset.")
        if id_ in subsets:
            raise bad_row(path, row.number, f"the id {id_!r} is there twice.")
        subsets[id_] = subset
    return subsets


def bad_row(path: str, number: int, problem: str) -> RowFormatError:
    return RowFormatError(f"{path}, row {number}: {problem}")


def _rows(path: str, columns: Columns | None) -> Iterator[Row]:
    lists = _lists_of(path) if Path(path).suffix.lower() == ".json" else None
    return read_rows(path, columns) if lists is None else named_rows(_rows_of_lists(lists, path), columns or Columns())


def _lists_of(path: str) -> dict[str, Any] | None:
    """A JSON file that is one object of columns; any other is read as rows."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None
        raise RowFormatError(f"{path}: not JSON: {error}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise RowFormatError(f"{path}: not JSON: {error}") from error
    return content if isinstance(content, dict) and isinstance(content.get("id"), list) else None


def _rows_of_lists(columns: dict[str, Any], path: str) -> Iterator[Row]:
    """Entries that are not lists (the model's name, its template) belong to the file as a whole."""
    lists = {name: values for name, values in columns.items() if isinstance(values, list)}
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise RowFormatError(f"{path}: its columns differ in length: {lengths}.")
    for place in range(lengths["id"]):
        yield Row(place + 1, {name: values[place] for name, values in lists.items()})


def _score_row(row: Row, path: str) -> ScoreRow:
    if row.record is not None and row.record.get("id") is None and row.record.get("error") is not None:
        return ScoreRow(None, row.number, None, error=row.record["error"])
    record, id_ = _identified(row, path)
    subset = _subset(record, row, path)
    if record.get("error") is not None:
        return ScoreRow(id_, row.number, subset, error=record["error"])
    nested = record.get("scores") if isinstance(record.get("scores"), Mapping) else None
    columns = _columns_in({**record, "scores": None} if nested is not None else record, row, path)
    values = {name: record[column] for name, column in columns.items()}
    if nested is not None:
        values |= nested
        columns |= {name: name for name in nested}
    if not values:
        raise bad_row(
            path,
            row.number,
            "has no scores; there is no 'chosen_score' and 'rejected_score', no 'scores_chosen' and 'scores_rejected', "
            f"no 'scores', 'step_scores', 'score' or 'probabilities'; its columns are {listed(record)}.",
        )
    scores = {name: _numbers(name, columns[name], value, row, path) for name, value in values.items()}
    return ScoreRow(id_, row.number, subset, scores, columns, nested=nested is not None)


def _identified(row: Row, path: str) -> tuple[dict[str, Any], RowId]:
    if row.record is None:
        raise bad_row(path, row.number, row.error or "cannot be read.")
    id_ = row.record.get("id")
    if isinstance(id_, bool) or not isinstance(id_, (str, int)):
        problem = "has no id." if id_ is None else f"the id {id_!r} is neither a text nor a whole number."
        raise bad_row(path, row.number, problem)
    return row.record, id_


def _columns_in(record: Mapping[str, Any], row: Row, path: str) -> dict[str, str]:
    """What is scored -> the column of the row that holds its scores."""
    columns = {}
    for name, names in COLUMNS.items():
        there = [column for column in names if record.get(column) is not None]
        if len(there) > 1:
            raise bad_row(path, row.number, f"has a score under two names: {', '.join(there)}.")
        if there:
            columns[name] = there[0]
    return columns


def _numbers(name: str, column: str, value: Any, row: Row, path: str) -> tuple[float | None, ...]:
    values = value if isinstance(value, list) else [value]
    if name in _LISTS and (not isinstance(value, list) or not value):
        raise bad_row(path, row.number, f"{column} is {shown(value)}; a list of at least one number is read.")
    for number in values:
        if number is None and name in _MAY_MISS:
            continue
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not is_finite(number):
            problem = f"{column} holds {shown(number)} among the scores {name!r}; finite numbers are read."
            raise bad_row(path, row.number, problem)
    return tuple(None if number is None else float(number) for number in values)


def _subset(record: Mapping[str, Any], row: Row, path: str) -> str | None:
    subset = record.get("subset")
    if subset is not None and not isinstance(subset, str):
        raise bad_row(path, row.number, f"the subset {subset!r} is not a text.")
    return subset


def _recorded(row: ScoreRow, path: str) -> RecordedRow:
    """A row for an ensemble, which has scores of one form."""
    if row.error is not None:
        problem = f"has an error in place of scores: {row.error!r:.200}. Score it again, or drop it."
        raise bad_row(path, row.number, problem)
    assert row.id is not None
    forms = [form for form, names in _FORMS.items() if all(name in row.scores for name in names)]
    if len(forms) != 1:
        problem = f"holds several kinds of scores: {', '.join(forms)}." if forms else _no_form(row)
        raise bad_row(path, row.number, problem)
    scores = [_of_ensemble(name, row, path) for name in _FORMS[forms[0]]]
    return RecordedRow(row.id, row.number, forms[0], tuple(s for part in scores for s in part), row.subset)


def _no_form(row: ScoreRow) -> str:
    return f"has no scores that are combined; it has those of {', '.join(map(repr, row.columns.values()))}."


def _of_ensemble(name: str, row: ScoreRow, path: str) -> Sequence[float]:
    values = cast(Sequence[float], row.scores[name])
    if name not in _LISTS and len(values) != 1:
        raise bad_row(path, row.number, f"{row.columns[name]} has {len(values)} numbers; one is read.")
    return values
