"""Evaluation of reward models: published scoring rules, intervals, comparisons, reports.

Importing this package is cheap: every public name is imported on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reward_hub.lazy_names import lazy_names

_HOME = {
    "EXAMPLE_COUNTS": "reward_hub.bench.rules.rewardbench",
    "SUBSET_MAPPING": "reward_hub.bench.rules.rewardbench",
    "calculate_scores_per_section": "reward_hub.bench.rules.rewardbench",
    "evaluate": "reward_hub.bench.run",
}

if TYPE_CHECKING:
    from reward_hub.bench.rules.rewardbench import EXAMPLE_COUNTS as EXAMPLE_COUNTS
    from reward_hub.bench.rules.rewardbench import SUBSET_MAPPING as SUBSET_MAPPING
    from reward_hub.bench.rules.rewardbench import calculate_scores_per_section as calculate_scores_per_section
    from reward_hub.bench.run import evaluate as evaluate


__getattr__, __dir__ = lazy_names(globals(), _HOME)
