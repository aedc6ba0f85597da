"""Serves a model whose scores are known without computing anything heavy: `python served_models.py '{"port": 0}'`.

The response decides: "sleep 0.2 ..." takes that long, "nan ..." gives NaN, "fail ..." raises.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from typing import Any

from reward_hub.base import BaseRM
from reward_hub.errors import InputTooLongError
from reward_hub.reward_model import CallOptions, Result
from reward_hub.server.run import serve
from reward_hub.server.service import ServeOptions


def score_of(text: str) -> float:
    """A score with many digits that only this text has."""
    return zlib.crc32(text.encode()) / 1e7 + 0.1


class KnownRM(BaseRM):
    """One score a response, from its text."""

    name = "known"

    def score(self, messages: Any, **options: Any) -> float:
        word, _, rest = messages[-1]["content"].partition(" ")
        if word == "sleep":
            time.sleep(float(rest.split()[0]))
        if word == "nan":
            return float("nan")
        if word == "fail":
            raise RuntimeError(f"cannot score {rest}")
        if word == "long":
            raise InputTooLongError("too long", n_tokens=9000, max_length=512)
        return score_of(messages[-1]["content"])


class BatchedRM(KnownRM):
    """The same with a cost for each batch, as an engine has; a bad item spoils the whole batch."""

    name = "batched"

    def score_conversations(self, conversations: Any, options: CallOptions) -> list[Result]:
        time.sleep(0.05)
        return [self._own_details(KnownRM.score(self, [m.to_dict() for m in c.messages])) for c in conversations]


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    rm = {"known": KnownRM, "batched": BatchedRM}[arguments.pop("rm", "known")]()
    place = {name: arguments.pop(name) for name in ("port", "drain_s") if name in arguments}
    complete = serve(
        rm, ServeOptions(**arguments), on_ready=lambda address: print("Serving on", address, flush=True), **place
    )
    sys.exit(0 if complete else 1)
