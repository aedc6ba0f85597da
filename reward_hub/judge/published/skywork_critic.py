"""Skywork-Critic: the better of two responses, as "[[A]]" or "[[B]]" and nothing else.

Prompt: the model card, https://huggingface.co/Skywork/Skywork-Critic-Llama-3.1-8B. Its words are those of MT-Bench's
pairwise judge (https://github.com/lm-sys/FastChat, Apache-2.0) without the explanation; the weights are under
Skywork's own licence. One user message, no system prompt.
Departs from it: `[[A]]` and `[[B]]` in one reply is not a verdict, where RewardBench takes A. A longer conversation is
written into the question turn by turn.
"""

from __future__ import annotations

from collections.abc import Sequence

from reward_hub.judge.form import ChatMessages, JudgeForm, JudgeTask, Reply
from reward_hub.judge.marks import in_brackets
from reward_hub.judge.templates import Template, instruction_of, read_letter, refuse_reference
from reward_hub.types import Checkpoint

NAME = "skywork-critic"

_TEMPLATE = Template(
    NAME,
    "Please act as an impartial judge and evaluate the quality of the responses provided by two AI assistants to the "
    "user question displayed below. You should choose the assistant that follows the user's instructions and answers "
    "the user's question better. \n"
    "Your evaluation should consider factors such as the helpfulness, relevance, accuracy, depth, creativity, and "
    "level of detail of their responses. Avoid any position biases and ensure that the order in which the responses "
    "were presented does not influence your decision. Do not allow the length of the responses to influence your "
    "evaluation. Do not favor certain names of the assistants. Be as objective as possible. \n"
    'Please directly output your final verdict by strictly following this format: "[[A]]" if assistant A is better, '
    '"[[B]]" if assistant B is better.\n'
    """
[User Question]
{question}

[The Start of Assistant A's Answer]
{answer_a}
[The End of Assistant A's Answer]

[The Start of Assistant B's Answer]
{answer_b}
[The End of Assistant B's Answer]
""",
    ("[User Question]", "[The Start of Assistant", "[The End of Assistant", "[[A]]", "[[B]]"),
)


def _request(task: JudgeTask, replies: Sequence[Reply]) -> ChatMessages:
    refuse_reference(NAME, task)
    text = _TEMPLATE.filled(
        question=instruction_of(task.prompt), answer_a=task.responses[0], answer_b=task.responses[1]
    )
    return [{"role": "user", "content": text}]


def skywork_critic() -> JudgeForm:
    """The better of two responses."""
    return JudgeForm(
        name=NAME,
        mode="pairwise",
        source="https://huggingface.co/Skywork/Skywork-Critic-Llama-3.1-8B",
        request=_request,
        read=read_letter(NAME, in_brackets),
        parse=in_brackets,
        verdict_names=("bracket-verdict",),
        checkpoints=(
            Checkpoint("Skywork/Skywork-Critic-Llama-3.1-8B", license="skywork"),
            Checkpoint("Skywork/Skywork-Critic-Llama-3.1-70B", license="skywork"),
        ),
    )


FORMS = (skywork_critic,)
