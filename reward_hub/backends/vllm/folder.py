"""What vLLM loads: the checkpoint is checked, and made a stock model folder where it is not one.

Shards whose tensors all keep their names are linked, the others rewritten. Works for every engine, with any number of
processes, on any machine that sees the folder; it costs disk space where shards have to be rewritten.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from reward_hub.backends.vllm.plan import VllmPlan, WeightRules
from reward_hub.checkpoints.files import TOKENIZER_FILES, CheckpointFiles
from reward_hub.checkpoints.remote_code import without_code
from reward_hub.checkpoints.tensors import lm_head_name, refuse_left_out_lm_head
from reward_hub.errors import BackendError, CheckpointError
from reward_hub.family import Backbone
from reward_hub.reads import Read, TokenLogits

# Files from which vLLM would take other weights, layers or limits than the ones that were checked.
_MISLEADING = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "params.json")


def is_plain(files: CheckpointFiles) -> bool:
    """Whether the checkpoint's own folder holds what vLLM would load, and nothing else that it might."""
    names = frozenset(path.name for path in files.fetch().iterdir())
    return is_plain_among(files, names) and without_code(files.config) == files.config


def is_plain_among(files: CheckpointFiles, names: frozenset[str]) -> bool:
    """The same of a folder or repository with files of these names."""
    kind = ".safetensors" if files.weight_files[0].endswith(".safetensors") else ".bin"
    beside = {name for name in names if name.endswith(kind)} - set(files.weight_files)
    if kind == ".bin":
        beside |= {name for name in names if name.endswith(".safetensors")}
    standard = all(name.startswith(("model", "pytorch_model")) and name.endswith(kind) for name in files.weight_files)
    misleading = names & set(_MISLEADING)
    return standard and not beside and not misleading and "auto_map" not in _tokenizer_config(files.tokenizer_folder())


def write_folder(
    folder: Path, files: CheckpointFiles, plan: VllmPlan, backbone: Backbone | None, *, link_all: bool
) -> int:
    """Fill `folder` with a checkpoint that vLLM's own class takes; return the bytes written.

    Args:
        link_all: the engine adapts names itself (`vllm_plugin`): no shard is rewritten.
    """
    source = files.fetch()
    _write_tokenizer(folder, source)
    _write_config(folder, files, plan)
    written = 0
    for i, file in enumerate(files.weight_files):
        names = [name for name, info in files.tensors.items() if info.file == file]
        pickled = not file.endswith(".safetensors")
        if link_all or (not pickled and all(_stays(name, plan) for name in names)):
            stem = "pytorch_model" if pickled else "model"
            (folder / f"{stem}-{i:05}{'.bin' if pickled else '.safetensors'}").symlink_to((source / file).resolve())
        else:
            written += _rewrite(folder / f"model-{i:05}.safetensors", files, names, plan, backbone)
    return written


def _write_tokenizer(folder: Path, source: Path) -> None:
    """The tokenizer without the code of its own that it may ask for; vLLM wants one, though ids are what it is sent."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            (folder / name).symlink_to((source / name).resolve())
    config = without_code(_tokenizer_config(source))
    if (source / "tokenizer.json").exists():
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    written = folder / "tokenizer_config.json"
    written.unlink(missing_ok=True)
    written.write_text(json.dumps(config), encoding="utf-8")


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _write_config(folder: Path, files: CheckpointFiles, plan: VllmPlan) -> None:
    config = {**without_code(plan.config or files.config), "architectures": [plan.architecture]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _stays(name: str, plan: VllmPlan) -> bool:
    if plan.weights is None:
        return True
    return not plan.weights.split and plan.weights.stock_name(name) in (name, f"model.{name}")


def _rewrite(path: Path, files: CheckpointFiles, names: list[str], plan: VllmPlan, backbone: Backbone | None) -> int:
    """One shard under stock names."""
    from safetensors.torch import save_file

    state: dict[str, Any] = {}
    for name in names:
        stock = name if plan.weights is None else plan.weights.stock_name(name)
        if stock is None:
            continue
        parts = _cut(stock, files.torch_tensor(name), backbone)
        # Pickles may hold one tensor under several names, or slices of one; safetensors takes neither.
        state |= {part: rows.clone().contiguous() for part, rows in parts.items()}
    if not state:
        return 0
    size = int(sum(tensor.nbytes for tensor in state.values()))
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise BackendError(
            f"{size / 1e9:.1f} GB are needed in {path.parent} for the weights of {files.id} under the names that vLLM "
            f"knows; {free / 1e9:.1f} GB are free. Point TMPDIR at another disk, or install reward_hub beside vLLM "
            "(pip install), whose plug-in renames tensors while they are read."
        )
    save_file(state, str(path), metadata={"format": "pt"})
    return size


def weight_shapes(files: CheckpointFiles) -> dict[str, tuple[int, ...]]:
    """Every tensor of the weight files: head files beside them are not vLLM's."""
    return {name: info.shape for name, info in files.tensors.items() if info.file in files.weight_files}


