"""RLHFlow process reward models: P('+') against '-' as the assistant's next word after each step.

Recipe: https://github.com/RLHFlow/RLHF-Reward-Modeling (math-rm/prm_evaluate.py). The question and the first step make
one user turn, every further step a user turn, every assistant turn is "+".
Departs from it: one forward pass instead of one a step. Attention is causal and each growing prefix renders alike, so
the numbers are the same (measured difference 0). Messages before the question are kept as they are.
"""

from __future__ import annotations

from dataclasses import replace

from reward_hub.encoding import tokens_before
from reward_hub.errors import CheckpointError, InvalidConversationError
from reward_hub.family import Checkpoint, Family, Setup, calls_itself, never, step_probability
from reward_hub.reads import TokenLogits
from reward_hub.types import Conversation, Message, TokenInput

GOOD, BAD = "+", "-"
# "+" and the end of its turn stand after the position whose next token is judged.
TOKENS_AFTER_READ = 3


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Read right before each "+": three tokens before the end of the conversation up to that turn."""
    tokenizer = setup.tokenizer
    assert conversation.steps is not None
    *before, question = conversation.prompt
    if question.role != "user":
        raise InvalidConversationError(
            f"the message before the response has role {question.role!r}; the first step joins a user's question.",
            field="messages",
        )
    turns: list[Message] = [*before]
    ends: list[int] = []
    text = ""
    for k, step in enumerate(conversation.steps):
        if k == 0:
            # Not a new message: what the template takes besides (tools) stands with the first one.
            turns.append(replace(question, content=f"{question.text} {step.strip()}"))
        else:
            turns.append(Message("user", step.strip()))
        turns.append(Message("assistant", GOOD))
        grown = tokenizer.render(turns)
        if not grown.startswith(text):
            raise CheckpointError(
                "The chat template renders a longer conversation differently; steps cannot be read in one pass."
            )
        text = grown
        ends.append(len(text))
    token_ids, offsets = tokenizer.encode_with_offsets(text)
    positions = [tokens_before(offsets, end) - TOKENS_AFTER_READ for end in ends]
    good = tokenizer.single_id(GOOD)
    if any(token_ids[position + 1] != good for position in positions):
        raise CheckpointError(
            f"The chat template does not end a turn of {GOOD!r} with one token; this family needs that."
        )
    return TokenInput(token_ids, positions)


def read(setup: Setup) -> TokenLogits:
    """The two label tokens."""
    return TokenLogits((setup.tokenizer.single_id(GOOD), setup.tokenizer.single_id(BAD)))


FAMILY = Family(
    name="rlhflow-prm",
    kind="process",
    source="https://github.com/RLHFlow/RLHF-Reward-Modeling/tree/main/math-rm",
    checkpoints=(
        Checkpoint("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", license="llama3.1"),
        Checkpoint("RLHFlow/Llama3.1-8B-PRM-Mistral-Data", license="llama3.1"),
    ),
    matches=never,
    possible=calls_itself("LlamaForCausalLM"),
    encode=encode,
    read=read,
    score=step_probability(0),
    score_range=(0.0, 1.0),
    aggregate="mean",
    recipe=2,
    read_summary="logits of '+' and '-' after each step",
    head_summary="lm_head rows of '+' and '-'",
    reading="The authors' script. ProcessBench joins question and step by a blank line, PRMBench takes the softmax "
    "over the whole vocabulary, reward_hub 0.1 gives the question a turn of its own: other numbers.",
)
