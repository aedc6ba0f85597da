"""The options of every command that reads rows: which column is what, and which is left out."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from reward_hub.cli.usage import UsageError
from reward_hub.data.column_names import Columns

_COLUMNS = "Columns"

RowsFile = Annotated[
    str,
    typer.Argument(
        help="JSONL (or .jsonl.gz), JSON, CSV, Parquet, a folder of `save_to_disk`; `-` is JSONL from standard input."
    ),
]


@dataclasses.dataclass(frozen=True)
class ColumnOptions:
    """What is said of columns."""

    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME",
            help="Read the column NAME as ROLE, as in response=answer; repeatable.",
            rich_help_panel=_COLUMNS,
        ),
    ] = None
    ignore_column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Leave out a column that would be read or refused; repeatable.",
            rich_help_panel=_COLUMNS,
        ),
    ] = None

    @property
    def columns(self) -> Columns:
        """Raises UsageError for a role that there is not."""
        roles: dict[str, str] = {}
        for said in self.column or ():
            role, equals, name = said.partition("=")
            if not equals or not role or not name:
                raise UsageError(f"--column {said!r}: write ROLE=NAME, as in response=answer.")
            if role in roles:
                raise UsageError(f"--column {role} is given twice.")
            roles[role] = name
        try:
            return Columns(roles, tuple(self.ignore_column or ()))
        except ValueError as error:
            raise UsageError(f"--column: {error}") from error

    def column_settings(self) -> dict[str, Any]:
        """What a score depends on; nothing where nothing is said, as in runs of before these options."""
        columns = self.columns
        roles = {"column": dict(columns.roles)} if columns.roles else {}
        return roles | ({"ignore_column": sorted(columns.ignored)} if columns.ignored else {})
