"""AutoRM.load: from a name to a running reward model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from reward_hub import registry
from reward_hub.aggregation import AggregationMethod
from reward_hub.base import BaseRM
from reward_hub.errors import UnsupportedError
from reward_hub.family import Family
from reward_hub.loading.arguments import (
    BY_NAME,
    ENGINE,
    FAMILY,
    FILE,
    FOREIGN,
    HUB,
    JUDGE,
    JUDGE_API,
    JUDGE_VLLM,
    KEY,
    OURS,
    SCORER,
    SERVED,
    SERVER,
    Arguments,
    first_is_model,
)
from reward_hub.loading.resolve import checked_read, length_limit, positions_read, resolve, set_up
from reward_hub.reads import HeadOutputs
from reward_hub.types import AtLeast

_APPLIED = "merged into the weights if a probe at load gives equal outputs, else kept beside them"


class AutoRM:
    """Loads any reward model. Not instantiated."""

    def __init__(self) -> None:
        raise TypeError("AutoRM is not instantiated; call AutoRM.load(model).")

    # The signature is the table of arguments: beside type and default stands who reads it (`loading.arguments`).
    @staticmethod
    @first_is_model
    def load(
        model: str | Path,
        load_method: str = "auto",
        *,
        family: Annotated[str | None, FAMILY | JUDGE] = None,
        options: Annotated[Mapping[str, Any] | None, FAMILY | JUDGE] = None,
        reference: Annotated[str | Path | None, FAMILY, FILE] = None,
        beta: Annotated[float | None, FAMILY] = None,
        length_normalize: Annotated[bool, FAMILY] = False,
        revision: Annotated[str | None, FAMILY | JUDGE_VLLM] = None,
        token: Annotated[str | None, HUB | JUDGE_VLLM, KEY] = None,
        cache_dir: Annotated[str | Path | None, HUB | JUDGE_VLLM, FILE] = None,
        local_files_only: Annotated[bool, HUB] = False,
        trust_remote_code: Annotated[bool, HUB | JUDGE_VLLM] = False,
        torch_dtype: Annotated[Any, ENGINE | JUDGE_VLLM] = "auto",
        device: Annotated[Any, ENGINE] = None,
        device_map: Annotated[Any, ENGINE] = None,
        attn_implementation: Annotated[str | None, ENGINE] = None,
        quantization_config: Annotated[Any, ENGINE] = None,
        adapter: Annotated[str | Path | None, ENGINE, FILE] = None,
        tokenizer: Annotated[Any, FAMILY | SCORER | JUDGE_VLLM, FILE, BY_NAME] = None,
        chat_template: Annotated[str | None, FAMILY | SCORER, FILE] = None,
        max_length: Annotated[int | None, FAMILY | JUDGE_VLLM, AtLeast(1)] = None,
        truncation: Annotated[Literal["error", "prompt", "left", "right"], FAMILY] = "error",
        on_dropped: Annotated[Literal["warn", "error", "ignore"], FAMILY] = "warn",
        batch_size: Annotated[int | None, FAMILY, AtLeast(1)] = None,
        max_batch_tokens: Annotated[int | None, ENGINE, AtLeast(1)] = None,
        aggregation: Annotated[str | AggregationMethod | None, FAMILY | OURS | JUDGE] = None,
        api_base: Annotated[str | None, SERVER] = None,
        api_key: Annotated[str | None, SERVER, KEY] = None,
        dialect: Annotated[str | None, SERVED] = None,
        checkpoint: Annotated[str | Path | None, FOREIGN | JUDGE_API, FILE] = None,
        timeout_s: Annotated[float, SERVER, AtLeast(0.001)] = 60.0,
        max_retries: Annotated[int, SERVER, AtLeast(0)] = 4,
        max_concurrency: Annotated[int, SERVER | JUDGE_VLLM, AtLeast(1)] = 32,
        tune: Annotated[bool, ENGINE] = False,
        **engine_options: Any,
    ) -> BaseRM:
        """Load a reward model.

        Args:
            model: a hub id, a checkpoint folder, or `builtin/arithmetic-orm` and `builtin/arithmetic-prm`; with
                "api" the served name.
            load_method: "auto", "transformers" (also "hf"), "vllm" or "api" (also "openai"). "auto" takes what fits,
                and says so in one INFO line.
            family: how the model is read, where its files do not say.
            options: the family's own options (`reward-hub families NAME` shows them).
            reference: the reference model of an implicit (DPO-style) reward. It is loaded with the same arguments,
                `revision` and `adapter` apart; on a server it is another name there, or another address.
            beta: the coefficient of an implicit reward; by default its authors'.
            length_normalize: an implicit reward per token of the response.
            revision: branch, tag or commit on the hub.
            token: of the hub; by default HF_TOKEN, or what `hf auth login` left.
            cache_dir: where files of the hub are kept.
            local_files_only: ask the cache alone, not the hub.
            trust_remote_code: run code of the model's repository; no family that ships needs it.
            torch_dtype: "auto" (what the checkpoint names), "float32" (also "fp32"), "bfloat16", "float16", or a torch
                dtype. `dtype` is another name of this argument.
            device: "cpu", "cuda", "cuda:1", "mps", ...; by default a GPU where there is one.
            device_map: accelerate's, in place of `device`.
            attn_implementation: "eager", "sdpa", "flash_attention_2", ...
            quantization_config: transformers' own object (`BitsAndBytesConfig(load_in_4bit=True)`), or for vLLM the
                name of a method.
            adapter: a PEFT adapter over the model; a trained score head in it is used.
            tokenizer: folder or hub id of another tokenizer, or an object of the `Tokenizer` protocol.
            chat_template: a template (Jinja) or its file, in place of the checkpoint's; or the name of one of these.
            max_length: most tokens of a conversation; by default the published limit, else the model's.
            truncation: what becomes of longer ones: "error", "prompt", "left" or "right".
            on_dropped: what becomes of a conversation of which the chat template leaves something out (a system turn, a
                thought, tool calls): "warn" (once for each kind), "error" or "ignore". `details["dropped"]` names it.
            batch_size: most conversations of one batch.
            max_batch_tokens: most tokens of one batch.
            aggregation: process models: how step scores become a score ("min", "last", "product", "mean", ... or
                "model"); by default as their authors do.
            api_base: the server's address.
            api_key: the server's key; by default REWARD_HUB_API_KEY or OPENAI_API_KEY.
            dialect: what the server speaks, where that is not found out.
            checkpoint: hub id or folder of what the server holds; by default `model`, else what the server names.
            timeout_s: seconds of one attempt of a request.
            max_retries: further attempts of a request that failed in a way that may pass.
            max_concurrency: requests under way at a time.
            tune: transformers on a CPU: try faster ways to compute the same, for less than a minute, and remember what
                pays for this machine and model. The system's C compiler is run once, where there is one.
            engine_options: options of the engine itself. Published judges (`reward_hub.judge.published`) take the
                arguments of `LLMJudge` (`temperature`, `n_samples`, ...) here too.

        Raises:
            UnknownModelError: no such model, or no family fits.
            CheckpointError: tensors missing or misshapen, files broken.
            RemoteCodeRefusedError: the checkpoint needs code that was not allowed.
            TypeError: an argument that has no meaning here, or an option that the engine or the family does not have.
        """
        arguments = Arguments(AutoRM.load, locals())
        from reward_hub.loading import engine, judges, servers

        judge = judges.form_name_of(arguments.model, family, checkpoint, dialect)
        if judge is not None:
            return judges.load_judge(judge, arguments)
        if arguments.method == "api":
            return servers.load_served(arguments)
        return engine.load_here(arguments)

    @staticmethod
    def families() -> tuple[Family, ...]:
        """Every known family, by name."""
        return registry.families()

    @staticmethod
    def inspect(
        model: str | Path,
        *,
        family: str | None = None,
        options: Mapping[str, Any] | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        adapter: str | Path | None = None,
        max_length: int | None = None,
        chat_template: str | None = None,
    ) -> dict[str, Any]:
        """What `load` would load, found from headers alone: no weights are read into memory, none are downloaded.

        Returns:
            A JSON-serialisable dict: model, revision, family, kind, why, head (tensor -> shape), read, positions (where
            it is read), read_tokens (those of an example: "What is 2 + 2?" and "4"), template, backends, max_length,
            dtype, parameters, memory_bytes (weights alone, in the stored dtype), left_aside (an adapter's files beside
            a whole model), adapter (the one that is applied, and how). Of a published judge, which loads without
            looking at its files, those that its form says; the others are None.
        """
        from reward_hub.loading import judges
        from reward_hub.loading.engine import backends_of

        judge = judges.form_name_of(str(model), family, None, None)
        if judge is not None:
            return judges.describe_load(str(model), judge, options)
        resolved = resolve(
            model,
            family=family,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            adapter=adapter,
        )
        setup = set_up(resolved, options, None, chat_template)
        read = checked_read(resolved, setup)
        files = resolved.files
        dtype = files.config.get("dtype") or files.config.get("torch_dtype")
        positions, read_tokens = positions_read(resolved, setup)
        return {
            "model": resolved.name,
            "revision": files.revision,
            "family": resolved.family.name,
            "kind": resolved.family.kind,
            "why": resolved.why,
            "source": resolved.family.source,
            "head": {n: list(files.shapes[n]) for n in read.head.tensors()} if isinstance(read, HeadOutputs) else {},
            "read": str(read),
            "positions": positions,
            "read_tokens": read_tokens,
            "template": setup.tokenizer.chat_template,
            "backends": backends_of(resolved, read),
            "max_length": length_limit(resolved, setup, max_length),
            "dtype": str(dtype) if dtype is not None else None,
            "parameters": files.n_parameters(),
            "memory_bytes": files.n_bytes(),
            "left_aside": files.left_aside,
            "adapter": None if files.adapter is None else f"{files.adapter.id}, {_APPLIED}",
        }

    @staticmethod
    def serve_args(
        model: str | Path,
        *,
        name: str | None = None,
        folder: str | Path | None = None,
        torch_dtype: str = "auto",
        family: str | None = None,
        options: Mapping[str, Any] | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        adapter: str | Path | None = None,
        max_length: int | None = None,
        chat_template: str | None = None,
    ) -> tuple[list[str], list[str]]:
        """The `vllm serve` command for a server that `load(..., "api", checkpoint=model)` can read from, and notes.

        Args:
            name: the served name; default: the model's.
            folder: where to write a checkpoint that vLLM takes without reward_hub installed beside it.

        Raises:
            UnsupportedError: vLLM cannot serve it, or only with `folder`.
        """
        from reward_hub.backends.vllm.serve import serve_command

        if adapter is not None:
            raise UnsupportedError("vLLM is given merged weights here: merge the adapter with peft's merge_and_unload.")
        resolved = resolve(
            model,
            family=family,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        setup = set_up(resolved, options, None, chat_template)
        return serve_command(
            resolved.files,
            checked_read(resolved, setup),
            resolved.backbone,
            many=resolved.family.kind == "process",
            max_length=length_limit(resolved, setup, max_length),
            torch_dtype=torch_dtype,
            folder=None if folder is None else Path(folder),
            name=name,
        )
