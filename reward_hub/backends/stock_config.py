"""The config that a stock transformers class is made of: what the class knows of a config.json, and nothing else.

A config object takes every key of the file as an attribute, and transformers looks some attributes up to find code
(`auto_map`), names of attributes (`attribute_map`) or kernels. So a key passes only if the class declares it, or if its
own modules or the shared modelling code read it: DeBERTa-v2 reads `norm_rel_ebd`, every decoder `is_causal`, and no
class declares either.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reward_hub.backends.odd_fields import without_odd_fields
from reward_hub.checkpoints.remote_code import leads_to_code, without_code
from reward_hub.errors import missing_dependency
from reward_hub.types import Config

try:
    import transformers
except ImportError as error:
    raise missing_dependency("transformers", "transformers", "A stock model class") from error

# Modules that read configs of every class.
SHARED_MODULES = ("masking_utils.py", "modeling_rope_utils.py", "modeling_layers.py", "cache_utils.py")
# What the base classes of configs and models read besides.
SHARED_NAMES = frozenset(
    {"model_type", "quantization_config", "compression_config", "tie_word_embeddings", "tie_encoder_decoder"}
)
# How a forward gives what it computed: here always by name.
FORM_OF_OUTPUTS = frozenset({"return_dict"})
# Values that published configs mean otherwise. Gemma was trained with the tanh form of GELU, and its first configs say
# the exact one (transformers #29402); releases before 5.19 take them at their word.
MEANT = {("gemma", "hidden_act", "gelu"): "gelu_pytorch_tanh"}


def stock_config(stored: Config) -> Any:
    """The config object of a `model_type` that transformers knows.

    Raises:
        KeyError: it does not know it.
    """
    config_class = transformers.CONFIG_MAPPING[stored["model_type"]]
    return config_class.from_dict(known_fields(without_odd_fields(stored), config_class))


def known_fields(stored: Config, config_class: Any, *outer: Any) -> dict[str, Any]:
    """The part of a config.json that the class knows, at any depth; `outer` are the classes around a nested one."""
    classes = (config_class, *outer)
    return {
        name: _known_value(name, value, classes)
        for name, value in stored.items()
        if not leads_to_code(name)
        and name not in FORM_OF_OUTPUTS
        and (name in declared(config_class) or _is_read(name, classes))
    }


def _known_value(name: str, value: Any, classes: tuple[Any, ...]) -> Any:
    if not isinstance(value, Mapping):
        return MEANT.get((classes[0].model_type, name, str(value)), without_code(value))
    if name == "per_layer_config":
        return {layer: known_fields(fields, *classes) for layer, fields in value.items()}
    inner = _class_of(name, value, classes[0])
    return without_code(value) if inner is None else known_fields(value, inner, *classes)


def _class_of(name: str, value: Mapping[str, Any], config_class: Any) -> Any:
    """The config class that is made of a nested dict; None where it stays one."""
    inner = config_class.sub_configs.get(name)
    # Some classes leave open what is nested in them.
    if inner not in (None, transformers.AutoConfig, transformers.PreTrainedConfig):
        return inner
    default = getattr(getattr(config_class, "sub_configs_defaults", {}).get(name), "model_type", None)
    model_type = str(value.get("model_type") or default)
    return transformers.CONFIG_MAPPING[model_type] if model_type in transformers.CONFIG_MAPPING else None  # noqa: SIM401


@functools.cache
def declared(config_class: Any) -> frozenset[str]:
    """Fields, other names of fields, and properties that can be set."""
    fields = {field.name for field in dataclasses.fields(config_class)}
    arguments = set(inspect.signature(config_class.__init__).parameters) - {"self", "args", "kwargs"}
    properties = {name for name in dir(config_class) if getattr(_attribute(config_class, name), "fset", None)}
    return frozenset(fields | arguments | properties | set(config_class.attribute_map) | SHARED_NAMES)


def _is_read(name: str, classes: tuple[Any, ...]) -> bool:
    """Whether a module of the classes names it, and it hides nothing of the first class itself."""
    return not hasattr(classes[0], name) and any(name in _words(path) for known in classes for path in _modules(known))


def _attribute(config_class: Any, name: str) -> Any:
    return inspect.getattr_static(config_class, name, None)


@functools.cache
def _modules(config_class: Any) -> list[Path]:
    """The modules that define the class and its models, and those that all models share."""
    folder = Path(inspect.getfile(config_class)).parent
    own = [path for path in folder.glob("*.py") if path.name.startswith(("configuration_", "modeling_"))]
    shared = Path(transformers.__file__).parent
    return [path for path in (*own, *(shared / name for name in SHARED_MODULES)) if path.is_file()]


@functools.cache
def _words(module: Path) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", module.read_text(encoding="utf-8")))
