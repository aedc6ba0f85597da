"""A model with a cache in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reward_hub import BaseRM
from reward_hub.cache.cached_rm import CachedRM


@pytest.fixture
def cached(tmp_path: Path):
    """`cached(rm, ...)`: the model with a cache in one folder."""
    made: list[CachedRM] = []

    def make(rm: BaseRM, **options: Any) -> CachedRM:
        made.append(CachedRM(rm, cache_dir=tmp_path / "cache", **options))
        return made[-1]

    yield make
    for rm in made:
        rm._store.close()
