"""RM-R1: a judge that reasons, by rubrics or by solving the task itself, and then names the better of two responses.

Prompts: demo/demo.ipynb of https://github.com/RM-R1-UIUC/RM-R1 and the model cards (MIT on that of the distilled
7B). Instruct models have a long system prompt; the DeepSeek-distilled ones none, and think first. Paper: https://arxiv.org/abs/2505.02387.
Both letters in one reply are not a verdict, as in the authors' parser; thinking is cut off before.
Longer conversations go into the authors' prompt for several turns. How they write the turns themselves is not
published in words: ours are `User: ...` and `Assistant: ...` with a blank line between.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from reward_hub.judge.form import ChatMessages, JudgeForm, JudgeTask, Reply
from reward_hub.judge.marks import LETTER, a_or_b, agreed, letters_in_brackets, without_thinking
from reward_hub.judge.templates import Template, read_letter, refuse_reference, transcript
from reward_hub.types import Checkpoint, Message

SOURCE = "https://arxiv.org/abs/2505.02387"
INSTRUCT, DISTILLED = "rm-r1", "rm-r1-distilled"
MAX_TOKENS = 8192

_SYSTEM = """Please act as an impartial judge and evaluate the quality of the responses provided by two AI Chatbots to \
the Client's question displayed below.

First, classify the task into one of two categories: <type>Reasoning</type> or <type>Chat</type>.
- Use <type>Reasoning</type> for tasks that involve math, coding, or require domain knowledge, multi-step inference, \
logical deduction, or combining information to reach a conclusion.
- Use <type>Chat</type> for tasks that involve open-ended or factual conversation, stylistic rewrites, safety \
questions, or general helpfulness requests without deep reasoning.

If the task is Reasoning:
1. Solve the Client's question yourself and present your final answer within <solution>...</solution> tags.
2. Evaluate the two Chatbot responses based on correctness, completeness, and reasoning quality, referencing your own \
solution.
3. Include your evaluation inside <eval>...</eval> tags, quoting or summarizing the Chatbots using the following tags:
   - <quote_A>...</quote_A> for direct quotes from Chatbot A
   - <summary_A>...</summary_A> for paraphrases of Chatbot A
   - <quote_B>...</quote_B> for direct quotes from Chatbot B
   - <summary_B>...</summary_B> for paraphrases of Chatbot B
4. End with your final judgment in the format: <answer>[[A]]</answer> or <answer>[[B]]</answer>

If the task is Chat:
1. Generate evaluation criteria (rubric) tailored to the Client's question and context, enclosed in \
<rubric>...</rubric> tags.
2. Assign weights to each rubric item based on their relative importance.
3. Inside <rubric>, include a <justify>...</justify> section explaining why you chose those rubric criteria and weights.
4. Compare both Chatbot responses according to the rubric.
5. Provide your evaluation inside <eval>...</eval> tags, using <quote_A>, <summary_A>, <quote_B>, and <summary_B> as \
described above.
6. End with your final judgment in the format: <answer>[[A]]</answer> or <answer>[[B]]</answer>

Important Notes:
- Be objective and base your evaluation only on the content of the responses.
- Do not let response order, length, or Chatbot names affect your judgment.
- Follow the response format strictly depending on the task type.

Your output must follow one of the two formats below:

For Reasoning:
<type>Reasoning</type>

<solution> your own solution for the problem </solution>

<eval>
  include direct comparisons supported by <quote_A>...</quote_A> or <summary_A>...</summary_A>, and \
<quote_B>...</quote_B>, or <summary_B>...</summary_B>
</eval>

<answer>[[A/B]]</answer>

For Chat:
<type>Chat</type>

<rubric>
  detailed rubric items
  <justify> justification for the rubric </justify>
</rubric>

<eval>
  include direct comparisons supported by <quote_A>...</quote_A> or <summary_A>...</summary_A>, and \
<quote_B>...</quote_B>, or <summary_B>...</summary_B> tags
</eval>

