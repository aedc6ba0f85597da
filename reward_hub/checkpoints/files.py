"""The files of one checkpoint: config.json, and named tensors of safetensors or old pickled weights.

Headers are read before weights: names and shapes of a Hub checkpoint are known after a few kilobytes, so that a
family is found, or a load refused, before gigabytes move.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from reward_hub.checkpoints import hub
from reward_hub.errors import CheckpointError, UnknownModelError, missing_dependency
from reward_hub.types import Array, Config

logger = logging.getLogger(__name__)

_NUMPY_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "u1"}
_DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
_ADAPTER_PREFIX = "base_model.model."
# In the order in which transformers looks for them.
STANDARD_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# What a trainer writes beside the weights.
_TRAINER_FILES = frozenset({"optimizer.pt", "scheduler.pt", "scaler.pt"})
# Training tools wrap the weights in one more dict under one of these names.
_WRAPPERS = frozenset({"state_dict", "module", "model", "model_state_dict"})
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
)
MORE_TEMPLATES = "additional_chat_templates"
"""The folder of chat templates that have names."""


def tokenizer_files(files: Iterable[str]) -> set[str]:
    """Those of a repository's files that its tokenizer is read from."""
    return {name for name in files if name in TOKENIZER_FILES or name.startswith(f"{MORE_TEMPLATES}/")}


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies. `start` counts from the file's data; it is None in pickled files."""

    shape: tuple[int, ...]
    dtype: str
    file: str
    start: int | None = None
    stored_as: str = ""
    """Its name in the file, where that is another."""

    @property
    def n_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * _DTYPE_BYTES.get(self.dtype, 1)


