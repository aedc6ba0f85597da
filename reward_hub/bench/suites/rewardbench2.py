"""RewardBench 2: 1,865 prompts in six subsets. https://huggingface.co/datasets/allenai/reward-bench-2, arXiv 2506.01937

Five subsets have one right response of four; in Ties several are right, and its ids `ref:N` and `tied:N` belong
together.
"""

from __future__ import annotations

from reward_hub.bench.data import HubData
from reward_hub.bench.items import preference_item
from reward_hub.bench.suite import Suite

SUITE = Suite(
    name="rewardbench2",
    form="preference",
    read=preference_item,
    hub=(HubData("allenai/reward-bench-2", split="test"),),
    files=("test*.parquet",),
    download="https://huggingface.co/datasets/allenai/reward-bench-2 (data/test-*.parquet)",
)
