"""What some tokenizer classes put around a text whatever tokenizer.json says of it.

In transformers 4, with which the published recipes were run, five classes make the post-processor anew from
`add_bos_token` and `add_eos_token` (4.57: their `update_post_processor`); every other class leaves tokenizer.json's,
flags or not. Transformers 5 keeps neither rule (5.23 follows the flags for a PreTrainedTokenizerFast and not for a
LlamaTokenizer), so the rule is applied here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reward_hub.errors import CheckpointError


@dataclass(frozen=True)
class Rule:
    """What a class does where a tokenizer's files do not say it.

    Attributes:
        names: what it calls its special tokens.
        add_bos, add_eos: whether these stand before and behind a text.
        opens_second: whether what opens a text also opens the second one of a pair.
    """

    names: Mapping[str, str]
    add_bos: bool = True
    add_eos: bool = False
    opens_second: bool = True


_LLAMA = Rule({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
_RULES = {
    "LlamaTokenizer": _LLAMA,
    "CodeLlamaTokenizer": _LLAMA,
    "GemmaTokenizer": Rule({"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}),
    "CohereTokenizer": Rule(
        {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>", "unk_token": "<UNK>", "pad_token": "<PAD>"}
    ),
    "GPTNeoXTokenizer": Rule(
        dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
        add_bos=False,
    ),
    # Classes that repositories brought themselves, each made after LlamaTokenizer.
    "BaichuanTokenizer": _LLAMA,
    "InternLMTokenizer": _LLAMA,
    "InternLM2Tokenizer": _LLAMA,
}
# Classes with a rule only where they read a sentencepiece file; they have no flags.
_OF_SENTENCEPIECE = {
    "DebertaV2Tokenizer": Rule(
        {
            "bos_token": "[CLS]",
            "eos_token": "[SEP]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "unk_token": "[UNK]",
            "pad_token": "[PAD]",
        },
        add_eos=True,
        opens_second=False,
    )
}
_LLAMA_MODELS = (
    *("arcee", "deepseek_v2", "deepseek_v3", "diffllama", "ernie4_5", "jamba", "jetmoe", "llama", "ministral"),
    *("mistral", "mixtral", "persimmon", "phi3", "phimoe", "zamba2"),
)
# The class of a folder that has flags and names no class.
_BY_MODEL_TYPE = {
    **dict.fromkeys(_LLAMA_MODELS, "LlamaTokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "recurrent_gemma"), "GemmaTokenizer"),
    **dict.fromkeys(("cohere", "cohere2"), "CohereTokenizer"),
    **dict.fromkeys(("gpt_neox", "mamba", "olmo", "olmo2", "olmoe", "stablelm"), "GPTNeoXTokenizer"),
    "code_llama": "CodeLlamaTokenizer",
}


@dataclass(frozen=True)
class Named:
    """What the JSON files of a tokenizer's folder say: tokenizer_config.json, special_tokens_map.json, config.json."""

    config: Mapping[str, Any]
    special: Mapping[str, Any]
    model: Mapping[str, Any]

    @property
    def class_name(self) -> str | None:
        """The tokenizer class, without the "Fast" of its fast form; None where no file names one."""
        name = self.config.get("tokenizer_class") or self.model.get("tokenizer_class")
        return str(name).removesuffix("Fast") if name else None

    @property
    def has_flags(self) -> bool:
        return "add_bos_token" in self.config or "add_eos_token" in self.config

    @property
    def rule(self) -> Rule | None:
        """What the class makes of the flags; None where it leaves the post-processor of tokenizer.json."""
        name = self.class_name
        if name is None and self.has_flags:
            name = _BY_MODEL_TYPE.get(str(self.model.get("model_type")))
        return self._with_flags(_RULES.get(name or ""))

    @property
    def sentencepiece_rule(self) -> Rule | None:
        """The rule for a sentencepiece file alone; None where the class may do what is not known here."""
        name = self.class_name
        if name in _OF_SENTENCEPIECE:
            # Either would change a text before the sentencepiece file sees it.
            changes = self.config.get("do_lower_case") or self.config.get("split_by_punct")
            return None if changes else _OF_SENTENCEPIECE[name]
        if name is None:
            name = _BY_MODEL_TYPE.get(str(self.model.get("model_type")), "LlamaTokenizer")
        return self._with_flags(_RULES.get(name))

    def _with_flags(self, rule: Rule | None) -> Rule | None:
        if rule is None:
            return None
        add_bos = bool(self.config.get("add_bos_token", rule.add_bos))
        add_eos = bool(self.config.get("add_eos_token", rule.add_eos))
        return replace(rule, add_bos=add_bos, add_eos=add_eos)

    def names(self, key: str) -> bool:
        """Whether a file says what the `bos_token` (or another) is, be it that there is none."""
        return key in self.config or key in self.special


