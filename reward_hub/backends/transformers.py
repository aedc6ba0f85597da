"""The Transformers backend: one forward of the bare backbone, the read positions gathered by index.

Conversations are sorted by length and packed into batches under a token budget: right-padded ones, in float32 on a CPU
ones of equal length. Decoders get no padding mask: attention is causal and padding stands on the right, so no real
token sees it, and the fast kernels stay usable.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from reward_hub.backends.base import Backend, EngineInfo, EngineOptions, Progress
from reward_hub.checkpoints.files import CheckpointFiles, head_weights, lm_head_name, lm_head_rows
from reward_hub.errors import (
    BackendError,
    CheckpointError,
    RemoteCodeRefusedError,
    UnsupportedError,
    missing_dependency,
)
from reward_hub.family import Backbone
from reward_hub.reads import HeadOutputs, Read, TokenLogits, TokenLogprobs
from reward_hub.tokenizer import Tokenizer, quiet_transformers
from reward_hub.types import Array, TokenInput

try:
    import torch
    import transformers
except ImportError as error:
    raise missing_dependency("torch and transformers", "transformers", "The transformers backend") from error

logger = logging.getLogger(__name__)

# Tokens of one forward pass, padding included. On a CPU matrix products are fastest at 512-2048 rows.
CPU_BATCH_TOKENS = 2048
GPU_BATCH_TOKENS = 32768
# Rows of the LM head's output at a time when log-probabilities over the whole vocabulary are read.
LOGPROB_ROWS = 256
# Buffers that old checkpoints carry and no model reads, and LM heads beside another head.
UNUSED = (
    r"(^|\.)rotary_emb\.inv_freq$",
    r"\.attention\.(masked_)?bias$",
    r"\.attn\.(masked_)?bias$",
    r"(^|\.)lm_head\.",
    r"(^|\.)embeddings\.position_ids$",
)
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


class TransformersBackend(Backend):
    """A transformers model in this process."""

    def __init__(
        self,
        model: Any,
        read: Read,
        weights: dict[str, Array],
        *,
        causal: bool,
        batch_size: int | None,
        max_batch_tokens: int | None,
    ) -> None:
        self._model: Any = model
        self._read = read
        self._weights = weights
        self._causal = causal
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._device = _input_device(model)
        self._max_batch_tokens = max_batch_tokens or (
            CPU_BATCH_TOKENS if self._device.type == "cpu" else GPU_BATCH_TOKENS
        )
        self.info = EngineInfo(
            "transformers", transformers.__version__, str(model.dtype).removeprefix("torch."), str(self._device)
        )

    @property
    def model(self) -> Any:
        """The transformers model; None after `close`."""
        return self._model

    @classmethod
    def known_options(cls) -> frozenset[str]:
        return OPTIONS

    @classmethod
    def load(
        cls,
        files: CheckpointFiles,
        read: Read,
        *,
        backbone: Backbone | None,
        tokenizer: Tokenizer,
        options: EngineOptions,
    ) -> TransformersBackend:
        model = _load_model(files, read, backbone, options)
        device = options.device
        if device is None and options.device_map is None and torch.cuda.is_available():
            device = "cuda"
        if device is not None:
            try:
                model.to(device)
            except (RuntimeError, AssertionError) as error:
                raise BackendError(f"The model cannot be put on device={device!r}: {error}") from error
        if isinstance(read, HeadOutputs):
            weights = head_weights(files, read.head)
        elif isinstance(read, TokenLogits):
            tied = bool(getattr(model.config, "tie_word_embeddings", False))
            weights = dict(zip(("rows", "bias"), lm_head_rows(files, read.token_ids, tied=tied), strict=True))
        else:
            weights = {}
        return cls(
            model,
            read,
            weights,
            causal=backbone is None or backbone.causal,
            batch_size=options.batch_size,
            max_batch_tokens=options.max_batch_tokens,
        )

    def read(
        self, inputs: Sequence[TokenInput], *, batch_size: int | None = None, progress: Progress | None = None
    ) -> list[Array]:
        outputs: list[Array | None] = [None] * len(inputs)
        with self._lock, torch.inference_mode():
            if self._model is None:
                raise BackendError("The model was closed; load it again.")
            rows = batch_size or self._batch_size
            for batch in _batches(inputs, self._max_batch_tokens, rows, padded=self.pads()):
                try:
                    answers = self._forward([inputs[i] for i in batch])
                except torch.OutOfMemoryError as error:
                    raise BackendError(
                        f"Out of memory at a batch of {len(batch)} x {len(inputs[batch[0]].token_ids)} tokens; lower "
                        f"max_batch_tokens (now {self._max_batch_tokens}) or batch_size."
                    ) from error
                except (RuntimeError, IndexError) as error:
                    raise BackendError(f"The transformers model failed: {error}") from error
                for i, answer in zip(batch, answers, strict=True):
                    outputs[i] = answer
                if progress is not None:
                    progress(len(batch))
        return [output for output in outputs if output is not None]

    def pads(self) -> bool:
        """Whether a batch may hold conversations of different lengths.

        Not in float32 on a CPU: there padding alone moves a score in the sixth digit (attention is summed in other
        blocks), while batches of equal length give the very numbers of one conversation alone and take no more time.
        """
        return not (self._device.type == "cpu" and self._model.dtype == torch.float32)

    def close(self) -> None:
        with self._lock:
            self._model = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _forward(self, batch: list[TokenInput]) -> list[Array]:
        if isinstance(self._read, TokenLogprobs):
            return self._logprobs(batch)
        hidden = self._hidden(batch)
        if isinstance(self._read, TokenLogits):
            return [rows @ self._weights["rows"].T + self._weights["bias"] for rows in hidden]
        return [self._read.head.apply(rows, self._weights) for rows in hidden]

    def _hidden(self, batch: list[TokenInput]) -> list[Array]:
        """Hidden vectors after the final norm at the read positions, float32 on the host."""
        states = self._model(**self._model_inputs(batch)).last_hidden_state
        rows = [i for i, item in enumerate(batch) for _ in item.positions]
        columns = [position for item in batch for position in item.positions]
        index = torch.tensor([rows, columns], device=states.device)
        read = states[index[0], index[1]].float().cpu().numpy()
        ends = np.cumsum([len(item.positions) for item in batch])[:-1]
        return list(np.split(read, ends))

    def _logprobs(self, batch: list[TokenInput]) -> list[Array]:
        """Log-probability of the token at each position, over the whole vocabulary, in float32."""
        inputs = self._model_inputs(batch)
        if batch[0].decoder_ids is not None:
            logits = self._model(**inputs).logits
            tables = [logits[i] for i in range(len(batch))]
        else:
            base = getattr(self._model, self._model.base_model_prefix)
            tables = list(base(**inputs).last_hidden_state)
        answers = []
        for item, table in zip(batch, tables, strict=True):
            ids = item.token_ids if item.decoder_ids is None else item.decoder_ids
            parts = []
            for start in range(0, len(item.positions), LOGPROB_ROWS):
                positions = item.positions[start : start + LOGPROB_ROWS]
                before = table[torch.tensor([p - 1 for p in positions], device=table.device)]
                logits = before if item.decoder_ids is not None else self._lm_logits(before)
                chosen = torch.tensor([[ids[p]] for p in positions], device=logits.device)
                parts.append(torch.log_softmax(logits.float(), dim=-1).gather(1, chosen).cpu().numpy())
            answers.append(np.concatenate(parts) if parts else np.zeros((0, 1), np.float32))
        return answers

    def _lm_logits(self, hidden: Any) -> Any:
        """The LM head with the caps and scales that model classes put behind it."""
        logits = self._model.get_output_embeddings()(hidden)
        config = self._model.config
        if getattr(config, "logit_scale", None):  # Cohere
            logits = logits * config.logit_scale
        if getattr(config, "logits_scaling", None):  # Granite
            logits = logits / config.logits_scaling
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma-2
        return torch.tanh(logits / cap) * cap if cap else logits

    def _model_inputs(self, batch: list[TokenInput]) -> dict[str, Any]:
        """Right-padded tensors. The padding id is 0: it is never looked for and never seen by a real token."""
        lengths = [len(item.token_ids) for item in batch]
        padded = [item.token_ids + [0] * (max(lengths) - n) for item, n in zip(batch, lengths, strict=True)]
        inputs: dict[str, Any] = {"input_ids": torch.tensor(padded, device=self._device)}
        if not self._causal:
            mask = [[1] * n + [0] * (max(lengths) - n) for n in lengths]
            inputs["attention_mask"] = torch.tensor(mask, device=self._device)
        if batch[0].token_type_ids is not None:
            types = [(item.token_type_ids or []) for item in batch]
            inputs["token_type_ids"] = torch.tensor(
                [row + [0] * (max(lengths) - len(row)) for row in types], device=self._device
            )
        if batch[0].decoder_ids is not None:
            decoder = [item.decoder_ids or [] for item in batch]
            longest = max(len(row) for row in decoder)
            inputs["decoder_input_ids"] = torch.tensor(
                [row + [0] * (longest - len(row)) for row in decoder], device=self._device
            )
        if self._causal or batch[0].decoder_ids is not None:
            inputs["use_cache"] = False
        return inputs


def _batches(
    inputs: Sequence[TokenInput], max_tokens: int, max_rows: int | None, *, padded: bool
) -> Iterator[list[int]]:
    """Indices of inputs, longest first, in batches of at most `max_tokens` tokens; of one length unless `padded`."""
    order = sorted(range(len(inputs)), key=lambda i: -len(inputs[i].token_ids))
    batch: list[int] = []
    for i in order:
        width = len(inputs[batch[0]].token_ids) if batch else len(inputs[i].token_ids)
        full = width * (len(batch) + 1) > max_tokens or (max_rows is not None and len(batch) >= max_rows)
        if batch and (full or not (padded or len(inputs[i].token_ids) == width)):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _load_model(files: CheckpointFiles, read: Read, backbone: Backbone | None, options: EngineOptions) -> Any:
    config = _model_config(files, backbone, options)
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
    try:
        with quiet_transformers():
            if backbone is not None and (backbone.rename or backbone.split or _is_unusual(files)):
                state = _stock_state(
                    files, backbone, set(read.head.tensors()) if isinstance(read, HeadOutputs) else set()
                )
                model, report = _model_class(config, read).from_pretrained(None, state_dict=state, **arguments)
            elif type(config) in transformers.MODEL_MAPPING:
                model, report = _model_class(config, read).from_pretrained(str(files.fetch()), **arguments)
            else:
                lm = isinstance(read, TokenLogprobs)
                auto: Any = transformers.AutoModelForCausalLM if lm else transformers.AutoModel
                model, report = auto.from_pretrained(str(files.fetch()), trust_remote_code=True, **arguments)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{files.id} cannot be loaded as {config.model_type}: {error}") from error
    _check_report(files, report, backbone, read)
    if files.adapter is not None:
        model = _merge_adapter(model, files.adapter, read)
    return model.eval()


def _model_class(config: Any, read: Read) -> Any:
    """The stock class: the bare backbone, or the one with an LM head where the whole vocabulary is read."""
    table = transformers.MODEL_MAPPING
    if isinstance(read, TokenLogprobs):
        table = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        if config.is_encoder_decoder:
            table = transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    found = table[type(config)]
    return found[0] if isinstance(found, tuple) else found


def _is_unusual(files: CheckpointFiles) -> bool:
    """Whether from_pretrained would not find the weights by their file names."""
    stems = ("model.safetensors", "model-", "pytorch_model")
    return not all(name.startswith(stems) for name in files.weight_files)


def _model_config(files: CheckpointFiles, backbone: Backbone | None, options: EngineOptions) -> Any:
    stored = dict(backbone.config if backbone is not None else files.config)
    model_type = stored.get("model_type")
    if model_type is not None and model_type in transformers.CONFIG_MAPPING:
        stored.pop("auto_map", None)
        return transformers.CONFIG_MAPPING[model_type].from_dict(stored)
    if not options.trust_remote_code:
        raise RemoteCodeRefusedError(
            f"{files.id} has model type {model_type!r}, which transformers {transformers.__version__} does not know; "
            "it needs code from its repository. If you trust that code, pass trust_remote_code=True."
        )
    return transformers.AutoConfig.from_pretrained(str(files.fetch()), trust_remote_code=True)


def _dtype(asked: Any, config: Any, files: CheckpointFiles) -> Any:
    """A torch dtype from a name, a dtype or "auto" (what config.json names, else what the weights are stored in)."""
    if isinstance(asked, torch.dtype):
        return asked
    if asked in (None, "auto"):
        named = getattr(config, "dtype", None)
        if named is not None:
            return named if isinstance(named, torch.dtype) else getattr(torch, str(named).removeprefix("torch."))
        stored = next((i.dtype for i in files.tensors.values() if i.dtype in ("F32", "F16", "BF16")), "F32")
        return {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[stored]
    found = getattr(torch, str(asked).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise TypeError(f"torch_dtype={asked!r} is no floating-point type; say 'float32', 'bfloat16' or 'float16'.")
    return found


def _attention(config: Any, asked: str | None) -> str | None:
    """Eager attention for models that cap attention logits: sdpa skips the cap without a word (transformers 5.19)."""
    if not getattr(config.get_text_config(), "attn_logit_softcapping", None):
        return asked
    if asked == "sdpa":
        raise UnsupportedError(
            "attn_implementation='sdpa' skips this model's attention soft cap and gives wrong scores; use 'eager'."
        )
    return asked or "eager"


def _stock_state(files: CheckpointFiles, backbone: Backbone, head: set[str]) -> dict[str, Any]:
    """The backbone's tensors under stock names; the head's and the unused ones stay behind."""
    files.fetch()
    ignored = [re.compile(pattern) for pattern in (*backbone.ignore, *UNUSED)]
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


def _check_report(files: CheckpointFiles, report: dict[str, Any], backbone: Backbone | None, read: Read) -> None:
    """Nothing of the backbone may be missing, and every tensor left over must be a head's or known to be unused."""
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        raise CheckpointError(
            f"{files.id} lacks {len(missing)} tensor(s) of its backbone: {', '.join(missing[:5])}.", tensor=missing[0]
        )
    mismatched = list(report.get("mismatched_keys") or ())
    if mismatched:
        raise CheckpointError(
            f"{files.id} has backbone tensors of the wrong shape: {mismatched[:5]}.", tensor=str(mismatched[0][0])
        )
    known = [re.compile(pattern) for pattern in (*UNUSED, *(backbone.ignore if backbone else ()))]
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


