"""Published judges as data: how each is asked and how its verdict is read. One file a family of judges.

A file holds `FORMS`: functions without positional arguments that make a `JudgeForm`. Files are imported when a form is
first looked up. The first form that lists a checkpoint is the one it is loaded in; `family=` names another.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

from reward_hub.errors import RegistryError, UnknownModelError
from reward_hub.judge.form import JudgeForm
from reward_hub.plugins import Entry, Registry, load_point, nearest, source_of, walk

Maker: TypeAlias = Callable[..., JudgeForm]
"""Makes a form; its arguments are the form's options."""


def _builtin() -> Iterator[Entry[Maker]]:
    for module, makers in walk(sys.modules[__name__], "FORMS"):
        yield from (Entry(maker().name, maker, f"{module} (built in)") for maker in makers)


def _installed(point: EntryPoint) -> Entry[Maker]:
    maker = load_point(point)
    form = maker() if callable(maker) else maker
    if not isinstance(form, JudgeForm):
        raise RegistryError(
            f"{source_of(point)} gives {type(form).__name__}; a function that makes a JudgeForm is needed."
        )
    return Entry(form.name, maker, source_of(point))


JUDGES = Registry("published judge", _builtin, group="reward_hub.judges", entry_of=_installed)


def register_judge(maker: Maker) -> None:
    """Make a judge's form known to `AutoRM.load` and `LLMJudge` in this process.

    Args:
        maker: a function without positional arguments that makes a `JudgeForm`.

    Raises:
        RegistryError: the form's name is taken.
    """
    JUDGES.register(maker().name, maker)


def forms() -> tuple[JudgeForm, ...]:
    """Every published form with its default options, by name."""
    return tuple(JUDGES.get(name)() for name in names())


def names() -> list[str]:
    """Names of the published forms, in order."""
    return sorted(JUDGES.names())


def form_named(name: str, options: Mapping[str, Any] | None = None) -> JudgeForm:
    """The form of this name.

    Args:
        options: arguments of the function that makes it, e.g. {"rubric": ...}.

    Raises:
        UnknownModelError: there is none; `.near` holds similar names.
        TypeError: an option that it does not have, or of another type.
        ValueError: an option whose value it cannot use.
    """
    maker = JUDGES.get(name)
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
    return {option: field.default for option, field in inspect.signature(JUDGES.get(name)).parameters.items()}


def form_of_checkpoint(model_id: str) -> JudgeForm | None:
    """The form that a published checkpoint is asked in, by its exact id; None for other models."""
    forms_in_turn = (entry.thing() for entry in JUDGES.each())
    return next((form for form in forms_in_turn if any(c.id == model_id for c in form.checkpoints)), None)


def parser_named(name: str) -> Callable[[str], Any]:
    """What reads the verdicts of this form, or of the judge of this other name.

    Raises:
        UnknownModelError: there is none.
    """
    maker = JUDGES.find(name)
    for form in forms() if maker is None else (maker(),):
        if form.parse is not None and name in (form.name, *form.verdict_names):
            return form.parse
    known = sorted(name for form in forms() if form.parse for name in (form.name, *form.verdict_names))
    raise UnknownModelError(
        f"There is no verdict parser {name!r}. Known: {', '.join(known)}.", near=nearest(name, known)
    )
