"""The private event loop that synchronous calls of asynchronous models run in."""

from __future__ import annotations

import subprocess
import sys

LEFT_OPEN = """
from reward_hub.loops import run_sync
from reward_hub.loops import PerLoop

async def aclose(value):
    print("closed", value)

connections = PerLoop(lambda: 7, aclose)
run_sync(connections.get())
"""


def test_what_was_left_open_is_closed_in_silence_when_the_interpreter_ends() -> None:
    ended = subprocess.run([sys.executable, "-W", "error", "-c", LEFT_OPEN], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("closed 7\n", "")
