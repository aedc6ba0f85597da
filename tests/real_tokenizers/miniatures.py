"""Golden miniatures with a real vocabulary in the place of their own: tokenizer, config and random weights."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golden_sets import GoldenSet
from real_tokenizers.vocabularies import tokenizer_json, vocabulary_file

from reward_hub import BaseRM, registry
from reward_hub.family import Family, Setup
from reward_hub.testing import make_checkpoint
from reward_hub.tokenizer import load_tokenizer

FIELDS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
# DeepSeek's template, shortened, for its vocabulary and for the models distilled from it.
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{{ '<｜Assistant｜>' + m['content'] + '<｜end▁of▁sentence｜>' }}"
    "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)
DEEPSEEK_CONFIG = {
    "tokenizer_class": "LlamaTokenizerFast",
    "add_bos_token": True,
    "add_eos_token": False,
    "legacy": True,
    "bos_token": "<｜begin▁of▁sentence｜>",
    "eos_token": "<｜end▁of▁sentence｜>",
    "unk_token": None,
    "pad_token": "<｜end▁of▁sentence｜>",
    "chat_template": DEEPSEEK,
    # Said or not, it makes the Llama class of transformers 4 look for a sentencepiece file.
    "add_prefix_space": None,
}
# A vocabulary that is a sentencepiece file without tokenizer.json.
ALONE = "mistral"
# Tensors with a row for each token.
ROWS = ("embed_tokens.weight", "tok_embeddings.weight", "lm_head.weight")
EVERY_BOS = {"remove_every_bos": True}


@dataclass(frozen=True)
class Miniature:
    """One golden set with a real vocabulary.

    Attributes:
        recipe: the card's, in recipes.py.
        vocabulary: in vocabularies.py.
        changes: of tokenizer_config.json.
        form: what tells it from others with the same set and vocabulary.
        options: the family's.
    """

    slug: str
    vocabulary: str
    recipe: str
    changes: Mapping[str, Any] | None = None
    form: str = ""
    options: Mapping[str, Any] | None = None
    rename: Callable[[int, str], str] | None = None

    def __str__(self) -> str:
        return "-".join(filter(None, (self.slug, self.vocabulary, self.form)))

    @property
    def golden(self) -> GoldenSet:
        return GoldenSet(self.slug, "own")

    @property
    def family(self) -> Family:
        return registry.family_named(self.golden.family)

    @property
    def cases(self) -> str:
        return "process" if self.family.kind == "process" else "outcome"

    @property
    def alone(self) -> bool:
        return self.vocabulary == ALONE

    def write_weights(self, folder: Path, config: dict[str, Any]) -> None:
        """Write config.json and the set's weights, as many rows of them as the vocabulary has, beside the tokenizer.

        Of a policy and its reference each has a folder of its own, with links to the tokenizer's files.
        """
        spec, was = copy.deepcopy(self.golden.spec), self._spec["config"]["vocab_size"]
        for part in spec.get("parts", {"": spec}).values():
            part["config"] = {**config, "max_position_embeddings": 16384}
            for tensors in part["files"].values():
                for name, tensor in tensors.items():
                    if name.endswith(ROWS) and tensor["shape"][0] == was:
                        tensor["shape"][0] = config["vocab_size"]
        files = list(folder.iterdir())
        make_checkpoint(folder, spec)
        for part in spec.get("parts", ()):
            for file in files:
                (folder / part / file.name).symlink_to(file)

    def load(self, folder: Path) -> BaseRM:
        options = {"options": dict(self.options)} if self.options else {}
        return self.golden.load(folder, detect=False, max_length=16384, **options)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the tokenizer's files, and return config.json with the vocabulary's ids."""
        folder.mkdir(parents=True)
        ids = self._write_sentencepiece(folder) if self.alone else self._write_json(folder)
        was = {i: content for content, i in self._golden_ids().items()}
        config = dict(self._spec["config"])
        for key, value in config.items():
            if key.endswith(("_token_id", "prefix_id")) and value is not None:
                config[key] = [ids[was[i]] for i in value] if isinstance(value, list) else ids[was[value]]
        return {**config, "vocab_size": max(ids.values()) + 1}

    def setup(self, folder: Path, config: dict[str, Any]) -> Setup:
        """What the set's family encodes with, the model not loaded."""
        model = self.family.options
        return Setup(load_tokenizer(folder), config, {}, None if model is None else model(**(self.options or {})))

    @property
    def _spec(self) -> dict[str, Any]:
        spec = self.golden.spec
        return spec["parts"]["policy"] if "parts" in spec else spec

    def _config(self) -> dict[str, Any]:
        config = json.loads((self.golden.tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
        config.pop("auto_map", None)  # the code it names is nowhere
        return {**config, **(self.changes or {})}

    def _golden_added(self) -> list[dict[str, Any]]:
        decoder = self._config().get("added_tokens_decoder") or {}
        path = self.golden.tokenizer / "tokenizer.json"
        if path.is_file():
            return list(json.loads(path.read_text(encoding="utf-8"))["added_tokens"])
        return [{"id": int(i), **token} for i, token in decoder.items()]

    def _golden_ids(self) -> dict[str, int]:
        path = self.golden.tokenizer / "tokenizer.json"
        ids = {token["content"]: token["id"] for token in self._golden_added()}
        if not path.is_file():
            return ids
        vocabulary = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
        return {**vocabulary, **ids}

    def _missing(self, ids: Mapping[str, int]) -> list[dict[str, Any]]:
        """The set's added tokens that the vocabulary lacks, with ids behind its own."""
        named = [token for token in self._golden_added() if "reserved" not in token["content"]]
        missing = [token for token in named if token["content"] not in ids]
        start = max(ids.values()) + 1
        return [{**token, "id": start + i} for i, token in enumerate(missing)]

    def _write_json(self, folder: Path) -> dict[str, int]:
        made = tokenizer_json(self.vocabulary)
        for token in made["added_tokens"]:
            token["content"] = self.rename(token["id"], token["content"]) if self.rename else token["content"]
        ids = {**made["model"]["vocab"], **{token["content"]: token["id"] for token in made["added_tokens"]}}
        added = self._missing(ids)
        made["added_tokens"] += added
        config = self._config()
        config["added_tokens_decoder"] = _decoder(made["added_tokens"])
        (folder / "tokenizer.json").write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
        return {**ids, **{token["content"]: token["id"] for token in added}}

    def _write_sentencepiece(self, folder: Path) -> dict[str, int]:
        import sentencepiece

        shutil.copyfile(vocabulary_file(self.vocabulary), folder / "tokenizer.model")
        library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        ids = {library.id_to_piece(i): i for i in range(library.get_piece_size())}
        added = self._missing(ids)
        own = [{**token, "id": ids[token["content"]]} for token in self._golden_added() if token["content"] in ids]
        config = {**self._config(), "added_tokens_decoder": _decoder([*own, *added])}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
        return {**ids, **{token["content"]: token["id"] for token in added}}


def _decoder(added: list[dict[str, Any]]) -> dict[str, Any]:
    return {str(token["id"]): {key: token[key] for key in FIELDS} for token in added}


def _extra(token_id: int, content: str) -> str:
    """Qwen's process reward models call the token 151651 <extra_0>."""
    return {151651: "<extra_0>"}.get(token_id, content)


MINIATURES = (
    Miniature("seqcls-llama3", "llama3", "every_bos_removed", options=EVERY_BOS),
    Miniature("seqcls-llama3", "llama3", "first_bos_removed", form="front"),
    # The tokenizer.json of April 2024 adds no bos: the template's stays, unless the card removes it.
    Miniature("seqcls-llama3", "llama3-early", "template_ids"),
    Miniature("seqcls-llama3", "llama3-early", "every_bos_removed", options=EVERY_BOS, form="card"),
    Miniature("seqcls-llama3", "deepseek", "first_bos_removed", changes=DEEPSEEK_CONFIG),
    Miniature("armorm", "llama3", "gated_llama"),
    Miniature("qrm-llama3", "llama3", "gated_llama"),
    Miniature("grm-ft-llama3", "llama3", "template_as_text"),
    Miniature("grm-sftreg-llama3", "llama3", "template_as_text"),
    Miniature("athene", "llama3", "athene"),
    Miniature("rlhflow-pair-pm", "llama3", "pair_pm"),
    Miniature("dpo-implicit", "llama3", "continuation"),
    Miniature("drsow-bos", "llama3", "continuation"),
    Miniature("seqcls-llama31", "llama31", "first_bos_removed"),
    Miniature("seqcls-tulu3", "llama31", "first_bos_removed"),
    Miniature("inf-orm", "llama31", "template_ids"),
    Miniature("urm", "llama31", "template_as_text"),
    Miniature("qrm-llama31", "llama31", "gated_llama"),
    Miniature("nemotron-hf", "llama31", "template_ids"),
    Miniature("rlhflow-prm", "llama31", "rlhflow_prm"),
    Miniature("versaprm", "llama31", "versaprm"),
    Miniature("seqcls-qwen3", "qwen3", "first_bos_removed"),
    Miniature("seqcls-qwen2", "qwen2", "first_bos_removed"),
    Miniature("seqcls-qwen2", "r1distill", "first_bos_removed", changes=DEEPSEEK_CONFIG),
    Miniature("trl-prm-token-classification", "r1distill", "trl_prm", changes=DEEPSEEK_CONFIG),
    Miniature("qwen2-math-rm", "qwen25", "qwen_math_rm"),
    Miniature("worldpm", "qwen25", "bare_text"),
    Miniature("qwen2.5-math-prm", "qwen25", "qwen_prm", rename=_extra),
    Miniature("actprm-ensemble", "qwen25", "actprm", rename=_extra),
    Miniature("skywork-o1-open-prm", "qwen25", "skywork_prm"),
    Miniature("trl-prm-token-classification", "qwen25", "trl_prm"),
    Miniature("reasonflux-prm-1.5b", "qwen25", "reasonflux"),
    Miniature("drsow", "qwen25", "continuation"),
    Miniature("seqcls-gemma1", "gemma", "every_bos_removed", options=EVERY_BOS),
    Miniature("seqcls-gemma2", "gemma", "first_bos_removed"),
    Miniature("grm-sftreg-gemma2", "gemma", "template_as_text"),
    Miniature("qrm-gemma2", "gemma", "gated_gemma"),
    Miniature("ldl-gemma2", "gemma", "first_bos_removed"),
    Miniature("starling-7b", "llama2", "starling"),
    Miniature("beaver-reward", "llama2", "beaver"),
    Miniature("ultrarm", "llama2", "ultrarm"),
    Miniature("ultrarm", "llama2", "ultrarm", changes={"add_eos_token": True}, form="eos"),
    Miniature("eurus", "llama2", "eurus"),
    Miniature("math-shepherd", "llama2", "math_shepherd", changes={"add_prefix_space": None}),
    Miniature("seqcls-mistral", "mistral", "every_bos_removed", options=EVERY_BOS),
    Miniature("seqcls-mistral", "mistral", "first_bos_removed", changes={"legacy": False}, form="new"),
    Miniature("eurus", "mistral", "eurus"),
    Miniature("math-shepherd", "mistral", "math_shepherd"),
    Miniature("reasoneval", "mistral", "reasoneval"),
    Miniature(
        "internlm2-reward",
        "mistral",
        "internlm2",
        # The repository's own class, made after LlamaTokenizer, is not there for the reference.
        changes={"tokenizer_class": "LlamaTokenizer"},
    ),
)
