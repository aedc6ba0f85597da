"""Servers of others as an engine: what they can be asked; the client is imported when one is connected to."""

from __future__ import annotations

from reward_hub.backends.base import Backend, Engine, EngineOptions
from reward_hub.backends.vllm import plan
from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.family import Backbone
from reward_hub.reads import Read
from reward_hub.tokenizer import Tokenizer
from reward_hub.types import Config


class HttpEngine(Engine):
    """A server that holds the model and is sent token ids."""

    @classmethod
    def known_options(cls) -> frozenset[str]:
        return frozenset()

    @classmethod
    def why_not(
        cls,
        config: Config,
        read: Read | None = None,
        *,
        backbone: Backbone | None = None,
        adapter: bool = False,
    ) -> str | None:
        """What a vLLM server cannot answer; servers of other dialects are asked when they are connected to."""
        if adapter:
            return "a server has loaded its model already"
        return plan.why_not(read, config, backbone)

    @classmethod
    def load(
        cls,
        files: CheckpointFiles,
        read: Read,
        *,
        backbone: Backbone | None,
        tokenizer: Tokenizer,
        options: EngineOptions,
    ) -> Backend:
        from reward_hub.backends.http import HttpBackend

        return HttpBackend.load(files, read, backbone=backbone, tokenizer=tokenizer, options=options)
