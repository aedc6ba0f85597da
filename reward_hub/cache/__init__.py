"""Scores kept on disk: `CachedRM` over any reward model, and the store below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reward_hub.lazy_names import lazy_names

_HOME = {
    "CachedRM": "reward_hub.cache.cached_rm",
}

if TYPE_CHECKING:
    from reward_hub.cache.cached_rm import CachedRM as CachedRM


__getattr__, __dir__ = lazy_names(globals(), _HOME)
