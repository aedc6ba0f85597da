"""VersaPRM: process reward model, P('+') against '-' read at the separator after each step.

Recipe: https://huggingface.co/UW-Madison-Lee-Lab/VersaPRM (evaluation/prm_models/prm_llama.py): question, " \\n\\n",
then each step and " \\n\\n\\n\\n", which is one token; texts are stripped and lose every separator they hold.
Departs from it: positions are those of the true step ends and are checked. Where a separator merges with what follows
(two of them around an empty step, in vocabularies that have a token for it) that is an error, never a shifted score.
System prompt and earlier turns, of which the original knows none, stand before the question.
"""

from __future__ import annotations

from reward_hub.encoding import ending_tokens, prompt_text, steps_of
from reward_hub.family import Checkpoint, Family, Setup, calls_itself, never, step_probability
from reward_hub.reads import TokenLogits
from reward_hub.types import Conversation, TokenInput

STEP_END = " \n\n\n\n"
QUESTION_END = " \n\n"
GOOD, BAD = "+", "-"


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Close every stripped step with the separator and read there."""
    text = cleaned(prompt_text(conversation)) + QUESTION_END
    ends = []
    for step in steps_of(conversation):
        text += cleaned(step) + STEP_END
        ends.append(len(text))
    return ending_tokens(text, ends, setup.tokenizer.single_id(STEP_END), setup.tokenizer)


def cleaned(text: str) -> str:
    """The text without separators and without white space around it."""
    return text.replace(STEP_END, "").strip()


def read(setup: Setup) -> TokenLogits:
    """The two label tokens, in the order of the original."""
    return TokenLogits((setup.tokenizer.single_id(BAD), setup.tokenizer.single_id(GOOD)))


FAMILY = Family(
    name="versaprm",
    kind="process",
    source="https://huggingface.co/UW-Madison-Lee-Lab/VersaPRM",
    checkpoints=(
        Checkpoint("UW-Madison-Lee-Lab/VersaPRM", license="unstated"),
        Checkpoint("UW-Madison-Lee-Lab/VersaPRM-Base-8B", license="unstated"),
        Checkpoint("UW-Madison-Lee-Lab/VersaPRM-Base-3B", license="unstated"),
        Checkpoint("UW-Madison-Lee-Lab/Llama-PRM800K", license="unstated"),
    ),
    matches=never,
    possible=calls_itself("LlamaForCausalLM"),
    encode=encode,
    read=read,
    score=step_probability(1),
    score_range=(0.0, 1.0),
    aggregate="min",
    recipe=2,
    read_summary="logits of '-' and '+' at the separator after each step",
    head_summary="lm_head rows of '-' and '+'",
    reading="The authors' script, the one reference there is; the minimum of the steps is what its voting uses.",
)
