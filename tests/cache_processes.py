"""What tests/cache/test_store.py does to a cache from processes of their own; each prints JSON."""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import signal
import sys
import time

from reward_hub import BaseRM, CacheError
from reward_hub.cache.cached_rm import CachedRM
from reward_hub.cache.store import ScoreStore


class LengthRM(BaseRM):
    def score(self, messages):
        return len(messages[-1]["content"]) / 100


def conversation(n: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a" * n}]


def mixed(folder: str, seed: str) -> None:
    """1,000 calls of one or several conversations, of which all processes choose the same few hundred."""
    chance = random.Random(int(seed))
    print("ready", flush=True)
    sys.stdin.readline()
    asked: set[int] = set()
    wrong = 0
    with CachedRM(LengthRM(), cache_dir=folder, fingerprint="mixed", on_corrupt="raise") as rm:
        for _ in range(1000):
            numbers = [chance.randint(1, 400) for _ in range(chance.choice((1, 1, 1, 5)))]
            asked.update(numbers)
            wrong += rm.score_batch([conversation(n) for n in numbers]) != [n / 100 for n in numbers]
        print(json.dumps({"calls": 1000, "wrong": wrong, "errors": rm.stats()["errors"], "asked": sorted(asked)}))


def killed(folder: str, times: str) -> None:
    """Kill a process that writes, again and again; how many entries each said it had stored."""
    told = []
    for run in range(int(times)):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            write_for_ever(folder, run, writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as stored:
            first = stored.readline()  # it is writing by now
            time.sleep(random.Random(run).uniform(0.0, 0.05))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            # The last line may be torn.
            told.append(len((first + stored.read()).split(b"\n")) - 1)
    print(json.dumps(told))


def write_for_ever(folder: str, run: int, writer: int) -> None:
    store = ScoreStore(folder, on_corrupt="raise")
    i = 0
    while True:
        store.set_many({f"{run}-{i}": json.dumps([run, i])})
        os.write(writer, b"stored\n")
        i += 1


def forked(folder: str) -> None:
    """A child uses the object that its parent goes on using."""
    rm = CachedRM(LengthRM(), cache_dir=folder, on_corrupt="raise")
    rm.score(conversation(1))
    pid = os.fork()
    if pid == 0:
        _, details = rm.score(conversation(1), return_details=True)
        rm.score(conversation(2))
        os._exit(0 if details["cached"] else 1)
    code = os.waitpid(pid, 0)[1]
    parent = [rm.score(conversation(n), return_details=True)[1]["cached"] for n in (1, 2)]
    print(json.dumps({"parent": parent, "child": code, "entries": rm.stats()["entries"]}))
    rm.close()


def full(folder: str, on_corrupt: str) -> None:
    """Score beyond what the process may write."""
    logging.basicConfig(stream=sys.stderr)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    numbers = list(range(1, 2001))
    rm = CachedRM(LengthRM(), cache_dir=folder, on_corrupt=on_corrupt)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        scores = [rm.score(conversation(n)) for n in numbers]
    except CacheError:
        print(json.dumps("CacheError"))
    else:
        print(json.dumps({"scores": scores, "expected": [n / 100 for n in numbers], "errors": rm.stats()["errors"]}))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
