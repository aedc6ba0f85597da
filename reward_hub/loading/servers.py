"""From an address to a model: our own server's, or a server of others and the checkpoint behind it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from reward_hub import registry
from reward_hub.errors import UnknownModelError
from reward_hub.http.client import ErrorOf, HttpClient, api_key_from
from reward_hub.http.dialects.base import Connection
from reward_hub.http.dialects.find import DIALECTS, find
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
