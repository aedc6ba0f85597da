"""RLHFlow process reward models: P('+') against '-' as the assistant's next word after each step.

Recipe: https://github.com/RLHFlow/RLHF-Reward-Modeling (math-rm/prm_evaluate.py). The question and the first step make
one user turn, every further step a user turn, every assistant turn is "+".
Departs from it: one forward pass instead of one a step. Attention is causal and each growing prefix renders alike, so
the numbers are the same (measured difference 0). Messages before the question are kept as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

from reward_hub.encoding import steps_of, tokens_before
from reward_hub.errors import CheckpointError, InvalidConversationError
from reward_hub.family import Checkpoint, Family, Setup, calls_itself, never, step_probability
from reward_hub.reads import TokenLogits
from reward_hub.types import Conversation, Message, TokenInput

GOOD, BAD = "+", "-"
# "+" and the end of its turn stand after the position whose next token is judged.
TOKENS_AFTER_READ = 3
# Made-up steps, by which a template shows what it writes around one.
WORDS = ("zqstepax", "zqstepbx", "zqstepcx")


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Read right before each "+": three tokens before the end of the conversation up to that turn."""
    tokenizer = setup.tokenizer
    *before, question = conversation.prompt
    if question.role != "user":
        raise InvalidConversationError(
            f"the message before the response has role {question.role!r}; the first step joins a user's question.",
            field="messages",
        )
    steps = [step.strip() for step in steps_of(conversation)]

    def render(shown: Sequence[str]) -> str:
        first, *others = shown
        # Not a new message: what the template takes besides (tools) stands with the first one.
        turns = [*before, replace(question, content=f"{question.text} {first}"), Message("assistant", GOOD)]
        for step in others:
            turns += [Message("user", step), Message("assistant", GOOD)]
        return tokenizer.render(turns)

    text, ends = grown_at_once(render, steps) or grown_by_steps(render, steps)
    token_ids, offsets = tokenizer.encode_with_offsets(text)
    positions = [n - TOKENS_AFTER_READ for n in tokens_before(offsets, ends)]
    good = tokenizer.single_id(GOOD)
    if any(token_ids[position + 1] != good for position in positions):
        raise CheckpointError(
            f"The chat template does not end a turn of {GOOD!r} with one token; this family needs that."
        )
    return TokenInput(token_ids, positions)


def grown_by_steps(render: Callable[[Sequence[str]], str], steps: Sequence[str]) -> tuple[str, list[int]]:
    """The rendered conversation, and where it ends after each step, by rendering it after each step.

    Raises:
        CheckpointError: a longer conversation is rendered otherwise.
    """
    text = ""
    ends = []
    for n in range(1, len(steps) + 1):
        grown = render(steps[:n])
        if not grown.startswith(text):
            raise CheckpointError(
                "The chat template renders a longer conversation differently; steps cannot be read in one pass."
            )
        text = grown
        ends.append(len(text))
    return text, ends


def grown_at_once(render: Callable[[Sequence[str]], str], steps: Sequence[str]) -> tuple[str, list[int]] | None:
    """The same, rendered once: for many steps the other way takes time that grows with their square.

    How the text grows is seen on made-up steps. None where there are few steps, or where the text is not what the
    template writes around those with the steps in their places.
    """
    if len(steps) <= len(WORDS) + 1:
        return None
    text = render(steps)
    try:
        one, two, three = (render(WORDS[: n + 1]) for n in range(len(WORDS)))
    except InvalidConversationError:  # a template that wants certain texts
        return None
    opening, around = one.split(WORDS[0]), two.removeprefix(one).split(WORDS[1])
    if not two.startswith(one) or len(opening) != 2 or len(around) != 2 or three != two + WORDS[2].join(around):
        return None
    parts = [steps[0].join(opening), *(step.join(around) for step in steps[1:])]
    return (text, list(accumulate(map(len, parts)))) if text == "".join(parts) else None


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
