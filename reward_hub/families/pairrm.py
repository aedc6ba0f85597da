"""PairRM: which of two responses is better, read at three marker tokens of a DeBERTa encoder.

Compares; the logit that the first response is the better one, unbounded. `compare` gives its sigmoid.
Recipe: https://huggingface.co/llm-blender/PairRM-hf (`tokenize_conv_pair` and DebertaV2PairRM), in one order as the
card has it. The misspelt instruction, and that nothing stands between it and the first turn, are the original's.
Departs from it: a marker's text inside a prompt or a response is text, where the original stops; what does not fit
into 2048 tokens (1224 of them for the prompt) is an error unless `truncation` allows to cut it. With
truncation="right" it is cut as the card does.
"""

from __future__ import annotations

from reward_hub.encoding import MarkedParts, config_id, cut_marked, marked_ids, require_alternating
from reward_hub.family import Backbone, Checkpoint, Config, Family, Pair, Setup, TensorShapes, head_output, never
from reward_hub.heads import Difference
from reward_hub.reads import HeadOutputs
from reward_hub.types import TokenInput

INSTRUCTION = "Finish the following coversation in each i-th turn by filling in <Response i> with your response."
MAX_LENGTH = 2048
PROMPT_LENGTH = 1224


def encode(pair: Pair, setup: Setup) -> TokenInput:
    """Prompt and responses, each behind its marker; uncut."""
    return _parts(pair, setup).joined()


def cut(pair: Pair, setup: Setup, max_length: int, truncation: str) -> TokenInput | None:
    """The card's budgets: 1224 tokens for the prompt, half of the rest for each response."""
    return cut_marked(_parts(pair, setup), max_length, truncation, budgets=(MAX_LENGTH, PROMPT_LENGTH))


def _parts(pair: Pair, setup: Setup) -> MarkedParts:
    require_alternating(pair.prompt, "pairrm")
    users = [message.text for message in pair.prompt[::2]]
    turns = [f"USER: {text}\nAssistant: <Response {i}>" for i, text in enumerate(users, start=1)]
    earlier = [message.text for message in pair.prompt[1::2]]

    def ids(text: str, key: str) -> list[int]:
        return marked_ids(text, config_id(setup.config, key), setup.tokenizer)

    def candidate(response: str) -> str:
        return "\n".join(f"<Response {i}>: {text}" for i, text in enumerate([*earlier, response], start=1))

    return MarkedParts(
        prompt=ids(INSTRUCTION + "\n".join(turns), "source_prefix_id"),
        a=ids(candidate(pair.a), "cand1_prefix_id"),
        b=ids(candidate(pair.b), "cand2_prefix_id"),
    )


def read(setup: Setup) -> HeadOutputs:
    """The difference of two scores; dropout and tanh take the other numbers of the original's `head_layer`."""
    return HeadOutputs(Difference.sized(("head_layer.1", "head_layer.4"), setup.config, setup.tensors))


def backbone(config: Config, tensors: TensorShapes) -> Backbone:
    """A stock DeBERTa-v2 under the prefix `pretrained_model.`."""
    return Backbone(config=config, rename=((r"^pretrained_model\.", ""),), ignore=(r"^head_layer\.",), causal=False)


def possible(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """PairRM and Better-PairRM are the same on disk; nothing tells which text they were trained on."""
    return any(name.startswith("head_layer.") for name in tensors) and config.get("model_type") == "deberta-v2"


FAMILY = Family(
    name="pairrm",
    kind="pairwise",
    source="https://huggingface.co/llm-blender/PairRM-hf",
    checkpoints=(
        Checkpoint("llm-blender/PairRM-hf", license="mit", dtype="float32"),
        Checkpoint(
            "llm-blender/PairRM", license="mit", dtype="float32", note="the authors' own layout; load PairRM-hf instead"
        ),
    ),
    matches=never,
    possible=possible,
    architectures=("DebertaV2PairRM",),
    model_types=("deberta-v2",),
    encode=encode,
    cut=cut,
    read=read,
    score=head_output,
    backbone=backbone,
    max_length=MAX_LENGTH,
    read_summary="three marker tokens",
    head_summary="head_layer.1 [H, 2H] -> tanh -> head_layer.4 [1, H], of a minus of b",
    reading="One order, as the card and LLM-Blender's compare; RewardBench subtracts the logit of the other order.",
)
