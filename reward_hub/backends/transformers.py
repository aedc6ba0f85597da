"""The Transformers backend: one forward of the bare backbone, the read positions gathered by index.

Conversations are sorted by length and packed into batches under a token budget: right-padded ones, in float32 on a CPU
ones of equal length. Models that are shown to be causal get no padding mask (`causality`), and no batch mixes lengths
with different rotary tables (`rope_tables`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from reward_hub.backends.base import Backend, EngineInfo, EngineOptions, Progress
from reward_hub.backends.causality import Padding, is_foreign, padding_of
from reward_hub.backends.class_logits import ClassLogits, class_logits, decoder_of
from reward_hub.backends.rope_tables import RopeTables
from reward_hub.backends.transformers_loading import OPTIONS, adapter_place, input_device, load_model
from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.checkpoints.tensors import head_weights, lm_head_rows
from reward_hub.errors import BackendError, UnsupportedError, missing_dependency
from reward_hub.family import Backbone
from reward_hub.reads import HeadOutputs, Read, TokenLogits, TokenLogprobs
from reward_hub.tokenizer import Tokenizer
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


class TransformersBackend(Backend):
    """A transformers model in this process."""

    def __init__(
        self,
        model: Any,
        read: Read,
        weights: dict[str, Array],
        logits: ClassLogits | None,
        *,
        encoder: bool,
        padding: Padding,
        tables: RopeTables,
        batch_size: int | None,
        max_batch_tokens: int | None,
        adapter: str | None = None,
    ) -> None:
        self._model: Any = model
        self._adapter = adapter
        self._read = read
        self._weights = weights
        self._class_logits = logits
        self._encoder = encoder
        self._padding = padding
        self._tables = tables
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._device = input_device(model)
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

    @property
    def load_report(self) -> dict[str, Any]:
        attention = getattr(getattr(self._model, "config", None), "_attn_implementation", None)
        tables = "of each conversation's own length" if self._tables.change else None
        report = {
            "attention": attention,
            "padding": self._padding.reason,
            "rotary_tables": tables,
            "adapter": self._adapter,
        }
        return {name: value for name, value in report.items() if value is not None}

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
        model = load_model(files, read, backbone, options)
        device = options.device
        if device is None and options.device_map is None and torch.cuda.is_available():
            device = "cuda"
        if device is not None:
            try:
                model.to(device)
            except (RuntimeError, AssertionError) as error:
                raise BackendError(f"The model cannot be put on device={device!r}: {error}") from error
        weights: dict[str, Array] = {}
        if isinstance(read, HeadOutputs):
            weights = head_weights(files, read.head)
        elif isinstance(read, TokenLogits):
            tied = bool(getattr(model.config, "tie_word_embeddings", False))
            weights = dict(zip(("rows", "bias"), lm_head_rows(files, read.token_ids, tied=tied), strict=True))
        encoder = backbone is not None and not backbone.causal
        tables = RopeTables(model, foreign=is_foreign(model))
        padding = padding_of(model, encoder=encoder)
        tables.restore()
        # What everyone expects is no news; `inspect` tells it all the same.
        level = logging.INFO if padding.masked and not encoder else logging.DEBUG
        logger.log(level, "%s: %s.", files.id, padding.reason)
        return cls(
            model,
            read,
            weights,
            _class_logits(model.config, read, options),
            encoder=encoder,
            padding=padding,
            tables=tables,
            batch_size=options.batch_size,
            max_batch_tokens=options.max_batch_tokens,
            adapter=None if files.adapter is None else adapter_place(model),
        )

    def read(
        self, inputs: Sequence[TokenInput], *, batch_size: int | None = None, progress: Progress | None = None
    ) -> list[Array]:
        self.check_media(inputs)
        outputs: list[Array | None] = [None] * len(inputs)
        with self._lock, torch.inference_mode():
            if self._model is None:
                raise BackendError("The model was closed; load it again.")
            rows = batch_size or self._batch_size
            key = self._tables.key if self.pads() else _itself
            plan = list(_batches(inputs, self._max_batch_tokens, rows, key=key))
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("%d inputs in %d batches: %s", len(inputs), len(plan), _shapes(plan, inputs))
            for batch in plan:
                started = time.perf_counter()
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
                if logger.isEnabledFor(logging.DEBUG):
                    longest, seconds = len(inputs[batch[0]].token_ids), time.perf_counter() - started
                    logger.debug("A batch of %d inputs x %d tokens took %.3f s.", len(batch), longest, seconds)
                if progress is not None:
                    progress(len(batch))
        return [output for output in outputs if output is not None]

    def pads(self) -> bool:
        """Whether a batch may hold conversations of different lengths.

        Not in float32 on a CPU: there padding alone moves a score in the sixth digit (attention is summed in other
        blocks), while batches of equal length give the very numbers of one conversation alone and take no more time.
        """
        return self._padding.mixed and not (self._device.type == "cpu" and self._model.dtype == torch.float32)

    def close(self) -> None:
        with self._lock:
            self._model = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _forward(self, batch: list[TokenInput]) -> list[Array]:
        self._tables.restore()
        if isinstance(self._read, TokenLogprobs):
            answers = self._logprobs(batch)
        else:
            answers = [self._output(rows) for rows in self._hidden(batch)]
        if self._padding.masked and len(batch) > 1 and not all(np.isfinite(answer).all() for answer in answers):
            # Padding whose window holds nothing but padding is NaN in some classes, and spreads.
            return [self._forward([item])[0] for item in batch]
        return answers

    def _output(self, hidden: Array) -> Array:
        """What the read makes of hidden vectors [n_positions, hidden_size]."""
        if isinstance(self._read, HeadOutputs):
            return self._read.head.apply(hidden, self._weights)
        assert self._class_logits is not None
        return self._class_logits(hidden @ self._weights["rows"].T + self._weights["bias"])

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
        whole_model = self._class_logits is None
        if whole_model:
            tables = self._model(**inputs).logits
        else:
            tables = decoder_of(self._model)(**inputs).last_hidden_state
        answers = []
        for item, table in zip(batch, tables, strict=True):
            ids = item.token_ids if item.decoder_ids is None else item.decoder_ids
            parts = []
            for start in range(0, len(item.positions), LOGPROB_ROWS):
                positions = item.positions[start : start + LOGPROB_ROWS]
                before = table[torch.tensor([p - 1 for p in positions], device=table.device)]
                logits = before if whole_model else self._lm_logits(before)
                chosen = torch.tensor([[ids[p]] for p in positions], device=logits.device)
                parts.append(torch.log_softmax(logits.float(), dim=-1).gather(1, chosen).cpu().numpy())
            answers.append(np.concatenate(parts) if parts else np.zeros((0, 1), np.float32))
        return answers

    def _lm_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[n, hidden_size] -> [n, vocabulary]: the logits of the model's class."""
        assert self._class_logits is not None
        return self._class_logits.tensor(self._model.get_output_embeddings()(hidden))

    def _model_inputs(self, batch: list[TokenInput]) -> dict[str, Any]:
        """Right-padded tensors. The padding id is 0: it is never looked for and never seen by a real token."""
        lengths = [len(item.token_ids) for item in batch]
        padded = [item.token_ids + [0] * (max(lengths) - n) for item, n in zip(batch, lengths, strict=True)]
        inputs: dict[str, Any] = {"input_ids": torch.tensor(padded, device=self._device)}
        if self._padding.masked:
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
        if not self._encoder or batch[0].decoder_ids is not None:
            inputs["use_cache"] = False
        return inputs