def pieces_of(files: CheckpointFiles, read: Read) -> list[str] | None:
    """The vocabulary pieces of a `TokenLogits` read, if the tokenizer that vLLM will load has them under these ids."""
    if not isinstance(read, TokenLogits):
        return None
    folder = files.fetch()
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    kind: Any = PreTrainedTokenizerFast if (folder / "tokenizer.json").exists() else AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        return None
    pieces = tokenizer.convert_ids_to_tokens(list(read.token_ids))
    if tokenizer.convert_tokens_to_ids(pieces) != list(read.token_ids):
        return None
    return [str(piece) for piece in pieces]


def check_backbone(files: CheckpointFiles, plan: VllmPlan, backbone: Backbone | None) -> None:
    """Every tensor of the backbone is there in its shape.

    vLLM packs tensors, and does not notice one that is missing of a pack: that part stays uninitialised memory.

    Raises:
        CheckpointError: naming the tensor.
    """
    if files.config.get("quantization_config"):
        return  # Quantised weights have names of their own.
    import torch
    import transformers

    from reward_hub.backends.stock_config import stock_config

    config = stock_config(plan.config or files.config)
    with torch.device("meta"):
        made: Any = transformers.MODEL_MAPPING[type(config)]
        model = made(config)
    shapes = stock_shapes(files, plan, backbone)
    if plan.native and plan.convert == "classify" and not plan.needs_tokenizer:
        assert "score.weight" in shapes, "the engine would make up a head"
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        stock = f"model.{name}"
        if stock not in shapes:
            raise CheckpointError(f"{files.id} lacks a tensor of its backbone: {name}.", tensor=name)
        if shapes[stock] != shape:
            raise CheckpointError(
                f"Tensor {name!r} of {files.id} has the shape {list(shapes[stock])}; its config says {list(shape)}.",
                tensor=name,
            )
    if plan.runner == "generate" or plan.needs_tokenizer:
        tied = bool(files.config.get("tie_word_embeddings", config.tie_word_embeddings))
        lm_head_name(files, tied=tied)
        refuse_left_out_lm_head(files, "vLLM", tied=tied)


def stock_shapes(files: CheckpointFiles, plan: VllmPlan, backbone: Backbone | None) -> dict[str, tuple[int, ...]]:
    """Stock name -> shape of everything that vLLM will be given."""
    import torch

    rules = plan.weights or WeightRules()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in weight_shapes(files).items():
        stock = rules.stock_name(name)
        if stock is not None:
            parts = _cut(stock, torch.empty(shape, device="meta"), backbone)
            shapes |= {part: tuple(rows.shape) for part, rows in parts.items()}
    return shapes


def _cut(stock: str, tensor: Any, backbone: Backbone | None) -> dict[str, Any]:
    """A packed tensor as stock ones; `Backbone.split` uses the bare backbone's names."""
    if backbone is None or backbone.split is None:
        return {stock: tensor}
    prefix = "model." if stock.startswith("model.") else ""
    return {prefix + part: rows for part, rows in backbone.split(stock.removeprefix(prefix), tensor).items()}
