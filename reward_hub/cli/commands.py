"""The commands of a folder: one file each, imported when its command is asked for.

A file is a command where it has a function `run`, or an `app` with commands below it; a folder is the command in its
`command.py`. Its name is the file's, with hyphens; `PLACE_IN_HELP` says where it stands, the least first. Other
packages bring commands of `reward-hub` by entry points: such a function, or such an app.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from types import FunctionType, ModuleType
from typing import Any, ClassVar, TypeAlias

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from reward_hub.cli.parameters import command_of
from reward_hub.errors import RegistryError
from reward_hub.plugins import Entry, Registry, load_point, source_of

Place: TypeAlias = "str | EntryPoint"
"""Where a command is: the name of a module here, or another package's entry point."""

_COMMAND_OF_FOLDER = "command"
_PLACE = "PLACE_IN_HELP"
# In a context's notes: its commands are listed, not run.
_LISTED = "reward_hub.commands_are_listed"
_LAST = 1000


def commands_of(package: str, group: str | None = None) -> Registry[Place]:
    """The commands in a package's folder, and those that a group of entry points brings."""
    return Registry(
        "command",
        lambda: _files(package),
        group=group,
        entry_of=lambda point: Entry(point.name, point, source_of(point)),
    )


def _files(package: str) -> Iterator[Entry[Place]]:
    """Every file of the folder, under the name that its command would have: which are commands shows when they load."""
    for file in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if file.name == _COMMAND_OF_FOLDER:
            continue
        module = f"{package}.{file.name}.{_COMMAND_OF_FOLDER}" if file.ispkg else f"{package}.{file.name}"
        yield Entry(file.name.replace("_", "-"), module, f"{module} (built in)")


class Commands(TyperGroup):
    """Commands that are imported when they are looked up; a list of them is made of what their files say."""

    registry: ClassVar[Registry[Place]]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        ctx.meta[_LISTED] = True
        super().format_help(ctx, formatter)

    def list_commands(self, ctx: Any) -> list[str]:
        """Those of the folder as `PLACE_IN_HELP` says, then those of other packages by name."""
        places = {name: _place_of(entry.thing) for name, entry in self.registry.entries().items()}
        return sorted((name for name, place in places.items() if place is not None), key=lambda n: (places[n], n))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        place = self.registry.find(cmd_name)
        if ctx.meta.get(_LISTED) and isinstance(place, str):
            listed = _listed(place)
            if listed is not None and listed.help is not None:
                return TyperCommand(cmd_name, help=listed.help, rich_markup_mode="markdown")
        found = None if place is None else _loaded(place)
        if found is None:
            return None
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
            single.command()(command_of(found))
            found = single
        command = get_command(found)
        command.name = cmd_name
        return command


def _place_of(place: Place) -> int | None:
    """Where a command stands in the help; None for a file that is not a command."""
    if isinstance(place, EntryPoint):
        return _LAST + 1
    listed = _listed(place)
    if listed is not None:
        return listed.place
    module = _module(place)
    return None if _command_in(module) is None else getattr(module, _PLACE, _LAST)


@dataclass(frozen=True)
class _Listed:
    """What the file of a command says of it without being imported.

    Attributes:
        place: in the help; None where the file is not a command.
    """

    place: int | None
    help: str | None = None


@cache
def _listed(module: str) -> _Listed | None:
    """None where it cannot be told from the source: importing all commands takes longer than to list them."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # a folder without a `command.py`
        spec = None
    if spec is None:
        return _Listed(None)
    source = getattr(spec.loader, "get_source", lambda name: None)(module)
    if source is None:
        return None
    place, run, is_app = _LAST, None, False
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "run":
            run = ast.get_docstring(statement) or ""
        elif isinstance(statement, ast.Assign):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
            is_app = is_app or "app" in names
            if _PLACE in names and isinstance(statement.value, ast.Constant):
                place = int(str(statement.value.value))
    if run is None:
        return None if is_app else _Listed(None)
    return _Listed(place, run)


def _loaded(place: Place) -> Any:
    """The command's function or app.

    Raises:
        RegistryError: an entry point that cannot be loaded, or is neither.
    """
    if not isinstance(place, EntryPoint):
        return _command_in(_module(place))
    found = load_point(place)
    if not isinstance(found, typer.Typer | FunctionType):
        raise RegistryError(f"{source_of(place)} is {type(found).__name__}; a function or a typer app is needed.")
    return found


def _module(name: str) -> ModuleType | None:
    """The module of this name; None for a folder without a `command.py`."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def _command_in(module: ModuleType | None) -> Any:
    if module is None:
        return None
    run = getattr(module, "run", None)
    # A function that a file imports from another is not its own.
    own = run if getattr(run, "__module__", None) == module.__name__ else None
    return getattr(module, "app", own)
