"""Fields of a config.json that classes refuse, or are led astray by, although nothing that is read depends on them.

The ids of bos, eos and pad are a matter of tokenizers and of generation; a backbone uses none of them. Where a file has
a text there, several ids, or one outside the vocabulary, transformers makes no class of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from reward_hub.types import Config

logger = logging.getLogger(__name__)

# What the loss or the caller of a whole model may ask for; hidden vectors are the same without.
_UNASKED = {
    "problem_type": "single_label_classification",  # refused beside one label
    "return_dict": False,
    "use_return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
}
# (Labels, and how many there are, are looked at in the file itself, where a family depends on them.)
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def without_odd_fields(config: Config) -> Config:
    """The config without such fields, nested ones included; the config itself where it has none."""
    asked = {name: value for name, value in config.items() if not _is_odd(name, value)}
    understood = {name: _understood(name, value, config) for name, value in asked.items()}
    return config if understood == config else understood


def _is_odd(name: str, value: Any) -> bool:
    if name in ("id2label", "label2id"):
        return not isinstance(value, Mapping)
    if name == "num_labels":
        return not is_id(value)
    return name in _UNASKED and bool(value == _UNASKED[name])


def _understood(name: str, value: Any, config: Config) -> Any:
    if isinstance(value, Mapping):
        return without_odd_fields(value)
    if name not in _TOKENS or value is None:
        return value
    if name == "eos_token_id" and isinstance(value, list) and all(map(is_id, value)):
        return value
    single, size = the_only_one(value), config.get("vocab_size")
    outside = name == "pad_token_id" and isinstance(size, int) and is_id(single) and single >= size
    if is_id(single) and not outside:
        return single
    logger.info("config.json has %s %r, which is not one token's id: it is left aside.", name, value)
    return None


def is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def the_only_one(value: Any) -> Any:
    """What a list of one holds; any other value itself."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
