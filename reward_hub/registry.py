"""Find a family or a backend: built-in, registered in this process, or an entry point of another package."""

from __future__ import annotations

import importlib
import operator
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from reward_hub.errors import CheckpointError, RegistryError, RewardHubError, UnknownModelError
from reward_hub.family import Family
from reward_hub.plugins import Entry, Registry, did_you_mean, load_point, source_of, walk
from reward_hub.plugins import nearest as nearest
from reward_hub.types import Config, TensorShapes

if TYPE_CHECKING:
    from reward_hub.backends.base import Engine

BUILTIN_BACKENDS = {
    "transformers": "reward_hub.backends.transformers_engine:TransformersEngine",
    "vllm": "reward_hub.backends.vllm_engine:VllmEngine",
}
_TARGET = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
BACKEND_ALIASES = {"hf": "transformers", "openai": "api"}


def _builtin_families() -> Iterator[Entry[Family]]:
    import reward_hub.families as package

    return (Entry(family.name, family, f"{module} (built in)") for module, family in walk(package, "FAMILY"))


def _installed_family(point: EntryPoint) -> Entry[Family]:
    family = load_point(point)
    if not isinstance(family, Family):
        raise RegistryError(f"{source_of(point)} is {type(family).__name__}; a Family is needed.")
    return Entry(family.name, family, source_of(point))


FAMILIES = Registry("family", _builtin_families, group="reward_hub.families", entry_of=_installed_family)
# A backend is a name alone until it is used: importing it imports its engine.
BACKENDS = Registry(
    "backend",
    lambda: (Entry(name, target, f"{target} (built in)") for name, target in BUILTIN_BACKENDS.items()),
    group="reward_hub.backends",
    entry_of=lambda point: Entry(point.name, point.value, source_of(point)),
    reserved={
        **{alias: f"another name of {name!r}" for alias, name in BACKEND_ALIASES.items()},
        "api": "a server, whatever engine it has",
        "auto": "the choice among backends",
    },
)


def register_family(family: Family) -> None:
    """Make a family of your own known to `AutoRM.load` in this process.

    Raises:
        RegistryError: it is not a Family, has no name, or its name is taken.
    """
    if not isinstance(family, Family):
        raise RegistryError(f"register_family takes a Family, not {type(family).__name__}.")
    _require_name("family", family.name)
    FAMILIES.register(family.name, family)


def register_backend(name: str, target: str) -> None:
    """Make a backend known: `register_backend("sglang", "my_pkg.sglang:Backend")`.

    Raises:
        RegistryError: the name is empty or taken by another target, or the target is not written "module:class".
    """
    _require_name("backend", name)
    if not isinstance(target, str) or not _TARGET.fullmatch(target):
        raise RegistryError(f"The backend {name!r} is {target!r}; write 'module:class'.")
    BACKENDS.register(name, target)


