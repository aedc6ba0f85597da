"""From a checkpoint whose family is known to a reward model: which engine runs it, and what it is made of."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reward_hub import registry
from reward_hub.aggregation import aggregation_name
from reward_hub.backends.base import Engine, EngineOptions
from reward_hub.backends.http_engine import HttpEngine
from reward_hub.base import BaseRM
from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.errors import RegistryError, UnsupportedError
from reward_hub.family import Setup
from reward_hub.loading.arguments import ENGINE, Arguments
from reward_hub.loading.lookalikes import refuse_others
from reward_hub.loading.resolve import ResolvedCheckpoint, checked_read, length_limit, resolve, set_up
from reward_hub.models import implicit_rm
from reward_hub.models.implicit_rm import ImplicitRM
from reward_hub.models.model_rm import LoadedModel, ModelRM
from reward_hub.models.pairwise_rm import PairwiseRM
from reward_hub.reads import Read
from reward_hub.types import Config

logger = logging.getLogger(__name__)

# Arguments by which a checkpoint is found; a reference model has those of its policy.
ACCESS = ("token", "cache_dir", "local_files_only", "trust_remote_code")
_ENGINE_OPTIONS = (
    *("torch_dtype", "device", "device_map", "attn_implementation", "quantization_config"),
    *("batch_size", "max_batch_tokens", "trust_remote_code", "tune"),
)
# Engine options that change numbers by more than rounding: they are part of the fingerprint. The others (memory,
# parallel workers, compilation) are not, so that a run may go on, and a cache serve, on another machine.
_NUMBER_CHANGING = frozenset(
    {
        *("attn_implementation", "quantization", "quantization_config"),
        *("load_format", "model_loader_extra_config", "model_weights"),
        *("kv_cache_dtype", "kv_cache_dtype_skip_layers", "mamba_cache_dtype", "mamba_ssm_cache_dtype"),
        *("hf_overrides", "model_class_overrides", "disable_sliding_window", "additional_config"),
        *("worker_cls", "worker_extension_cls"),
    }
)


@dataclass(frozen=True)
class ChosenEngine:
    """An engine, by which name it is known, and why it was chosen."""

    name: str
    engine: type[Engine]
    why: str


def load_here(arguments: Arguments) -> BaseRM:
    """A model whose weights are loaded into this process."""
    method = arguments.method
    arguments.check_read(ENGINE, method)
    if method != "auto":
        # Before anything is fetched.
        engine = registry.backend_class(method)
        _check_tune(arguments, method, engine)
        arguments.check_engine_options(engine.known_options(), method)
    arguments.check_values()
    checkpoint = resolve(
        arguments["model"],
        family=family_asked_for(arguments),
        **arguments.some("revision", "adapter", "tokenizer", *ACCESS),
    )

    def choose(setup: Setup) -> ChosenEngine:
        chosen = _choose(method, checkpoint, checked_read(checkpoint, setup))
        arguments.check_engine_options(chosen.engine.known_options(), chosen.name)
        _check_tune(arguments, chosen.name, chosen.engine)
        if checkpoint.recognised and checkpoint.files.folder is None:
            checkpoint.files.fetch()
            refuse_others(checkpoint.name, checkpoint.family, checkpoint.files, lambda: setup.tokenizer)
        return chosen

    def reference() -> ResolvedCheckpoint:
        access = arguments.some(*ACCESS)
        return resolve(arguments["reference"], family=checkpoint.family.name, revision=None, **access)

    return assemble(arguments, checkpoint, choose, reference)


def _check_tune(arguments: Arguments, name: str, engine: type[Engine]) -> None:
    if arguments["tune"] and not engine.tunes:
        raise TypeError(f"tune=True has no meaning for {name}: it belongs to load_method='transformers'.")


def family_asked_for(arguments: Arguments) -> str | None:
    """The family that the arguments name; a model beside a reference is an implicit reward, unless its id says more."""
    family: str | None = arguments["family"]
    if family is None and arguments["reference"] is not None and registry.family_of_id(arguments.model) is None:
        return implicit_rm.DEFAULT_FAMILY
    return family


def assemble(
    arguments: Arguments,
    checkpoint: ResolvedCheckpoint,
    choose: Callable[[Setup], ChosenEngine],
    resolve_reference: Callable[[], ResolvedCheckpoint],
) -> BaseRM:
    """The reward model over a checkpoint.

    Args:
        choose: the engine for the checkpoint with this setup.
        resolve_reference: finds the checkpoint of the `reference` argument; not called where none is needed.
    """
    family = checkpoint.family
    implicit_rm.check_arguments(family, **arguments.some("reference", "beta", "length_normalize", "options"))
    if arguments["aggregation"] is not None and family.kind != "process":
        raise TypeError(
            f"aggregation={arguments['aggregation']!r}: {family.name} is not a process family, it has no steps."
        )
    setup = _set_up(arguments, checkpoint)
    chosen = choose(setup)
    commit = _commit(arguments, checkpoint.files)
    behind = None if checkpoint.connection is None else checkpoint.name
    if not implicit_rm.is_implicit(family):
        model = _start(arguments, checkpoint, setup, chosen)
        return arguments.remember(
            (PairwiseRM if family.kind == "pairwise" else ModelRM)(model), commit=commit, checkpoint=behind
        )
    reference = None
    if arguments["reference"] is not None and implicit_rm.needs_no_reference(arguments["options"]):
        logger.info("reference_free=True: %s is not loaded.", arguments["reference"])
    elif arguments["reference"] is not None:
        beside = resolve_reference()
        reference = beside, _set_up(arguments, beside)
        implicit_rm.check_tokenizers(family, setup, reference[1])
    policy = _start(arguments, checkpoint, setup, chosen)
    partner = None if reference is None else _start(arguments, *reference, chosen)
    rm = ImplicitRM(policy, partner, **arguments.some("beta", "length_normalize"))
    return arguments.remember(rm, commit=commit, checkpoint=behind)


def _commit(arguments: Arguments, files: CheckpointFiles) -> str | None:
    """The commit of what `model` names: of the adapter, where that names an adapter, which in turn names its base."""
    adapter_alone = files.adapter is not None and arguments["adapter"] is None
    return files.adapter.revision if adapter_alone and files.adapter is not None else files.revision


def _set_up(arguments: Arguments, checkpoint: ResolvedCheckpoint) -> Setup:
    return set_up(checkpoint, arguments["options"], arguments["tokenizer"], arguments["chat_template"])


def _start(arguments: Arguments, checkpoint: ResolvedCheckpoint, setup: Setup, chosen: ChosenEngine) -> LoadedModel:
    """The engine with the checkpoint's weights."""
    family = checkpoint.family
    limit = length_limit(checkpoint, setup, arguments["max_length"])
    connection = checkpoint.connection
    backend = chosen.engine.load(
        checkpoint.files,
        checked_read(checkpoint, setup),
        backbone=checkpoint.backbone,
        tokenizer=setup.tokenizer,
        options=EngineOptions(
            **arguments.some(*_ENGINE_OPTIONS),
            max_length=limit,
            many_positions=family.reads_every_step and family.kind == "process",
            extra=arguments.engine_options if connection is None else {"connection": connection},
        ),
    )
    if backend.max_length is not None:
        limit = backend.max_length if limit is None else min(limit, backend.max_length)
    logger.info(
        "Loaded %s as %s (%s) on %s (%s), %s on %s.",
        *(checkpoint.name, family.name, checkpoint.why, chosen.name, chosen.why),
        *(backend.info.dtype, backend.info.device),
    )
    if family.n_passed_over(setup):
        logger.info("%s: %s.", checkpoint.name, family.reads_at(setup))
    aggregation = arguments["aggregation"]
    return LoadedModel(
        name=checkpoint.served_as or checkpoint.name,
        family=family,
        setup=setup,
        backend=backend,
        max_length=limit,
        truncation=arguments["truncation"],
        on_dropped=arguments["on_dropped"],
        revision=checkpoint.files.revision,
        weights_id=checkpoint.files.fingerprint,
        aggregation=None if aggregation is None else aggregation_name(aggregation),
        batch_size=arguments["batch_size"],
        numerics=_number_changing(arguments),
        loaded=_found_out(checkpoint),
    )


