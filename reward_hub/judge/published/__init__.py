"""Published judges as data: how each is asked and how its verdict is read. One file a family of judges.

A file holds `FORMS`: functions without positional arguments that make a `JudgeForm`. Files are imported when a form is
first looked up. The first form that lists a checkpoint is the one it is loaded in; `family=` names another.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, get_args, get_origin, get_type_hints

from reward_hub.errors import RegistryError, UnknownModelError
from reward_hub.judge.form import JudgeForm


@lru_cache(maxsize=1)
def _makers() -> dict[str, Callable[..., JudgeForm]]:
    """Name -> function that makes the form, for every file of this folder."""
    found: dict[str, Callable[..., JudgeForm]] = {}
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        for maker in importlib.import_module(module.name).FORMS:
            name = maker().name
            if name in found:
                raise RegistryError(f"Two published judges are named {name!r}; one is in {module.name}.")
            found[name] = maker
    return found


def forms() -> tuple[JudgeForm, ...]:
    """Every published form with its default options, by name."""
    return tuple(_makers()[name]() for name in names())


def names() -> list[str]:
    """Names of the published forms, in order."""
    return sorted(_makers())


def form_named(name: str, options: Mapping[str, Any] | None = None) -> JudgeForm:
    """The form of this name.

    Args:
        options: arguments of the function that makes it, e.g. {"rubric": ...}.

    Raises:
        UnknownModelError: there is none; `.near` holds similar names.
        TypeError: an option that it does not have, or of another type.
        ValueError: an option whose value it cannot use.
    """
    maker = _makers().get(name)
    if maker is None:
        raise UnknownModelError(
            f"There is no published judge {name!r}. Known: {', '.join(names())}.",
            near=get_close_matches(name, names(), n=3, cutoff=0.4),
        )
    given = dict(options or {})
    known = sorted(options_of(name))
    if unknown := sorted(set(given) - set(known)):
        raise TypeError(f"{name} has no option {', '.join(map(repr, unknown))}. Known: {', '.join(known) or 'none'}.")
    types = get_type_hints(maker)
    for option, value in given.items():
        allowed = tuple(get_origin(one) or one for one in get_args(types[option]) or (types[option],))
        if not isinstance(value, allowed):
            wanted = " or ".join(one.__name__ for one in allowed)
            raise TypeError(f"{name}: {option}={value!r} is {type(value).__name__}; {wanted} is needed.")
    return maker(**given)


def options_of(name: str) -> dict[str, Any]:
    """Option -> default, of a form that there is."""
    return {option: field.default for option, field in inspect.signature(_makers()[name]).parameters.items()}


def form_of_checkpoint(model_id: str) -> JudgeForm | None:
    """The form that a published checkpoint is asked in, by its exact id; None for other models."""
    for maker in _makers().values():
        form = maker()
        if any(checkpoint.id == model_id for checkpoint in form.checkpoints):
            return form
    return None
