"""The models that are scored with: shapes of published ones with random weights and few layers, saved as checkpoints.

All layers of a model cost the same, so that few of them show how methods compare; kernels do not know random weights
from trained ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.speed.text import CHATML, CHATML_CLOSED, TOKENS, trained_tokenizer

VOCABULARY = 32_000
N_PIECES = 16_000


@dataclass(frozen=True)
class Shape:
    """A model to be made.

    Attributes:
        kind: "outcome" has a score head of one number; "process" is a language model that says "+" or "-".
        architecture: "qwen2" is Qwen2.5-0.5B; "gemma2" is Gemma-2-2B, whose attention caps its scores.
        tiny: of a few thousand weights, for tests and for what a call costs beside the model.
    """

    kind: Literal["outcome", "process"] = "outcome"
    architecture: Literal["qwen2", "gemma2"] = "qwen2"
    n_layers: int = 2
    vocabulary: int = VOCABULARY
    tiny: bool = False

    @property
    def name(self) -> str:
        size = f"tiny-{self.architecture}" if self.tiny else self.architecture
        return f"{size}-{self.kind}-{self.n_layers}-layers-{self.vocabulary}"

    def in_small(self) -> Shape:
        return replace(self, n_layers=min(2, self.n_layers), vocabulary=min(1000, self.vocabulary), tiny=True)

    @property
    def n_pieces(self) -> int:
        return min(N_PIECES, self.vocabulary)

    @property
    def flops_a_token(self) -> float:
        """Of the matrix products of the layers, without attention."""
        sizes = _sizes(self)
        hidden, heads, of_keys = sizes["hidden_size"], sizes["num_attention_heads"], sizes["num_key_value_heads"]
        width = sizes.get("head_dim", hidden // heads)
        weights = hidden * width * (2 * heads + 2 * of_keys) + 3 * hidden * sizes["intermediate_size"]
        return 2.0 * weights * self.n_layers


def made(shape: Shape, folder: Path) -> Path:
    """The checkpoint's folder; made at the first call."""
    path = folder / shape.name
    if not path.exists():
        import torch

        torch.manual_seed(0)
        model = _model(shape).to(torch.bfloat16).eval()
        with torch.no_grad():
            # A head that spreads the scores, as a trained one does: among scores of nearly one value no choice shows.
            if shape.kind == "outcome":
                model.score.weight.mul_(5.0)
        model.save_pretrained(path)
        _save_tokenizer(shape, path)
    return path


def tokenizer_of(path: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path / "tokenizer.json"))


def _sizes(shape: Shape) -> dict[str, int]:
    if shape.tiny:
        return {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
        }
    if shape.architecture == "gemma2":
        return {
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
        }
    return {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2}


def _model(shape: Shape) -> Any:
    import transformers

    common: dict[str, Any] = {
        **_sizes(shape),
        "num_hidden_layers": shape.n_layers,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 32_768,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 2,
        "tie_word_embeddings": True,
    }
    if shape.kind == "outcome":
        common["num_labels"] = 1
    if shape.architecture == "gemma2":
        config: Any = transformers.Gemma2Config(
            **common,
            query_pre_attn_scalar=common["head_dim"],
            sliding_window=4096,
            attn_logit_softcapping=50.0,
            attn_implementation="eager",
        )
        classes = transformers.Gemma2ForSequenceClassification, transformers.Gemma2ForCausalLM
    else:
        config = transformers.Qwen2Config(**common, rope_parameters={"rope_theta": 1_000_000.0, "rope_type": "default"})
        classes = transformers.Qwen2ForSequenceClassification, transformers.Qwen2ForCausalLM
    return classes[shape.kind == "process"](config)


def _save_tokenizer(shape: Shape, path: Path) -> None:
    trained_tokenizer(shape.n_pieces).save(str(path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": TOKENS[0],
        "eos_token": TOKENS[2],
        "chat_template": CHATML if shape.kind == "outcome" else CHATML_CLOSED,
        "model_max_length": 32_768,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
