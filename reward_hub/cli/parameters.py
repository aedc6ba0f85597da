"""A command's groups of options as parameters of their own, as typer reads them.

A command takes a group, a dataclass with one field an option, as one parameter; `command_of` shows typer its fields:

    def score(file: File, *, model: Model, load: LoadOptions, log: LogOptions) -> None: ...
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def command_of(function: Callable[..., None]) -> Callable[..., None]:
    """The same command with each group's fields as parameters of their own, as typer reads them."""
    signature = inspect.signature(function, eval_str=True)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if dataclasses.is_dataclass(parameter.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        parameters += _parameters_of(groups[name]) if name in groups else [parameter.replace(kind=_KEYWORD)]

    def run(**values: Any) -> None:
        grouped = {
            name: group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        function(**values, **grouped)

    run.__doc__ = function.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters_of(group: Any) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(field.name, _KEYWORD, default=field.default, annotation=hints[field.name])
        for field in dataclasses.fields(group)
    ]
