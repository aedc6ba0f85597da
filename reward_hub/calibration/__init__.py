"""Differences of scores as honest probabilities: fitted maps, and `CalibratedRM` that applies one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reward_hub.lazy_names import lazy_names

_HOME = {
    "CalibratedRM": "reward_hub.calibration.calibrated_rm",
    "calibrate": "reward_hub.calibration.calibrated_rm",
    "load_calibration": "reward_hub.calibration.calibrated_rm",
}

if TYPE_CHECKING:
    from reward_hub.calibration.calibrated_rm import CalibratedRM as CalibratedRM
    from reward_hub.calibration.calibrated_rm import calibrate as calibrate
    from reward_hub.calibration.calibrated_rm import load_calibration as load_calibration


__getattr__, __dir__ = lazy_names(globals(), _HOME)