def read_names(folder: Path) -> Named:
    return Named(*(_json(folder / f"{name}.json") for name in ("tokenizer_config", "special_tokens_map", "config")))


def follow_class(tokenizer: Any, named: Named, folder: Path) -> None:
    """Give a tokenizer of transformers what its class puts around a text, or else what tokenizer.json says of it."""
    rule = named.rule
    if rule is not None:
        apply_rule(tokenizer, named, rule)
    elif named.has_flags and (folder / "tokenizer.json").is_file():
        _set_post_processor(tokenizer.backend_tokenizer, _stored_post_processor(folder / "tokenizer.json"))


def apply_rule(tokenizer: Any, named: Named, rule: Rule) -> None:
    """Names that no file gives (where the vocabulary has them), and the post-processor."""
    vocabulary = tokenizer.backend_tokenizer
    for key, name in rule.names.items():
        if not named.names(key) and vocabulary.token_to_id(name) is not None:
            setattr(tokenizer, key, name)
    bos = tokenizer.bos_token if rule.add_bos else None
    eos = tokenizer.eos_token if rule.add_eos else None
    around = _around({"bos": bos, "eos": eos}, vocabulary, opens_second=rule.opens_second)
    _set_post_processor(vocabulary, around)


def _set_post_processor(vocabulary: Any, wanted: Any) -> None:
    """Set it where it puts something else around texts: otherwise fingerprints would change for nothing."""

    def ids() -> list[list[int]]:
        return [vocabulary.encode(*texts, add_special_tokens=True).ids for texts in (("a",), ("a", "b"))]

    vocabulary.no_truncation()
    vocabulary.no_padding()
    was, before = vocabulary.post_processor, ids()
    vocabulary.post_processor = wanted
    if ids() == before:
        vocabulary.post_processor = was


def _around(tokens: Mapping[str, str | None], vocabulary: Any, *, opens_second: bool) -> Any:
    """A post-processor that puts the "bos" before a text and the "eos" behind it, where there is one."""
    from tokenizers import processors

    # A template names tokens by labels of its own: a token's text may have characters that mean something there.
    special = [
        {"id": label, "ids": [vocabulary.token_to_id(token)], "tokens": [token]}
        for label, token in tokens.items()
        if token
    ]
    opened, closed = (["bos"] if tokens["bos"] else []), (["eos"] if tokens["eos"] else [])
    first = [f"{piece}:0" for piece in (*opened, "$A", *closed)]
    second = [f"{piece}:1" for piece in (*(opened if opens_second else []), "$B", *closed)]
    return processors.TemplateProcessing(single=first, pair=first + second, special_tokens=special)


def _stored_post_processor(path: Path) -> Any:
    """The post-processor of a tokenizer.json, read without building the vocabulary."""
    from tokenizers import Tokenizer

    stored = _json(path).get("post_processor")
    if stored is None:
        return None
    bare = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
    return Tokenizer.from_str(json.dumps({**bare, "post_processor": stored})).post_processor


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} is not a JSON object.")
    return content
