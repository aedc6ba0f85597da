"""`reward-hub serve`: a reward model over HTTP."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from reward_hub.cli.option_groups import LoadOptions, LogOptions, load_model
from reward_hub.cli.usage import UsageError

PLACE_IN_HELP = 100

logger = logging.getLogger(__name__)

_SERVER = "Server"
_QUEUE = "Queue"
_LOCAL = ("127.0.0.1", "::1", "localhost")


def run(
    model: Annotated[str, typer.Argument(help="A hub id, a local folder, or a built-in model.")],
    *,
    host: Annotated[str, typer.Option(help="0.0.0.0 is every network.", rich_help_panel=_SERVER)] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.", rich_help_panel=_SERVER)] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="REWARD_HUB_API_KEY",
            show_envvar=True,
            help="Ask every request but /health for this key. Others can read it in the process list; the "
            "environment variable they cannot.",
            rich_help_panel=_SERVER,
        ),
    ] = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="The name that clients ask for.", rich_help_panel=_SERVER)
    ] = None,
    drain_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds that requests may take to end after SIGTERM.", rich_help_panel=_SERVER)
    ] = 30.0,
    max_body_mb: Annotated[
        float, typer.Option(min=0.001, help="Size of a request; beyond: 413.", rich_help_panel=_SERVER)
    ] = 32.0,
    max_batch_size: Annotated[
        int, typer.Option(min=1, help="Conversations scored together; 1: no batching.", rich_help_panel=_QUEUE)
    ] = 64,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, help="How long a conversation waits for others.", rich_help_panel=_QUEUE)
    ] = 3.0,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Conversations that may wait; beyond: 429.", rich_help_panel=_QUEUE)
    ] = 2048,
    load: LoadOptions,
    log: LogOptions,
) -> None:
    """Serve a model over HTTP until SIGTERM or Ctrl-C.

    Routes: `/v1/score`, `/v1/score_steps`, `/v1/compare`, `/v1/rank`, `/v1/models`, `/health`, `/ready`, `/metrics`,
    `/docs`; and for clients of other servers `/classify` and `/pooling` (vLLM), `/predict` (TEI), `/get_reward`
    (OpenRLHF). In Python: `AutoRM.load(NAME, load_method="api", api_base="http://HOST:PORT")`.
    """
    from reward_hub.server.run import require_address, serve
    from reward_hub.server.service import ServeOptions

    if api_key is not None and not api_key.strip():
        raise UsageError("--api-key is empty.")
    if api_key is None and host not in _LOCAL:
        logger.warning("Everybody who reaches %s can use this server; set an api key to prevent that.", host)
    options = ServeOptions(
        api_key=api_key,
        served_name=served_model_name,
        max_batch_size=max_batch_size,
        max_wait_s=max_wait_ms / 1000,
        max_queue=max_queue,
        max_body_bytes=round(max_body_mb * 2**20),
    )
    require_address(host, port)
    with load_model(model, load) as rm:
        complete = serve(rm, options, host=host, port=port, drain_s=drain_timeout, on_ready=_say(model))
    if not complete:
        print("error: requests were cut off when --drain-timeout was over", file=sys.stderr)
        sys.exit(1)


def _say(model: str) -> Callable[[str], None]:
    return lambda address: print(f"Serving {model} on {address}", flush=True)
