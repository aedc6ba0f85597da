"""Which engine runs a checkpoint."""

from __future__ import annotations

import importlib.util

from reward_hub import registry
from reward_hub.backends.vllm import plan as vllm_plan
from reward_hub.errors import UnsupportedError
from reward_hub.family import Setup
from reward_hub.loading.resolve import Located, checked_read
from reward_hub.reads import Read

# Engine options that change numbers by more than rounding: they are part of the fingerprint. The others (memory,
# parallel workers, compilation) are not, so that a run may go on, and a cache serve, on another machine.
NUMBER_CHANGING = frozenset(
    {
        *("attn_implementation", "quantization", "quantization_config"),
        *("load_format", "model_loader_extra_config", "model_weights"),
        *("kv_cache_dtype", "kv_cache_dtype_skip_layers", "mamba_cache_dtype", "mamba_ssm_cache_dtype"),
        *("hf_overrides", "model_class_overrides", "disable_sliding_window", "additional_config"),
        *("worker_cls", "worker_extension_cls"),
    }
)


def choose_backend(method: str, located: Located, setup: Setup) -> tuple[str, str]:
    """The backend's name, and why."""
    family = located.family
    if method == "auto" and (importlib.util.find_spec("vllm") is None or not gpu_there()):
        return "transformers", "load_method='auto' and no vLLM with a GPU here"
    if method in ("auto", "vllm"):
        # Whether vLLM can run a model is a matter of its architecture and of what is read, not of the family.
        reason = vllm_plan.why_not(checked_read(located, setup), located.files.config, located.backbone)
        if method == "auto":
            if reason is not None:
                return "transformers", reason
            return "vllm", "vLLM is installed, a GPU is there and it serves this model"
        if reason is not None:
            raise UnsupportedError(f"{reason}. Load it with load_method={family.backends[0]!r}.")
    elif method in registry.BUILTIN_BACKENDS and method not in family.backends:
        raise UnsupportedError(f"{method} cannot run {family.name}; {', '.join(family.backends)} can.")
    return method, "load_method said so"


def backends_of(located: Located, read: Read) -> list[str]:
    """Names of the backends that can run this checkpoint."""
    served = vllm_plan.can_serve(read, located.files.config, located.backbone)
    return [name for name in located.family.backends if served or name == "transformers"]


def gpu_there() -> bool:
    import torch

    return bool(torch.cuda.is_available())
