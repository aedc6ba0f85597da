"""Differences of scores as honest probabilities: fitted maps, and `CalibratedRM` that applies one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reward_hub.lazy_names import lazy_names

_HOME = {
    "CalibratedRM": "reward_hub.calibration.calibrated_rm",
    "calibrate": "reward_hub.calibration.calibrated_rm",
    "calibrate_scores": "reward_hub.calibration.fitting",
    "expected_calibration_error": "reward_hub.calibration.fitting",
    "load_calibration": "reward_hub.calibration.calibrated_rm",
}

if TYPE_CHECKING:
    from reward_hub.calibration.calibrated_rm import CalibratedRM as CalibratedRM
    from reward_hub.calibration.calibrated_rm import calibrate as calibrate
    from reward_hub.calibration.calibrated_rm import load_calibration as load_calibration
    from reward_hub.calibration.fitting import calibrate_scores as calibrate_scores
    from reward_hub.calibration.fitting import expected_calibration_error as expected_calibration_error


__getattr__, __dir__ = lazy_names(globals(), _HOME)
