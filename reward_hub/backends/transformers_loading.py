"""How a checkpoint becomes a transformers model: config, class, dtype, weights under stock names, adapter."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reward_hub.backends.adapters import NotEqualError, apply_adapter
from reward_hub.backends.base import EngineOptions
from reward_hub.backends.stock_config import stock_config
from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.checkpoints.prefixes import misplaced
from reward_hub.checkpoints.tensors import lm_head_name, stored_lm_head
from reward_hub.errors import (
    CheckpointError,
    MissingDependencyError,
    RemoteCodeRefusedError,
    UnsupportedError,
    missing_dependency,
)
from reward_hub.family import Backbone
from reward_hub.reads import HeadOutputs, Read, TokenLogprobs
from reward_hub.tokenizer import quiet_transformers

try:
    import torch
    import transformers
except ImportError as error:
    raise missing_dependency("torch and transformers", "transformers", "The transformers backend") from error

logger = logging.getLogger(__name__)

# Buffers that old checkpoints carry and no model reads.
UNUSED = (
    r"(^|\.)rotary_emb\.inv_freq$",
    r"\.attention\.(masked_)?bias$",
    r"\.attn\.(masked_)?bias$",
    r"(^|\.)embeddings\.position_ids$",
)
# An LM head beside another head.
LM_HEAD = r"(^|\.)lm_head\."
OPTIONS = frozenset(
    {
        "max_memory",
        "offload_folder",
        "offload_buffers",
        "tp_plan",
        "tp_size",
        "device_mesh",
        "use_kernels",
        "experts_implementation",
    }
)


def load_model(files: CheckpointFiles, read: Read, backbone: Backbone | None, options: EngineOptions) -> Any:
    """The model that answers the read, its weights checked and an adapter merged in.

    Raises:
        CheckpointError: it cannot be made of these files.
        RemoteCodeRefusedError: it needs code of its own, which was not allowed.
    """
    if files.adapter is None:
        return _load_base(files, read, backbone, options).eval()
    _refuse_what_an_adapter_names(files.adapter.fetch())
    try:
        model = apply_adapter(_load_base(files, read, backbone, options), files, read, merge=True)
    except NotEqualError as error:
        logger.info("The adapter %s is not merged: %s.", files.adapter.id, error)
        model = apply_adapter(_load_base(files, read, backbone, options), files, read, merge=False)
    return model.eval()


def adapter_place(model: Any) -> str:
    """Where the weights of an adapter are, once it was applied."""
    kept = any("lora_" in name for name, _ in model.named_parameters())
    return "kept beside the weights" if kept else "merged into the weights"


def _load_base(files: CheckpointFiles, read: Read, backbone: Backbone | None, options: EngineOptions) -> Any:
    """The model without an adapter."""
    config, make = _config_and_class(files, read, backbone, options)
    for part in (config, config.get_text_config()):
        part.use_cache = False  # every forward is the only one
    # As stored: transformers 5 calls every T5 tied, and would tie one whose own head is missing.
    if isinstance(read, TokenLogprobs) and not files.config.get("tie_word_embeddings", config.tie_word_embeddings):
        lm_head_name(files, tied=False)
    arguments: dict[str, Any] = {
        "config": config,
        "dtype": _dtype(options.torch_dtype, config, files),
        "attn_implementation": _attention(config, options.attn_implementation),
        "device_map": options.device_map,
        "quantization_config": options.quantization_config,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # so that they are reported, and refused by name in _check_report
        **(options.extra or {}),
    }
    arguments = {name: value for name, value in arguments.items() if value is not None}
    _refuse_what_an_adapter_names(files.fetch())
    try:
        with quiet_transformers():
            if not files.is_standard or (backbone is not None and (backbone.rename or backbone.split)):
                state = _stock_state(files, backbone, read)
                model, report = make(None, state_dict=state, **arguments)
            else:
                model, report = make(str(files.fetch()), **arguments)
    except ImportError as error:
        raise _missing_package(files, options, error) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{files.id} cannot be loaded as {config.model_type}: {error}") from error
    _check_report(files, report, backbone, read)
    if isinstance(read, TokenLogprobs):
        _keep_stored_lm_head(model, files)
    return model


def _config_and_class(
    files: CheckpointFiles, read: Read, backbone: Backbone | None, options: EngineOptions
) -> tuple[Any, Callable[..., Any]]:
    """The config, and what makes a model of it: a stock class, else the checkpoint's own code where that is allowed."""
    stored = files.config if backbone is None else backbone.config
    model_type = stored.get("model_type")
    known = isinstance(model_type, str) and model_type in transformers.CONFIG_MAPPING
    if known:
        try:
            config = stock_config(stored)
        except Exception as error:  # each class checks its fields in its own way
            raise CheckpointError(f"{files.id}: config.json is not one of {model_type}: {error}") from error
        stock = stock_class(config, read)
        if stock is not None:
            return config, stock.from_pretrained
    lacking = "class" if not known else "language model" if isinstance(read, TokenLogprobs) else "base model"
    problem = (
        f"{files.id} has model type {stored.get('model_type')!r}, for which transformers {transformers.__version__} "
        f"has no {lacking}"
    )
    if known and "auto_map" not in stored:
        raise CheckpointError(f"{problem}; it cannot be read so.")
    if not options.trust_remote_code:
        raise RemoteCodeRefusedError(
            f"{problem}; it needs code from its repository. If you trust that code, pass trust_remote_code=True."
        )
    auto: Any = transformers.AutoModelForCausalLM if isinstance(read, TokenLogprobs) else transformers.AutoModel
    return (
        transformers.AutoConfig.from_pretrained(
            str(files.fetch()), trust_remote_code=options.trust_remote_code, return_dict=True
        ),
        functools.partial(auto.from_pretrained, trust_remote_code=options.trust_remote_code),
    )


