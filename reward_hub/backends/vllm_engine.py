"""The vLLM engine as the registry knows it."""

from __future__ import annotations

from reward_hub.backends.base import ImportedLate
from reward_hub.backends.vllm import plan
from reward_hub.family import Backbone
from reward_hub.reads import Read
from reward_hub.types import Config

# By these it is known whose an option is, also where vLLM is not installed. Its `EngineArgs` have many more.
_KNOWN_BY = frozenset(
    {
        *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel"),
        *("distributed_executor_backend", "gpu_memory_utilization", "kv_cache_memory_bytes", "kv_cache_dtype"),
        *("cpu_offload_gb", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size"),
        *("enforce_eager", "enable_prefix_caching", "enable_chunked_prefill", "disable_sliding_window", "seed"),
        *("quantization", "load_format", "hf_overrides", "attention_backend", "compilation_config", "worker_cls"),
        *("disable_custom_all_reduce", "num_gpu_blocks_override", "max_parallel_loading_workers"),
        *("speculative_config", "limit_mm_per_prompt", "mm_processor_kwargs", "additional_config"),
    }
)


class VllmEngine(ImportedLate):
    """Runs the decoders that `plan.STEMS` names."""

    target = "reward_hub.backends.vllm.engine:VllmBackend"

    @classmethod
    def options_to_suggest(cls) -> frozenset[str]:
        return _KNOWN_BY

    @classmethod
    def why_not(
        cls,
        config: Config,
        read: Read | None = None,
        *,
        backbone: Backbone | None = None,
        adapter: bool = False,
    ) -> str | None:
        if adapter:
            return "vLLM is given merged weights here: merge the adapter with peft's merge_and_unload"
        return plan.why_not(read, config, backbone)
