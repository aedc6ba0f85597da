"""vLLM plug-in: stock model classes whose weight loader drops and renames the tensors of foreign checkpoints.

Every vLLM process calls `register` through the entry point `vllm.general_plugins`. It only stores names: a class is
made when an engine asks for it. The rules come with the model's config (`hf_overrides`), put there by `vllm_plan`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from reward_hub.backends.vllm.plan import PLUGIN_PREFIX, RULES_KEY, STEMS, WeightRules

GROUP = "vllm.general_plugins"
ENTRY_POINT = "reward_hub"
ARCHITECTURES = (
    *(f"{stem}ForCausalLM" for stem in STEMS.values()),
    "Qwen2ForRewardModel",
    "Qwen2ForProcessRewardModel",
)


def register() -> None:
    """Make the classes known to vLLM, by name: neither torch nor a model file is imported for that."""
    from vllm import ModelRegistry

    for architecture in ARCHITECTURES:
        name = PLUGIN_PREFIX + architecture
        ModelRegistry.register_model(name, f"{__name__}:{name}")


def is_installed() -> bool:
    """Whether vLLM's processes, children included, will find the classes."""
    import os
    from importlib.metadata import entry_points

    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and ENTRY_POINT not in allowed.split(","):
        return False
    return any(point.value == f"{__name__}:register" for point in entry_points(group=GROUP, name=ENTRY_POINT))


def stock_weights(weights: Iterable[tuple[str, Any]], rules: WeightRules) -> Iterator[tuple[str, Any]]:
    """The tensors that stay, under the names of vLLM's class."""
    for name, tensor in weights:
        stock = rules.stock_name(name)
        if stock is not None:
            yield stock, tensor


def __getattr__(name: str) -> Any:
    """The class that vLLM looks up by its registered name."""
    if not name.startswith(PLUGIN_PREFIX) or name.removeprefix(PLUGIN_PREFIX) not in ARCHITECTURES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vllm import ModelRegistry

    base = ModelRegistry.models[name.removeprefix(PLUGIN_PREFIX)].load_model_cls()

    def load_weights(self: Any, weights: Iterable[tuple[str, Any]]) -> Any:
        rules = WeightRules.from_json(getattr(self.config, RULES_KEY))
        return base.load_weights(self, stock_weights(weights, rules))

    made = type(name, (base,), {"load_weights": load_weights, "__module__": __name__})
    globals()[name] = made
    return made
