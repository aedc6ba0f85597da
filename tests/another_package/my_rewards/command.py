"""`reward-hub greet`: a greeting."""

from __future__ import annotations

from typing import Annotated

import typer


def run(
    name: Annotated[str, typer.Argument(help="Who is greeted.")],
    *,
    times: Annotated[int, typer.Option(min=1, help="How often.")] = 1,
) -> None:
    """Greet somebody."""
    print(" ".join([f"hello {name}"] * times))
