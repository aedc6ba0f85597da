"""`AutoRM.load`'s arguments and engine options in vLLM's names, checked before anything starts."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from typing import Any

from reward_hub.backends.base import EngineOptions
from reward_hub.backends.vllm.attention import longest_input
from reward_hub.backends.vllm.plan import KNOWN_VERSIONS, TESTED_VERSIONS
from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.types import Config

logger = logging.getLogger(__name__)

# Engine options that are none for a user here: why.
DECIDED = {
    **dict.fromkeys(("runner", "convert", "task", "pooler_config"), "the family's read decides it"),
    **dict.fromkeys(
        ("tokenizer", "tokenizer_mode", "skip_tokenizer_init", "tokenizer_revision"),
        "token ids are sent, vLLM's tokenizer is not used; AutoRM.load has tokenizer=",
    ),
    **dict.fromkeys(
        ("model", "hf_config_path", "config_format", "revision", "code_revision", "hf_token", "download_dir"),
        "the checkpoint is found and fetched before vLLM starts, by AutoRM.load's own arguments",
    ),
    "dtype": "say torch_dtype=",
    "model_impl": "the plan names the model class",
    "logprobs_mode": "scores are made of raw log-probabilities",
    "enable_lora": "merge the adapter into the model",
    "max_logprobs": "one log-probability a token is read",
}


def option_names() -> frozenset[str]:
    """The fields of vLLM's `EngineArgs`, and the names of `DECIDED`, which are refused with a reason."""
    from vllm.engine.arg_utils import EngineArgs

    names = {field.name for field in dataclasses.fields(EngineArgs) if not field.name.startswith("_")}
    return frozenset(names | set(DECIDED))


def check_version(version: str) -> None:
    """Warn where this vLLM is not one of those that the plan was written for."""
    minor_version = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if minor_version not in KNOWN_VERSIONS:
        known = ", ".join(f"{major}.{minor}" for major, minor in KNOWN_VERSIONS)
        logger.warning(
            "vLLM %s is outside the range that reward_hub knows (%s): options and results may differ. Compare with "
            "another backend (reward-hub verify) before relying on scores.",
            version,
            known,
        )
    elif minor_version not in TESTED_VERSIONS:
        logger.info("vLLM %s is supported from its source; 0.32 is what the tests ran.", version)


def engine_options(options: EngineOptions) -> dict[str, Any]:
    """`AutoRM.load`'s arguments and engine options as vLLM's engine arguments.

    Raises:
        TypeError: an option that vLLM has no use for, or that is decided here.
    """
    given = dict(options.extra or {})
    for name in given:
        if name in DECIDED:
            raise TypeError(f"{name}= is not for the caller to set: {DECIDED[name]}.")
    if given.get("load_format") == "dummy":
        raise TypeError("load_format='dummy' would give random weights.")
    for name in ("device_map", "attn_implementation"):
        if getattr(options, name) is not None:
            raise TypeError(
                f"{name}={getattr(options, name)!r} has no meaning for vllm; it has tensor_parallel_size and "
                "attention_backend."
            )
    _check_device(options.device)
    same = {
        "batch_size": ("max_num_seqs", options.batch_size),
        "max_batch_tokens": ("max_num_batched_tokens", options.max_batch_tokens),
        "max_length": ("max_model_len", options.max_length),
    }
    arguments: dict[str, Any] = {"use_tqdm_on_load": False, "trust_remote_code": options.trust_remote_code}
    for name, (theirs, value) in same.items():
        if value is not None and theirs in given and name != "max_length":
            raise TypeError(f"Give {name}= or {theirs}=, not both: they are the same for vllm.")
        if value is not None:
            arguments[theirs] = value
    config = options.quantization_config
    if config is not None:
        if not isinstance(config, (str, Mapping)):
            raise TypeError(
                f"quantization_config={type(config).__name__} is transformers' own; vllm takes quantization='fp8' (or "
                "another of its methods)."
            )
        arguments["quantization" if isinstance(config, str) else "quantization_config"] = config
    return {**arguments, **given}


def capped_length(arguments: dict[str, Any], config: Config) -> dict[str, Any]:
    """`max_model_len` within the model's positions, beyond which vLLM does not start (scaled ones it judges itself).

    And within those that its rotary table is right for.
    """
    max_length, positions = arguments.get("max_model_len"), config.get("max_position_embeddings")
    longest = longest_input(config)
    if longest is not None:
        if not isinstance(max_length, int) or max_length > longest:
            logger.warning(
                "vLLM reads this model rightly up to %d tokens (one rotary table for every length): longer inputs are "
                "refused. load_method='transformers' takes them.",
                longest,
            )
        return {**arguments, "max_model_len": min(max_length, longest) if isinstance(max_length, int) else longest}
    if not isinstance(max_length, int) or not positions or max_length <= int(positions) or config.get("rope_scaling"):
        return arguments
    logger.warning("max_length %d is lowered to the model's %d positions: vLLM takes no more.", max_length, positions)
    return {**arguments, "max_model_len": int(positions)}


def _check_device(device: Any) -> None:
    """vLLM runs on what it was built for."""
    if device is None:
        return
    kind = str(device).partition(":")[0]
    from vllm.platforms import current_platform

    built_for = str(current_platform.device_type)
    if kind != built_for:
        raise TypeError(f"device={str(device)!r}: this vLLM runs on {built_for!r}.")
    if ":" in str(device):
        raise TypeError(f"device={str(device)!r}: vLLM takes the first devices; set CUDA_VISIBLE_DEVICES to choose.")


def dtype_name(wanted: Any, files: CheckpointFiles) -> str:
    """The dtype by name: what was asked for, else what config.json names, else what the weights are stored in.

    vLLM's own "auto" turns float32 into half precision.
    """
    if wanted in (None, "auto"):
        config = files.config
        named = config.get("dtype") or config.get("torch_dtype")
        if named is None:
            stored = next((i.dtype for i in files.tensors.values() if i.dtype in ("F32", "F16", "BF16")), "F32")
            named = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[stored]
        wanted = named
    name = str(wanted).removeprefix("torch.")
    if name not in ("float32", "bfloat16", "float16"):
        raise TypeError(f"torch_dtype={wanted!r}; vllm takes 'float32', 'bfloat16' or 'float16'.")
    return name
