"""Load test of `reward-hub serve`: concurrent clients against batching, and against one request at a time.

    python benchmarks/serve_load.py --clients 64 --seconds 60

Each client holds one connection: it sends one conversation, waits for its score, compares it with the model's own,
sends the next. The clients are bare sockets, so that the server is what is measured. Needs
`pip install 'reward_hub[transformers,serve]'`; the table it prints is for this machine and what else runs on it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from reward_hub import AutoRM

# Batch mates change the last bits of a float32 matrix product; api.md, "Independence".
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Load:
    """What one run showed."""

    name: str
    latencies_s: list[float]
    seconds: float
    n_errors: int
    largest_difference: float

    @property
    def row(self) -> list[str]:
        p50, p99 = (1000 * float(np.percentile(self.latencies_s, q)) for q in (50, 99))
        n = len(self.latencies_s)
        figures = [f"{n:,}", f"{self.n_errors}", f"{self.largest_difference:.1e}", f"{p50:.0f}", f"{p99:.0f}"]
        return [self.name, *figures, f"{n / self.seconds:.0f}"]


def conversations() -> list[list[dict[str, str]]]:
    """Every response of the demonstration problems, after each of the prompts: some right, most wrong."""
    problems = json.loads(files("reward_hub.builtin").joinpath("demo.json").read_text(encoding="utf-8"))
    return [
        [{"role": "user", "content": problem["prompt"]}, {"role": "assistant", "content": response}]
        for problem in problems
        for other in problems
        for response in other["responses"]
    ]


@contextmanager
def server(model: str, *options: str, checkout: str | None = None) -> Iterator[str]:
    """A server in a process of its own, of this package or of another checkout; its address."""
    command = [sys.executable, "-m", "reward_hub", "serve", model, "--port", "0", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if checkout is not None:
        environment["PYTHONPATH"] = checkout
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=60)


class Client:
    """One connection to the server, and no more of HTTP than it needs."""

    def __init__(self, address: str, bodies: list[bytes]) -> None:
        host, port = address.removeprefix("http://").split(":")
        self._place = host, int(port)
        head = "POST /v1/score HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
        self._requests = [head.format(host, len(body)).encode() + body for body in bodies]

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection(*self._place)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def score(self, i: int) -> float:
        """The score of conversation `i`."""
        self._writer.write(self._requests[i])
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        body = await self._reader.readexactly(int(head.split("content-length:")[1].split()[0]))
        if " 200 " not in head.splitlines()[0]:
            raise RuntimeError(f"{head.splitlines()[0]}: {body.decode()}")
        return float(json.loads(body)["data"][0]["score"])


def run_load(name: str, address: str, batch: list[Any], direct: list[float], *, n_clients: int, seconds: float) -> Load:
    """`n_clients` at once, each with one request under way, for so many seconds."""
    bodies = [json.dumps({"messages": messages}).encode() for messages in batch]
    latencies: list[float] = []
    differences: list[float] = [0.0]
    errors = 0

    async def run(client: Client, start: int, end: float) -> None:
        nonlocal errors
        for i in itertools.count(start):
            sent = time.perf_counter()
            if sent > end:
                return
            place = i % len(batch)
            try:
                score = await client.score(place)
            except (OSError, RuntimeError, asyncio.IncompleteReadError) as error:
                errors += 1
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                return
            latencies.append(time.perf_counter() - sent)
            differences.append(abs(score - direct[place]) / max(1.0, abs(direct[place])))

    async def all_clients() -> float:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(address, bodies)) for _ in range(n_clients)]
            await asyncio.gather(*(client.score(0) for client in clients))  # warm
            start = time.perf_counter()
            await asyncio.gather(*(run(client, 7 * i, start + seconds) for i, client in enumerate(clients)))
            return time.perf_counter() - start

    took = asyncio.run(all_clients())
    return Load(name, latencies, took, errors, max(differences))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin/arithmetic-orm")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--against", metavar="CHECKOUT", help="the first run also with the package of another checkout")
    options = parser.parse_args()
    batch = conversations()
    with AutoRM.load(options.model) as rm:
        direct = rm.score_batch(batch)
    unbatched = ("--max-batch-size", "1", "--max-wait-ms", "0")
    runs: list[tuple[str, int, tuple[str, ...], str | None]] = [
        (f"{options.clients} clients, batches", options.clients, (), None),
        (f"{options.clients} clients, one request at a time", options.clients, unbatched, None),
        ("1 client, one request at a time", 1, unbatched, None),
    ]
    if options.against:
        runs.insert(
            0, (f"{options.clients} clients, batches, the other checkout", options.clients, (), options.against)
        )
    table = Table("", "requests", "errors", "largest difference", "p50 ms", "p99 ms", "requests/s")
    failed = False
    for name, n_clients, flags, checkout in runs:
        with server(options.model, *flags, checkout=checkout) as address:
            load = run_load(name, address, batch, direct, n_clients=n_clients, seconds=options.seconds)
        table.add_row(*load.row)
        failed = failed or load.n_errors > 0 or load.largest_difference > TOLERANCE
    Console().print(f"{options.model}, {options.seconds:g} s each, {os.cpu_count()} cores", table, sep="\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
