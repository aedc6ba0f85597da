"""`reward-hub cache`: what a folder of cached scores holds; empty it; write it as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from reward_hub.cli.option_groups import Json, LogOptions
from reward_hub.cli.tables import print_pairs
from reward_hub.cli.usage import UsageError

PLACE_IN_HELP = 120


def run(
    action: Annotated[Literal["stats", "clear", "export"], typer.Argument(help="What is done.", show_default=False)],
    directory: Annotated[Path, typer.Argument(help="The `cache_dir` of a `CachedRM`.")] = Path("rm_cache"),
    *,
    out: Annotated[Path | None, typer.Option(help="export: the file to write; it is replaced.")] = None,
    as_json: Json = False,
    log: LogOptions,
) -> None:
    """Look into a folder of cached scores.

    `stats` shows how much there is, `clear` removes every entry, `export` writes one line of JSON an entry: key, model,
    score and details, corrupt ones left out. Conversations themselves are not kept.
    """
    from reward_hub.cache.store import ScoreStore
    from reward_hub.data.writing import is_lines

    if (out is None) == (action == "export"):
        raise UsageError("export needs --out FILE." if out is None else f"--out has no meaning for {action}.")
    if out is not None and not is_lines(out):
        raise UsageError(f"{out}: entries are written as JSON lines; say --out FILE.jsonl.")
    if not Path(directory, "cache.db").is_file():
        raise UsageError(f"{directory} holds no cache.")
    store = ScoreStore(directory, on_corrupt="raise")
    try:
        if action == "stats":
            figures = store.stats()
        elif action == "clear":
            figures = {"directory": str(directory), "removed": store.clear()}
        else:
            assert out is not None
            figures = {"directory": str(directory), "exported": store.export(out), "corrupt": store.n_errors}
    finally:
        store.close()
    if as_json:
        print(json.dumps(figures))
    else:
        print_pairs((name.replace("_", " "), str(value)) for name, value in figures.items())
