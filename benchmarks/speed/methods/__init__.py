"""How texts are scored: ours, and what others do, in our own words. Each file says whose way it is."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.speed.methods.cross_encoder import CrossEncoderPredict
from benchmarks.speed.methods.k_passes import KPasses
from benchmarks.speed.methods.method import Method
from benchmarks.speed.methods.one_at_a_time import OneAtATime
from benchmarks.speed.methods.ours import Ours
from benchmarks.speed.methods.pipeline import Pipeline
from benchmarks.speed.methods.reward_bench import RewardBench
from benchmarks.speed.methods.trl_batch import TRLBatch
from benchmarks.speed.methods.vllm_process import VLLMProcess

KEPT = 65_536  # tokens of prompts whose keys and values are kept between calls

ALL: Mapping[str, Method] = {
    "ours": Ours(),
    "ours, tuned": Ours(tune=True),
    "ours, prompt kept": Ours(prompt_cache_tokens=KEPT),
    "ours, prompt kept, tuned": Ours(prompt_cache_tokens=KEPT, tune=True),
    "one at a time": OneAtATime(),
    "RewardBench, batch 8": RewardBench(),
    "CrossEncoder": CrossEncoderPredict(),
    "pipeline, batch 8": Pipeline(),
    "TRL, batch 8": TRLBatch(),
    "K passes": KPasses(),
    "vLLM": VLLMProcess(),
}
