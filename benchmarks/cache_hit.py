"""What a hit of `CachedRM` takes beside the model itself, for one conversation of 2,000 characters.

    python benchmarks/cache_hit.py --calls 3000

Both are asked for through `rm.score(messages)`, by turns and in one process: the cached call includes checking the
messages, the key, the read from disk and the details. Needs `pip install 'reward_hub[transformers]'`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

from reward_hub import AutoRM, CachedRM

MODEL = "builtin/arithmetic-orm"
LENGTH = 2000


def conversation() -> list[dict[str, str]]:
    """Of `LENGTH` characters: one short problem, and a solution that goes on and on."""
    problem = "Ann has 16 eggs. She sells 3. Then she buys 5 more. How many eggs are there?"
    solution = "16 - 3 = 13\n\n13 + 5 = 18\n\n" * LENGTH
    return [
        {"role": "user", "content": problem},
        {"role": "assistant", "content": solution[: LENGTH - len(problem)]},
    ]


def seconds(call: Callable[[], float]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000, help="hits; the model itself is asked every tenth time")
    arguments = parser.parse_args()
    messages = conversation()
    hits: list[float] = []
    own: list[float] = []
    # The built-in model takes fewer tokens than that conversation has; how long it is changes nothing for the cache.
    with (
        tempfile.TemporaryDirectory() as folder,
        AutoRM.load(MODEL, truncation="left") as rm,
        CachedRM(rm, cache_dir=folder) as cached,
    ):
        assert cached.score(messages) == rm.score(messages) == cached.score(messages)
        for i in range(arguments.calls):
            hits.append(seconds(lambda: cached.score(messages)))
            if i % 10 == 0:
                own.append(seconds(lambda: rm.score(messages)))
        assert cached.stats()["misses"] == 1
    for name, times in (("cache hit", hits), ("model itself", own)):
        quantiles = statistics.quantiles(times, n=100)
        shown = [f"{1e6 * t:>10,.0f} us" for t in (quantiles[49], quantiles[94])]
        print(f"{name:>14}: median {shown[0]}, 95 % within {shown[1]}  ({len(times):,} calls)")


if __name__ == "__main__":
    main()
