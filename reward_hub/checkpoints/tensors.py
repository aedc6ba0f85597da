"""The tensors that a read needs, held against what the checkpoint has: a small head's, the LM head's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.errors import CheckpointError
from reward_hub.heads import HIDDEN, Head, TensorSpecs
from reward_hub.types import Array, Config


def check_tensors(files: CheckpointFiles, head: Head, hidden_size: int) -> None:
    """Every tensor of the head is in the checkpoint, with the shape it must have.

    Raises:
        CheckpointError: naming the tensor.
    """
    specs = {**head.tensors(), **{n: s for n, s in head.optional().items() if n in files.shapes}}
    for name in specs:
        if name not in files.shapes:
            raise CheckpointError(
                f"{files.id} has no tensor {name!r}, which the head needs{_near(name, files)}. "
                "A head that is not in the checkpoint is never made up.",
                tensor=name,
            )
    sizes = _agreed_sizes(specs, files.shapes, hidden_size)
    for name, spec in specs.items():
        shape, expected = files.shapes[name], tuple(sizes.get(size, size) for size in spec)
        if shape != expected:
            raise CheckpointError(
                f"Tensor {name!r} of {files.id} has the shape {list(shape)}; the head needs {list(expected)}.",
                tensor=name,
            )


def _near(name: str, files: CheckpointFiles) -> str:
    stem = name.split(".")[0]
    near = [n for n in files.shapes if n.split(".")[0] == stem or n.endswith(f".{stem}")][:6]
    return f" (near it: {', '.join(near)})" if near else ""


def _agreed_sizes(specs: TensorSpecs, shapes: Mapping[str, tuple[int, ...]], hidden_size: int) -> dict[int | str, int]:
    """The value of each named size: what most tensors say, so that the one that disagrees is the one to blame."""
    votes: dict[str, list[int]] = {}
    for name, spec in specs.items():
        if len(spec) == len(shapes[name]):
            for size, length in zip(spec, shapes[name], strict=True):
                if isinstance(size, str):
                    votes.setdefault(size, []).append(length)
    agreed: dict[int | str, int] = {size: max(lengths, key=lengths.count) for size, lengths in votes.items()}
    return {HIDDEN: hidden_size, **agreed}


def head_weights(files: CheckpointFiles, head: Head) -> dict[str, Array]:
    """The tensors of a head, in float32."""
    names = [*head.tensors(), *(name for name in head.optional() if name in files.shapes)]
    return {name: files.read(name) for name in names}


def lm_head_name(files: CheckpointFiles, *, tied: bool) -> str:
    """The tensor that is the LM head; the input embeddings where the two are tied.

    Raises:
        CheckpointError: there is none, or it has another shape than the config says.
    """
    own = ["lm_head.weight"]
    embeddings = [
        "model.embed_tokens.weight",
        "embed_tokens.weight",
        "transformer.wte.weight",
        "gpt_neox.embed_in.weight",
    ]
    names = [*embeddings, *own] if tied else [*own, "embed_out.weight"]
    name = next((name for name in names if name in files.shapes), None)
    if name is None:
        raise CheckpointError(f"{files.id} has no LM head ({', '.join(names)}) to read from.", tensor=names[0])
    expected = (int(files.config.get("vocab_size") or files.shapes[name][0]), hidden_size(files.config))
    if files.shapes[name] != expected:
        raise CheckpointError(
            f"Tensor {name!r} of {files.id} has the shape {list(files.shapes[name])}; the LM head needs "
            f"{list(expected)}.",
            tensor=name,
        )
    return name


def lm_head_rows(files: CheckpointFiles, token_ids: Sequence[int], *, tied: bool) -> tuple[Array, Array]:
    """The LM head's rows of these tokens and their biases, float32."""
    name = lm_head_name(files, tied=tied)
    bias = np.zeros(len(token_ids), np.float32)
    if "lm_head.bias" in files.shapes:
        bias = files.rows("lm_head.bias", token_ids)
    return files.rows(name, token_ids), bias


def hidden_size(config: Config) -> int:
    """Width of the hidden vectors.

    Raises:
        CheckpointError: config.json does not say it.
    """
    for holder in (config, config.get("text_config") or {}):
        for key in ("hidden_size", "d_model", "n_embd"):
            if key in holder:
                return int(holder[key])
    raise CheckpointError("config.json names no hidden_size.")
