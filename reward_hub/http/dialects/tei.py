"""Text Embeddings Inference: `/predict` of a classifier. `raw_scores` is off by default (sigmoid or softmax).

`["a", "b"]` is ONE pair; a batch is a list of lists. Results of one input are sorted by score. The server adds the
special tokens itself and renders nothing: it is given the prompt and the response as a pair, or, where the chat
template is known here, the rendered text.
Source: TEI 1.9.3, its OpenAPI description (read, not run).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reward_hub.errors import InvalidConversationError, ServerError
from reward_hub.http.client import HttpClient
from reward_hub.http.dialects.base import Dialect, Served, ServerInput, ServerScore, get_or_none, number, unusable


async def recognise(client: HttpClient, model: str) -> Served | None:
    info = await get_or_none(client, "/info")
    if not isinstance(info, Mapping) or "model_id" not in info or "model_type" not in info:
        return None
    kind = info["model_type"]
    if not isinstance(kind, Mapping) or "classifier" not in kind:
        raise ServerError(f"TEI serves {info['model_id']} as {kind}; a reward model is a classifier there.")
    labels = kind["classifier"].get("id2label") if isinstance(kind["classifier"], Mapping) else None
    if isinstance(labels, Mapping) and len(labels) > 1:
        raise ServerError(
            f"TEI serves {info['model_id']} with the labels {', '.join(map(str, labels.values()))}: which of their "
            "scores is the reward is not known."
        )
    limit = info.get("max_input_length")
    return Served(
        None,
        root=str(info["model_id"]),
        max_length=limit if isinstance(limit, int) else None,
        version=str(info.get("version", "")),
    )


def body_of(served: Served, item: ServerInput) -> dict[str, Any]:
    texts = [item.text_without_bos] if item.text else list(pair_of(item))
    return {"inputs": [texts], "raw_scores": True, "truncate": False}


def pair_of(item: ServerInput) -> tuple[str, str]:
    """The prompt and the response of a conversation that is nothing else."""
    turns = item.messages
    if len(turns) != 2 or turns[0]["role"] != "user" or not all(isinstance(t["content"], str) for t in turns):
        raise InvalidConversationError(
            "This server takes a prompt and its response as two texts. For longer conversations say with checkpoint= "
            "or tokenizer= whose chat template renders them.",
            field="messages",
        )
    return turns[0]["content"], turns[1]["content"]


def score_in(reply: Any) -> ServerScore:
    inner = reply[0] if isinstance(reply, list) and len(reply) == 1 else None
    if not isinstance(inner, list) or not all(isinstance(item, Mapping) for item in inner):
        raise unusable("it is not a list with the results of one input")
    if len(inner) != 1:
        labels = ", ".join(str(item.get("label")) for item in inner)
        raise unusable(f"scores of {len(inner)} labels ({labels}), and which of them is the reward is not known")
    return ServerScore(number(inner[0].get("score")))


DIALECT = Dialect(
    name="tei",
    recognise=recognise,
    takes="pair",
    routes={"/predict": (body_of, score_in)},
    activation=("raw_scores", True, False),
)
