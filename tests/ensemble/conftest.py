"""The built-in models, as members."""

from __future__ import annotations

import pytest

from reward_hub import (
    AutoRM,
)


@pytest.fixture(scope="module")
def orm():
    with AutoRM.load("builtin/arithmetic-orm", "transformers") as rm:
        yield rm


@pytest.fixture(scope="module")
def prm():
    with AutoRM.load("builtin/arithmetic-prm", "transformers") as rm:
        yield rm