# What the packages of quantised weights are called, where an error does not say how to get them.
_PACKAGES = {
    "bitsandbytes": "bitsandbytes",
    "gptq": "optimum gptqmodel",
    "awq": "gptqmodel",
    "compressed-tensors": "compressed-tensors",
}


def _missing_package(files: CheckpointFiles, options: EngineOptions, error: ImportError) -> MissingDependencyError:
    """The error for a package that this model needs beside transformers: of its quantisation, or of its attention."""
    method = str((files.config.get("quantization_config") or {}).get("quant_method", ""))
    package = _PACKAGES.get(method)
    if package is None and "flash" in str(options.attn_implementation):
        package = "flash-attn"
    command = "" if package is None or "pip install" in str(error) else f" Type: pip install {package}"
    return MissingDependencyError(f"{files.id} needs a package that is not installed: {error}{command}")


def stock_class(config: Any, read: Read) -> Any:
    """The bare backbone's class, or the one with an LM head where the whole vocabulary is read; None: there is none."""
    table: Any = transformers.MODEL_MAPPING
    if isinstance(read, TokenLogprobs):
        table = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        if config.is_encoder_decoder:
            table = transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    listed = table.get(type(config), None)
    return listed[0] if isinstance(listed, tuple) else listed


def _dtype(wanted: Any, config: Any, files: CheckpointFiles) -> Any:
    """A torch dtype from a name, a dtype or "auto" (what config.json names, else what the weights are stored in)."""
    if isinstance(wanted, torch.dtype):
        return wanted
    if wanted in (None, "auto"):
        named = getattr(config, "dtype", None)
        if named is not None:
            dtype = named if isinstance(named, torch.dtype) else getattr(torch, str(named).removeprefix("torch."), None)
            if not isinstance(dtype, torch.dtype):
                raise CheckpointError(f"{files.id}: config.json has dtype {named!r}, which is not one of torch's.")
            return dtype
        stored = next((i.dtype for i in files.tensors.values() if i.dtype in ("F32", "F16", "BF16")), "F32")
        return {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[stored]
    dtype = getattr(torch, str(wanted).removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"torch_dtype={wanted!r} is not a floating-point type; say 'float32', 'bfloat16' or 'float16'.")
    return dtype


def _attention(config: Any, wanted: str | None) -> str | None:
    """Eager attention for models that cap attention logits: sdpa skips the cap without a word (transformers 5.19)."""
    if not getattr(config.get_text_config(), "attn_logit_softcapping", None):
        return wanted
    if wanted == "sdpa":
        raise UnsupportedError(
            "attn_implementation='sdpa' skips this model's attention soft cap and gives wrong scores; use 'eager'."
        )
    return wanted or "eager"


def _stock_state(files: CheckpointFiles, backbone: Backbone | None, read: Read) -> dict[str, Any]:
    """The model's tensors under stock names; the head's and the unused ones stay behind."""
    files.fetch()
    backbone = backbone or Backbone({})
    head = set(read.head.tensors()) if isinstance(read, HeadOutputs) else set()
    unused = UNUSED if isinstance(read, TokenLogprobs) else (*UNUSED, LM_HEAD)
    ignored = [re.compile(pattern) for pattern in (*backbone.ignore, *unused)]
    rules = [(re.compile(pattern), replacement) for pattern, replacement in backbone.rename]
    state: dict[str, Any] = {}
    for name in files.tensors:
        if name in head or any(pattern.search(name) for pattern in ignored):
            continue
        stock = name
        for pattern, replacement in rules:
            stock, hits = pattern.subn(replacement, name)
            if hits:
                break
        tensor = files.torch_tensor(name)
        state |= {stock: tensor} if backbone.split is None else backbone.split(stock, tensor)
    return state


def _keep_stored_lm_head(model: Any, files: CheckpointFiles) -> None:
    """Give the model the LM head that the checkpoint holds, where a config that calls it tied left it out."""
    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if output is None or embeddings is None or output.weight is not embeddings.weight:
        return
    name = stored_lm_head(files)
    if name is not None:
        own = files.torch_tensor(name).to(output.weight.device, output.weight.dtype)
        output.weight = torch.nn.Parameter(own, requires_grad=False)


def _check_report(files: CheckpointFiles, report: dict[str, Any], backbone: Backbone | None, read: Read) -> None:
    """Nothing of the backbone may be missing, and every tensor left over must be a head's or known to be unused."""
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        raise CheckpointError(
            f"{files.id} lacks {len(missing)} tensor(s) of its backbone: {', '.join(missing[:5])}."
            f"{misplaced(files, missing)}",
            tensor=missing[0],
        )
    mismatched = list(report.get("mismatched_keys") or ())
    if mismatched:
        raise CheckpointError(
            f"{files.id} has backbone tensors of the wrong shape: {mismatched[:5]}.", tensor=str(mismatched[0][0])
        )
    known = [re.compile(pattern) for pattern in (*UNUSED, LM_HEAD, *(backbone.ignore if backbone else ()))]
    head = {**read.head.tensors(), **read.head.optional()} if isinstance(read, HeadOutputs) else {}
    left = [
        name
        for name in sorted(report.get("unexpected_keys") or ())
        if name not in head and not any(pattern.search(name) for pattern in known)
    ]
    stray = [name for name in left if _in_backbone(name)]
    if stray:
        raise CheckpointError(
            f"{files.id} holds tensors that its model type does not have, so it is another model than its config says: "
            f"{', '.join(stray[:5])}.",
            tensor=stray[0],
        )
    if left:
        logger.warning("%s holds tensors that are not used: %s.", files.id, ", ".join(left[:8]))


def _in_backbone(name: str) -> bool:
    return re.search(r"(^|\.)(layers|h|layer|block)\.\d+\.", name) is not None and not name.startswith(
        ("gating.", "score.")
    )


def _refuse_what_an_adapter_names(folder: Path) -> None:
    """PEFT imports the module that an adapter's config calls Megatron's, and X-LoRA opens adapters of other places;
    transformers applies adapters that it finds.

    Raises:
        UnsupportedError: the folder holds such an adapter.
    """
    path = folder / "adapter_config.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if stored.get("megatron_config"):
        raise UnsupportedError(
            f"The adapter in {folder} was trained on layers of {stored.get('megatron_core')!r}, a module that it names "
            "itself; adapters over transformers' own layers are read."
        )
    if stored.get("peft_type") == "XLORA":
        raise UnsupportedError(f"The adapter in {folder} (XLORA) is made of further adapters; LoRA adapters are read.")


def input_device(model: Any) -> torch.device:
    """Where inputs go; parts that accelerate keeps on the disk are on "meta" and do not tell."""
    places = (parameter.device for parameter in model.parameters())
    return next((place for place in places if place.type != "meta"), torch.device("cpu"))