def _class_logits(config: Any, read: Read, options: EngineOptions) -> ClassLogits | None:
    """What stands between the LM head and the logits; None: no LM head is read, or the whole model is run for them."""
    if isinstance(read, HeadOutputs) or (isinstance(read, TokenLogprobs) and config.is_encoder_decoder):
        return None
    try:
        return class_logits(config, trust_remote_code=options.trust_remote_code)
    except UnsupportedError:
        if isinstance(read, TokenLogits):
            raise
        return None  # slower, and the logits of every token need memory


def _shapes(plan: Sequence[Sequence[int]], inputs: Sequence[TokenInput]) -> str:
    """How many inputs a batch has, and the tokens of its longest."""
    return ", ".join(f"{len(batch)} x {len(inputs[batch[0]].token_ids)}" for batch in plan)


def _batches(
    inputs: Sequence[TokenInput], max_tokens: int, max_rows: int | None, *, key: Callable[[int], Hashable]
) -> Iterator[list[int]]:
    """Indices of inputs, longest first, in batches of at most `max_tokens` tokens whose lengths have the same key."""
    order = sorted(range(len(inputs)), key=lambda i: -len(inputs[i].token_ids))
    batch: list[int] = []
    for i in order:
        width = len(inputs[batch[0]].token_ids) if batch else len(inputs[i].token_ids)
        full = width * (len(batch) + 1) > max_tokens or (max_rows is not None and len(batch) >= max_rows)
        if batch and (full or key(len(inputs[i].token_ids)) != key(width)):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _itself(length: int) -> int:
    return length