def _found_out(checkpoint: ResolvedCheckpoint) -> dict[str, Any]:
    """What is worth saying of how the checkpoint was read; entries that say nothing are left out."""
    files = checkpoint.files
    report = {
        "family_told_by": checkpoint.why,
        "revision": files.revision,
        "adapter_from": None if files.adapter is None else files.adapter.id,
        "left_aside": files.left_aside,
    }
    return {name: value for name, value in report.items() if value}


def _number_changing(arguments: Arguments) -> dict[str, Any]:
    """Settings of the engine that belong to the fingerprint."""
    settings = {**arguments.some("quantization_config", "attn_implementation"), **arguments.engine_options}
    return {name: value for name, value in settings.items() if name in _NUMBER_CHANGING and value is not None}


# -- which engine ------------------------------------------------------------------------------------------------------


def _choose(method: str, checkpoint: ResolvedCheckpoint, read: Read) -> ChosenEngine:
    """The engine that was asked for, or with "auto" vLLM where it can run the checkpoint, else transformers.

    Raises:
        UnsupportedError: the engine that was asked for cannot run it.
    """
    if method == "auto":
        name, why = "vllm", "vLLM is installed, a GPU is there and it serves this model"
        if importlib.util.find_spec("vllm") is None or not _gpu_there():
            name, why = "transformers", "load_method='auto' and no vLLM with a GPU here"
        elif (reason := _why_not(registry.backend_class("vllm"), checkpoint, read)) is not None:
            name, why = "transformers", reason
        return ChosenEngine(name, registry.backend_class(name), why)
    engine = registry.backend_class(method)
    if (reason := _why_not(engine, checkpoint, read)) is not None:
        others = [name for name in backends_of(checkpoint, read) if name not in (method, "api")]
        advice = f" Load it with load_method={' or '.join(map(repr, others))}." if others else ""
        raise UnsupportedError(f"{reason}.{advice}")
    return ChosenEngine(method, engine, "load_method said so")


