"""Servers of others, played by real local HTTP servers: what is sent to them is kept, what they answer is computed.

`VllmLike` answers as vLLM 0.32 does (see ../shared/reference/captures), with the numbers of a model in this process.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from reward_hub import BaseRM
from reward_hub.types import TokenInput


@dataclass
class Sent:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Answer = tuple[int, Any]
"""A status and a body: JSON, or bytes as they are."""
Answers = Callable[[Sent], Answer]
NOT_FOUND: Answer = (404, {"detail": "Not Found"})


class LocalServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answers: Answers, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers = answers
        self.sent: list[Sent] = []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _answer(self, body: Any) -> None:
        server = self.server
        assert isinstance(server, LocalServer)
        sent = Sent(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        server.sent.append(sent)
        status, reply = server.answers(sent)
        raw = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: Any) -> None:
        pass


Connected = Callable[..., tuple[BaseRM, LocalServer]]


@contextmanager
def local_server(answers: Answers, port: int = 0) -> Iterator[LocalServer]:
    server = LocalServer(answers, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def routes(table: dict[str, Any]) -> Answers:
    """Fixed answers by path; a function is called with the request."""

    def answers(sent: Sent) -> Answer:
        if sent.path not in table:
            return NOT_FOUND
        reply = table[sent.path]
        return reply(sent) if callable(reply) else (200, reply)

    return answers


@dataclass
class VllmLike:
    """vLLM's routes over a model that is loaded with transformers in this process.

    Attributes:
        task: the pooling task it was started with; "generate" for /v1/completions.
        obeys: whether `use_activation: false` turns the activation off.
        pooling: how the tokens of one input become one vector.
        rounding: how far a number is off at most, as a share of it: 0.004 in bfloat16.
    """

    rm: BaseRM
    task: str
    served: str = "rm"
    root: str = "/nowhere"
    max_model_len: int = 512
    obeys: bool = True
    pooling: str = "LAST"
    rounding: float = 0.0
    extra_tokens: int = 0
    routes: Sequence[str] = ("/pooling", "/classify", "/v1/embeddings", "/v1/completions")
    version: str = "0.32.0"
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __call__(self, sent: Sent) -> Answer:
        if sent.path == "/v1/models":
            item = {"id": self.served, "object": "model", "owned_by": "vllm", "root": self.root}
            return 200, {"object": "list", "data": [{**item, "max_model_len": self.max_model_len}]}
        if sent.path == "/version":
            return 200, {"version": self.version}
        if sent.path not in self._there():
            return NOT_FOUND
        if sent.body.get("model", self.served) != self.served:
            return 404, {"error": {"message": f"The model `{sent.body['model']}` does not exist."}}
        if sent.path == "/v1/completions":
            return 200, self._completions(sent.body)
        if sent.body.get("task", self.task) != self.task:
            words = f"Try switching the model's pooling_task via --pooler-config.task {sent.body['task']}."
            return 400, {"error": {"message": words, "type": "BadRequestError", "param": "task", "code": 400}}
        return 200, self._pooled(sent.path, sent.body)

    def _there(self) -> set[str]:
        own = {
            "generate": {"/v1/completions"},
            "classify": {"/pooling", "/classify"},
            "embed": {"/pooling", "/v1/embeddings"},
        }.get(self.task, {"/pooling"})
        return own & set(self.routes)

    def _pooled(self, path: str, body: Any) -> Any:
        inputs = self._inputs(body)
        tables = [self._activated(self._table(ids), body) for ids in inputs]
        if not self.task.startswith("token_"):
            tables = [self._one(table) for table in tables]
        n_tokens = sum(len(ids) + self.extra_tokens for ids in inputs)
        name = {"/classify": "probs", "/v1/embeddings": "embedding", "/pooling": "data"}[path]
        values: list[Any] = [table.tolist() for table in tables]
        if body.get("encoding_format") == "base64":
            values = [base64.b64encode(table.astype("<f4").tobytes()).decode() for table in tables]
        data = [{"index": i, name: value} for i, value in enumerate(values)]
        return {"object": "list", "data": data, "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens}}

    def _inputs(self, body: Any) -> list[list[int]]:
        if "messages" in body:
            from reward_hub.messages import parse

            tokenizer = self.model.setup.tokenizer
            return [tokenizer.encode(tokenizer.render(parse([*body["messages"]]).messages))]
        given = body["input"]
        return given if isinstance(given[0], list) else [given]

    @property
    def model(self) -> Any:
        return self.rm.model  # type: ignore[attr-defined]

    def _table(self, ids: list[int]) -> Any:
        """[n_tokens, width]: hidden vectors, or what the head makes of them."""
        backend = self.model.backend
        with self._lock, _inference():
            hidden = backend._told([TokenInput(ids, list(range(len(ids))))])[0]
            hidden = hidden * (1 + self.rounding * self._random.uniform(-1, 1, hidden.shape)).astype(np.float32)
            if self.task in ("embed", "token_embed"):
                return hidden
            if "rows" in backend._weights:
                return hidden @ backend._weights["rows"].T + backend._weights["bias"]
            return backend._read.head.apply(hidden, self._engine_weights(backend))

    def _engine_weights(self, backend: Any) -> Any:
        """The weights that the engine's own linear layer has: one by another name than `score` loses its bias."""
        stem = getattr(backend._read.head, "name", "score")
        return {name: x for name, x in backend._weights.items() if stem == "score" or name != f"{stem}.bias"}

    def _one(self, table: Any) -> Any:
        return {"LAST": table[-1], "CLS": table[0], "MEAN": table.mean(axis=0)}[self.pooling]

    def _activated(self, table: Any, body: Any) -> Any:
        if body.get("use_activation") is False and self.obeys:
            return table
        if self.task in ("embed", "token_embed"):
            return table / np.linalg.norm(table, axis=-1, keepdims=True)
        if table.shape[1] == 1:
            return 1 / (1 + np.exp(-table))
        exp = np.exp(table - table.max(axis=1, keepdims=True))
        return exp / exp.sum(axis=1, keepdims=True)

    def _completions(self, body: Any) -> Any:
        choices = []
        for i, ids in enumerate(body["prompt"]):
            with self._lock, _inference():
                positions = list(range(1, len(ids)))
                logprobs = self.model.backend._told([TokenInput(ids, positions)])[0][:, 0]
            told = [{str(t): {"logprob": float(x), "rank": 1}} for t, x in zip(ids[1:], logprobs, strict=True)]
            choices.append({"index": i, "text": "", "prompt_logprobs": [None, *told]})
        return {"choices": choices, "usage": {"prompt_tokens": sum(len(ids) for ids in body["prompt"])}}


def _inference() -> Any:
    import torch

    return torch.inference_mode()
