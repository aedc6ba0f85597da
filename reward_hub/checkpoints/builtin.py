"""The checkpoints that come with the package, in `reward_hub/builtin/`."""

from __future__ import annotations

from pathlib import Path

from reward_hub.errors import UnknownModelError

BUILTIN_PREFIX = "builtin/"
NAMES = ("arithmetic-orm", "arithmetic-prm")


def path(name: str) -> Path:
    """Return the folder of a built-in checkpoint.

    Raises:
        UnknownModelError: no such checkpoint comes with the package.
    """
    if name not in NAMES:
        known = ", ".join(f"builtin/{known}" for known in NAMES)
        raise UnknownModelError(f"There is no built-in model {name!r}; there are {known}.", near=NAMES)
    return Path(__file__).parents[1] / "builtin" / name
