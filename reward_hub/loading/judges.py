"""`AutoRM.load` for published judges: which form a name means, and what of its arguments a judge understands."""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from reward_hub import registry
from reward_hub.errors import UnknownModelError, UnsupportedError, missing_dependency
from reward_hub.judge.published import form_named, form_of_checkpoint, names
from reward_hub.loading.arguments import JUDGE_API, JUDGE_VLLM, Arguments
from reward_hub.plugins import did_you_mean

if TYPE_CHECKING:
    from reward_hub.judge.llm_judge import LLMJudge

logger = logging.getLogger(__name__)

# Arguments of `AutoRM.load` that vLLM takes: its names for them.
_VLLM_NAMES = {
    "revision": "revision",
    "tokenizer": "tokenizer",
    "torch_dtype": "dtype",
    "trust_remote_code": "trust_remote_code",
    "max_length": "max_model_len",
    "cache_dir": "download_dir",
    "token": "hf_token",
}
# Arguments of `LLMJudge` that are said otherwise here.
_SAID_OTHERWISE = {
    "rubric": "Give options={'rubric': ...}, where the form has one.",
    "use_logprobs": "Give options={'use_logprobs': ...}, where the form has it.",
    "mode": "family= names the form (`reward-hub families`), and with it the mode.",
    "form": "family= names the form (`reward-hub families`).",
    "engine_options": "Give the engine's options by their names.",
}


def form_name_of(model: str, family: str | None, checkpoint: object, dialect: str | None) -> str | None:
    """The published form that `AutoRM.load`'s arguments mean; None where they mean no judge.

    A `dialect` says that the server scores, whatever model it serves.

    Raises:
        UnknownModelError: there is no such `family`, and a judge has the most similar name.
    """
    if dialect is not None:
        return None
    if family is not None:
        _check_spelling(family)
        return family if family in names() else None
    form = form_of_checkpoint(model if checkpoint is None else str(checkpoint))
    return None if form is None else form.name


def _check_spelling(family: str) -> None:
    """Whoever misspells a judge is told of judges, not of the other families."""
    if family in names():
        return
    try:
        registry.family_named(family)
    except UnknownModelError as error:
        near = registry.nearest(family, [*names(), *(other.name for other in registry.families())])
        if near and near[0] in names():
            raise UnknownModelError(
                f"There is no family {family!r}. Did you mean {' or '.join(near)}?", near=near
            ) from error


def load_judge(form_name: str, arguments: Arguments) -> LLMJudge:
    """A published judge on an endpoint or on vLLM; nothing is called or started yet.

    Its engine options are the arguments of `LLMJudge` that `AutoRM.load` does not have, and for vLLM the engine's.

    Raises:
        UnsupportedError: an engine that writes no text.
        TypeError: an argument without meaning for a judge there.
    """
    from reward_hub.judge.llm_judge import LLMJudge

    model, method = arguments.model, arguments.method
    has_vllm = importlib.util.find_spec("vllm") is not None
    if method == "auto":
        method = "vllm" if has_vllm else "transformers"
    if method not in ("api", "vllm"):
        raise UnsupportedError(
            f"{model} is a judge, which writes its verdict ({form_name}), and {method} writes no text. Load it with "
            "load_method='api' and api_base=, the address of an OpenAI-compatible server, or with load_method='vllm'"
            + ("." if has_vllm else " (pip install 'reward_hub[vllm]').")
        )
    arguments.check_read(JUDGE_API if method == "api" else JUDGE_VLLM, f"a judge on {method}")
    form = form_named(form_name, arguments["options"])
    own = _own_options(arguments)
    judge_options = {name: value for name, value in arguments.engine_options.items() if name in own}
    engine_options = {name: value for name, value in arguments.engine_options.items() if name not in own}
    given = arguments.given
    shared = {name: given[name] for name in ("aggregation", "max_concurrency") if name in given}
    if method == "api":
        if "api_base" not in given:
            raise TypeError("load_method='api' needs api_base=, the server's address.")
        _check_names(engine_options, own, "a judge at an endpoint")
        place: dict[str, Any] = {name: given[name] for name in ("api_key", "timeout_s", "max_retries") if name in given}
        place["api_base"] = _with_version(given["api_base"])
    else:
        place = {"load_method": "vllm", "engine_options": _for_vllm(given, engine_options, own)}
    judge = LLMJudge(model, form=form, **place, **shared, **judge_options)
    logger.info("Loaded %r; nothing runs before the first judgement.", judge)
    return arguments.remember(judge)


def _own_options(arguments: Arguments) -> frozenset[str]:
    """The arguments of `LLMJudge` that are given to `AutoRM.load` by their own names."""
    from reward_hub.judge.llm_judge import LLMJudge

    named = {name for name in inspect.signature(LLMJudge).parameters if name not in arguments}
    return frozenset(named - _SAID_OTHERWISE.keys())


def describe_load(model: str, form_name: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `AutoRM.inspect` says of a judge: its form alone, since its files are not looked at."""
    from reward_hub.judge.llm_judge import KINDS

    form = form_named(form_name, options)
    published = form_of_checkpoint(model)
    why = "the published id" if published is not None and published.name == form_name else f"family={form_name!r}"
    return {
        "model": model,
        "revision": None,
        "family": form.name,
        "kind": KINDS[form.mode],
        "why": why,
        "source": form.source,
        "head": {},
        "read": f"the verdict in its reply ({form.mode} judge)",
        "backends": ["vllm", "api"],
        **dict.fromkeys(("positions", "read_tokens", "template")),
        **dict.fromkeys(("max_length", "dtype", "parameters", "memory_bytes", "left_aside", "adapter")),
    }


def _with_version(api_base: str) -> str:
    """A bare host gets the /v1 that OpenAI-compatible servers answer under."""
    bare = urlsplit(api_base).path in ("", "/")
    return f"{api_base.rstrip('/')}/v1" if bare else api_base


def _for_vllm(given: Mapping[str, Any], options: Mapping[str, Any], own: frozenset[str]) -> dict[str, Any]:
    """The engine's arguments."""
    if importlib.util.find_spec("vllm") is None:
        raise missing_dependency("vLLM", "vllm", "load_method='vllm'")
    from reward_hub.backends.vllm.options import option_names

    _check_names(options, own | option_names(), "a judge on vllm")
    named = {vllm_name: given[name] for name, vllm_name in _VLLM_NAMES.items() if name in given}
    if twice := sorted(set(named) & set(options)):
        raise TypeError(f"{', '.join(twice)} is given twice: as vLLM's option and as AutoRM.load's argument.")
    if "dtype" in named:
        named["dtype"] = str(named["dtype"]).removeprefix("torch.")
    return {**named, **options}


def _check_names(options: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    for name in options:
        if name not in known:
            hint = did_you_mean(name, sorted(known)) or f" Known: {', '.join(sorted(known))}."
            raise TypeError(f"{where} has no option {name!r}. {_SAID_OTHERWISE.get(name, hint.strip())}")