def backends_of(checkpoint: ResolvedCheckpoint, read: Read) -> list[str]:
    """Names of the backends that can run this checkpoint."""
    engines = _engines(registry.backend_names())
    return [name for name, engine in engines if _why_not(engine, checkpoint, read) is None]


def backends_for(model_types: Sequence[str]) -> list[str]:
    """Names of the built-in backends that can run checkpoints of one of these model types; with none given, of some."""
    configs: list[Config] = [{"model_type": model_type} for model_type in model_types]
    return [
        name
        for name, engine in _engines(registry.BUILTIN_BACKENDS)
        if not configs or any(engine.why_not(config) is None for config in configs)
    ]


def _why_not(engine: type[Engine], checkpoint: ResolvedCheckpoint, read: Read) -> str | None:
    files = checkpoint.files
    return engine.why_not(files.config, read, backbone=checkpoint.backbone, adapter=files.adapter is not None)


def _engines(names: Iterable[str]) -> list[tuple[str, type[Engine]]]:
    """Engines with their names, and servers of others as the last; what is registered and not installed is left out."""
    engines: list[tuple[str, type[Engine]]] = []
    for name in names:
        try:
            engines.append((name, registry.backend_class(name)))
        except (ImportError, RegistryError) as error:
            logger.warning("The backend %s is left out: %s", name, error)
    return [*engines, ("api", HttpEngine)]


def _gpu_there() -> bool:
    import torch

    return bool(torch.cuda.is_available())