@dataclass
class CheckpointFiles:
    """A checkpoint that has been looked into but not loaded.

    Attributes:
        id: what the user named: a Hub id or a folder.
        revision: the commit, for Hub checkpoints.
        config: the parsed config.json.
        files: names of all files at the top of the repository or folder.
        tensors: every tensor of the weights and of the extra head files (named `<file stem>.<tensor>` there).
        folder: where the files are; None until `fetch` for a Hub checkpoint.
        adapter: the folder of a PEFT adapter that lies over these weights.
    """

    id: str
    revision: str | None
    config: Config
    files: frozenset[str]
    tensors: dict[str, TensorInfo]
    weight_files: tuple[str, ...]
    folder: Path | None
    repo: hub.HubRepo | None = None
    adapter: CheckpointFiles | None = None
    _pickles: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    adapted: dict[str, Array] = field(default_factory=dict, repr=False)
    """Heads as the adapter leaves them, once it is applied."""

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor name -> shape; what an adapter brings in full stands in the place of the base's tensor."""
        shapes = {name: info.shape for name, info in self.tensors.items()}
        if self.adapter is not None:
            shapes |= {name: info.shape for name, info in self.adapter.tensors.items() if "lora_" not in name}
        return shapes | {name: values.shape for name, values in self.adapted.items()}

    def fetch(self, extra: Iterable[str] = ()) -> Path:
        """Download what loading needs: config, tokenizer, the weights in one format, `extra` head files."""
        if self.adapter is not None:
            self.adapter.fetch()
        if self.folder is None:
            assert self.repo is not None
            wanted = {"config.json", "generation_config.json", *extra} & self.files | tokenizer_files(self.repo.files)
            index = {name for name in self.files if name.endswith(".index.json") and self._is_index_of_weights(name)}
            self.folder = self.repo.download(sorted(wanted | index | set(self.weight_files)))
        return self.folder

    def tokenizer_folder(self) -> Path:
        """The folder with tokenizer and config, fetched without the weights; an adapter's own tokenizer comes first."""
        if self.adapter is not None and self.adapter.files & {"tokenizer.json", "tokenizer.model", "vocab.json"}:
            return self.adapter.tokenizer_folder()
        if self.folder is not None:
            return self.folder
        assert self.repo is not None
        return self.repo.download(sorted({"config.json"} & self.files | tokenizer_files(self.repo.files)))

    def _is_index_of_weights(self, name: str) -> bool:
        return name.startswith(
            "model.safetensors" if self.weight_files[0].endswith(".safetensors") else "pytorch_model"
        )

    def read(self, name: str) -> Array:
        """One tensor as float32.

        Raises:
            CheckpointError: it is not there or not of a floating-point type that can be read.
        """
        if name in self.adapted:
            return self.adapted[name]
        owner, info = self._find(name)
        return owner._load(info, name, None)

    def read_own(self, name: str) -> Array:
        """The base's own tensor as float32, whatever an adapter brings."""
        return self._load(self.tensors[name], name, None)

    def rows(self, name: str, indices: Sequence[int]) -> Array:
        """Some rows of a tensor as float32, without reading the rest of it."""
        if name in self.adapted:
            return self.adapted[name][list(indices)]
        owner, info = self._find(name)
        return owner._load(info, name, list(indices))

    def torch_tensor(self, name: str) -> Any:
        """One tensor as torch has it, in its stored dtype."""
        owner, info = self._find(name)
        path = owner._path(info.file)
        if info.start is None:
            return owner._pickle(info.file)[info.stored_as or name]
        from safetensors import safe_open

        with safe_open(str(path), framework="pt") as opened:
            return opened.get_tensor(info.stored_as or name)

    @property
    def left_aside(self) -> list[str]:
        """The files of an adapter that lie beside these weights and are no part of what is loaded."""
        if "adapter_config.json" not in self.files or (self.adapter is not None and self.adapter.id == self.id):
            return []
        return sorted(name for name in self.files if name.startswith("adapter_"))

    @property
    def is_standard(self) -> bool:
        """Whether transformers itself would read these very weights from the folder, and nothing else."""
        if self.left_aside or "transformers_weights" in self.config:
            return False
        # Pickles have been read already, and may be wrapped in one more dict.
        first = next((name for name in STANDARD_WEIGHTS if name in self.files), "")
        return first in ("model.safetensors", "model.safetensors.index.json")

    def n_parameters(self) -> int:
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes.values())

    def n_bytes(self) -> int:
        return sum(info.n_bytes for info in self.tensors.values())

    def fingerprint(self) -> str:
        """Identifies the weights: the commit, or a hash over the files of a folder (read in full, once)."""
        own = f"{self.id}@{self.revision}" if self.revision else self._hash_files()
        return own if self.adapter is None else f"{own}+{self.adapter.fingerprint()}"

    def _hash_files(self) -> str:
        assert self.folder is not None
        digest = hashlib.sha256()
        names = {"config.json", "adapter_config.json", *self.weight_files, *(i.file for i in self.tensors.values())}
        names |= {name for name in self.files if name.endswith(".py")}  # with trust_remote_code they are run
        for name in sorted(names):
            path = self.folder / name
            if path.is_file():
                with path.open("rb") as opened:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()[:32]

    def _find(self, name: str) -> tuple[CheckpointFiles, TensorInfo]:
        if self.adapter is not None and name in self.adapter.tensors:
            return self.adapter, self.adapter.tensors[name]
        if name not in self.tensors:
            raise CheckpointError(f"{self.id} has no tensor {name!r}.", tensor=name)
        return self, self.tensors[name]

    def _path(self, file: str) -> Path:
        if self.folder is None or not (self.folder / file).is_file():
            assert self.repo is not None
            return self.repo.download([file]) / file
        return self.folder / file

    def _load(self, info: TensorInfo, name: str, indices: list[int] | None) -> Array:
        if info.start is None:
            tensor = self._pickle(info.file)[info.stored_as or name]
            return np.array((tensor if indices is None else tensor[indices]).float().numpy(), dtype=np.float32)
        if info.dtype not in _NUMPY_DTYPES:
            raise CheckpointError(
                f"Tensor {name!r} of {self.id} has the type {info.dtype}, which a head cannot be read from.",
                tensor=name,
            )
        path = self._path(info.file)
        start = _data_start(path) + info.start
        raw = np.memmap(path, mode="r", dtype=_NUMPY_DTYPES[info.dtype], offset=start, shape=info.shape or (1,))
        values = np.array(raw if indices is None else raw[indices])
        if info.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(values.reshape(info.shape if indices is None else values.shape), dtype=np.float32)

    def _pickle(self, file: str) -> dict[str, Any]:
        if file not in self._pickles:
            self._pickles[file] = _load_pickle(self._path(file))
        return self._pickles[file]


def open_checkpoint(
    model: str,
    *,
    head_files: Iterable[str] = (),
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    adapter: str | Path | None = None,
) -> CheckpointFiles:
    """Look into a folder or a Hub repository: config, tensor names and shapes, file names.

    Args:
        model: a folder, or the id of a Hub repository.
        head_files: names of files beside the weights that may hold head tensors.
        adapter: folder or id of a PEFT adapter; a `model` that is itself only an adapter names its base.

    Raises:
        UnknownModelError: neither a folder nor a repository.
        CheckpointError: no config.json, no weights, or files that cannot be read.
    """
    access: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    source = _open_source(model, revision=revision, **access)
    if _is_adapter(source):
        base = str(source.json("adapter_config.json").get("base_model_name_or_path") or "")
        if not base:
            raise CheckpointError(
                f"{model} is an adapter that does not name its base model; give the base and adapter=."
            )
        base_revision = source.json("adapter_config.json").get("revision") if not Path(base).is_dir() else None
        logger.log(
            logging.WARNING if Path(base).is_dir() else logging.INFO,
            "The adapter %s names its base model itself: %s%s is loaded.",
            model,
            base,
            f" at revision {base_revision}" if base_revision else "",
        )
        files = open_checkpoint(base, head_files=head_files, revision=base_revision or None, **access)
        files.adapter = _read_adapter(model, source, head_files)
        files.config = _adapted_config(files.config, files.adapter)
        return files
    if "config.json" not in source.files:
        raise CheckpointError(f"{model} has no config.json; a checkpoint folder or repository is needed.")
    config = _with_plain_dtype(source.json("config.json"))
    weight_files = _weight_files(source, config)
    tensors: dict[str, TensorInfo] = {}
    for name in weight_files:
        tensors |= source.tensors(name)
    files = CheckpointFiles(
        id=model,
        revision=source.revision,
        config=config,
        files=source.files,
        tensors=tensors | _head_tensors(source, head_files),
        weight_files=weight_files,
        folder=source.folder,
        repo=source.repo,
        _pickles=source.pickles,
    )
    if adapter is not None:
        files.adapter = _read_adapter(str(adapter), _open_source(str(adapter), revision=None, **access), head_files)
        files.config = _adapted_config(files.config, files.adapter)
    return files


