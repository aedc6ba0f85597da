"""The vLLM backend: an engine in this process (with child processes of its own, as vLLM sees fit).

`vllm_plan` says how the engine is started and asked; this file starts it, asks it, and holds what it answers to the
question: every answer carries the token ids it is an answer to, and they are compared.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reward_hub.backends import vllm_plugin
from reward_hub.backends.base import Backend, EngineInfo, EngineOptions, Progress
from reward_hub.backends.class_logits import logits_of
from reward_hub.backends.vllm import folder as vllm_folder
from reward_hub.backends.vllm.calls import JoinedCalls, shut_down
from reward_hub.backends.vllm.options import capped_length, check_version, dtype_name, engine_options, option_names
from reward_hub.backends.vllm.plan import LOGPROB_BATCH_TOKENS, VllmPlan, plan
from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.checkpoints.tensors import head_weights, lm_head_rows
from reward_hub.errors import BackendError, UnsupportedError, missing_dependency
from reward_hub.family import Backbone
from reward_hub.reads import HeadOutputs, Read, TokenLogits
from reward_hub.tokenizer import Tokenizer
from reward_hub.types import Array, TokenInput

try:
    import vllm
except ImportError as error:
    raise missing_dependency("vLLM", "vllm", "The vllm backend") from error

logger = logging.getLogger(__name__)

# Numbers of one call to the engine that may wait for the end of that call: hidden vectors of all tokens add up.
MAX_HELD_NUMBERS = 64 * 2**20


class VllmBackend(Backend):
    """One vLLM engine. `LLM` is not thread-safe: calls go one at a time, and those that wait are joined."""

    def __init__(
        self,
        engine: Any,
        plan: VllmPlan,
        apply: Callable[[Array], Array],
        *,
        folder: tempfile.TemporaryDirectory[str] | None,
    ) -> None:
        self._engine: Any = engine
        self.plan = plan
        self._apply = apply
        self._calls = JoinedCalls(self._answer)
        config = engine.model_config
        self._limit = int(config.max_model_len)
        self.max_length = self._limit
        self._vocabulary = int(config.get_vocab_size())
        self._width = int(config.get_hidden_size()) if plan.task == "token_embed" else 8
        self._release = weakref.finalize(self, _release, engine, folder)
        device = str(vllm.platforms.current_platform.device_type)
        self.info = EngineInfo("vllm", vllm.__version__, str(config.dtype).removeprefix("torch."), device)

    @classmethod
    def known_options(cls) -> frozenset[str]:
        return option_names()

    @classmethod
    def load(
        cls,
        files: CheckpointFiles,
        read: Read,
        *,
        backbone: Backbone | None,
        tokenizer: Tokenizer,
        options: EngineOptions,
    ) -> VllmBackend:
        check_version(vllm.__version__)
        arguments = engine_options(options)
        if files.adapter is not None:
            raise UnsupportedError(
                "vLLM is given merged weights here: merge the adapter with peft's merge_and_unload, or load with "
                "load_method='transformers'."
            )
        wanted = plan(
            read,
            files.config,
            vllm_folder.weight_shapes(files),
            backbone=backbone,
            many=options.many_positions,
            pieces=vllm_folder.pieces_of(files, read),
            tensor_parallel_size=int(arguments.get("tensor_parallel_size") or 1),
            quantized=arguments.get("quantization") is not None or arguments.get("quantization_config") is not None,
        )
        return cls.start(files, read, wanted, backbone=backbone, options=options)

    @classmethod
    def start(
        cls,
        files: CheckpointFiles,
        read: Read,
        plan: VllmPlan,
        *,
        backbone: Backbone | None,
        options: EngineOptions,
    ) -> VllmBackend:
        """Start the engine that a plan describes."""
        arguments = capped_length(engine_options(options), plan.config or files.config)
        arguments["dtype"] = dtype_name(options.torch_dtype, files)
        if plan.runner == "generate" and not arguments.keys() & {"max_num_batched_tokens", "enable_chunked_prefill"}:
            arguments["max_num_batched_tokens"] = LOGPROB_BATCH_TOKENS
        vllm_folder.check_backbone(files, plan, backbone)
        _warn_unused(files, plan, read)
        plugin = plan.weights is not None and not plan.weights.split and vllm_plugin.is_installed()
        folder, path = _model_folder(files, plan, backbone, plugin=plugin)
        decided = plan.engine_arguments(plugin=plugin)
        theirs = arguments.pop("hf_overrides", None) or {}
        if clash := sorted(set(theirs) & set(decided["hf_overrides"])):
            raise TypeError(f"hf_overrides: {', '.join(clash)} is decided by what is read from the model.")
        decided["hf_overrides"] = {**theirs, **decided["hf_overrides"]}
        try:
            engine = vllm.LLM(str(path), **decided, **arguments)
        except Exception as error:
            if folder is not None:
                folder.cleanup()
            raise BackendError(f"vLLM {vllm.__version__} cannot start {files.id}: {_words(error)}") from error
        try:
            _check_pieces(plan, read, engine)
            apply = _head(files, read, plan, engine)
            return cls(engine, plan, apply, folder=folder)
        except BaseException:
            _release(engine, folder)
            raise

    @property
    def load_report(self) -> dict[str, Any]:
        head = "vLLM" if self.plan.native else "reward_hub, of hidden vectors"
        return {"asked": f"{self.plan.task or self.plan.runner}, {self.plan.asks}", "head_applied_by": head}

    def read(
        self, inputs: Sequence[TokenInput], *, batch_size: int | None = None, progress: Progress | None = None
    ) -> list[Array]:
        outputs: list[Array] = []
        for part in _parts(inputs, batch_size):
            outputs += self._calls.call(part, progress)
        return outputs

    async def aread(
        self, inputs: Sequence[TokenInput], *, batch_size: int | None = None, progress: Progress | None = None
    ) -> list[Array]:
        outputs: list[Array] = []
        for part in _parts(inputs, batch_size):
            outputs += await self._calls.acall(part, progress)
        return outputs

    def close(self) -> None:
        with self._calls.pause():
            self._engine = None
            self._release()

    def _answer(self, inputs: list[TokenInput], progress: Progress) -> list[Array]:
        """One answer an input; in several calls to the engine where it would hold too much until their end."""
        if self._engine is None:
            raise BackendError("The vLLM engine was closed; load the model again.")
        self._check(inputs)
        outputs: list[Array] = []
        for part in _within(inputs, MAX_HELD_NUMBERS // self._width):
            requests = [request for item in part for request in self._requests(item)]
            started = time.perf_counter()
            answers = iter(self._ask(requests, _Scaled(progress, len(part), len(requests))))
            logger.debug(
                "%d inputs as %d requests of %d tokens (%s, %s) took %.3f s.",
                *(len(part), len(requests), sum(len(request.token_ids) for request in requests)),
                *(self.plan.task or self.plan.runner, self.plan.asks, time.perf_counter() - started),
            )
            outputs += [self._output(item, answers) for item in part]
        return outputs

    def _check(self, inputs: list[TokenInput]) -> None:
        """What vLLM would not notice, having no tokenizer."""
        self.check_media(inputs)
        for item in inputs:
            largest = max(item.token_ids, default=0)
            if largest >= self._vocabulary or min(item.token_ids, default=0) < 0:
                raise BackendError(
                    f"Token id {largest} is outside the model's vocabulary of {self._vocabulary}; the tokenizer "
                    "belongs to another model."
                )
            if any(not 0 <= p < len(item.token_ids) for p in item.positions):
                raise BackendError(f"A position of {item.positions} lies outside the {len(item.token_ids)} tokens.")
            if self.plan.asks == "logprobs" and 0 in item.positions:
                raise BackendError("The first token has no log-probability: nothing stands before it.")

    def _requests(self, item: TokenInput) -> list[_Request]:
        """What is asked of the engine for one input. Tokens behind the last position change nothing before it."""
        ids = item.token_ids
        if self.plan.asks == "prefixes":
            return [_Request(ids[: position + 1]) for position in item.positions]
        if not item.positions:
            return []
        ids = ids[: max(item.positions) + 1]
        if self.plan.asks == "logprobs" and len(ids) >= self._limit:
            # A generating engine needs room for one more token; the last one's log-probability is asked for as that
            # of the next token.
            return [_Request(ids[:-1], next_id=ids[-1])]
        return [_Request(ids)]

    def _output(self, item: TokenInput, answers: Iterator[Any]) -> Array:
        """float32 [n_positions, width] of one input, from as many answers as it had requests."""
        if self.plan.asks == "prefixes":
            rows = [_numbers(next(answers)) for _ in item.positions]
            return self._apply(np.stack(rows)) if rows else self._nothing()
        if not item.positions:
            return self._nothing()
        answer = next(answers)
        if self.plan.asks == "logprobs":
            return _logprobs(answer, item)
        table = _numbers(answer)
        if len(table) != max(item.positions) + 1:
            raise BackendError(f"vLLM gave {len(table)} rows for {max(item.positions) + 1} tokens.")
        return self._apply(table[item.positions])

    def _nothing(self) -> Array:
        return np.zeros((0, 1), np.float32)

    def _ask(self, requests: list[_Request], report: _Scaled) -> list[Any]:
        """One answer a request, in their order."""
        if not requests:
            return []
        prompts = [{"prompt_token_ids": request.token_ids} for request in requests]
        try:
            if self.plan.runner == "generate":
                answers = self._engine.generate(prompts, [_sampling(r) for r in requests], use_tqdm=report.bar)
            else:
                answers = self._engine.encode(
                    prompts,
                    vllm.PoolingParams(use_activation=False),
                    pooling_task=self.plan.task,
                    use_tqdm=report.bar,
                )
        except BaseException as error:
            self._drop_unfinished()
            if isinstance(error, Exception):
                raise BackendError(f"vLLM failed: {_words(error)}") from error
            raise
        sent = [request.token_ids for request in requests]
        if [list(answer.prompt_token_ids) for answer in answers] != sent:
            self._drop_unfinished()
            raise BackendError("vLLM's answers are not those to the requests that were sent; score these again.")
        return list(answers)

    def _drop_unfinished(self) -> None:
        """No request of a failed call may be answered to the next one. An engine that cannot forget them is closed."""
        core = self._engine.llm_engine
        try:
            if core.has_unfinished_requests():
                core.abort_request(list(core.output_processor.request_states), internal=True)
            alive = not core.has_unfinished_requests()
        except Exception:
            alive = False
        if not alive:
            logger.warning("The vLLM engine could not be brought back after a failure, and was closed.")
            self._engine = None
            self._release()


@dataclasses.dataclass(frozen=True)
class _Request:
    token_ids: list[int]
    next_id: int | None = None
    """A token whose log-probability after these is asked for."""


class _Scaled:
    """vLLM's progress bar as a progress callback: it counts requests, and is asked in inputs."""

    def __init__(self, progress: Progress, n_inputs: int, n_requests: int) -> None:
        self._progress = progress
        self._share = n_inputs / max(n_requests, 1)
        self._done = 0
        self._told = 0

    def bar(self, iterable: Iterable[Any] = (), **kwargs: Any) -> Any:
        """What vLLM takes for a constructor of progress bars."""
        return _Bar(iterable, self._advance) if "total" in kwargs else iterable

    def _advance(self, n: int) -> None:
        self._done += n
        new = int(self._done * self._share + 1e-6) - self._told
        if new:
            self._told += new
            self._progress(new)


