"""Rewards from the density ratio of two models: `DrSow`, its training and what it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reward_hub.lazy_names import lazy_names

_HOME = {
    "DrSow": "reward_hub.drsow.drsow_rm",
}

if TYPE_CHECKING:
    from reward_hub.drsow.drsow_rm import DrSow as DrSow


__getattr__, __dir__ = lazy_names(globals(), _HOME)
