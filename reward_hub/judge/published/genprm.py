"""GenPRM: reviews a solution paragraph by paragraph in one conversation and judges each in a box, Yes or No.

Prompt and score: src/prm_evaluation of https://github.com/RyanLiu112/GenPRM and the 7B's card (MIT).
Paper: https://arxiv.org/abs/2504.00891.
The first paragraph follows the question; each reply is made to begin with "<analyze>" and stays in the conversation for
the next. The score of a paragraph is p(Yes) / (p(Yes) + p(No)) at the word in the box, a missing one of the two
replaced by the smallest of the returned alternatives; without log-probabilities it is 1.0 or 0.0.
Departs from it: the Python code that the model writes is never run. The reply goes on through what the model takes for
its output, as with the authors' execute=False. No box, or boxes that differ, are an error, where theirs is 0.5.
Decoding is greedy; the authors sample at temperature 0.6, top_p 0.95, top_k 20 and take the mean of several replies.
`genprm-simple` asks for the box directly, with the authors' prompt for that.
"""

from __future__ import annotations

from collections.abc import Sequence

from reward_hub.judge.form import ChatMessages, JudgeForm, JudgeTask, Reply, ReplyToken, Verdict
from reward_hub.judge.marks import BOX, agreed, verdict_in, without_thinking, yes_probability
from reward_hub.judge.templates import Template, instruction_of, steps_of
from reward_hub.types import Checkpoint

SOURCE = "https://arxiv.org/abs/2504.00891"
CHECKPOINTS = (
    Checkpoint("GenPRM/GenPRM-1.5B", license="see its card"),
    Checkpoint("GenPRM/GenPRM-7B", license="mit"),
    Checkpoint("GenPRM/GenPRM-32B", license="see its card"),
)
NAME, SIMPLE = "genprm", "genprm-simple"
MAX_TOKENS = 8192
END = "</output>"

_SYSTEM = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
_SIMPLE_SYSTEM = (
    "You are a math teacher. Your task is to review and critique the paragraphs in solution directly. Output your "
    "judgement in the format of `\\boxed{Yes}` if the paragraph is correct, or `\\boxed{No}` if the paragraph is "
    "incorrect."
)
_START = "<analyze>\nLet's analyze the Paragraph {number} step by step: "
_SIMPLE_START = "<output>\n**Judgement**: $\\boxed"
_MARKS = ("<analyze>", "<verify>", "<output>", END, "\\boxed{Yes}", "\\boxed{No}", "[Code Output]")


def genprm(*, use_logprobs: bool = True) -> JudgeForm:
    """Analysis, code and judgement of each paragraph.

    Args:
        use_logprobs: False for servers that give no log-probabilities: 1.0 or 0.0, by the box.
    """
    return _form(NAME, _SYSTEM, _START, CHECKPOINTS, use_logprobs)


def genprm_simple(*, use_logprobs: bool = True) -> JudgeForm:
    """The judgement of each paragraph alone; for checkpoints trained so.

    Args:
        use_logprobs: as for `genprm`.
    """
    return _form(SIMPLE, _SIMPLE_SYSTEM, _SIMPLE_START, (), use_logprobs)


def _form(name: str, system: str, start: str, checkpoints: tuple[Checkpoint, ...], use_logprobs: bool) -> JudgeForm:
    first = Template(name, "Question: {question}\n\n{step}", _MARKS)
    later = Template(name, "{step}", _MARKS)

    def started(number: int) -> str:
        return start.replace("{number}", str(number))

    def request(task: JudgeTask, replies: Sequence[Reply]) -> ChatMessages:
        messages = [{"role": "system", "content": system}]
        for place, step in enumerate(steps_of(name, task)[: len(replies) + 1]):
            if place == 0:
                content = first.filled(question=instruction_of(task.prompt), step=step)
            else:
                content = later.filled(step=step)
            review = started(place + 1)
            if place < len(replies):
                review += f"{replies[place].text.partition(END)[0]}{END}\n"
            messages += [{"role": "user", "content": content}, {"role": "assistant", "content": review}]
        return messages

    def read(task: JudgeTask, replies: Sequence[Reply]) -> Verdict:
        reviews = [started(number) + reply.text for number, reply in enumerate(replies, start=1)]
        scores = tuple(_score(name, started(place + 1), reply) for place, reply in enumerate(replies))
        return Verdict(scores, reasoning="\n\n".join(review.strip() for review in reviews))

    return JudgeForm(
        name=name,
        mode="stepwise",
        source=SOURCE,
        request=request,
        read=read,
        parse=_verdict,
        n_replies=lambda task: len(steps_of(name, task)),
        checkpoints=checkpoints,
        max_tokens=MAX_TOKENS,
        stop=(END,),
        logprobs=use_logprobs,
    )


def _score(name: str, start: str, reply: Reply) -> float:
    verdict = verdict_in(start + reply.text, _verdict, name)
    word = "yes" if verdict else "no"
    token = None if reply.tokens is None else _token_in_box(start, reply.tokens, word)
    if token is None:
        return verdict
    # The counterpart is spelled as the word that was written.
    written = token.text[token.text.lower().index(word) :][: len(word)]
    other = {"yes": "no", "no": "yes"}[word]
    other = other.upper() if written.isupper() else other.capitalize() if written[0].isupper() else other
    unwritten = token.text.replace(written, other)
    here, there = token.logprobs.get(token.text), token.logprobs.get(unwritten)
    yes, no = (here, there) if verdict else (there, here)
    others = [value for text, value in token.logprobs.items() if text not in (token.text, unwritten)]
    probability = yes_probability(yes, no, others)
    return verdict if probability is None else probability


def _token_in_box(start: str, tokens: Sequence[ReplyToken], word: str) -> ReplyToken | None:
    """The token with the word in the last box; None where it is written in several."""
    text = start + "".join(token.text for token in tokens)
    span = _box_of(text, word)
    if span is None:
        return None
    position = len(start)
    for token in tokens:
        if position <= span[0] and span[1] <= position + len(token.text):
            return token
        position += len(token.text)
    return None


def _verdict(text: str) -> float:
    boxes = (box["word"].lower() for box in BOX.finditer(without_thinking(text)))
    return 1.0 if agreed([word for word in boxes if word in ("yes", "no")]) == "yes" else 0.0


def _box_of(text: str, word: str) -> tuple[int, int] | None:
    """Where a word stands in the last box that holds it, in any case."""
    spans = [box.span("word") for box in BOX.finditer(text) if box["word"].lower() == word]
    return spans[-1] if spans else None


FORMS = (genprm, genprm_simple)
