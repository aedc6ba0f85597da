"""InternLM2 reward models: a linear head at a reward token appended to the conversation.

Scores the whole conversation; a raw, unbounded logit.
Recipe: https://huggingface.co/internlm/internlm2-7b-reward (modeling_internlm2.py, `get_score`: the chat template's
text without further special tokens, then the reward token unless it already stands last).
Departs from it: runs on the stock Llama classes. Names are mapped and the packed `wqkv` is cut; no number changes.
POLAR has the same form on disk; the name of the reward token tells the two apart (reward_hub/loading/lookalikes.py).
The first public revision tokenised with a second bos and always appended; the current one is followed.
"""

from __future__ import annotations

from typing import Any

from reward_hub.encoding import chat_ids
from reward_hub.errors import CheckpointError
from reward_hub.family import Backbone, Checkpoint, Config, Family, Setup, TensorShapes, head_output
from reward_hub.heads import Linear
from reward_hub.reads import HeadOutputs
from reward_hub.types import Conversation, TokenInput


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Append the reward token unless it is already last, and read there."""
    reward_id = setup.config.get("reward_token_id")
    if reward_id is None:
        raise CheckpointError("config.json has no reward_token_id, which InternLM2 reward models read at.")
    token_ids = chat_ids(conversation.messages, setup.tokenizer)
    if token_ids[-1:] != [reward_id]:
        token_ids.append(int(reward_id))
    return TokenInput(token_ids, [len(token_ids) - 1], n_kept_last=1)


def backbone(config: Config, tensors: TensorShapes) -> Backbone:
    """InternLM2 under Llama's names; each KV group of `wqkv` holds its queries, one key, one value."""
    n_heads = int(config["num_attention_heads"])
    n_kv_heads = int(config.get("num_key_value_heads") or n_heads)
    head_dim = int(config["hidden_size"]) // n_heads

    def split(name: str, tensor: Any) -> dict[str, Any]:
        stem, marker, kind = name.partition(".self_attn.wqkv.")
        if not marker:
            return {name: tensor}
        groups = tensor.reshape(n_kv_heads, n_heads // n_kv_heads + 2, head_dim, *tensor.shape[1:])
        parts = {"q_proj": groups[:, :-2], "k_proj": groups[:, -2], "v_proj": groups[:, -1]}
        return {f"{stem}.self_attn.{part}.{kind}": rows.reshape(-1, *tensor.shape[1:]) for part, rows in parts.items()}

    stock = {key: value for key, value in config.items() if key not in ("auto_map", "bias", "attn_implementation")}
    stock |= {"model_type": "llama", "architectures": ["LlamaModel"], "head_dim": head_dim}
    # Without these keys Llama's config would assume its own defaults, which agree; InternLM2 has biases in attention
    # where `bias` is set.
    stock |= {"attention_bias": bool(config.get("bias", False)), "mlp_bias": False}
    return Backbone(
        config=stock,
        rename=(
            (r"^model\.tok_embeddings\.", "embed_tokens."),
            (r"^model\.(layers\.\d+)\.attention_norm\.", r"\1.input_layernorm."),
            (r"^model\.(layers\.\d+)\.ffn_norm\.", r"\1.post_attention_layernorm."),
            (r"^model\.(layers\.\d+)\.attention\.wo\.", r"\1.self_attn.o_proj."),
            (r"^model\.(layers\.\d+)\.attention\.wqkv\.", r"\1.self_attn.wqkv."),
            (r"^model\.(layers\.\d+)\.feed_forward\.w1\.", r"\1.mlp.gate_proj."),
            (r"^model\.(layers\.\d+)\.feed_forward\.w3\.", r"\1.mlp.up_proj."),
            (r"^model\.(layers\.\d+)\.feed_forward\.w2\.", r"\1.mlp.down_proj."),
            (r"^model\.", ""),
        ),
        split=split,
    )


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """InternLM2 tensor names with a reward token in the config, or a value head on them."""
    if config.get("model_type") != "internlm2":
        return False
    return "v_head.weight" in tensors or "InternLM2ForRewardModel" in (config.get("architectures") or [])


FAMILY = Family(
    name="internlm2-reward",
    kind="outcome",
    source="https://huggingface.co/internlm/internlm2-7b-reward",
    checkpoints=(
        Checkpoint(
            "internlm/internlm2-1_8b-reward", license="internlm (weights free for research, commercial on application)"
        ),
        Checkpoint(
            "internlm/internlm2-7b-reward", license="internlm (weights free for research, commercial on application)"
        ),
        Checkpoint(
            "internlm/internlm2-20b-reward", license="internlm (weights free for research, commercial on application)"
        ),
    ),
    matches=matches,
    architectures=("InternLM2ForRewardModel",),
    encode=encode,
    read=HeadOutputs(Linear("v_head", bias=False)),
    score=head_output,
    backbone=backbone,
    read_summary="head at the reward token appended",
    head_summary="v_head [1, H]",
    reading="The current revision of the card's code and RewardBench: one bos, reward token appended once.",
)
