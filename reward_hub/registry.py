"""Find a family or a backend: built-in, registered in this process, or an entry point of another package."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from functools import lru_cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from reward_hub.errors import CheckpointError, RegistryError, UnknownModelError
from reward_hub.family import Family
from reward_hub.types import Config, TensorShapes

if TYPE_CHECKING:
    from reward_hub.backends.base import Backend

BUILTIN_BACKENDS = {
    "transformers": "reward_hub.backends.transformers:TransformersBackend",
    "vllm": "reward_hub.backends.vllm.engine:VllmBackend",
}
BACKEND_ALIASES = {"hf": "transformers", "openai": "api"}

_registered_families: dict[str, Family] = {}
_registered_backends: dict[str, str] = {}
_lock = threading.Lock()


def register_family(family: Family) -> None:
    """Make a family of your own known to `AutoRM.load` in this process.

    Raises:
        RegistryError: the name is taken.
    """
    with _lock:
        for other, source in ((_registered_families, "registered before"), (builtin_families(), "built in")):
            if family.name in other and other[family.name] is not family:
                raise RegistryError(f"The family name {family.name!r} is taken: it is {source}. Choose another name.")
        _registered_families[family.name] = family


def register_backend(name: str, target: str) -> None:
    """Make a backend known: `register_backend("sglang", "my_pkg.sglang:Backend")`.

    Raises:
        RegistryError: the name is taken by another target.
    """
    with _lock:
        taken = (
            BUILTIN_BACKENDS.get(name) or _registered_backends.get(name) or (name if name in BACKEND_ALIASES else None)
        )
        if taken is not None and taken != target:
            raise RegistryError(f"The backend name {name!r} is taken by {taken}. Choose another name.")
        _registered_backends[name] = target


@lru_cache(maxsize=1)
def builtin_families() -> dict[str, Family]:
    """Name -> family, for every module of `reward_hub.families`."""
    import reward_hub.families as package

    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        family = importlib.import_module(module.name).FAMILY
        if family.name in found:
            raise RegistryError(f"Two built-in families are named {family.name!r}; one is in {module.name}.")
        found[family.name] = family
    return found


@lru_cache(maxsize=1)
def _entry_point_families() -> dict[str, Family]:
    found: dict[str, Family] = {}
    for point in entry_points(group="reward_hub.families"):
        family = point.load()
        if family.name in found or family.name in builtin_families():
            raise RegistryError(f"The entry point {point.value} gives a family {family.name!r}; that name is taken.")
        found[family.name] = family
    return found


def families() -> tuple[Family, ...]:
    """Every known family, by name."""
    known = {**_entry_point_families(), **builtin_families(), **_registered_families}
    return tuple(known[name] for name in sorted(known))


def family_named(name: str) -> Family:
    """The family of this name.

    Raises:
        UnknownModelError: there is none; `.near` holds similar names.
    """
    for known in (_registered_families, builtin_families()):
        if name in known:
            return known[name]
    known = _entry_point_families()
    if name in known:
        return known[name]
    names = [family.name for family in families()]
    near = nearest(name, names)
    raise UnknownModelError(f"There is no family {name!r}. Known: {', '.join(names)}.", near=near)


def family_of_id(model_id: str) -> Family | None:
    """The family that lists exactly this published id."""
    return next((family for family in families() if family.checkpoint(model_id) is not None), None)


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
            f"{model} fits several families: {', '.join(names)}. Say which with family=...", near=names
        )
    architectures = list(config.get("architectures") or [])
    hinted = [family for family in families() if set(family.architectures) & set(architectures)]
    possible = [family.name for family in families() if family.possible and family.possible(config, shapes, files)]
    if hinted and not possible:
        head = ", ".join(family.head_summary or family.name for family in hinted)
        raise CheckpointError(
            f"{model} calls itself {architectures[0]}, which is {hinted[0].name}, but its head ({head}) is not in the "
            "files."
        )
    told = f"architectures {architectures}" if architectures else f"model_type {config.get('model_type')!r}"
    heads = sorted(name for name, shape in shapes.items() if is_head_like(name))[:8]
    if possible:
        raise UnknownModelError(
            f"{model} ({told}) does not tell what kind of reward model it is, if it is one. It could be: "
            f"{', '.join(possible)}. Say which with family=..., or give reference= for an implicit (DPO) reward.",
            near=possible,
        )
    raise UnknownModelError(
        f"No family fits {model} ({told}; head-like tensors: {', '.join(heads) or 'none'}). If it is one of the known "
        f"families, say family=...; known: {', '.join(family.name for family in families())}."
        + _how_to_register(shapes),
        near=[family.name for family in hinted],
    )


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


def backend_class(name: str) -> type[Backend]:
    """The backend of this name, imported now.

    Raises:
        UnknownModelError: there is none.
    """
    target = BUILTIN_BACKENDS.get(name) or _registered_backends.get(name)
    if target is None:
        target = next((p.value for p in entry_points(group="reward_hub.backends") if p.name == name), None)
    if target is None:
        raise UnknownModelError(
            f"There is no backend {name!r}. Known: {', '.join(backend_names())}.", near=nearest(name, backend_names())
        )
    module, _, attribute = target.partition(":")
    loaded: type[Backend] = getattr(importlib.import_module(module), attribute)
    return loaded


def backend_names() -> list[str]:
    """Every name that `load_method` takes, aliases apart."""
    return [*BUILTIN_BACKENDS, *_registered_backends, *(p.name for p in entry_points(group="reward_hub.backends"))]


def nearest(name: str, known: list[str]) -> list[str]:
    """At most three known names that resemble `name`."""
    import difflib

    return difflib.get_close_matches(name, known, n=3, cutoff=0.4)
