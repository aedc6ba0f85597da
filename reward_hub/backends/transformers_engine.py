"""The transformers engine as the registry knows it; torch and transformers are imported when it is started."""

from __future__ import annotations

from reward_hub.backends.base import Backend, Engine, EngineOptions
from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.family import Backbone
from reward_hub.reads import Read
from reward_hub.tokenizer import Tokenizer


class TransformersEngine(Engine):
    """Runs whatever transformers has a class for, which it says itself when the model is loaded."""

    @classmethod
    def known_options(cls) -> frozenset[str]:
        from reward_hub.backends.transformers import TransformersBackend

        return TransformersBackend.known_options()

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
        from reward_hub.backends.transformers import TransformersBackend

        return TransformersBackend.load(files, read, backbone=backbone, tokenizer=tokenizer, options=options)
