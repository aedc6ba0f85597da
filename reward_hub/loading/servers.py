"""From an address to a model: our own server's, or a server of others and the checkpoint behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reward_hub import registry
from reward_hub.base import BaseRM
from reward_hub.errors import RewardHubError, UnknownModelError, UnsupportedError
from reward_hub.http.client import ErrorOf, HttpClient, api_key_from
from reward_hub.http.dialects.base import Connection
from reward_hub.http.dialects.find import DIALECTS, find
from reward_hub.loading import judges
from reward_hub.loading.arguments import refuse_arguments
from reward_hub.loading.resolve import Located, locate, tokenizer_folder
from reward_hub.loops import run_sync
from reward_hub.models.remote_rm import RemoteRM, client_for, served_by

OWN = "reward_hub"
# Dialects whose servers can be sent token ids.
READS_TOKEN_IDS = frozenset({"vllm", "sglang", "lmdeploy"})
_FULL_PATHS = {"/get_reward": "openrlhf"}


def connect(
    api_base: str,
    model: str,
    *,
    dialect: str | None = None,
    api_key: str | None = None,
    aggregation: Any = None,
    **limits: Any,
) -> RemoteRM | Connection:
    """Reach a server and find out who it is.

    Args:
        api_base: its address; a `/v1` or `/get_reward` at the end is dropped.
        model: the served name; "" for the only one.
        dialect: what it speaks; None to ask it.
        limits: `timeout_s`, `max_retries` and `max_concurrency`.

    Raises:
        UnknownModelError: no such dialect.
        ServerError: nobody answers, or nobody that is understood.
    """
    if dialect is not None and dialect not in (*DIALECTS, OWN):
        known = [*DIALECTS, OWN]
        raise UnknownModelError(
            f"There is no dialect {dialect!r}. Known: {', '.join(known)}.", near=registry.nearest(dialect, known)
        )
    for ending, meant in _FULL_PATHS.items():
        if api_base.rstrip("/").endswith(ending):
            api_base, dialect = api_base.rstrip("/").removesuffix(ending), dialect or meant
    if dialect in (None, OWN):
        client = client_for(api_base, api_key=api_key, **limits)
        try:
            info = run_sync(served_by(client, model or None))
        except BaseException:
            client.close()
            raise
        if info is not None:
            return RemoteRM(client, info, model=model or None, aggregation=aggregation)
        client.close()
        if dialect == OWN:
            raise UnknownModelError(f"{client.address} answers, but is no reward-hub serve.")

    def make_client(error_of: ErrorOf | None) -> HttpClient:
        return HttpClient(api_base, api_key=api_key_from(api_key), error_of=error_of, **limits)

    return run_sync(find(make_client, model, dialect))


def checkpoint_names(connection: Connection, model: str, checkpoint: str | Path | None) -> list[str]:
    """Where the checkpoint behind a server may be: what the caller says, else the model's name, else what it names."""
    if checkpoint is not None:
        return [str(checkpoint)]
    named = [model, connection.served.root or ""]
    return [name for name in dict.fromkeys(named) if _may_be_checkpoint(name)]


def _may_be_checkpoint(name: str) -> bool:
    """A folder, or the form of a Hub id: a plain word is a served name and not looked up."""
    if not name:
        return False
    return Path(name).is_dir() or re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def served(
    model: str,
    server: Mapping[str, Any],
    ours: Mapping[str, tuple[Any, Any]],
    *,
    tokenizer: Any,
    chat_template: str | None,
    access: Mapping[str, Any],
) -> BaseRM | Located:
    """What stands behind a server: a finished model (ours, or a scorer), or the checkpoint that it holds.

    Args:
        ours: arguments that finished models cannot honour: name -> (value, default).
    """
    from reward_hub.models.scorer_rm import scorer
    from reward_hub.tokenizer import load_tokenizer

    api_base, checkpoint = server["api_base"], server["checkpoint"]
    if api_base is None:
        raise TypeError("load_method='api' needs api_base=, the server's address.")
    limits = {name: server[name] for name in ("dialect", "api_key", "timeout_s", "max_retries", "max_concurrency")}
    found = connect(api_base, model, aggregation=ours["aggregation"][0], **limits)
    if isinstance(found, RemoteRM):
        theirs = {
            "checkpoint": (checkpoint, None),
            "tokenizer": (tokenizer, None),
            "chat_template": (chat_template, None),
        }
        rest = {name: pair for name, pair in ours.items() if name != "aggregation"}
        try:
            refuse_arguments({**rest, **theirs}, "a reward-hub serve", "it is decided where the server is started")
        except TypeError:
            found.close()
            raise
        return found
    family, revision = ours["family"][0], ours["revision"][0]
    why = "no checkpoint is known (checkpoint= tells it)"
    for name in checkpoint_names(found, model, checkpoint):
        if family is None and (judge := judges.form_name_of(name, None, None, server["dialect"])) is not None:
            found.client.close()
            raise UnsupportedError(
                f"{api_base} serves {name}, a judge ({judge}), under another name. Load it with checkpoint={name!r}."
            )
        try:
            located = locate(name, family=family, revision=revision, **access)
        except RewardHubError as error:
            if checkpoint is not None:
                raise
            why = f"{name!r} is no checkpoint that is known here: {error.message}"
            continue
        if found.dialect.name in READS_TOKEN_IDS:
            located.connection, located.served_as = found, model or name
            return located
        if located.family.kind != "outcome":
            raise UnsupportedError(
                f"{located.family.name} is a {located.family.kind} family, and a {found.dialect.name} server gives one "
                "score a response. A vLLM server (reward-hub serve-args) or reward-hub serve can serve it."
            )
        if tokenizer is None:
            tokenizer = load_tokenizer(located.files.tokenizer_folder(), chat_template=chat_template)
        why = f"{found.dialect.name} servers take no token ids"
        family = None
        break
    named = {**ours, "family": (family, None)}
    refuse_arguments(named, "a server taken as a scorer of messages", why)
    if isinstance(tokenizer, (str, Path)):
        tokenizer = load_tokenizer(tokenizer_folder(str(tokenizer)), chat_template=chat_template)
    elif chat_template is not None and tokenizer is None:
        raise TypeError("chat_template= has no meaning without a tokenizer; give tokenizer= or checkpoint= too.")
    return scorer(found, name=model, tokenizer=tokenizer, why=why)


def served_reference(reference: str, server: Mapping[str, Any], family: str, access: Mapping[str, Any]) -> Located:
    """The reference model of an implicit reward: another name at the same address, or another address."""
    ours = {"family": (family, None), "revision": (None, None), "aggregation": (None, None)}
    elsewhere = reference.startswith(("http://", "https://"))
    place = {**server, "checkpoint": None, "api_base": reference if elsewhere else server["api_base"]}
    model = "" if elsewhere else reference
    try:
        found = served(model, place, ours, tokenizer=None, chat_template=None, access=access)
    except TypeError as error:
        raise UnknownModelError(f"The checkpoint of reference={reference!r} is not known here. {error}") from error
    if isinstance(found, BaseRM):
        found.close()
        raise UnsupportedError(f"reference={reference!r} does not give the log-probabilities of tokens.")
    return found