class _Bar:
    """The part of a tqdm bar that vLLM uses."""

    def __init__(self, iterable: Iterable[Any], advance: Callable[[int], None]) -> None:
        self._advance = advance
        self.n = 0
        self.postfix = ""
        self.format_dict = {"elapsed": 1.0}

    def update(self, n: int = 1) -> None:
        self.n += n
        self._advance(n)

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        pass


def _model_folder(
    files: CheckpointFiles, plan: VllmPlan, backbone: Backbone | None, *, plugin: bool
) -> tuple[tempfile.TemporaryDirectory[str] | None, Path]:
    """The folder that vLLM loads: the checkpoint's own, or a temporary one."""
    adapted = plan.weights is not None and not plugin
    if not adapted and plan.config is None and vllm_folder.is_plain(files):
        return None, files.fetch()
    folder = tempfile.TemporaryDirectory(prefix="reward_hub-vllm-")
    try:
        written = vllm_folder.write_folder(Path(folder.name), files, plan, backbone, link_all=plugin)
    except BaseException:
        folder.cleanup()
        raise
    if written:
        reason = (
            "packed tensors have to be cut"
            if plan.weights is not None and plan.weights.split
            else "reward_hub is not installed as a plug-in of vLLM (pip install), which would save that"
        )
        logger.info(
            "Wrote %.2f GB of weights to %s under the names vLLM knows: %s.", written / 1e9, folder.name, reason
        )
    return folder, Path(folder.name)


