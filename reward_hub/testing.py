"""For tests, also of families written elsewhere: checkpoints made from a seed, and an engine that needs no model.

A family's whole path, its forward apart:

    make_checkpoint(folder, spec, tokenizer=other_folder)         # config.json, weights and tokenizer files on disk
    register_backend("fake", "reward_hub.testing:FakeBackend")
    rm = AutoRM.load(folder, load_method="fake")                  # numbers from token ids
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reward_hub.backends.base import Backend, EngineInfo, EngineOptions, Progress
from reward_hub.checkpoints.files import TOKENIZER_FILES, CheckpointFiles
from reward_hub.checkpoints.tensors import head_weights, hidden_size
from reward_hub.errors import missing_dependency
from reward_hub.reads import HeadOutputs, Read, TokenLogits
from reward_hub.types import Array, TokenInput

if TYPE_CHECKING:
    from reward_hub.family import Backbone
    from reward_hub.tokenizer import Tokenizer

Spec: TypeAlias = Mapping[str, Any]
"""A checkpoint as plain data; see `make_checkpoint`."""
Tensors: TypeAlias = dict[str, NDArray[Any]]

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}


def make_checkpoint(folder: Path | str, spec: Spec, *, tokenizer: Path | str | None = None) -> Path:
    """Write the checkpoint that a spec describes, and return its folder.

    Args:
        spec: `config` (becomes config.json), `seed`, and `files`: file name -> tensor name -> tensor. A tensor has a
            `shape` and may have `dtype` ("F32", the default, "F16", "BF16" or "I64"), `mean` and `std` of its normal
            distribution (0 and 0.1), `rows` (the `std` of single rows by number), `positive` (absolute values, for
            variances), `value` (the same number throughout) and `same_as` (the name of a tensor of the file whose
            values it has). Files that end with .safetensors are
            written so, others as a pickled state dict. In place of all that a spec may hold `parts`: name of a
            subfolder -> spec.
        tokenizer: folder whose tokenizer files are copied beside the weights.
    """
    folder = Path(folder)
    for name, part in spec.get("parts", {}).items():
        make_checkpoint(folder / name, part, tokenizer=tokenizer)
    if "parts" in spec:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(spec["config"], indent=1), encoding="utf-8")
    for name, tensors in spec["files"].items():
        write_tensors(folder / name, make_tensors(tensors, seed=spec["seed"]), tensors)
    for name in TOKENIZER_FILES if tokenizer is not None else ():
        source = Path(str(tokenizer)) / name
        if source.is_file():
            shutil.copyfile(source, folder / name)
    return folder


def make_tensors(tensors: Mapping[str, Spec], *, seed: int) -> Tensors:
    """The values of each tensor. They depend on the seed and the tensor's name alone, not on the other tensors."""
    made = {name: _values(name, tensor, seed) for name, tensor in tensors.items() if "same_as" not in tensor}
    return {name: made[tensor.get("same_as", name)] for name, tensor in tensors.items()}


def write_tensors(path: Path, values: Tensors, tensors: Mapping[str, Spec]) -> None:
    """Write one file of weights in the dtypes of the spec."""
    if path.suffix == ".safetensors":
        _write_safetensors(path, values, tensors)
    else:
        _write_pickle(path, values, tensors)


def _values(name: str, tensor: Spec, seed: int) -> NDArray[Any]:
    shape = tuple(tensor["shape"])
    if "value" in tensor:
        return np.full(shape, tensor["value"], np.int64 if tensor.get("dtype") == "I64" else np.float32)
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = random.standard_normal(shape) * tensor.get("std", 0.1)
    for row, std in tensor.get("rows", {}).items():
        values[int(row)] *= std / tensor.get("std", 0.1)
    values += tensor.get("mean", 0.0)
    return np.asarray(np.abs(values) if tensor.get("positive") else values, np.float32)


def _write_safetensors(path: Path, values: Tensors, tensors: Mapping[str, Spec]) -> None:
    """Eight bytes with the length of the header, the header as JSON, the data. (numpy has no bfloat16.)"""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in values.items():
        dtype = tensors[name].get("dtype", "F32")
        raw = _stored(array, dtype).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _stored(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    if dtype == "BF16":
        # The upper half of a float32, rounded to the nearest.
        bits = array.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return array.astype(_DTYPES[dtype])


def _write_pickle(path: Path, values: Tensors, tensors: Mapping[str, Spec]) -> None:
    try:
        import torch
    except ImportError as error:
        raise missing_dependency("torch", "transformers", f"{path.name} (pickled weights)") from error
    # One tensor object per array: tensors that share their values are stored once.
    made = {id(array): torch.from_numpy(np.array(array)) for array in values.values()}
    state = {name: made[id(array)] for name, array in values.items()}
    for name in state:
        dtype = _DTYPES[tensors[name].get("dtype", "F32")]
        if str(state[name].dtype) != f"torch.{dtype}":
            state[name] = state[name].to(getattr(torch, dtype))
    torch.save(state, path)


class FakeBackend(Backend):
    """Answers every read with numbers made from the token ids up to the position, as a causal model would.

    The hidden vectors are random, the head is the checkpoint's own. Inputs are kept in `inputs` in the order they came.
    """

    info = EngineInfo("fake", "1", "float32", "none")

    def __init__(self, read: Read, weights: dict[str, Array], width: int) -> None:
        self._read = read
        self._weights = weights
        self._width = width
        self.inputs: list[TokenInput] = []

    @classmethod
    def known_options(cls) -> frozenset[str]:
        return frozenset()

    @classmethod
    def load(
        cls,
        files: CheckpointFiles,
        read: Read,
        *,
        backbone: Backbone | None,
        tokenizer: Tokenizer,
        options: EngineOptions,
    ) -> FakeBackend:
        weights = head_weights(files, read.head) if isinstance(read, HeadOutputs) else {}
        return cls(read, weights, hidden_size(files.config))

    def read(
        self, inputs: Sequence[TokenInput], *, batch_size: int | None = None, progress: Progress | None = None
    ) -> list[Array]:
        self.check_media(inputs)
        self.inputs += inputs
        if progress is not None:
            progress(len(inputs))
        return [self._answer(item) for item in inputs]

    def _answer(self, item: TokenInput) -> Array:
        before, ids = ([], item.token_ids) if item.decoder_ids is None else (item.token_ids, item.decoder_ids)
        seeds = [zlib.crc32(np.array([*before, *ids[: position + 1]]).tobytes()) for position in item.positions]
        if isinstance(self._read, HeadOutputs):
            return self._read.head.apply(_random_rows(seeds, self._width), self._weights)
        if isinstance(self._read, TokenLogits):
            return np.stack(
                [_random_rows([[seed, t] for seed in seeds], 1)[:, 0] for t in self._read.token_ids], axis=1
            )
        return -np.abs(_random_rows(seeds, 1))


def _random_rows(seeds: Sequence[Any], width: int) -> Array:
    """[len(seeds), width]; each row from its own seed."""
    rows = [np.random.default_rng(seed).standard_normal(width) for seed in seeds]
    return np.array(rows, np.float32).reshape(len(seeds), width)
