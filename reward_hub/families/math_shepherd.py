"""Math-Shepherd: process reward model, P('+') against '-' read at the tag after each step.

Recipe: https://huggingface.co/peiyi9979/math-shepherd-mistral-7b-prm (the card's procedure): question, a space, lines
"Step 1: ... ки". The language model predicts the label as the token after the tag; both labels and the tag are the
pieces with a leading space, so a space stands before every tag.
Departs from it: "Step k: " is put before steps that do not begin with the word, as PRMBench does it (the card expects
it in the text); the tag inside a text is text, the card's code reads there too; system prompt and earlier turns, of
which the card knows none, stand before the question.
"""

from __future__ import annotations

from reward_hub.encoding import ending_tokens, prompt_text, steps_of
from reward_hub.errors import CheckpointError
from reward_hub.family import Checkpoint, Family, Setup, calls_itself, never, step_probability
from reward_hub.reads import TokenLogits
from reward_hub.types import Conversation, TokenInput

TAG = "ки"
LABELS = "+ -"
LABELLED = ("Step", "step")


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Close every labelled step with a space and the tag, and read at the tag."""
    text = prompt_text(conversation)
    ends = []
    for k, step in enumerate(steps_of(conversation)):
        text += ("\n" if k else " ") + f"{labelled(step.strip(), k + 1)} {TAG}"
        ends.append(len(text))
    return ending_tokens(text, ends, setup.tokenizer.single_id(TAG), setup.tokenizer)


def labelled(step: str, number: int) -> str:
    """The step with "Step k: " before it, unless it says so itself."""
    return step if step.startswith(LABELLED) else f"Step {number}: {step}".strip()


def read(setup: Setup) -> TokenLogits:
    """The labels as pieces with a leading space: the card's `encode("+ -")[1:]`, whose first token is the bos."""
    ids = setup.tokenizer.encode(LABELS)
    if len(ids) != 2:
        raise CheckpointError(f"{LABELS!r} must be two tokens for this family; this tokenizer makes {ids} of it.")
    return TokenLogits((ids[0], ids[1]))


FAMILY = Family(
    name="math-shepherd",
    kind="process",
    source="https://huggingface.co/peiyi9979/math-shepherd-mistral-7b-prm",
    checkpoints=(Checkpoint("peiyi9979/math-shepherd-mistral-7b-prm", license="unstated"),),
    matches=never,
    possible=calls_itself("MistralForCausalLM"),
    encode=encode,
    read=read,
    score=step_probability(0),
    score_range=(0.0, 1.0),
    aggregate="min",
    recipe=2,
    read_summary="logits of '+' and '-' at the tag after each step",
    head_summary="lm_head rows of '+' and '-'",
    reading="The card's procedure with the labels PRMBench and VersaPRM add; search-and-learn writes no labels, a "
    "blank line after each tag and a system prompt before the question: other numbers.",
)
