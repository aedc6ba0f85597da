"""The named suites, one file each: where its data are and how its rows are read.

A suite reads the columns as published and those of prepared files (`prompt`, `chosen`, `rejected`, `subset`, ...).
"""

from __future__ import annotations

import importlib

from reward_hub.bench.suite import Suite

__all__ = ["NAMES", "Suite", "named", "suite_of_hub"]

_MODULES = {
    "rewardbench": "rewardbench",
    "rewardbench2": "rewardbench2",
    "rm-bench": "rm_bench",
    "judgebench": "judgebench",
    "processbench": "processbench",
    "prmbench": "prmbench",
    "llmbar": "llmbar",
}
NAMES = tuple(_MODULES)


def named(name: str) -> Suite:
    """The suite of this name.

    Raises:
        LookupError: there is none.
    """
    if name not in _MODULES:
        raise LookupError(f"there is no suite {name!r}; known: {', '.join(NAMES)}.")
    suite: Suite = importlib.import_module(f"reward_hub.bench.suites.{_MODULES[name]}").SUITE
    return suite


def suite_of_hub(repo: str) -> Suite | None:
    """The suite whose data this id of the hub is."""
    suites = (named(name) for name in NAMES)
    return next((suite for suite in suites if any(data.repo == repo for data in suite.hub)), None)
