"""An OpenAI-compatible endpoint on this machine that says what a test tells it to, and keeps a record of every request.

with judge_server(verdict(4)) as server:
    LLMJudge("judge", api_base=server.api_base, rubric=...).score(...)
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from reward_hub.judge import LLMJudge


@dataclass
class Asked:
    """One request: its body and headers, and when it came and was answered (seconds, monotonic)."""

    body: dict[str, Any]
    headers: dict[str, str]
    path: str
    started: float
    ended: float | None = None

    @property
    def text(self) -> str:
        """All that the judge reads."""
        return "\n".join(str(message["content"]) for message in self.body["messages"])


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


Script: TypeAlias = Callable[[Asked], Answer]
JudgeOn: TypeAlias = "Callable[..., tuple[LLMJudge, JudgeServer]]"
"""The fixture `judge_on`: a script and arguments -> a judge, and the server it asks."""


def completion(
    text: Any,
    *,
    finish_reason: str = "stop",
    usage: tuple[int, int] | None = (100, 20),
    logprobs: Sequence[tuple[str, Mapping[str, float]]] | None = None,
    delay_s: float = 0.0,
    **message: Any,
) -> Answer:
    """A chat completion of a text, of None or of parts.

    Args:
        logprobs: the tokens, each with the log-probabilities of what could have stood there.
    """
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": finish_reason,
    }
    if logprobs is not None:
        choice["logprobs"] = {
            "content": [
                {
                    "token": token,
                    "logprob": ways[token],
                    "top_logprobs": [{"token": way, "logprob": logprob} for way, logprob in ways.items()],
                }
                for token, ways in logprobs
            ]
        }
    body: dict[str, Any] = {"id": "x", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]}
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return Answer(body=body, delay_s=delay_s)


def says(text: Any, **options: Any) -> Script:
    """The same completion for every request."""
    return lambda asked: completion(text, **options)


def verdict(score: Any, *, reasoning: str = "because", **options: Any) -> Script:
    """`score` in the form that rubrics ask for: a number, or a dict of criteria."""
    key = "scores" if isinstance(score, dict) else "score"
    return says(json.dumps({"reasoning": reasoning, key: score}), **options)


def in_turn(*scripts: Script) -> Script:
    """The first script for the first request, and so on; the last one from then on."""
    left = list(scripts)
    lock = threading.Lock()

    def script(asked: Asked) -> Answer:
        with lock:
            now = left.pop(0) if len(left) > 1 else left[0]
        return now(asked)

    return script


def fails(status: int, *, retry_after: str | None = None, body: Any = None) -> Script:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    body = {"error": {"message": f"status {status}"}} if body is None else body
    return lambda asked: Answer(status, body, headers)


class JudgeServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.asked: list[Asked] = []
        self.api_base = f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def max_in_flight(self) -> int:
        """Most requests that were under way at one time."""
        ends = [(asked.started, 1) for asked in self.asked]
        ends += [(asked.ended, -1) for asked in self.asked if asked.ended is not None]
        most = now = 0
        for _, change in sorted(ends):
            now += change
            most = max(most, now)
        return most

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, JudgeServer)
        raw = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(json.loads(raw), headers, self.path, time.monotonic())
        server.asked.append(asked)
        answer = server.script(asked)
        time.sleep(answer.delay_s)
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        # Before the reply is sent: the client may send its next request as soon as it has this one.
        asked.ended = time.monotonic()
        self.send_response(answer.status)
        for name, value in {"content-type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def judge_server(script: Script) -> Iterator[JudgeServer]:
    server = JudgeServer(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def tokens(*given: str | tuple[str, dict[str, float]]) -> list[tuple[str, dict[str, float]]]:
    """Tokens with probabilities; a bare text is certain."""
    made = [(one, {one: 1.0}) if isinstance(one, str) else one for one in given]
    return [(text, {way: math.log(p) for way, p in ways.items()}) for text, ways in made]
