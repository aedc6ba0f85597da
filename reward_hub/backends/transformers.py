"""The Transformers backend: one forward of the bare backbone, the read positions gathered by index.

Conversations go through the model packed: many in one row without padding, and what several have in common at their
beginning once (`packing`). Whether a model can be read so is tried when it is loaded. Where it cannot, conversations
are sorted by length into batches: right-padded ones, in float32 on a CPU ones of equal length. Models that are shown to
be causal get no padding mask (`causality`), and no batch mixes lengths with different rotary tables (`rope_tables`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from reward_hub.backends.base import Backend, EngineInfo, EngineOptions, Progress, ReadPlan
from reward_hub.backends.causality import Padding, is_foreign, padding_of
from reward_hub.backends.class_logits import ClassLogits, class_logits, decoder_of
from reward_hub.backends.packing.check import Packing, packing_of
from reward_hub.backends.packing.model import PackedModel, bytes_of_a_token, tokens_of_a_forward
from reward_hub.backends.rope_tables import RopeTables
from reward_hub.backends.transformers_loading import OPTIONS, adapter_place, input_device, load_model
from reward_hub.backends.tuning.tune import Tuning, tune
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

# Rows of the LM head's output at a time when log-probabilities over the whole vocabulary are read.
LOGPROB_ROWS = 256


class TransformersBackend(Backend):
    """A transformers model in this process."""

    tunes = True

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
        packing: Packing,
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
        self._max_batch_tokens = max_batch_tokens or tokens_of_a_forward(model, self._device)
        self._tuning: Tuning | None = None
        self._n_padded = 0
        self.packing = packing
        self._packed = PackedModel(_hidden_model(model, read, logits), self._device) if packing.reason is None else None
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
            "layout": str(self.packing),
            "padding": self._padding.reason,
            "rotary_tables": tables,
            "adapter": self._adapter,
            "tuning": None if self._tuning is None else str(self._tuning),
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
        logits = _class_logits(model.config, read, options)
        packing = _packing(model, read, logits, options, padding)
        level = logging.INFO if packing.reason is not None and not padding.masked else logging.DEBUG
        logger.log(level, "%s: conversations are %s.", files.id, packing)
        backend = cls(
            model,
            read,
            weights,
            logits,
            encoder=encoder,
            padding=padding,
            tables=tables,
            packing=packing,
            batch_size=options.batch_size,
            max_batch_tokens=options.max_batch_tokens,
            adapter=None if files.adapter is None else adapter_place(model),
        )
        if options.tune:
            backend.tune()
            logger.info("%s: tuned: %s.", files.id, backend.load_report["tuning"])
        return backend

    def read(
        self, inputs: Sequence[TokenInput], *, batch_size: int | None = None, progress: Progress | None = None
    ) -> list[Array]:
        self.check_media(inputs)
        outputs: list[Array | None] = [None] * len(inputs)
        threads = contextlib.nullcontext() if self._tuning is None else self._tuning.running()
        with self._lock, threads, torch.inference_mode():
            if self._model is None:
                raise BackendError("The model was closed; load it again.")
            rows = batch_size or self._batch_size
            packed = [i for i, item in enumerate(inputs) if self._is_packed(item)]
            padded = sorted(set(range(len(inputs))) - set(packed))
            ways = (self._read_packed(inputs, packed, rows), self._read_padded(inputs, padded, rows))
            for done in self._named_failures(itertools.chain(*ways)):
                for i, answer in done.items():
                    outputs[i] = answer
                if progress is not None:
                    progress(len(done))
        return [output for output in outputs if output is not None]

    def planned(self, inputs: Sequence[TokenInput], *, batch_size: int | None = None) -> ReadPlan:
        self.check_media(inputs)
        rows = batch_size or self._batch_size
        packed = [item for item in inputs if self._is_packed(item)]
        padded = [item for item in inputs if not self._is_packed(item)]
        forwards: list[int] = []
        n_unique = sum(len(item.token_ids) for item in padded)
        if self._packed is not None:
            token_ids, positions = [item.token_ids for item in packed], [self._places(item) for item in packed]
            for plan in self._packed.planned(token_ids, positions, self._max_batch_tokens, rows):
                n_unique += plan.n_unique
                forwards += [len(forward.token_ids) for forward in plan.forwards]
        for batch in self._padded_batches(padded, rows):
            forwards.append(len(batch) * len(padded[batch[0]].token_ids))
        memory = int(self._model.get_memory_footprint()) + max(forwards, default=0) * bytes_of_a_token(self._model)
        return ReadPlan(sum(len(item.token_ids) for item in inputs), n_unique, forwards, memory)

    @property
    def shared_share(self) -> float | None:
        packed = self._packed
        n_tokens = self._n_padded + (packed.n_tokens if packed is not None else 0)
        n_shared = packed.n_tokens - packed.n_unique if packed is not None else 0
        return n_shared / n_tokens if n_tokens else None

    def pads(self) -> bool:
        """Whether a batch may hold conversations of different lengths.

        Not in float32 on a CPU: there padding alone moves a score in the sixth digit (attention is summed in other
        blocks), while batches of equal length give the very numbers of one conversation alone and take no more time.
        """
        return self._padding.mixed and not (self._device.type == "cpu" and self._model.dtype == torch.float32)

    def tune(self) -> None:
        """Make the model faster where it stands (`tuning`)."""

        def states(token_ids: list[int]) -> torch.Tensor:
            self._tables.restore()
            decoder_ids = token_ids if self._model.config.is_encoder_decoder else None
            item = TokenInput(token_ids=token_ids, positions=[], decoder_ids=decoder_ids)
            outputs = _hidden_model(self._model, self._read, self._class_logits)(**self._model_inputs([item]))
            found: torch.Tensor = outputs.logits if self._reads_logits else outputs.last_hidden_state
            return found

        with self._lock:
            self._tuning = tune(self._model, states)

    def close(self) -> None:
        with self._lock:
            self._model = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _named_failures(self, answers: Iterator[dict[int, Array]]) -> Iterator[dict[int, Array]]:
        """The answers; what torch raises on the way becomes an error that says what to do."""
        try:
            yield from answers
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"Out of memory at forwards of {self._max_batch_tokens} tokens; lower max_batch_tokens or batch_size."
            ) from error
        except (RuntimeError, IndexError) as error:
            raise BackendError(f"The transformers model failed: {error}") from error

    def _read_packed(
        self, inputs: Sequence[TokenInput], indices: list[int], rows: int | None
    ) -> Iterator[dict[int, Array]]:
        """The answers of those inputs, some at a time."""
        if self._packed is None or not indices:
            return
        self._tables.restore()

        def values(states: torch.Tensor, reads: Sequence[tuple[int, int]]) -> Array:
            items = [inputs[indices[conversation]] for conversation, _ in reads]
            tokens = [item.token_ids[item.positions[index]] for item, (_, index) in zip(items, reads, strict=True)]
            return self._values(states, tokens)

        answers = self._packed.read(
            [inputs[i].token_ids for i in indices],
            [self._places(inputs[i]) for i in indices],
            values,
            max_tokens=self._max_batch_tokens,
            conversations=rows,
        )
        for done in answers:
            outputs = {indices[conversation]: self._output(found) for conversation, found in done.items()}
            spoiled = [i for i, output in outputs.items() if len(indices) > 1 and not np.isfinite(output).all()]
            for i in spoiled:
                # What overflows behind a shared beginning spreads into it: zero times NaN is NaN. Alone, it does not.
                for alone in self._read_packed(inputs, [i], rows):
                    outputs |= alone
            yield outputs

    def _read_padded(
        self, inputs: Sequence[TokenInput], indices: list[int], rows: int | None
    ) -> Iterator[dict[int, Array]]:
        """The answers of those inputs, a batch at a time."""
        some = [inputs[i] for i in indices]
        plan = self._padded_batches(some, rows)
        self._n_padded += sum(len(item.token_ids) for item in some)
        if plan and logger.isEnabledFor(logging.DEBUG):
            logger.debug("%d inputs in %d batches: %s", len(some), len(plan), _shapes(plan, some))
        for batch in plan:
            started = time.perf_counter()
            answers = self._forward([some[i] for i in batch])
            if logger.isEnabledFor(logging.DEBUG):
                longest, seconds = len(some[batch[0]].token_ids), time.perf_counter() - started
                logger.debug("A batch of %d inputs x %d tokens took %.3f s.", len(batch), longest, seconds)
            yield {indices[i]: answer for i, answer in zip(batch, answers, strict=True)}

    def _padded_batches(self, inputs: Sequence[TokenInput], rows: int | None) -> list[list[int]]:
        key = self._tables.key if self.pads() else _itself
        return list(_batches(inputs, self._max_batch_tokens, rows, key=key))

    def _is_packed(self, item: TokenInput) -> bool:
        """Whether an input is packed: those with the rotary tables of short inputs are."""
        n = len(item.token_ids)
        return self._packed is not None and self.packing.holds(item) and self._tables.key(n) == self._tables.key(1)

    def _forward(self, batch: list[TokenInput]) -> list[Array]:
        """The answers of one padded batch."""
        answers = [self._output(told) for told in self._told(batch)]
        if self._padding.masked and len(batch) > 1 and not all(np.isfinite(answer).all() for answer in answers):
            # Padding whose window holds nothing but padding is NaN in some classes, and spreads.
            return [self._forward([item])[0] for item in batch]
        return answers

    def _told(self, batch: list[TokenInput]) -> list[Array]:
        """For each input of a padded batch what its positions tell (see `_values`)."""
        self._tables.restore()
        outputs = _hidden_model(self._model, self._read, self._class_logits)(**self._model_inputs(batch))
        states = outputs.logits if self._reads_logits else outputs.last_hidden_state
        rows = [i for i, item in enumerate(batch) for _ in item.positions]
        columns = [place for item in batch for place in self._places(item)]
        read = states[torch.tensor(rows, device=states.device), torch.tensor(columns, device=states.device)]
        tokens = [(item.decoder_ids or item.token_ids)[position] for item in batch for position in item.positions]
        ends = np.cumsum([len(item.positions) for item in batch])[:-1]
        return list(np.split(self._values(read, tokens), ends))

    @property
    def _reads_logits(self) -> bool:
        """Whether the whole model is run, as what its class makes of its LM head's outputs is not known."""
        return isinstance(self._read, TokenLogprobs) and self._class_logits is None

    def _places(self, item: TokenInput) -> list[int]:
        """Whose hidden vectors are read: what comes before a token tells its log-probability."""
        return (
            [position - 1 for position in item.positions] if isinstance(self._read, TokenLogprobs) else item.positions
        )

    def _values(self, states: torch.Tensor, tokens: list[int]) -> Array:
        """What hidden vectors (or logits) [n, width] tell: themselves, or the log-probability of each one's token.

        Float32 on the host; over the whole vocabulary some rows at a time.
        """
        if not isinstance(self._read, TokenLogprobs):
            return np.asarray(states.float().cpu().numpy(), np.float32)
        parts = [np.zeros((0, 1), np.float32)]
        for start in range(0, len(tokens), LOGPROB_ROWS):
            rows = states[start : start + LOGPROB_ROWS]
            logits = rows if self._reads_logits else self._lm_logits(rows)
            chosen = torch.tensor(tokens[start : start + LOGPROB_ROWS], device=logits.device)[:, None]
            parts.append(torch.log_softmax(logits.float(), dim=-1).gather(1, chosen).cpu().numpy())
        return np.concatenate(parts)

    def _output(self, found: Array) -> Array:
        """What the read makes of what was found at the positions of one input."""
        if isinstance(self._read, HeadOutputs):
            return self._read.head.apply(found, self._weights)
        if isinstance(self._read, TokenLogprobs):
            return found
        assert self._class_logits is not None
        return self._class_logits(found @ self._weights["rows"].T + self._weights["bias"])

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


def _hidden_model(model: Any, read: Read, logits: ClassLogits | None) -> Any:
    """What is run: the part that gives hidden vectors, or the whole where logits cannot be made of those."""
    return decoder_of(model) if isinstance(read, TokenLogprobs) and logits is not None else model


def _packing(model: Any, read: Read, logits: ClassLogits | None, options: EngineOptions, padding: Padding) -> Packing:
    """Whether conversations are packed; tried on the model where nothing is known against it."""
    if padding.masked:
        return Packing(padding.reason)
    if options.attn_implementation is not None:
        return Packing(f"attn_implementation={options.attn_implementation!r} was asked for")
    if isinstance(read, TokenLogprobs) and logits is None:
        return Packing("the whole model is run for log-probabilities")
    return packing_of(_hidden_model(model, read, logits), input_device(model))


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
