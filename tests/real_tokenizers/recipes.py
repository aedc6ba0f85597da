"""The cards' recipes in plain transformers, written from the cards: `python recipes.py JOB ANSWERS`.

Runs by itself in an environment with transformers 4 and without this project. JOB is JSON: `cases` as in
conversations.py, and `checkpoints`: slug, folder, config, and the recipe's name. ANSWERS gets, for each slug and case,
the ids and the positions, or the error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

MATH = "Please reason step by step, and put your final answer within \\boxed{}."
HELPFUL = (
    "You are a helpful and harmless assistant. "
    "You should think step-by-step and put your final answer within \\boxed{}."
)
Messages = list[dict[str, Any]]
Found = tuple[list[int], list[int]]


def text_of(tok: Any, messages: Messages, **options: Any) -> str:
    return tok.apply_chat_template(messages, tokenize=False, **options)


def ids_of(tok: Any, messages: Messages) -> list[int]:
    return list(tok.apply_chat_template(messages, tokenize=True, return_dict=False))


def one_pair(messages: Messages) -> tuple[str, str]:
    if [message["role"] for message in messages] != ["user", "assistant"]:
        raise ValueError("the card knows one question and one answer")
    return messages[0]["content"], messages[1]["content"]


def with_system(messages: Messages, system: str) -> Messages:
    return messages if messages[0]["role"] == "system" else [{"role": "system", "content": system}, *messages]


# Outcome: (tokenizer, messages, config) -> ids; the last token is read.


def every_bos_removed(tok: Any, messages: Messages, config: Any) -> list[int]:
    return tok(text_of(tok, messages).replace(tok.bos_token, ""))["input_ids"]


def first_bos_removed(tok: Any, messages: Messages, config: Any) -> list[int]:
    text = text_of(tok, messages)
    if tok.bos_token is not None and text.startswith(tok.bos_token):
        text = text[len(tok.bos_token) :]
    return tok(text)["input_ids"]


def template_ids(tok: Any, messages: Messages, config: Any) -> list[int]:
    return ids_of(tok, messages)


def template_as_text(tok: Any, messages: Messages, config: Any) -> list[int]:
    return tok(text_of(tok, messages))["input_ids"]


def bare_text(tok: Any, messages: Messages, config: Any) -> list[int]:
    return tok.encode(text_of(tok, messages), add_special_tokens=False)


def qwen_math_rm(tok: Any, messages: Messages, config: Any) -> list[int]:
    return bare_text(tok, with_system(messages, MATH), config)


def starling(tok: Any, messages: Messages, config: Any) -> list[int]:
    question, answer = one_pair(messages)
    return tok(f"<s>[INST] {question} </s> [/INST] {answer}</s>")["input_ids"]


def ultrarm(tok: Any, messages: Messages, config: Any) -> list[int]:
    question, answer = one_pair(messages)
    return tok(f"Human: {question}\n\nAssistant: {answer}")["input_ids"]


def eurus(tok: Any, messages: Messages, config: Any) -> list[int]:
    question, answer = one_pair(messages)
    return tok(f"[INST] {question} [\\INST] {answer}")["input_ids"]


def beaver(tok: Any, messages: Messages, config: Any) -> list[int]:
    question, answer = one_pair(messages)
    return tok(f"BEGINNING OF CONVERSATION: USER: {question} ASSISTANT:{answer}")["input_ids"]


def internlm2(tok: Any, messages: Messages, config: Any) -> list[int]:
    ids = bare_text(tok, messages, config)
    return ids if ids[-1] == config["reward_token_id"] else [*ids, config["reward_token_id"]]


def read_last(ids: Callable[[Any, Messages, Any], list[int]]) -> Callable[[Any, Any, Any], Found]:
    def found(tok: Any, case: Any, config: Any) -> Found:
        made = list(ids(tok, case["messages"], config))
        return made, [len(made) - 1]

    return found


def read_by_stock_class(recipe: Callable[[Any, Any, Any], Found]) -> Callable[[Any, Any, Any], Found]:
    """Stock classifiers read the last token that is not the config's pad token."""

    def found(tok: Any, case: Any, config: Any) -> Found:
        ids, _ = recipe(tok, case, config)
        return ids, [max((i for i, x in enumerate(ids) if x != config.get("pad_token_id")), default=0)]

    return found


def gated(header: str) -> Callable[[Any, Any, Any], Found]:
    """ArmoRM and QRM: also read where the header before the answer begins."""

    def found(tok: Any, case: Any, config: Any) -> Found:
        ids, pattern = ids_of(tok, case["messages"]), tok.encode(header, add_special_tokens=False)
        starts = [i for i in range(len(ids)) if ids[i : i + len(pattern)] == pattern]
        return ids, [starts[-1], len(ids) - 1]

    return found


