"""Options from a signature: an argument that is added to the function is an option of the command line by that.

    @options_of(AutoRM.load, own={"revision": Option(panel="Hub")})
    class LoadOptions(SignatureOptions): ...

The type says what kind of option it is, `AtLeast` its smallest value, the docstring its help. What stands in `own`
departs from that: a panel, another name. `Mapping` arguments are repeated NAME=VALUE options, named in the singular.
"""

from __future__ import annotations

import dataclasses
import inspect
import operator
import re
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

import typer

from reward_hub.cli.named_values import named_values
from reward_hub.types import AtLeast

G = TypeVar("G", bound="SignatureOptions")

_SWITCH = {"on": True, "off": False}


@dataclasses.dataclass(frozen=True)
class Option:
    """How an argument's option departs from what its signature says.

    Attributes:
        names: in place of `--the-argument`.
        panel: under which heading of `--help` it stands; None: the group's.
        field: the group's attribute, where it is not the argument's name.
        help: in place of the docstring's.
    """

    names: tuple[str, ...] = ()
    panel: str | None = None
    field: str | None = None
    help: str | None = None


@dataclasses.dataclass(frozen=True)
class _Derived:
    """One option: of which argument, and how its value becomes the argument's."""

    argument: str
    field: str
    type: Any
    default: Any
    value_of: Callable[[Any], Any] = lambda value: value


class SignatureOptions:
    """A group of options that `options_of` gives its fields; a frozen dataclass."""

    _derived: ClassVar[tuple[_Derived, ...]] = ()

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Any]]

        def __init__(self, **values: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    def arguments(self) -> dict[str, Any]:
        """The function's keyword arguments.

        Raises:
            UsageError: a NAME=VALUE that is none.
        """
        return {option.argument: option.value_of(getattr(self, option.field)) for option in self._derived}

    def given(self) -> list[str]:
        """The options that depart from what they are by default, as they are typed."""
        fields = [field for field in dataclasses.fields(self) if getattr(self, field.name) != field.default]
        return ["--" + field.name.removesuffix("_s").replace("_", "-") for field in fields]

    def as_group(self, group: type[G]) -> G:
        """The values of those options that a smaller group has too."""
        return group(**{name: getattr(self, name) for name in group.__dataclass_fields__})

    def but(self, **changes: Any) -> Self:
        """The same with other values."""
        return type(self)(**{**{name: getattr(self, name) for name in self.__dataclass_fields__}, **changes})


def options_of(
    function: Callable[..., Any],
    *,
    panel: str,
    own: Mapping[str, Option] | None = None,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> Callable[[type[G]], type[G]]:
    """A class decorator: gives a group one option for each argument of a function that can be one.

    Args:
        own: how single options depart from their arguments.
        only: these arguments alone.
        without: arguments that are left out: keys, objects.
    """

    def decorate(group: type[G]) -> type[G]:
        given = own or {}
        taken = {option.argument for option in group._derived}
        derived = [
            option
            for name, parameter in inspect.signature(function).parameters.items()
            if name not in without and name not in taken and (only is None or name in only)
            if (option := _option_of(parameter, function, given.get(name, Option()), panel)) is not None
        ]
        # Before the class's own fields, of which each may stand for one that the function has.
        annotations = {option.field: option.type for option in derived} | inspect.get_annotations(group)
        for option in derived:
            if option.field not in vars(group):
                setattr(group, option.field, option.default)
        group.__annotations__ = annotations
        group._derived = (*group._derived, *derived)
        return dataclasses.dataclass(frozen=True)(group)

    return decorate


def option_group(group: type[G]) -> type[G]:
    """A class decorator for a group that adds options of its own to those of another one."""
    return dataclasses.dataclass(frozen=True)(group)


def _option_of(parameter: inspect.Parameter, function: Callable[..., Any], own: Option, panel: str) -> _Derived | None:
    """The option of one argument; None where no text on a command line could be its value."""
    name = parameter.name
    hint = typing.get_type_hints(_annotated(function), include_extras=True)[name]
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    hint = get_args(hint)[0] if marks else hint
    collects = parameter.kind is inspect.Parameter.VAR_KEYWORD
    shape = (list[str], _values_of(name)) if collects else _shape(hint, name)
    if shape is None:
        return None
    kind, value_of = shape
    several = kind == list[str]
    default = None if several else parameter.default
    if kind == Literal["auto", "on", "off"]:
        default = next((word for word, value in _SWITCH.items() if value is default), default)
    field = own.field or (name.removesuffix("s") if several else name)
    settings: dict[str, Any] = {
        "rich_help_panel": own.panel or panel,
        "help": own.help or help_of(function).get(name),
        "min": next((mark.least for mark in marks if isinstance(mark, AtLeast)), None),
        "metavar": "NAME=VALUE" if several else None,
    }
    if kind is int and settings["min"] is not None:
        settings["min"] = int(settings["min"])
    names = own.names or _names(field, flag=kind is bool and default is False)
    optional = default is None
    annotation = operator.getitem(Annotated, (kind | None if optional else kind, typer.Option(*names, **settings)))
    return _Derived(name, field, annotation, default, value_of)


def _names(field: str, *, flag: bool) -> tuple[str, ...]:
    """`--timeout` for `timeout_s`; a flag that is off has no second name by which it is off."""
    seconds = field.endswith("_s")
    return ("--" + field.removesuffix("_s").replace("_", "-"),) if flag or seconds else ()


def _values_of(name: str) -> Callable[[Sequence[str] | None], dict[str, Any] | None]:
    option = "--" + name.removesuffix("s").replace("_", "-")
    return lambda pairs: named_values(option, pairs) or None


def _shape(hint: Any, name: str) -> tuple[Any, Callable[[Any], Any]] | None:
    """What typer makes of the text, and what is made of that; None where the type is not text."""
    kinds = [kind for kind in (get_args(hint) if _is_union(hint) else (hint,)) if kind is not type(None)]
    literals = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if literals and bool in kinds:
        return Literal["auto", "on", "off"], lambda value: _SWITCH.get(value, value)
    if literals and len(kinds) == 1:
        return kinds[0], _as_it_is
    if any(get_origin(kind) is Mapping or kind is Mapping for kind in kinds):
        return list[str], _values_of(name)
    for kind in (bool, int, float):
        if kinds == [kind]:
            return kind, _as_it_is
    if Any in kinds or str in kinds or Path in kinds:
        return str, _as_it_is
    return None


def _as_it_is(value: Any) -> Any:
    return value


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _annotated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Whose annotations are the arguments': of a class those of its `__init__`."""
    return function.__init__ if isinstance(function, type) else function  # type: ignore[misc]


def help_of(function: Callable[..., Any]) -> dict[str, str]:
    """Argument -> what the docstring's `Args` say of it, as sentences that begin with a capital."""
    documented = inspect.getdoc(function) or ""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", documented, flags=re.MULTILINE | re.DOTALL)
    entries: dict[str, str] = {}
    for entry in re.split(r"\n(?! )", textwrap.dedent(section.group(1)).strip()) if section else ():
        names, _, text = entry.partition(":")
        sentence = " ".join(text.split())
        for name in names.split(","):
            entries[name.strip()] = sentence[:1].upper() + sentence[1:]
    return entries
