"""ReasonFlux-PRM-1.5B: one score for a whole response, a linear head at its last token.

Sigmoid of one output, 0 to 1. (ReasonFlux-PRM-7B is a Qwen2.5-Math-PRM and stands there.)
Recipe: https://huggingface.co/Gen-Verse/ReasonFlux-PRM-1.5B (utils, RewardModel): problem and response as one text with
nothing between; the head is a pickle beside an ordinary causal LM, `reward_head.pt`, read with weights_only.
Departs from it: longer inputs are refused instead of cut at 2048 tokens. Step scores are an extension: the score of the
response up to and including the step, tokenised by itself. The original cuts nothing off a response, so blank lines at
its end belong to what is scored, and to its last step. System prompt and earlier turns, of which the original knows
none, stand before the problem.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from reward_hub.encoding import prompt_text, read_last
from reward_hub.family import Checkpoint, Config, Family, Setup, TensorShapes
from reward_hub.heads import Linear
from reward_hub.numerics import sigmoids
from reward_hub.reads import HeadOutputs
from reward_hub.types import Array, Conversation, Scored, TokenInput

HEAD_FILE = "reward_head.pt"


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Read at the last token of problem and response."""
    text = prompt_text(conversation) + conversation.response
    return read_last(setup.tokenizer.encode(text, add_special_tokens=True))


def prefixes(conversation: Conversation) -> list[Conversation]:
    """The conversation with the response cut after each step, as one step."""
    cut = []
    for end in step_ends(conversation):
        text = conversation.response[:end]
        cut.append(replace(conversation.with_response(text), steps=(text,), step_spans=((0, len(text)),)))
    return cut


def step_ends(conversation: Conversation) -> list[int]:
    """Where each step ends in the response: the last one where the response ends, if only white space follows it. Empty
    steps share the white space they stand in evenly between them."""
    spans = conversation.step_spans or ((0, len(conversation.response)),)
    ends = [end for _, end in spans]
    for empty, run in groupby(range(len(spans)), lambda i: spans[i][0] == spans[i][1]):
        places = list(run)
        first, last = places[0] == 0, places[-1] == len(spans) - 1
        n_gaps = len(places) + 1 - first - last
        if not empty or not n_gaps:
            continue
        start = 0 if first else spans[places[0] - 1][1]
        stop = len(conversation.response) if last else spans[places[-1] + 1][0]
        width, rest = divmod(stop - start, n_gaps)
        if not rest:
            for i, place in enumerate(places):
                ends[place] = start + (i if first else i + 1) * width
    if conversation.response[ends[-1] :].isspace():
        ends[-1] = len(conversation.response)
    return ends


def score(logits: Array, setup: Setup) -> Scored:
    """[1, 1] logit -> its sigmoid."""
    return Scored(steps=sigmoids(logits)[:, 0].tolist())


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """The head's file, or its tensors."""
    return HEAD_FILE in files or any(name.startswith("reward_head.") for name in tensors)


FAMILY = Family(
    name="reasonflux-prm",
    kind="process",
    source="https://huggingface.co/Gen-Verse/ReasonFlux-PRM-1.5B",
    checkpoints=(Checkpoint("Gen-Verse/ReasonFlux-PRM-1.5B", license="mit", max_length=2048),),
    matches=matches,
    encode=encode,
    prefixes=prefixes,
    read=HeadOutputs(Linear("reward_head", bias=True)),
    score=score,
    head_files=(HEAD_FILE,),
    score_range=(0.0, 1.0),
    aggregate="model",
    max_length=2048,
    recipe=2,
    read_summary="head at the last token of each prefix",
    head_summary="reward_head [1, H] in reward_head.pt",
    reading="The authors' RewardModel, one unpadded response; loading the repository as a causal LM drops the head.",
)
