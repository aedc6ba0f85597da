"""Small tokenizers made by code: one token a byte, and special tokens where a test wants them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, processors

TURNS = "{% for message in messages %}{{ message['content'] }}<end>{% endfor %}"


def byte_tokenizer(special: Sequence[str], *, before: Sequence[str] = (), behind: Sequence[str] = ()) -> Any:
    """A tokenizer of bytes whose post-processor puts these special tokens around a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens([*dict.fromkeys([*special, *before, *behind, "<end>"])])
    made.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *behind],
        pair=[*before, "$A", *behind, *before, "$B", *behind],
        special_tokens=[(token, made.token_to_id(token)) for token in dict.fromkeys([*before, *behind])],
    )
    return made


def save(made: Any, folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TURNS, **config}), encoding="utf-8")
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