def _is_adapter(source: _Source) -> bool:
    """Whether it is an adapter and no more: a trainer may write the base's config.json beside it."""
    if "adapter_config.json" not in source.files:
        return False
    return "config.json" not in source.files or not _weight_names(source, source.json("config.json"))


@dataclass
class _Source:
    """A folder or repository, opened far enough to list files and read headers."""

    name: str
    revision: str | None
    files: frozenset[str]
    folder: Path | None
    repo: hub.HubRepo | None
    pickles: dict[str, dict[str, Any]] = field(default_factory=dict)

    def path(self, file: str) -> Path:
        if self.folder is not None:
            return self.folder / file
        assert self.repo is not None
        return self.repo.download([file]) / file

    def json(self, file: str) -> dict[str, Any]:
        try:
            loaded = json.loads(self.path(file).read_text(encoding="utf-8"), object_hook=_number)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} of {self.name} cannot be read: {error}") from error
        if not isinstance(loaded, dict):
            raise CheckpointError(f"{file} of {self.name} is not a JSON object.")
        return loaded

    def tensors(self, file: str) -> dict[str, TensorInfo]:
        """Names and shapes in one file of weights; a pickled file has to be loaded for that."""
        if not file.endswith(".safetensors"):
            self.pickles[file] = _load_pickle(self.path(file))
            return {
                name: TensorInfo(tuple(t.shape), _torch_dtype_code(t), file) for name, t in self.pickles[file].items()
            }
        if self.folder is not None:
            header = hub.read_safetensors_header(self.folder / file)
            _check_size(self.folder / file, header, self.name)
        else:
            assert self.repo is not None
            header = self.repo.safetensors_header(file)
        return {
            name: TensorInfo(tuple(entry["shape"]), entry["dtype"], file, entry["data_offsets"][0])
            for name, entry in header.items()
        }


