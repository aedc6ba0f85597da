"""The transformers engine as the registry knows it."""

from __future__ import annotations

from reward_hub.backends.base import ImportedLate


class TransformersEngine(ImportedLate):
    """Runs whatever transformers has a class for, which it says itself when the model is loaded."""

    tunes = True
    target = "reward_hub.backends.transformers:TransformersBackend"
