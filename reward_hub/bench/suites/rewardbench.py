"""RewardBench: 2,985 pairs in 23 subsets. https://huggingface.co/datasets/allenai/reward-bench, arXiv 2403.13787

`id` counts within all splits of the data set; it is unique in `filtered`, the one that is scored.
"""

from __future__ import annotations

from reward_hub.bench.data import HubData
from reward_hub.bench.items import preference_item
from reward_hub.bench.suite import Suite

SUITE = Suite(
    name="rewardbench",
    form="preference",
    read=preference_item,
    hub=(HubData("allenai/reward-bench", split="filtered"),),
    files=("filtered*.parquet",),
    download="https://huggingface.co/datasets/allenai/reward-bench (data/filtered-*.parquet)",
)
