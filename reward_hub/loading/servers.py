"""From an address to a model: our own server's, or a server of others and the checkpoint behind it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from reward_hub import registry
from reward_hub.backends.http_engine import HttpEngine
from reward_hub.base import BaseRM
from reward_hub.errors import RewardHubError, UnknownModelError, UnsupportedError
from reward_hub.http.client import ErrorOf, HttpClient, api_key_from
from reward_hub.http.dialects.base import Connection
from reward_hub.http.dialects.find import DIALECTS, find
from reward_hub.loading import judges
from reward_hub.loading.arguments import OURS, SCORER, SERVED, Arguments
from reward_hub.loading.engine import ACCESS, ChosenEngine, assemble, family_asked_for
from reward_hub.loading.resolve import ResolvedCheckpoint, resolve, set_up, tokenizer_folder
from reward_hub.loops import run_sync
from reward_hub.models.remote_rm import RemoteRM, client_for, served_by
from reward_hub.models.scorer_rm import scorer
from reward_hub.plugins import did_you_mean
from reward_hub.tokenizer import load_tokenizer

# Arguments by which a server is reached.
_REACH = ("dialect", "api_key", "timeout_s", "max_retries", "max_concurrency")
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
            f"There is no dialect {dialect!r}.{did_you_mean(dialect, known)} Known: {', '.join(known)}.",
            near=registry.nearest(dialect, known),
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
            raise UnknownModelError(f"{client.address} answers, but is not a reward-hub serve.")

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


def load_served(arguments: Arguments) -> BaseRM:
    """A model whose weights a server holds."""
    arguments.check_read(SERVED, "api", "the server has started the model already")
    arguments.check_engine_options(frozenset(), "api")
    arguments.check_values()
    if arguments["api_base"] is None:
        raise TypeError("load_method='api' needs api_base=, the server's address.")
    behind = _behind(arguments, family_asked_for(arguments))
    if isinstance(behind, BaseRM):
        return arguments.remember(behind)
    engine = ChosenEngine("api", HttpEngine, "token ids are sent")
    return assemble(arguments, behind, lambda setup: engine, lambda: _reference_behind(arguments, behind.family.name))


def _behind(arguments: Arguments, family: str | None) -> BaseRM | ResolvedCheckpoint:
    """What stands behind a server: a finished model (ours, or a scorer), or the checkpoint that it holds."""
    reached = connect(
        arguments["api_base"], arguments.model, aggregation=arguments["aggregation"], **arguments.some(*_REACH)
    )
    try:
        if isinstance(reached, Connection):
            return _behind_foreign(reached, arguments, family)
        arguments.check_read(OURS, "a reward-hub serve", "it is decided where the server is started")
        return reached
    except BaseException:
        (reached.client if isinstance(reached, Connection) else reached).close()
        raise


def _behind_foreign(connection: Connection, arguments: Arguments, family: str | None) -> BaseRM | ResolvedCheckpoint:
    """The checkpoint that a server of others holds, where it is known and is sent token ids; else a scorer."""
    checkpoint, why = _checkpoint_behind(connection, arguments, family)
    dialect = connection.dialect.name
    if checkpoint is not None:
        if dialect in READS_TOKEN_IDS:
            return replace(checkpoint, connection=connection, served_as=arguments.model or checkpoint.name)
        if checkpoint.family.kind != "outcome":
            raise UnsupportedError(
                f"{checkpoint.family.name} is a {checkpoint.family.kind} family, and a {dialect} server gives one "
                "score a response. A vLLM server (reward-hub serve-args) or reward-hub serve can serve it."
            )
        _require_last(checkpoint, arguments, dialect)
        why, arguments = f"{dialect} servers take no token ids", arguments.but(family=None)
    arguments.check_read(SCORER, "a server taken as a scorer of messages", why)
    tokenizer = _scorers_tokenizer(arguments, checkpoint)
    return scorer(connection, name=arguments.model, tokenizer=tokenizer, why=why)


def _require_last(checkpoint: ResolvedCheckpoint, arguments: Arguments, dialect: str) -> None:
    """A server that is sent text reads where it likes, which is the last token for all that is known.

    Raises:
        UnsupportedError: the checkpoint is read before the end.
    """
    if not checkpoint.family.stock_classifier:
        return
    setup = set_up(checkpoint, None, arguments["tokenizer"], arguments["chat_template"])
    if checkpoint.family.n_passed_over(setup):
        raise UnsupportedError(
            f"{checkpoint.name}: {checkpoint.family.reads_at(setup)}. Where a {dialect} server reads cannot be "
            "told it. A vLLM server (reward-hub serve-args) or reward-hub serve can serve it."
        )


def _checkpoint_behind(
    connection: Connection, arguments: Arguments, family: str | None
) -> tuple[ResolvedCheckpoint | None, str]:
    """The checkpoint that a server holds; None, and why, where it is not known."""
    given, why = arguments["checkpoint"], "no checkpoint is known (checkpoint= tells it)"
    for name in checkpoint_names(connection, arguments.model, given):
        form = judges.form_name_of(name, None, None, arguments["dialect"]) if family is None else None
        if form is not None:
            raise UnsupportedError(
                f"{arguments['api_base']} serves {name}, a judge ({form}), under another name. Load it with "
                f"checkpoint={name!r}."
            )
        try:
            return resolve(name, family=family, **arguments.some("revision", "tokenizer", *ACCESS)), ""
        except RewardHubError as error:
            if given is not None:
                raise
            why = f"{name!r} is not a checkpoint that is known here: {error.message}"
    return None, why


def _scorers_tokenizer(arguments: Arguments, checkpoint: ResolvedCheckpoint | None) -> Any:
    """What renders the conversation, where it is not the server: the caller's tokenizer, else the checkpoint's."""
    tokenizer, template = arguments["tokenizer"], arguments["chat_template"]
    if tokenizer is None and checkpoint is not None:
        return load_tokenizer(checkpoint.files.tokenizer_folder(), chat_template=template)
    if isinstance(tokenizer, (str, Path)):
        return load_tokenizer(tokenizer_folder(str(tokenizer)), chat_template=template)
    if template is not None:
        raise TypeError("chat_template= goes with a tokenizer by name; give tokenizer= or checkpoint= too.")
    return tokenizer


def _reference_behind(arguments: Arguments, family: str) -> ResolvedCheckpoint:
    """The reference model of an implicit reward: another name at the same address, or another address."""
    reference = str(arguments["reference"])
    elsewhere = reference.startswith(("http://", "https://"))
    place = {"model": "", "api_base": reference} if elsewhere else {"model": reference}
    try:
        behind = _behind(arguments.only("api_base", *_REACH, *ACCESS).but(family=family, **place), family)
    except TypeError as error:
        raise UnknownModelError(f"The checkpoint of reference={reference!r} is not known here. {error}") from error
    if isinstance(behind, BaseRM):
        behind.close()
        raise UnsupportedError(f"reference={reference!r} does not give the log-probabilities of tokens.")
    return behind
