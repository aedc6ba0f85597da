"""Tables for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_NO_WIDTH = 1000  # a pipe has none: there every column is as wide as its words


def print_pairs(pairs: Iterable[tuple[str, str]], *, file: TextIO | None = None) -> None:
    """A name and a text a line; pairs without text are left out."""
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, text in pairs:
        if text:
            table.add_row(*_escaped((name, text)))
    _print(table, file or sys.stdout)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, whole: Sequence[str] = ()) -> None:
    """Rows under their columns' names; the columns in `whole` are not wrapped."""
    from rich.table import Table

    table = Table(show_lines=True)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in rows:
        table.add_row(*_escaped(row))
    _print(table, sys.stdout)


def listed(items: Sequence[str], most: int = 12) -> str:
    """The first of these texts, and how many more there are."""
    more = f", and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _escaped(cells: Sequence[str]) -> list[str]:
    from rich.markup import escape

    return [escape(cell) for cell in cells]


def _print(table: object, file: TextIO) -> None:
    console_for(file).print(table)


def console_for(file: TextIO) -> Console:
    """Prints in colour on a terminal, or as FORCE_COLOR and NO_COLOR say."""
    from rich.console import Console

    return Console(file=file, width=None if file.isatty() else _NO_WIDTH)