def _open_source(
    model: str,
    *,
    revision: str | None,
    token: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
) -> _Source:
    folder = Path(model)
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"revision={revision!r} was given, but {model} is a folder, which has no revisions.")
        names = frozenset(path.name for path in folder.iterdir() if path.is_file())
        return _Source(model, None, names, folder.absolute(), None)
    if folder.is_file():
        raise UnknownModelError(f"{model} is a file; give the checkpoint's folder.")
    repo = hub.resolve(model, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    return _Source(model, repo.revision, frozenset(n for n in repo.files if "/" not in n), None, repo)


def _number(stored: dict[str, Any]) -> Any:
    """transformers 5 writes a number that JSON does not have as {"__float__": "Infinity"}."""
    return float(stored["__float__"]) if stored.keys() == {"__float__"} else stored


def _with_plain_dtype(config: Config) -> Config:
    """Old files say "torch.float16", or "auto": what the weights are stored in."""
    for key in ("dtype", "torch_dtype"):
        if isinstance(config.get(key), str):
            config = {**config, key: config[key].removeprefix("torch.")}
        if config.get(key) == "auto":
            config = {name: value for name, value in config.items() if name != key}
    return config


def _weight_files(source: _Source, config: Config) -> tuple[str, ...]:
    """The files that hold the weights, found once for the head and the backbone."""
    names = _weight_names(source, config)
    if not names:
        raise CheckpointError(f"{source.name} holds no weights (no .safetensors, .bin or .pt file).")
    if len(names) > 1:
        raise CheckpointError(f"{source.name} has several files of weights and no index: {', '.join(names)}.")
    return _shards(source, names[0]) if names[0].endswith(".index.json") else (names[0],)


def _weight_names(source: _Source, config: Config) -> list[str]:
    """The file that transformers would read, an index among them; else those with another name for weights."""
    named = config.get("transformers_weights")
    if named is not None:
        if str(named) not in source.files:
            raise CheckpointError(f"config.json of {source.name} names the weights {named!r}, which are missing.")
        return [str(named)]
    standard = [name for name in STANDARD_WEIGHTS if name in source.files]
    if standard:
        return standard[:1]
    others = {name for name in source.files - _TRAINER_FILES if not name.startswith("adapter_")}
    for ending in (".safetensors", "model.bin", ".pt"):
        names = sorted(name for name in others if name.endswith(ending))
        if names:
            return names
    return []


def _shards(source: _Source, index: str) -> tuple[str, ...]:
    places = source.json(index).get("weight_map")
    shards = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
    absent = [shard for shard in shards if shard not in source.files]
    if absent or not shards:
        raise CheckpointError(f"{source.name}: {index} names {absent or 'no files'}, which are missing.")
    return tuple(shards)


def _head_tensors(source: _Source, head_files: Iterable[str]) -> dict[str, TensorInfo]:
    """The tensors of those head files that are there, named `<file stem>.<tensor>`."""
    tensors = {}
    for name in sorted(set(head_files) & source.files):
        stem = name.rsplit(".", 1)[0]
        for tensor, info in source.tensors(name).items():
            tensors[f"{stem}.{tensor}"] = TensorInfo(info.shape, info.dtype, name, info.start, stored_as=tensor)
    return tensors


def _read_adapter(name: str, source: _Source, head_files: Iterable[str]) -> CheckpointFiles:
    config = source.json("adapter_config.json")
    file = next((f for f in ("adapter_model.safetensors", "adapter_model.bin") if f in source.files), None)
    if file is None:
        raise CheckpointError(f"The adapter {name} holds no adapter_model.safetensors or adapter_model.bin.")
    tensors = {}
    for stored, info in source.tensors(file).items():
        if ".original_module." in stored:
            continue  # old versions of peft stored the untrained head beside the trained one
        plain = re.sub(r"\.modules_to_save(\.default)?(?=\.)", "", stored.removeprefix(_ADAPTER_PREFIX))
        tensors[plain] = TensorInfo(info.shape, info.dtype, file, info.start, stored_as=stored)
    return CheckpointFiles(
        id=name,
        revision=source.revision,
        config=config,
        files=source.files,
        tensors=tensors | _head_tensors(source, head_files),
        weight_files=(file,),
        folder=source.folder,
        repo=source.repo,
        _pickles=source.pickles,
    )


def _adapted_config(config: Config, adapter: CheckpointFiles) -> Config:
    """The base's config, with the architecture that the adapter's task makes of a plain model."""
    suffix = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification"}.get(
        str(adapter.config.get("task_type")), ""
    )
    names = list(config.get("architectures") or [])
    if suffix and "score.weight" in adapter.tensors and names and not names[0].endswith(suffix):
        stem = names[0].removesuffix("ForCausalLM").removesuffix("Model")
        return {**config, "architectures": [stem + suffix]}
    return config


def _check_size(path: Path, header: Mapping[str, Any], owner: str) -> None:
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    size = path.stat().st_size
    if size != _data_start(path) + end:
        raise CheckpointError(
            f"{path.name} of {owner} has {size} bytes, its header tells {_data_start(path) + end}; it is incomplete."
        )


def _data_start(path: Path) -> int:
    """Where the data of a safetensors file begin: after eight bytes of length and the header."""
    with path.open("rb") as opened:
        return 8 + int.from_bytes(opened.read(8), "little")


def _load_pickle(path: Path) -> dict[str, Any]:
    """A state dict, read with weights_only; nested dicts are flattened, anything but tensors is left out."""
    try:
        import torch
    except ImportError as error:
        raise missing_dependency("torch", "transformers", f"{path.name} (pickled weights)") from error
    import pickle

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{path.name} cannot be read as plain weights (pickles that run code are refused): {error}"
        ) from error
    flat: dict[str, Any] = {}
    _flatten(loaded, "", flat, lambda value: isinstance(value, torch.Tensor))
    if not flat:
        raise CheckpointError(f"{path.name} holds no tensors.")
    return flat


def _flatten(value: Any, prefix: str, flat: dict[str, Any], is_tensor: Callable[[Any], bool]) -> None:
    if is_tensor(value):
        if prefix in flat:
            raise CheckpointError(f"The pickled weights hold two tensors {prefix!r}.", tensor=prefix)
        flat[prefix] = value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            # Of a wrapped state dict the tensors' own names are what counts.
            wrapped = not prefix and key in _WRAPPERS and isinstance(inner, Mapping)
            _flatten(inner, "" if wrapped else f"{prefix}.{key}" if prefix else str(key), flat, is_tensor)


def _torch_dtype_code(tensor: Any) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    return {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64"}.get(name, name)