def _warn_unused(files: CheckpointFiles, plan: VllmPlan, read: Read) -> None:
    head = {**read.head.tensors(), **read.head.optional()} if isinstance(read, HeadOutputs) else {}
    names = [name for name in vllm_folder.weight_shapes(files) if name not in head]
    left = [name for name in names if any(re.search(pattern, name) for pattern in plan.unused)]
    if left:
        logger.warning("%s holds tensors that are not used: %s.", files.id, ", ".join(left[:8]))


def _check_pieces(plan: VllmPlan, read: Read, engine: Any) -> None:
    """vLLM looked up the rows of the LM head by vocabulary piece, with its own tokenizer."""
    if plan.needs_tokenizer and isinstance(read, TokenLogits):
        token_ids = engine.get_tokenizer().convert_tokens_to_ids(plan.hf_overrides["classifier_from_token"])
        if list(token_ids) != list(read.token_ids):
            raise BackendError(
                f"vLLM's tokenizer has the tokens that are read at {token_ids}, not at {read.token_ids}."
            )


def _head(files: CheckpointFiles, read: Read, plan: VllmPlan, engine: Any) -> Callable[[Array], Array]:
    """What is left to do on this side with the rows that the engine gives."""
    if isinstance(read, TokenLogits):
        logits = logits_of(plan.config or files.config)
        if plan.native:
            return logits
        config = engine.model_config.hf_config
        rows, offset = lm_head_rows(files, read.token_ids, tied=bool(getattr(config, "tie_word_embeddings", False)))
        return lambda hidden: logits(hidden @ rows.T + offset)
    if plan.native:
        if plan.bias is None:
            return lambda rows: rows
        bias = files.read(plan.bias)
        return lambda rows: rows + bias
    assert isinstance(read, HeadOutputs)
    weights = head_weights(files, read.head)
    head = read.head
    return lambda hidden: head.apply(hidden, weights)


