"""The tensors that a read needs, held against what the checkpoint has: a small head's, the LM head's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.checkpoints.prefixes import misplaced
from reward_hub.errors import CheckpointError, UnsupportedError
from reward_hub.heads import HIDDEN, Head, TensorSpecs
from reward_hub.types import Array, Config

# What model classes call their LM head and their input embeddings, under whatever prefix.
LM_HEADS = ("lm_head.weight", "embed_out.weight", "output_projection.weight")
EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "embeddings.weight",
    "shared.weight",
)
_ROWS = 4096  # read at a time
# Embeddings, the LM head, and whatever stands in numbered layers or below a backbone's name, or sees and hears for it.
_BACKBONE = re.compile(
    r"embed|wte|wpe|lm_head|lora_|(^|\.)(layers?|h|blocks?)\.\d+\.|^(model|transformer|gpt_neox|bert|roberta|deberta)\."
    r"|(^|\.)(multi_modal_projector|mm_projector|vision\w*|visual|audio\w*)\."
)


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
                f"A head that is not in the checkpoint is never made up.{misplaced(files, [name])}",
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


def candidate_heads(files: CheckpointFiles) -> list[str]:
    """The tensors that may each be a head's last layer: few rows of the hidden size, outside of the backbone."""
    width = hidden_size(files.config)
    return [
        name
        for name, shape in files.shapes.items()
        if name.endswith("weight") and len(shape) == 2 and shape[1] == width > shape[0] and not _BACKBONE.search(name)
    ]


def _near(name: str, files: CheckpointFiles) -> str:
    stem = name.split(".")[0]
    near = [n for n in files.shapes if n.split(".")[0] == stem] or candidate_heads(files)
    return f" (near it: {', '.join(near[:6])})" if near else ""


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
    """The tensor that is the LM head: one of its own where one is stored, else the input embeddings if `tied`.

    A config may call the two tied beside a head of its own (one that was trained, say): the weights decide.

    Raises:
        CheckpointError: there is none, or it has another shape than the config says.
    """
    vocabulary = files.config.get("vocab_size") or (files.config.get("text_config") or {}).get("vocab_size")
    stored = [*_named(files, LM_HEADS), *(_named(files, EMBEDDINGS) if tied else [])]
    if not stored:
        wanted = [*LM_HEADS, *(EMBEDDINGS if tied else ())]
        raise CheckpointError(f"{files.id} has no LM head ({', '.join(wanted)}) to read from.", tensor=wanted[0])
    name = stored[0]
    expected = (int(vocabulary or files.shapes[name][0]), hidden_size(files.config))
    if files.shapes[name] != expected:
        raise CheckpointError(
            f"Tensor {name!r} of {files.id} has the shape {list(files.shapes[name])}; the LM head needs "
            f"{list(expected)}.",
            tensor=name,
        )
    return name


def _named(files: CheckpointFiles, endings: Sequence[str]) -> list[str]:
    """The tensors with one of these names under any prefix, the shortest prefix first."""
    found = [
        name
        for name in files.shapes
        if any(name == ending or name.endswith(f".{ending}") for ending in endings) and "vision" not in name
    ]
    return sorted(found, key=lambda name: (name.count("."), name))


def lm_head_names(files: CheckpointFiles) -> list[str]:
    """The tensors that may be the LM head: those called so, then the input embeddings, to which it may be tied."""
    return [*_named(files, LM_HEADS), *_named(files, EMBEDDINGS)]


def embeddings_name(files: CheckpointFiles) -> str | None:
    """The tensor of the input embeddings."""
    return next(iter(_named(files, EMBEDDINGS)), None)


def stored_lm_head(files: CheckpointFiles, token_ids: Sequence[int] | None = None) -> str | None:
    """The LM head of its own beside input embeddings that hold other values; of some tokens, or of all.

    A config that calls such a head tied makes engines leave it out.
    """
    heads, embeddings = _named(files, LM_HEADS), _named(files, EMBEDDINGS)
    if not heads or not embeddings:
        return None
    head, embedding = heads[0], embeddings[0]
    if files.shapes[head] != files.shapes[embedding]:
        return head
    wanted = range(files.shapes[head][0]) if token_ids is None else token_ids
    for start in range(0, len(wanted), _ROWS):
        block = list(wanted[start : start + _ROWS])
        if not np.array_equal(files.rows(head, block), files.rows(embedding, block)):
            return head
    return None


def refuse_left_out_lm_head(
    files: CheckpointFiles, engine: str, *, tied: bool, token_ids: Sequence[int] | None = None
) -> None:
    """An engine that goes by its config's `tie_word_embeddings` must not leave a head out that the checkpoint holds.

    Raises:
        UnsupportedError: it would.
    """
    name = stored_lm_head(files, token_ids) if tied else None
    if name is not None:
        raise UnsupportedError(
            f"{files.id} holds an LM head of its own ({name}), which its config.json calls tied to the input "
            f"embeddings: {engine} would leave it out. Set tie_word_embeddings to false there, or load with "
            'load_method="transformers".'
        )


def lm_head_rows(files: CheckpointFiles, token_ids: Sequence[int], *, tied: bool) -> tuple[Array, Array]:
    """The LM head's rows of these tokens and their biases, float32."""
    name = lm_head_name(files, tied=tied)
    bias = np.zeros(len(token_ids), np.float32)
    bias_name = f"{name.removesuffix('weight')}bias"
    if bias_name in files.shapes:
        bias = files.rows(bias_name, token_ids)
    elif "lm_head.bias" in files.shapes:
        bias = files.rows("lm_head.bias", token_ids)
    return files.rows(name, token_ids), bias


def hidden_size(config: Config) -> int:
    """Width of the hidden vectors.

    Raises:
        CheckpointError: config.json does not say it.
    """
    for holder in (config, config.get("text_config") or {}):
        # OPT projects its hidden vectors to the width of its embeddings, where that is another.
        for key in ("word_embed_proj_dim", "hidden_size", "d_model", "n_embd"):
            if key in holder:
                return int(holder[key])
    raise CheckpointError("config.json names no hidden_size.")