def athene(tok: Any, case: Any, config: Any) -> Found:
    ids = tok(text_of(tok, case["messages"]) + tok.cls_token)["input_ids"]
    return ids, [max(i for i, x in enumerate(ids) if x == tok.cls_token_id)]


def continuation(tok: Any, case: Any, config: Any) -> Found:
    """A response's tokens, behind the prompt with its generation prompt; a token of both is the response's."""
    prompt = text_of(tok, case["messages"][:-1], add_generation_prompt=True)
    text = text_of(tok, case["messages"])
    if not text.startswith(prompt):
        raise ValueError("the prompt is not where the conversation begins")
    encoded = tok(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, start = encoded["input_ids"], len(tok(prompt, add_special_tokens=False)["input_ids"])
    if ids[:start] != tok(prompt, add_special_tokens=False)["input_ids"]:
        start = next(i for i, (_, end) in enumerate(encoded["offset_mapping"]) if end > len(prompt))
    return ids, list(range(start, len(ids)))


def pair_pm(tok: Any, case: Any, config: Any) -> Found:
    *before, last = case["messages"]
    roles = ["user", "assistant"]
    if [message["role"] for message in before] != [roles[i % 2] for i in range(len(before))]:
        raise ValueError("user and assistant alternate")
    context = "".join(f"\n<turn> {message['role']}\n {message['content']}" for message in before)
    a, b = last["content"], case["other"]
    prompt = f"[CONTEXT] \n{context}\n [RESPONSE A] {a} [RESPONSE B] {b} \n"
    text = text_of(tok, [{"role": "user", "content": prompt}]).replace(tok.bos_token, "")
    ids = tok.encode(text, add_special_tokens=False)
    return ids, [len(ids) - 1]


# Process: (tokenizer, case, config) -> ids and the position of each step.


def question_of(case: Any) -> str:
    return "\n".join(message["content"] for message in case["messages"])


def at_tags(tok: Any, ids: list[int], tag_id: int, growing: list[str]) -> Found:
    """At every tag, as the cards do, or where texts hold the tag too, at the end of each growing text."""
    places = [i for i, x in enumerate(ids) if x == tag_id]
    if len(places) != len(growing):
        places = [len(tok(text)["input_ids"]) - 1 for text in growing]
        if any(ids[place] != tag_id for place in places):
            raise ValueError("a tag is no token of its own")
    return ids, places


def grown(start: str, steps: list[str], end: str) -> list[str]:
    return [start + "".join(step + end for step in steps[: k + 1]) for k in range(len(steps))]


def qwen_prm(tok: Any, case: Any, config: Any) -> Found:
    response = "<extra_0>".join(case["steps"]) + "<extra_0>"
    messages = [*with_system(case["messages"], MATH), {"role": "assistant", "content": response}]
    text = text_of(tok, messages)
    growing = grown(text[: text.rindex(response)], case["steps"], "<extra_0>")
    return at_tags(tok, tok.encode(text), tok.encode("<extra_0>")[0], growing)


def actprm(tok: Any, case: Any, config: Any) -> Found:
    start = text_of(tok, with_system(case["messages"], HELPFUL), add_generation_prompt=True)
    growing = grown(start, case["steps"], "<extra_0>")
    return at_tags(tok, tok(growing[-1])["input_ids"], tok.encode("<extra_0>")[0], growing)


def rlhflow_prm(tok: Any, case: Any, config: Any) -> Found:
    *conversation, question = case["messages"]
    ids: list[int] = []
    places = []
    for k, step in enumerate(case["steps"]):
        text = f"{question['content']} {step.strip()}" if k == 0 else step.strip()
        conversation = [*conversation, {"role": "user", "content": text}, {"role": "assistant", "content": "+"}]
        if ids_of(tok, conversation)[: len(ids)] != ids:
            raise ValueError("a longer conversation begins otherwise")
        ids = ids_of(tok, conversation)
        places.append(len(ids) - 3)
    return ids, places


def math_shepherd(tok: Any, case: Any, config: Any) -> Found:
    text, growing = question_of(case) + " ", []
    for k, step in enumerate(case["steps"]):
        said = step.strip()
        said = said if said.startswith(("Step", "step")) else f"Step {k + 1}: {said}".strip()
        text += ("\n" if k else "") + said + " ки"
        growing.append(text)
    return at_tags(tok, tok.encode(text), tok.encode("ки")[-1], growing)


def skywork_prm(tok: Any, case: Any, config: Any) -> Found:
    ids, places = tok.encode(tok.bos_token + question_of(case) + "\n"), []
    for step in case["steps"]:
        ids = [*ids, *(tok.encode(step) if step else []), tok.encode("\n")[-1]]
        places.append(len(ids) - 1)
    return ids, places


def trl_prm(tok: Any, case: Any, config: Any) -> Found:
    def bare(text: str) -> list[int]:
        return tok(text, add_special_tokens=False)["input_ids"]

    ids, places = ([] if tok.bos_token_id is None else [tok.bos_token_id]) + bare(question_of(case)), []
    for step in case["steps"]:
        ids = [*ids, *bare(step), *bare("\n")]
        places.append(len(ids) - 1)
    return ids, places


def versaprm(tok: Any, case: Any, config: Any) -> Found:
    end = " \n\n\n\n"
    start = question_of(case).replace(end, "").strip() + " \n\n"
    ids = tok(start + "".join(step.replace(end, "").strip() + end for step in case["steps"]))["input_ids"]
    [end_id] = tok.encode(end, add_special_tokens=False)
    places = [i for i, x in enumerate(ids) if x == end_id]
    if len(places) != len(case["steps"]):
        raise ValueError("separators and steps differ in number")
    return ids, places


def reasoneval(tok: Any, case: Any, config: Any) -> Found:
    start = f"Question:\n{question_of(case)}\nAnswer:\nLet's think step by step.\n{tok.pad_token}"
    growing = grown(start, case["steps"], tok.pad_token)
    marked, places = at_tags(tok, tok(growing[-1])["input_ids"], tok.pad_token_id, [start, *growing])
    kept = [x for x in marked if x != tok.pad_token_id]
    return kept, [sum(x != tok.pad_token_id for x in marked[:place]) - 1 for place in places[1:]]


def reasonflux(tok: Any, case: Any, config: Any) -> Found:
    ids = tok(question_of(case) + "\n\n".join(case["steps"]))["input_ids"]
    return ids, [len(ids) - 1]


LLAMA_HEADER = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
GEMMA_HEADER = "<end_of_turn>\n<start_of_turn>model\n"
OUTCOME = (every_bos_removed, first_bos_removed, template_ids, template_as_text, bare_text, qwen_math_rm, starling)
RECIPES: dict[str, Callable[[Any, Any, Any], Found]] = {
    **{recipe.__name__: read_last(recipe) for recipe in (*OUTCOME, ultrarm, eurus, beaver, internlm2)},
    **{recipe.__name__: recipe for recipe in (athene, continuation, pair_pm, qwen_prm, actprm, rlhflow_prm)},
    **{recipe.__name__: recipe for recipe in (math_shepherd, skywork_prm, trl_prm, versaprm, reasoneval, reasonflux)},
    "gated_llama": gated(LLAMA_HEADER),
    "gated_gemma": gated(GEMMA_HEADER),
}


def without_null(case: Any) -> Any:
    """Empty texts for null: transformers 4 lets templates write "None" for it, later releases nothing, as we do."""
    return {**case, "messages": [{**message, "content": message["content"] or ""} for message in case["messages"]]}


def answer(recipe: Any, tok: Any, case: Any, config: Any) -> dict[str, Any]:
    try:
        ids, places = recipe(tok, case, config)
        if any(message["content"] is None for message in case["messages"]):
            ids, places = recipe(tok, without_null(case), config)
        made = {"ids": list(ids), "positions": places}
        if recipe is pair_pm:
            *before, last = case["messages"]
            exchanged = {"messages": [*before, {**last, "content": case["other"]}], "other": last["content"]}
            made["swapped"] = pair_pm(tok, exchanged, config)[0]
        return made
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}


def main(job_file: str, answers_file: str) -> None:
    import transformers

    transformers.logging.set_verbosity_error()
    with open(job_file, encoding="utf-8") as opened:
        job = json.load(opened)
    answers = {}
    for checkpoint in job["checkpoints"]:
        tok = transformers.AutoTokenizer.from_pretrained(checkpoint["folder"])
        recipe = RECIPES[checkpoint["recipe"]]
        if checkpoint["stock_classifier"]:
            recipe = read_by_stock_class(recipe)
        answers[checkpoint["slug"]] = {
            case["id"]: answer(recipe, tok, case, checkpoint["config"]) for case in job["cases"][checkpoint["cases"]]
        }
    with open(answers_file, "w", encoding="utf-8") as opened:
        json.dump(answers, opened)


if __name__ == "__main__":
    main(*sys.argv[1:])