<answer>[[A/B]]</answer>"""
_ONE_TURN = """[Client Question]
{question}

[The Start of Chatbot A's Response]
{answer_a}
[The End of Chatbot A's Response]

[The Start of Chatbot B's Response]
{answer_b}
[The End of Chatbot B's Response]"""
_TURNS = """[The Start of the Conversation between Chatbot A and the Client]
{conversation_a}
[The End of the Conversation between Chatbot A and the Client]

[The Start of the Conversation between Chatbot B and the Client]
{conversation_b}
[The End of the Conversation between Chatbot B and the Client]"""
_BEFORE = (
    "Please act as an impartial judge and evaluate the quality of the responses provided by two AI Chatbots to the "
    "Client question displayed below. \n\n"
)
_AFTER = (
    "\n\nOutput your final verdict at last by strictly following this format: '<answer>[[A]]</answer>' if Chatbot A is "
    "better, or '<answer>[[B]]</answer>' if Chatbot B is better."
)
_MARKS = (
    *("[Client Question]", "[The Start of Chatbot", "[The End of Chatbot", "[The Start of the Conversation"),
    *("[The End of the Conversation", "[[A]]", "[[B]]", "<answer>", "</think>"),
)
_ANSWER_TAG = re.compile(r"<answer>(?P<inside>.{0,100}?)</answer>", re.IGNORECASE | re.DOTALL)


def rm_r1() -> JudgeForm:
    """The Qwen2.5-Instruct models: a system prompt that has them write rubrics or a solution."""
    checkpoints = tuple(
        Checkpoint(f"gaotang/RM-R1-Qwen2.5-Instruct-{size}", license="see its card") for size in ("7B", "14B", "32B")
    )
    return _form(INSTRUCT, _SYSTEM, "", "", checkpoints)


def rm_r1_distilled() -> JudgeForm:
    """The DeepSeek-distilled models: no system prompt."""
    checkpoints = (
        Checkpoint("gaotang/RM-R1-DeepSeek-Distilled-Qwen-7B", license="mit"),
        Checkpoint("gaotang/RM-R1-DeepSeek-Distilled-Qwen-14B", license="see its card"),
        Checkpoint("gaotang/RM-R1-DeepSeek-Distilled-Qwen-32B", license="see its card"),
    )
    return _form(DISTILLED, None, _BEFORE, _AFTER, checkpoints)


def _form(name: str, system: str | None, before: str, after: str, checkpoints: tuple[Checkpoint, ...]) -> JudgeForm:
    one_turn = Template(name, before + _ONE_TURN + after, _MARKS)
    turns = Template(name, before + _TURNS + after, _MARKS)

    def request(task: JudgeTask, replies: Sequence[Reply]) -> ChatMessages:
        refuse_reference(name, task)
        a, b = task.responses
        if len(task.prompt) == 1:
            text = one_turn.filled(question=task.prompt[0].text, answer_a=a, answer_b=b)
        else:
            conversations = (transcript((*task.prompt, Message("assistant", response))) for response in (a, b))
            text = turns.filled(conversation_a=next(conversations), conversation_b=next(conversations))
        opening = [] if system is None else [{"role": "system", "content": system}]
        return [*opening, {"role": "user", "content": text}]

    return JudgeForm(
        name=name,
        mode="pairwise",
        source=SOURCE,
        request=request,
        read=read_letter(name, _verdict),
        parse=_verdict,
        checkpoints=checkpoints,
        max_tokens=MAX_TOKENS,
    )


def _verdict(text: str) -> str:
    """<answer>[[A]]</answer>; both letters in double brackets are an error wherever they stand, as in the authors'."""
    answer = without_thinking(text)
    tagged = [tag["inside"].strip(" \n*_`[]\\") for tag in _ANSWER_TAG.finditer(answer)]
    letters = [a_or_b(match) for inside in tagged if (match := LETTER.fullmatch(inside)) is not None]
    return agreed([*letters, *letters_in_brackets(answer)])


FORMS = (rm_r1, rm_r1_distilled)
