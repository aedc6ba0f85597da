"""URM: mean and deviation of five attributes at the last token, the means weighed by a small network.

Scores the whole conversation; raw and unbounded.
Recipe: https://huggingface.co/LxzGordon/URM-LLaMa-3.1-8B (arithmetic of SGLang's native port, which is tested against
the repository's code; the card gives the chat template's text to the tokenizer, so that two bos stand in front).
Departs from it: the weighing network runs in float32, where SGLang runs it in float16.
"""

from __future__ import annotations

from reward_hub.encoding import read_last, two_bos_ids
from reward_hub.families.armorm import HELPSTEER, objective_names
from reward_hub.family import Checkpoint, Config, Family, Setup, TensorShapes
from reward_hub.heads import MLP, Linear, Stacked
from reward_hub.numerics import selu
from reward_hub.reads import HeadOutputs
from reward_hub.types import Array, Conversation, Scored, TokenInput

ARCHITECTURE = "LlamaForSequenceClassificationWithNormal_Weights"


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Two bos where template and tokenizer each put one; the last token is read."""
    return read_last(two_bos_ids(conversation.messages, setup.tokenizer))


def read(setup: Setup) -> HeadOutputs:
    """(mean, deviation) of each attribute, then the weight of each."""
    n = _n_attributes(setup.tensors)
    weighing = MLP(tuple(f"weights.fc.{i}" for i in (0, 2, 4)), n, activation=selu)
    return HeadOutputs(Stacked((Linear("score", 2 * n, bias=False), weighing)))


def _n_attributes(tensors: TensorShapes) -> int:
    """What most of the head's tensors say, so that the one that disagrees is the one to blame."""
    rows = {"score.weight": 2, "weights.fc.4.weight": 1, "weights.fc.4.bias": 1}
    said = [tensors[name][0] // per for name, per in rows.items() if name in tensors] or [len(HELPSTEER)]
    return max(said, key=said.count)


def score(outputs: Array, setup: Setup) -> Scored:
    """[1, 2 n + n] -> sum of mean times weight."""
    n = outputs.shape[1] // 3
    means, weights = outputs[0, : 2 * n : 2], outputs[0, 2 * n :]
    names = HELPSTEER if n == len(HELPSTEER) else objective_names(n)
    return Scored(
        float(means @ weights),
        attributes=dict(zip(names, means.tolist(), strict=True)),
        gating=dict(zip(names, weights.tolist(), strict=True)),
    )


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """The class name, or a `score` of two rows an attribute beside a weighing network."""
    if ARCHITECTURE in (config.get("architectures") or []):
        return True
    return config.get("model_type") == "llama" and any(name.startswith("weights.fc.") for name in tensors)


FAMILY = Family(
    name="urm",
    kind="outcome",
    source="https://huggingface.co/LxzGordon/URM-LLaMa-3.1-8B",
    checkpoints=(
        Checkpoint("LxzGordon/URM-LLaMa-3.1-8B", license="unstated"),
        Checkpoint("LxzGordon/URM-LLaMa-3-8B", license="unstated"),
    ),
    matches=matches,
    architectures=(ARCHITECTURE,),
    encode=encode,
    read=read,
    score=score,
    read_summary="two heads at the last token",
    head_summary="score [2 n, H] (mean, deviation) x weights.fc [n]",
    reading="Two bos, as the card; RewardBench's default pipeline amounts to one, which is another score.",
)
