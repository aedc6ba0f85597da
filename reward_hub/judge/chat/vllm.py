"""A chat model on a vLLM engine in this process: requests that wait together are generated together."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from reward_hub.backends.base import Progress
from reward_hub.backends.vllm.calls import JoinedCalls, shut_down
from reward_hub.errors import BackendError, missing_dependency
from reward_hub.http.sending import AttemptError
from reward_hub.judge.chat.client import TOP_LOGPROBS, ChatRequest, Completion
from reward_hub.judge.form import ReplyToken


class VllmChat:
    """A vLLM engine, started by the first request.

    Args:
        model: what the engine loads.
        engine: an engine that runs already (`vllm.LLM`); it is not shut down by `close`.
        engine_options: arguments of `vllm.LLM` besides the model.
        structured: whether replies are held to the schema.
        chat_options: further arguments of `LLM.chat` (`chat_template_kwargs`, ...).
    """

    def __init__(
        self,
        model: str,
        *,
        engine: Any = None,
        engine_options: Mapping[str, Any] | None = None,
        structured: bool = True,
        chat_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self._engine = engine
        self._owned = engine is None
        self._options = dict(engine_options or {})
        self._structured = structured
        self._chat_options = dict(chat_options or {})
        self._lock = threading.Lock()
        self._calls: JoinedCalls[ChatRequest, Completion] = JoinedCalls(self._answer)
        self._release: Any = None

    @property
    def place(self) -> str:
        return "vLLM in this process"

    def close(self) -> None:
        """Shut the engine down, where it was started here; a later request starts another."""
        with self._calls.pause(), self._lock:
            if self._owned and self._release is not None:
                self._release()
                self._engine = self._release = None

    async def attempt(self, request: ChatRequest) -> Completion:
        try:
            return (await self._calls.acall([request]))[0]
        except BackendError as error:
            raise AttemptError(error) from error.__cause__

    def _started(self) -> Any:
        with self._lock:
            if self._engine is None:
                try:
                    import vllm
                except ImportError as error:
                    raise missing_dependency("vLLM", "vllm", "LLMJudge with load_method='vllm'") from error
                try:
                    self._engine = vllm.LLM(self.model, **self._options)
                except Exception as error:
                    raise BackendError(f"vLLM {vllm.__version__} cannot start {self.model}: {error}") from error
                self._release = weakref.finalize(self, shut_down, self._engine)
            return self._engine

    def _answer(self, requests: list[ChatRequest], progress: Progress) -> list[Completion]:
        engine = self._started()
        answers: dict[int, Completion] = {}
        for continues in (False, True):
            places = [i for i, request in enumerate(requests) if request.continues is continues]
            if not places:
                continue
            try:
                outputs = engine.chat(
                    [requests[i].messages for i in places],
                    [self._sampling(requests[i]) for i in places],
                    use_tqdm=False,
                    add_generation_prompt=not continues,
                    continue_final_message=continues,
                    **self._chat_options,
                )
            except Exception as error:
                raise BackendError(f"vLLM cannot generate a reply: {error}") from error
            answers |= zip(places, map(_completion_of, outputs), strict=True)
        return [answers[i] for i in range(len(requests))]

    def _sampling(self, request: ChatRequest) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        structured = None
        if self._structured and request.schema is not None:
            structured = StructuredOutputsParams(json=json.dumps(request.schema))
        return SamplingParams(
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            seed=request.seed,
            stop=list(request.stop) or None,
            logprobs=TOP_LOGPROBS if request.logprobs else None,
            structured_outputs=structured,
        )


def _completion_of(output: Any) -> Completion:
    best = output.outputs[0]
    tokens = None
    if best.logprobs is not None:
        tokens = tuple(_token_of(ways, i) for ways, i in zip(best.logprobs, best.token_ids, strict=True))
    return Completion(
        text=best.text,
        finish_reason=best.finish_reason,
        tokens=tokens,
        prompt_tokens=len(output.prompt_token_ids),
        completion_tokens=len(best.token_ids),
    )


def _token_of(ways: Any, token_id: int) -> ReplyToken:
    texts: dict[str, float] = {}
    for one in ways.values():
        # Several tokens may have one text, halves of characters among them; the likeliest stands for it.
        texts[one.decoded_token] = max(one.logprob, texts.get(one.decoded_token, -float("inf")))
    return ReplyToken(ways[token_id].decoded_token, texts)
