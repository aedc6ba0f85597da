"""AutoRM.load: from a name to a running reward model."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reward_hub import registry
from reward_hub.aggregation import AggregationMethod, aggregation_name
from reward_hub.base import BaseRM
from reward_hub.errors import UnsupportedError
from reward_hub.family import Family, Setup
from reward_hub.loading.arguments import check_engine_options, refuse_arguments, refuse_server_arguments
from reward_hub.loading.engine import NUMBER_CHANGING, backends_of, choose_backend
from reward_hub.loading.resolve import Located, checked_read, length_limit, locate, set_up
from reward_hub.loading.servers import served, served_reference
from reward_hub.reads import HeadOutputs

if TYPE_CHECKING:
    from reward_hub.backends.base import Backend

logger = logging.getLogger(__name__)


class AutoRM:
    """Loads any reward model. Not instantiated."""

    def __init__(self) -> None:
        raise TypeError("AutoRM is not instantiated; call AutoRM.load(model).")

    @staticmethod
    def load(
        model: str | Path,
        load_method: str = "auto",
        *,
        family: str | None = None,
        options: Mapping[str, Any] | None = None,
        reference: str | Path | None = None,
        beta: float | None = None,
        length_normalize: bool = False,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        torch_dtype: Any = "auto",
        device: Any = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        quantization_config: Any = None,
        adapter: str | Path | None = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        max_length: int | None = None,
        truncation: str = "error",
        batch_size: int | None = None,
        max_batch_tokens: int | None = None,
        aggregation: str | AggregationMethod | None = None,
        api_base: str | None = None,
        api_key: str | None = None,
        dialect: str | None = None,
        checkpoint: str | Path | None = None,
        timeout_s: float = 60.0,
        max_retries: int = 4,
        max_concurrency: int = 32,
        **engine_options: Any,
    ) -> BaseRM:
        """Load a reward model.

        Args:
            model: a Hub id, a checkpoint folder, or `builtin/arithmetic-orm` and `builtin/arithmetic-prm`.
            load_method: the engine: "transformers" (or "hf"), or "auto", which says in one INFO line what it chose.
            family: the family's name, where the checkpoint does not tell it.
            options: the family's own options (`reward-hub families NAME` shows them).
            reference: the reference model of an implicit (DPO-style) reward, with `beta` and `length_normalize`; it is
                loaded with the same options, `revision` and `adapter` apart.
            revision, token, cache_dir, local_files_only: as huggingface_hub takes them.
            trust_remote_code: allow code from the checkpoint's repository; no family that ships needs it.
            torch_dtype: a name or a torch dtype; "auto": what the checkpoint names.
            device, device_map: where the model goes; `device_map` is accelerate's.
            adapter: a PEFT adapter over the model; a trained score head in it is used.
            tokenizer: folder or Hub id of another tokenizer, or an object of the `Tokenizer` protocol.
            chat_template: text or file of a template in place of the checkpoint's.
            max_length: most tokens; default: the published limit, else the model's.
            truncation: what happens to longer ones: "error", "prompt", "left" or "right".
            batch_size, max_batch_tokens: bounds of one forward pass.
            aggregation: process models: how step scores become a score; default: the authors'.
            api_base, api_key, dialect: "api": the server, its key (else REWARD_HUB_API_KEY, OPENAI_API_KEY), and what
                it speaks where that is not found. `model` is the served name, `reference` too, or another address.
            checkpoint: "api": id or folder of what the server holds; default: `model`, else what the server names.
            timeout_s, max_retries, max_concurrency: "api": of one attempt; further attempts; requests at a time.
            engine_options: options of the engine itself; an unknown one is a TypeError. Published judges
                (`reward_hub.judge.published`) take those of `LLMJudge` (`temperature`, `n_samples`, ...) too.

        Raises:
            UnknownModelError: no such model, or no family fits.
            CheckpointError: tensors missing or misshapen, files broken.
            RemoteCodeRefusedError: the checkpoint needs code that was not allowed.
            TypeError: an option that the engine or the family does not have.
        """
        # The first statement: nothing but the arguments is in it.
        asked = dict(locals())
        arguments = list(inspect.signature(AutoRM.load).parameters)
        server = {
            "api_base": api_base,
            "api_key": api_key,
            "dialect": dialect,
            "checkpoint": checkpoint,
            "timeout_s": timeout_s,
            "max_retries": max_retries,
            "max_concurrency": max_concurrency,
        }
        method = registry.BACKEND_ALIASES.get(load_method, load_method)
        if method == "auto" and api_base is not None:
            method = "api"
        from reward_hub.loading import judges

        judge = judges.form_name_of(str(model), family, checkpoint, dialect)
        if judge is not None:
            return judges.load_judge(str(model), judge, method, given=_not_default(asked), extra=engine_options)
        if method not in ("auto", "api"):
            registry.backend_class(method)
        if method != "api":
            refuse_server_arguments(method, server)
        if truncation not in ("error", "prompt", "left", "right"):
            raise TypeError(f"truncation={truncation!r}; known: 'error', 'prompt', 'left', 'right'.")
        if device is not None and device_map is not None:
            raise TypeError("Give device= or device_map=, not both.")
        for bound, given_bound in (("batch_size", batch_size), ("max_batch_tokens", max_batch_tokens)):
            if given_bound is not None and given_bound < 1:
                raise TypeError(f"{bound}={given_bound}; at least 1 is needed.")
        from reward_hub.models import implicit_rm

        if reference is not None and family is None and registry.family_of_id(str(model)) is None:
            family = implicit_rm.DEFAULT_FAMILY
        access: dict[str, Any] = {
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "trust_remote_code": trust_remote_code,
        }
        if method == "api":
            given = {
                "torch_dtype": (torch_dtype, "auto"),
                "device": (device, None),
                "device_map": (device_map, None),
                "attn_implementation": (attn_implementation, None),
                "quantization_config": (quantization_config, None),
                "max_batch_tokens": (max_batch_tokens, None),
                "adapter": (adapter, None),
            }
            refuse_arguments(given, "api", "the server has started the model already")
            check_engine_options(engine_options, frozenset(), "api", arguments=arguments)
            # What only a family known here can honour, and what our own server decides.
            ours = {
                "family": (family, None),
                "reference": (reference, None),
                "beta": (beta, None),
                "length_normalize": (length_normalize, False),
                "options": (options, None),
                "max_length": (max_length, None),
                "truncation": (truncation, "error"),
                "aggregation": (aggregation, None),
                "revision": (revision, None),
            }
            behind = served(str(model), server, ours, tokenizer=tokenizer, chat_template=chat_template, access=access)
            if isinstance(behind, BaseRM):
                return behind
            located = behind
        else:
            located = locate(model, family=family, revision=revision, adapter=adapter, **access)
        implicit_rm.check_arguments(
            located.family, reference=reference, beta=beta, length_normalize=length_normalize, options=options
        )
        if aggregation is not None and located.family.kind != "process":
            raise TypeError(
                f"aggregation={aggregation!r}: {located.family.name} is no process family, it has no steps."
            )
        from reward_hub.backends.base import EngineOptions

        setup = set_up(located, options, tokenizer, chat_template)
        backend_type: type[Backend]
        if method == "api":
            from reward_hub.backends.http import HttpBackend

            name, why, backend_type = "api", "token ids are sent", HttpBackend
        else:
            name, why = choose_backend(method, located, setup)
            backend_type = registry.backend_class(name)
            check_engine_options(engine_options, backend_type.known_options(), name, arguments=arguments)
        from reward_hub.models.model_rm import LoadedModel, ModelRM
        from reward_hub.models.pairwise_rm import PairwiseRM

        def start(located: Located, setup: Setup) -> LoadedModel:
            read = checked_read(located, setup)
            limit = length_limit(located, setup, max_length)
            backend = backend_type.load(
                located.files,
                read,
                backbone=located.backbone,
                tokenizer=setup.tokenizer,
                options=EngineOptions(
                    torch_dtype=torch_dtype,
                    device=device,
                    device_map=device_map,
                    attn_implementation=attn_implementation,
                    quantization_config=quantization_config,
                    batch_size=batch_size,
                    max_batch_tokens=max_batch_tokens,
                    trust_remote_code=trust_remote_code,
                    max_length=limit,
                    many_positions=located.family.reads_every_step and located.family.kind == "process",
                    extra=engine_options if located.connection is None else {"connection": located.connection},
                ),
            )
            if backend.max_length is not None:
                limit = backend.max_length if limit is None else min(limit, backend.max_length)
            logger.info(
                "Loaded %s as %s (%s) on %s (%s), %s on %s.",
                located.name,
                located.family.name,
                located.why,
                name,
                why,
                backend.info.dtype,
                backend.info.device,
            )
            return LoadedModel(
                name=located.served_as or located.name,
                family=located.family,
                setup=setup,
                backend=backend,
                max_length=limit,
                truncation=truncation,
                revision=located.files.revision,
                weights_id=located.files.fingerprint,
                aggregation=None if aggregation is None else aggregation_name(aggregation),
                batch_size=batch_size,
                numerics={
                    name: value
                    for name, value in {
                        "quantization_config": quantization_config,
                        "attn_implementation": attn_implementation,
                        **engine_options,
                    }.items()
                    if name in NUMBER_CHANGING and value is not None
                },
            )

        if implicit_rm.is_implicit(located.family):
            other = None
            if reference is not None and implicit_rm.needs_no_reference(options):
                logger.info("reference_free=True: %s is not loaded.", reference)
            elif reference is not None:
                if method == "api":
                    beside = served_reference(str(reference), server, located.family.name, access)
                else:
                    beside = locate(reference, family=located.family.name, revision=None, adapter=None, **access)
                other = (beside, set_up(beside, options, tokenizer, chat_template))
                implicit_rm.check_tokenizers(located.family, setup, other[1])
            policy = start(located, setup)
            partner = None if other is None else start(*other)
            return implicit_rm.ImplicitRM(policy, partner, beta=beta, length_normalize=length_normalize)
        loaded = start(located, setup)
        if located.family.kind == "pairwise":
            return PairwiseRM(loaded)
        return ModelRM(loaded)

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
            A JSON-serialisable dict: model, revision, family, kind, why, head (tensor -> shape), read, template,
            backends, max_length, dtype, parameters, memory_bytes (weights alone, in the stored dtype). Of a published
            judge, which loads without looking at its files, those that its form says; the others are None.
        """
        from reward_hub.loading import judges

        judge = judges.form_name_of(str(model), family, None, None)
        if judge is not None:
            return judges.describe_load(str(model), judge, options)
        located = locate(
            model,
            family=family,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            adapter=adapter,
        )
        setup = set_up(located, options, None, chat_template)
        read = checked_read(located, setup)
        files = located.files
        dtype = files.config.get("dtype") or files.config.get("torch_dtype")
        return {
            "model": located.name,
            "revision": files.revision,
            "family": located.family.name,
            "kind": located.family.kind,
            "why": located.why,
            "source": located.family.source,
            "head": {n: list(files.shapes[n]) for n in read.head.tensors()} if isinstance(read, HeadOutputs) else {},
            "read": str(read),
            "template": setup.tokenizer.chat_template,
            "backends": backends_of(located, read),
            "max_length": length_limit(located, setup, max_length),
            "dtype": str(dtype) if dtype is not None else None,
            "parameters": files.n_parameters(),
            "memory_bytes": files.n_bytes(),
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
        located = locate(
            model,
            family=family,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        setup = set_up(located, options, None, chat_template)
        return serve_command(
            located.files,
            checked_read(located, setup),
            located.backbone,
            many=located.family.kind == "process",
            max_length=length_limit(located, setup, max_length),
            torch_dtype=torch_dtype,
            folder=None if folder is None else Path(folder),
            name=name,
        )


def _not_default(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The optional arguments of `AutoRM.load` that the caller changed; which model and engine is said apart."""
    given = {}
    for name, parameter in inspect.signature(AutoRM.load).parameters.items():
        optional = name not in ("model", "load_method", "family", "engine_options")
        if optional and arguments[name] is not parameter.default and arguments[name] != parameter.default:
            given[name] = arguments[name]
    return given
