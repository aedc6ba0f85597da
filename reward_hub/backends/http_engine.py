"""Servers of others as an engine: what they can be asked."""

from __future__ import annotations

from reward_hub.backends.base import ImportedLate
from reward_hub.backends.vllm import plan
from reward_hub.family import Backbone
from reward_hub.reads import Read
from reward_hub.types import Config


class HttpEngine(ImportedLate):
    """A server that holds the model and is sent token ids."""

    target = "reward_hub.backends.http:HttpBackend"

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
