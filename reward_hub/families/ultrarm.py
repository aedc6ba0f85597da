"""UltraRM: a linear head at the last token of "Human: ... Assistant: ...".

Scores a question and an answer; a raw, unbounded logit.
Recipe: https://huggingface.co/openbmb/UltraRM-13b (the card's inline class and text: one bos, no eos).
More turns and system prompts have no text there and are refused.
A `regression_head` on Llama under another class name is taken for an UltraRM, for want of other candidates, with a
warning. IDEA-CCNL/Ziya-LLaMA-7B-Reward has the same architecture name and another head; it is not read.
"""

from __future__ import annotations

from reward_hub.encoding import question_and_answer, read_last
from reward_hub.family import Checkpoint, Config, Family, Setup, TensorShapes, head_output
from reward_hub.heads import Linear
from reward_hub.reads import HeadOutputs
from reward_hub.types import Conversation, TokenInput


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """The card's text with the tokenizer's bos, read at the last token."""
    question, answer = question_and_answer(conversation)
    text = f"Human: {question}\n\nAssistant: {answer}"
    return read_last(setup.tokenizer.encode(text, add_special_tokens=True))


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """`regression_head` on Llama; by the shared architecture name only where no other head is there."""
    if config.get("model_type") != "llama":
        return False
    if "regression_head.weight" in tensors:
        return True
    foreign = [n for n in tensors if not n.startswith(("model.", "lm_head.")) and "regression_head" not in n]
    return "LlamaRewardModel" in (config.get("architectures") or []) and not foreign


FAMILY = Family(
    name="ultrarm",
    kind="outcome",
    source="https://huggingface.co/openbmb/UltraRM-13b",
    checkpoints=(Checkpoint("openbmb/UltraRM-13b", license="mit", max_length=2048),),
    matches=matches,
    encode=encode,
    read=HeadOutputs(Linear("regression_head", bias=False)),
    score=head_output,
    read_summary="head at the last token",
    head_summary="regression_head [1, H]",
    reading="The card's text; RewardBench writes 'User:', a blank line at the end and an eos: another score.",
)
