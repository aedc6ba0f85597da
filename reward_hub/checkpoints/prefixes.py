"""Tensor names that a training tool has put something in front of: named, with the lines that take it away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.errors import CheckpointError

# What wraps a model while it is trained, and is part of no model's own names. "module" is, deeper inside.
WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "module.": "DataParallel, DistributedDataParallel or DeepSpeed",
}
# Where the names of stock models begin that have a head beside a backbone.
_BACKBONES = ("model.", "transformer.", "gpt_neox.", "bert.", "roberta.", "deberta.", "pretrained_model.")
_SOME = 20  # of many thousand missing tensors


def refuse_wrapped(files: CheckpointFiles) -> None:
    """Raises CheckpointError for weights that were saved with the wrapper that they were trained in."""
    names = [name for name, info in files.tensors.items() if info.file in files.weight_files]
    for prefix, tool in WRAPPERS.items():
        n = sum(name.startswith(prefix) or (prefix != "module." and f".{prefix}" in name) for name in names)
        if n:
            raise CheckpointError(_refusal(files, prefix, n, f", which is left of {tool}"))
    common = _common(names)
    if common is not None:
        raise CheckpointError(_refusal(files, common, len(names), ", under which something else held the model"))


def _common(names: Sequence[str]) -> str | None:
    """The first part of every name, where a whole stock model stands behind it: a backbone and a head."""
    first = {name.partition(".")[0] for name in names}
    if len(first) != 1:
        return None
    prefix = f"{first.pop()}."
    inner = [name.removeprefix(prefix) for name in names]
    whole = len({name.partition(".")[0] for name in inner}) > 1 and any(name.startswith(_BACKBONES) for name in inner)
    return prefix if whole else None


def misplaced(files: CheckpointFiles, missing: Iterable[str]) -> str:
    """What to say of missing tensors that are there under a prefix; nothing where they are not."""
    some = tuple(islice(missing, _SOME))
    prefixes = [name.removesuffix(wanted) for wanted in some for name in files.tensors if name.endswith(f".{wanted}")]
    if not prefixes:
        return ""
    prefix = max(set(prefixes), key=prefixes.count)
    return " " + _refusal(files, prefix, sum(name.startswith(prefix) for name in files.tensors), "")


def _refusal(files: CheckpointFiles, prefix: str, n: int, what: str) -> str:
    """How many tensors have the prefix, and the lines that save them again without it."""
    anywhere = prefix in WRAPPERS and prefix != "module."
    without = f"name.replace({prefix!r}, '')" if anywhere else f"name.removeprefix({prefix!r})"
    if files.weight_files[0].endswith(".safetensors"):
        imports, load = "from safetensors.torch import load_file, save_file", "load_file(path)"
    else:
        imports = "import torch; from safetensors.torch import save_file"
        load = "torch.load(path, weights_only=True)"
    return f"""{n} of {len(files.tensors)} tensors of {files.id} have {prefix!r} in their names{what}. \
These lines, in the folder, save them without it:

    {imports}
    tensors = {{{without}: t.clone() for path in {list(files.weight_files)} for name, t in {load}.items()}}
    save_file(tensors, "model.safetensors", metadata={{"format": "pt"}})
"""