def _sampling(request: _Request) -> Any:
    chosen = {} if request.next_id is None else {"logprob_token_ids": [request.next_id]}
    return vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False, **chosen)


def _numbers(answer: Any) -> Array:
    return np.asarray(answer.outputs.data.float().cpu().numpy(), dtype=np.float32)


def _logprobs(answer: Any, item: TokenInput) -> Array:
    """[n_positions, 1]; the entry of the token itself at each position."""
    tables = answer.prompt_logprobs
    values = []
    for position in item.positions:
        if position < len(tables):
            table = tables[position]
        else:
            table = answer.outputs[0].logprobs[0]
        values.append(table[item.token_ids[position]].logprob)
    return np.array(values, np.float32).reshape(-1, 1)


def _parts(inputs: Sequence[TokenInput], size: int | None) -> Iterator[Sequence[TokenInput]]:
    step = size or max(len(inputs), 1)
    for start in range(0, len(inputs), step):
        yield inputs[start : start + step]


def _within(inputs: list[TokenInput], max_tokens: int) -> Iterator[list[TokenInput]]:
    """Consecutive inputs, at most so many tokens together, but one at least."""
    part: list[TokenInput] = []
    tokens = 0
    for item in inputs:
        if part and tokens + len(item.token_ids) > max_tokens:
            yield part
            part, tokens = [], 0
        part.append(item)
        tokens += len(item.token_ids)
    if part:
        yield part


def _words(error: BaseException) -> str:
    """What vLLM said, without the addresses of pydantic's documentation."""
    text = str(error).split("\n    For further information visit")[0].strip()
    return f"{text} ({type(error).__name__})" if text else type(error).__name__


def _release(engine: Any, folder: tempfile.TemporaryDirectory[str] | None) -> None:
    """End the engine's processes and remove the folder; called by close, by the garbage collector or at exit."""
    shut_down(engine)
    if folder is not None:
        folder.cleanup()
