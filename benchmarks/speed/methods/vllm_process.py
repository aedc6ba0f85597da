"""vLLM with prefix caching, in a process of its own (`--vllm PYTHON`), asked by turns with the others."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed.methods.method import CannotRunError, Options, Scorer
from benchmarks.speed.workloads.workload import Texts

WORKER = Path(__file__).with_name("vllm_worker.py")


class _Loaded(Scorer):
    def __init__(self, process: subprocess.Popen[str], log: Any) -> None:
        self._process, self._log = process, log
        self._answer()

    def timed(self, texts: Texts) -> tuple[float, list[float]]:
        """CPU seconds of vLLM's process."""
        assert self._process.stdin is not None
        seconds, scores = 0.0, []
        for items in texts.rounds:
            print(json.dumps(items), file=self._process.stdin, flush=True)
            took, of_items = self._answer()
            seconds += took
            scores += of_items
        return seconds, scores

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"vLLM's process ended: {self._log.read()[-2000:]}")
        return json.loads(line)


class VLLMProcess:
    @contextmanager
    def loaded(self, checkpoint: Path, dtype: str, options: Options) -> Iterator[Scorer]:
        if options.vllm is None:
            raise CannotRunError("--vllm PYTHON was not given")
        command = [options.vllm, str(WORKER), str(checkpoint), dtype]
        with (
            tempfile.TemporaryFile("w+") as log,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        ):
            try:
                yield _Loaded(process, log)
            finally:
                process.terminate()