def _require_name(kind: str, name: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise RegistryError(f"A {kind} needs a name, not {name!r}.")


def families() -> tuple[Family, ...]:
    """Every known family, by name."""
    known = FAMILIES.entries()
    return tuple(known[name].thing for name in sorted(known))


def family_named(name: str) -> Family:
    """The family of this name.

    Raises:
        UnknownModelError: there is none; `.near` holds similar names.
    """
    return FAMILIES.get(name)


def family_of_id(model_id: str) -> Family | None:
    """The family that lists exactly this published id."""
    known = (entry.thing for entry in FAMILIES.each())
    return next((family for family in known if family.checkpoint(model_id) is not None), None)


def family_of_checkpoint(model: str, config: Config, shapes: TensorShapes, files: frozenset[str]) -> Family:
    """The one family whose fingerprint fits.

    Raises:
        UnknownModelError: none or several fit; `.near` names candidates.
        CheckpointError: the architecture is a family's, but its head is not in the checkpoint.
    """
    matching = [family for family in families() if family.matches(config, shapes, files)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        names = [family.name for family in matching]
        raise UnknownModelError(
            f"{model} fits several families: {', '.join(names)}{_heads(shapes)}. Say which with family=...", near=names
        )
    architectures = list(config.get("architectures") or [])
    hinted = [family for family in families() if set(family.architectures) & set(architectures)]
    possible = [family.name for family in families() if family.possible and family.possible(config, shapes, files)]
    if hinted and not possible:
        head = ", ".join(family.head_summary or family.name for family in hinted)
        raise CheckpointError(
            f"{model} calls itself {architectures[0]}, which is {hinted[0].name}, but its head ({head}) is not the "
            f"one in the files{_heads(shapes)}."
        )
    form = f"architectures {architectures}" if architectures else f"model_type {config.get('model_type')!r}"
    if possible:
        raise UnknownModelError(
            f"{model} ({form}{_heads(shapes)}) does not tell what kind of reward model it is, if it is one. "
            f"It could be: {', '.join(possible)}. Say which with family=..., or give reference= for an implicit (DPO) "
            "reward.",
            near=possible,
        )
    raise UnknownModelError(
        f"No family fits {model} ({form}{_heads(shapes) or '; head-like tensors: none'}). If it is one of the known "
        f"families, say family=...; known: {', '.join(family.name for family in families())}."
        + _how_to_register(shapes),
        near=[family.name for family in hinted],
    )


def _heads(shapes: TensorShapes) -> str:
    """The tensors that may be a head, those of few rows first, for a message."""
    heads = sorted(filter(is_head_like, shapes), key=lambda name: (len(shapes[name]) != 2, shapes[name], name))[:8]
    return f"; head-like tensors: {', '.join(heads)}" if heads else ""


def _how_to_register(shapes: TensorShapes) -> str:
    """The lines that make a family of a head that is one linear vector; else where the documentation tells."""
    vectors = [name for name, shape in shapes.items() if is_head_like(name) and len(shape) == 2 and shape[0] == 1]
    if len(vectors) != 1 or not vectors[0].endswith(".weight"):
        return " How to add a family: docs/add_a_family.md."
    stem = vectors[0].removesuffix(".weight")
    return f"""
If {vectors[0]!r} is a linear head read at the last token of the chat template, these lines register it (see
docs/add_a_family.md):

    from dataclasses import replace
    from reward_hub import register_family
    from reward_hub.families.sequence_classifier import FAMILY
    from reward_hub.heads import Linear
    from reward_hub.reads import HeadOutputs

    register_family(replace(FAMILY, name="my-rm", checkpoints=(), read=HeadOutputs(Linear("{stem}")),
                            matches=lambda config, tensors, files: "{vectors[0]}" in tensors))
"""


def is_head_like(name: str) -> bool:
    """Whether a tensor stands outside what every backbone has."""
    return not name.startswith(("model.", "transformer.", "gpt_neox.", "lm_head.", "deberta.", "layers.", "embed"))


def backend_class(name: str) -> type[Engine]:
    """The backend of this name, imported now; a built-in one's engine is not, before it is asked for its options.

    Raises:
        UnknownModelError: there is none.
        RegistryError: what is registered under it cannot be imported, or is not an engine.
    """
    from reward_hub.backends.base import Engine

    target = BACKENDS.get(name)
    module, _, attribute = target.partition(":")
    try:
        loaded = operator.attrgetter(attribute)(importlib.import_module(module))
    except RewardHubError:
        raise
    except (ImportError, AttributeError) as error:
        raise RegistryError(f"The backend {name} cannot be imported from {target}: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Engine)):
        raise RegistryError(f"The backend {name} is {target}, which is not a class of reward_hub.backends.base.Engine.")
    return loaded


def load_method_named(name: str) -> str:
    """What a `load_method` means: "auto", "api", or a backend's own name.

    Raises:
        UnknownModelError: nothing; `.near` holds similar names.
    """
    known = ["auto", *backend_names(), "api"]
    if name in known or name in BACKEND_ALIASES:
        return BACKEND_ALIASES.get(name, name)
    near = nearest(str(name), [*known, *BACKEND_ALIASES])
    aliases = {meant: alias for alias, meant in BACKEND_ALIASES.items()}
    listed = (f"{method} (also {aliases[method]})" if method in aliases else method for method in known)
    hint = did_you_mean(str(name), [*known, *BACKEND_ALIASES])
    raise UnknownModelError(f"There is no backend {name!r}.{hint} Known: {', '.join(listed)}.", near=near)


def backend_names() -> list[str]:
    """Every name that `load_method` takes, aliases apart."""
    return BACKENDS.names()
