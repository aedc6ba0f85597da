"""Which dialect a server speaks: what it says of itself, else how it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from reward_hub.errors import ServerError
from reward_hub.http.client import ErrorOf, HttpClient
from reward_hub.http.dialects import lmdeploy, nim, openrlhf, sglang, tei, vllm
from reward_hub.http.dialects.base import Connection, Served

# Those that say who they are first; OpenRLHF and NIM are told by asking for a score.
DIALECTS = {d.name: d for d in (m.DIALECT for m in (vllm, sglang, lmdeploy, tei, nim, openrlhf))}

MakeClient = Callable[[ErrorOf | None], HttpClient]


async def find(make_client: MakeClient, model: str, dialect: str | None) -> Connection:
    """Connect to a server, of the dialect given or of the first that fits.

    Raises:
        ServerError: nobody answers, the key is refused, the model is not served, or no dialect fits.
    """
    client = make_client(None)
    try:
        for candidate in [DIALECTS[dialect]] if dialect is not None else DIALECTS.values():
            served = await candidate.recognise(client, model)
            if served is None and dialect is not None:
                # What was said is believed; the first score will show it.
                served = Served(model)
            if served is not None:
                return Connection(make_client(candidate.error_of), candidate, _within(served))
    finally:
        client.close()
    raise ServerError(
        f"{client.address} answers like none of the servers that are known ({', '.join(DIALECTS)}, reward_hub). Say "
        "which it is with dialect=."
    )


def _within(served: Served) -> Served:
    return dataclasses.replace(served, max_length=served.max_length if (served.max_length or 0) > 0 else None)
