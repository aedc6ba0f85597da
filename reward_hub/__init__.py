"""reward_hub: load any published reward model by one line and get the right number.

Importing this package is cheap: every public name is imported on first use (PEP 562).
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from reward_hub.version import __version__

_HOME = {
    "AutoRM": "reward_hub.auto",
    "BaseRM": "reward_hub.base",
    "CalibratedRM": "reward_hub.calibration.calibrated_rm",
    "calibrate": "reward_hub.calibration.calibrated_rm",
    "load_calibration": "reward_hub.calibration.calibrated_rm",
    "PRMResult": "reward_hub.base",
    "AggregationMethod": "reward_hub.base",
    "EnsembleRM": "reward_hub.ensemble",
    "CachedRM": "reward_hub.cache.cached_rm",
    "DrSow": "reward_hub.drsow.drsow_rm",
    "LLMJudge": "reward_hub.judge",
    "register_family": "reward_hub.registry",
    "register_backend": "reward_hub.registry",
    "register_benchmark": "reward_hub.bench.benchmark",
    "register_judge": "reward_hub.judge.published",
    "RewardHubError": "reward_hub.errors",
    "InvalidConversationError": "reward_hub.errors",
    "InputTooLongError": "reward_hub.errors",
    "UnknownModelError": "reward_hub.errors",
    "UnsupportedError": "reward_hub.errors",
    "RemoteCodeRefusedError": "reward_hub.errors",
    "MissingDependencyError": "reward_hub.errors",
    "CheckpointError": "reward_hub.errors",
    "BackendError": "reward_hub.errors",
    "ServerError": "reward_hub.errors",
    "ServerTimeoutError": "reward_hub.errors",
    "BudgetExceededError": "reward_hub.errors",
    "JudgeParseError": "reward_hub.errors",
    "RegistryError": "reward_hub.errors",
    "CacheError": "reward_hub.errors",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from reward_hub.auto import AutoRM as AutoRM
    from reward_hub.base import AggregationMethod as AggregationMethod
    from reward_hub.base import BaseRM as BaseRM
    from reward_hub.base import PRMResult as PRMResult
    from reward_hub.bench.benchmark import register_benchmark as register_benchmark
    from reward_hub.cache.cached_rm import CachedRM as CachedRM
    from reward_hub.calibration.calibrated_rm import CalibratedRM as CalibratedRM
    from reward_hub.calibration.calibrated_rm import calibrate as calibrate
    from reward_hub.calibration.calibrated_rm import load_calibration as load_calibration
    from reward_hub.drsow.drsow_rm import DrSow as DrSow
    from reward_hub.ensemble import EnsembleRM as EnsembleRM
    from reward_hub.errors import BackendError as BackendError
    from reward_hub.errors import BudgetExceededError as BudgetExceededError
    from reward_hub.errors import CacheError as CacheError
    from reward_hub.errors import CheckpointError as CheckpointError
    from reward_hub.errors import InputTooLongError as InputTooLongError
    from reward_hub.errors import InvalidConversationError as InvalidConversationError
    from reward_hub.errors import JudgeParseError as JudgeParseError
    from reward_hub.errors import MissingDependencyError as MissingDependencyError
    from reward_hub.errors import RegistryError as RegistryError
    from reward_hub.errors import RemoteCodeRefusedError as RemoteCodeRefusedError
    from reward_hub.errors import RewardHubError as RewardHubError
    from reward_hub.errors import ServerError as ServerError
    from reward_hub.errors import ServerTimeoutError as ServerTimeoutError
    from reward_hub.errors import UnknownModelError as UnknownModelError
    from reward_hub.errors import UnsupportedError as UnsupportedError
    from reward_hub.judge import LLMJudge as LLMJudge
    from reward_hub.judge.published import register_judge as register_judge
    from reward_hub.registry import register_backend as register_backend
    from reward_hub.registry import register_family as register_family

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