def _merge_adapter(model: Any, adapter: CheckpointFiles, read: Read) -> Any:
    """The model with a PEFT adapter's weights merged in."""
    try:
        import peft
    except ImportError as error:
        raise missing_dependency("peft", "transformers", "A PEFT adapter") from error
    config = peft.PeftConfig.from_pretrained(str(adapter.fetch()))
    state = {name: adapter.torch_tensor(name) for name in adapter.tensors if "lora_" in name}
    # A head of the adapter's own is read from its file; with log-probabilities the model computes the head itself.
    whole = isinstance(read, TokenLogprobs)
    others = [
        name
        for name in adapter.tensors
        if "lora_" not in name and (whole or _in_backbone(name) or "embed_tokens" in name)
    ]
    if not state or others:
        raise UnsupportedError(
            f"The adapter {adapter.id} ({config.peft_type}) changes {', '.join(others[:3]) or 'no LoRA weights'}; LoRA "
            "adapters with trained heads are read. Merge it into the base model with peft's merge_and_unload."
        )
    # Adapters are trained on a model with a head, where the backbone sits under a prefix.
    prefix = model.base_model_prefix + "."
    has_prefix = any(name.startswith(prefix) for name in model.state_dict())
    if has_prefix or not any(name.startswith(prefix) for name in state):
        prefix = ""
    state = {f"base_model.model.{name.removeprefix(prefix)}": tensor for name, tensor in state.items()}
    config.task_type = None
    config.modules_to_save = None
    config.inference_mode = True
    wrapped = peft.PeftModel(model, config)
    result: Any = peft.set_peft_model_state_dict(wrapped, state)
    missing = [
        name for name in wrapped.state_dict() if "lora_" in name and _plain(name) not in {_plain(n) for n in state}
    ]
    if missing or getattr(result, "unexpected_keys", None):
        raise CheckpointError(
            f"The adapter {adapter.id} does not fit the model: missing {missing[:3]}, "
            f"left over {list(result.unexpected_keys)[:3]}.",
            tensor=(missing or list(result.unexpected_keys))[0],
        )
    return wrapped.merge_and_unload()


def _plain(name: str) -> str:
    return name.replace(".default", "")


def _input_device(model: Any) -> torch.device:
    """Where inputs go; parts that accelerate keeps on the disk are on "meta" and do not tell."""
    places = (parameter.device for parameter in model.parameters())
    return next((place for place in places if place.type != "meta"), torch.device("cpu"))
