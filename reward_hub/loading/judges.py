"""`AutoRM.load` for published judges: which form a name means, and what of its arguments a judge understands."""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from reward_hub.errors import UnknownModelError, UnsupportedError, missing_dependency
from reward_hub.judge.published import form_named, form_of_checkpoint, names

if TYPE_CHECKING:
    from reward_hub.judge.llm_judge import LLMJudge

logger = logging.getLogger(__name__)

# Arguments of LLMJudge that `AutoRM.load` has under its own names, or that a published form decides.
_NOT_OPTIONS = frozenset(
    {
        *("self", "model", "rubric", "mode", "form", "use_logprobs", "load_method", "engine_options"),
        *("api_base", "api_key", "aggregation", "timeout_s", "max_retries", "max_concurrency"),
    }
)
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
_ENDPOINT = ("api_key", "timeout_s", "max_retries")
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
    from reward_hub import registry

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


def load_judge(
    model: str, form_name: str, method: str, *, given: Mapping[str, Any], extra: Mapping[str, Any]
) -> LLMJudge:
    """A published judge on an endpoint or on vLLM; nothing is called or started yet.

    Args:
        method: "api", "vllm" or "auto" (no address is given: vLLM, where it is installed).
        given: `AutoRM.load`'s arguments that are not at their defaults.
        extra: its engine options: those of `LLMJudge`, and for vLLM the engine's.

    Raises:
        UnsupportedError: an engine that writes no text.
        TypeError: an argument without meaning for a judge there.
    """
    from reward_hub.judge.llm_judge import LLMJudge

    has_vllm = importlib.util.find_spec("vllm") is not None
    if method == "auto":
        method = "vllm" if has_vllm else "transformers"
    if method not in ("api", "vllm"):
        raise UnsupportedError(
            f"{model} is a judge, which writes its verdict ({form_name}), and {method} writes no text. Load it with "
            "load_method='api' and api_base=, the address of an OpenAI-compatible server, or with load_method='vllm'"
            + ("." if has_vllm else " (pip install 'reward_hub[vllm]').")
        )
    given = dict(given)
    form = form_named(form_name, given.pop("options", None))
    own = frozenset(inspect.signature(LLMJudge.__init__).parameters) - _NOT_OPTIONS
    judge_options = {name: value for name, value in extra.items() if name in own}
    engine_options = {name: value for name, value in extra.items() if name not in own}
    shared = {name: given.pop(name) for name in ("aggregation", "max_concurrency") if name in given}
    if method == "api":
        given.pop("checkpoint", None)
        if "api_base" not in given:
            raise TypeError("load_method='api' needs api_base=, the server's address.")
        place = {name: given.pop(name) for name in _ENDPOINT if name in given}
        place["api_base"] = _with_version(given.pop("api_base"))
        _check_names(engine_options, own, "a judge at an endpoint")
    else:
        place = {"load_method": "vllm", "engine_options": _for_vllm(given, engine_options, own)}
    _refuse(given, f"a judge on {method}")
    judge = LLMJudge(model, form=form, **place, **shared, **judge_options)
    logger.info("Loaded %r; nothing runs before the first judgement.", judge)
    return judge


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
        "template": None,
        "backends": ["vllm", "api"],
        **dict.fromkeys(("max_length", "dtype", "parameters", "memory_bytes")),
    }


def _with_version(api_base: str) -> str:
    """A bare host gets the /v1 that OpenAI-compatible servers answer under."""
    bare = urlsplit(api_base).path in ("", "/")
    return f"{api_base.rstrip('/')}/v1" if bare else api_base


def _for_vllm(given: dict[str, Any], options: Mapping[str, Any], own: frozenset[str]) -> dict[str, Any]:
    """The engine's arguments; those that it takes are removed from `given`."""
    if importlib.util.find_spec("vllm") is None:
        raise missing_dependency("vLLM", "vllm", "load_method='vllm'")
    from reward_hub.backends.vllm.options import option_names

    _check_names(options, own | option_names(), "a judge on vllm")
    named = {vllm_name: given.pop(name) for name, vllm_name in _VLLM_NAMES.items() if name in given}
    if twice := sorted(set(named) & set(options)):
        raise TypeError(f"{', '.join(twice)} is given twice: as vLLM's option and as AutoRM.load's argument.")
    if "dtype" in named:
        named["dtype"] = str(named["dtype"]).removeprefix("torch.")
    return {**named, **options}


def _check_names(options: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    from reward_hub.registry import nearest

    for name in options:
        if name not in known:
            near = nearest(name, sorted(known))
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."
            raise TypeError(f"{where} has no option {name!r}. {_SAID_OTHERWISE.get(name, hint)}")


def _refuse(given: Mapping[str, Any], where: str) -> None:
    for name, value in given.items():
        raise TypeError(f"{name}={'...' if name in ('api_key', 'token') else repr(value)} has no meaning for {where}.")
