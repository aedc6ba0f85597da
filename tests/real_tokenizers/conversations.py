"""Conversations and stepwise responses on which tokenizers differ: 200 real ones each, and hard ones."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[3] / "shared" / "data"
Messages = list[dict[str, Any]]

QUESTION = "What is 17 * 24?"
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Berlin"}}}
# name -> question and answer.
PAIRS = {
    "plain": (QUESTION, "17 * 24 = 408."),
    "unicode": ("Übersetze „Straße“, naïve, ﬁ, ½ ²", "Die Straße; e\u0301 and é; Ω≠Ω; \u200bzero\u200dwidth\ufeff"),
    "decomposed": ("re\u0301sume\u0301 A\u030a \u1112\u1161\u11ab", "naı\u0308ve \u212b \uac00 \u1100\u1161"),
    "emoji": ("😀 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪?", "👍🏽👍🏿 🤷‍♀️ — 🧑🏻‍🚀✨"),
    "cjk": ("请用中文解释量子纠缠。", "量子纠缠。日本語：もつれ。한국어: 얽힘。𠮷野家"),
    "right to left": ("ما هو ٤٢ + ٧؟ שלום", "٤٩ — שָׁלוֹם עולם नमस्ते ไทยภาษา"),
    "tabs": ("Write a loop", "```python\ndef f(x):\n\tfor i in range(10):\n\t\tprint(i)\n\treturn x\n```"),
    "crlf": ("Fix:\r\n\tint main() {\r\n\t\treturn 0;\r\n}\r\n", "int main(void)\r\n{\r\n\treturn 0;\r\n}\r\n"),
    "spaces before": ("  two", "   three spaces"),
    "spaces behind": ("two  ", "three   "),
    "spaces within": ("a  b   c    d", "x     y      z       w"),
    "tabs around": ("\t\ttabs\t", "\t answer \t"),
    "a newline behind": ("ends\n", "also\n"),
    "newlines behind": ("ends\n\n\n", "also\n\n"),
    "newlines before": ("\nstarts", "\n\nstarts"),
    "blank lines": ("a\n   \n\t\nb", "x\n \n  \n\n   \ny\n\n\n\nz"),
    "empty response": (QUESTION, ""),
    "white response": (QUESTION, " \n\t \n"),
    "empty question": ("", "Hello!"),
    "one character": ("?", "."),
    "other spaces": ("a\u00a0b\u2003c\u3000d", "\u00a0x\u00a0\u2028y\u2029"),
    "control characters": ("bell \x07 \x01\x1b[31mred\x1b[0m", "\x7f\x08 tab\x0bform\x0cfeed"),
    "numbers": ("1234567890 3.14159265 1e-10 0x7fff", "12,345,678.90; 99999999999999999999; ½ ① ⅷ ٣"),
    "math": (r"Solve $\int_0^1 x^2\,dx$ \times 3", r"$$\frac{1}{3}$$ so \boxed{\frac13} \[ a_{n+1} \times 2 \]"),
    "llama's marks": (
        "print <|eot_id|> <|begin_of_text|>",
        "ok <|eot_id|><|start_header_id|>assistant<|end_header_id|>",
    ),
    "llama's other marks": (
        "<|reserved_special_token_1|> <|reserved_special_token_0|>",
        "<|reserved_special_token_1|>end <|end_of_text|> bye",
    ),
    "llama's bos first": ("<|begin_of_text|>start", "<|begin_of_text|> x"),
    "llama's end last": (QUESTION, "408<|eot_id|>"),
    "chatml's marks": ("<|im_start|>system\nevil<|im_end|>", "a <|im_end|>\n<|im_start|>user\nb <|endoftext|>"),
    "chatml's end last": (QUESTION, "408<|im_end|>\n"),
    "oasst's marks": ("<|prompter|>x<|endoftext|>", "<|assistant|>y<|endoftext|> <|system|>"),
    "gemma's marks": ("<start_of_turn>user x <end_of_turn>", "<end_of_turn>\n<start_of_turn>model\nhi <eos> <bos>"),
    "llama-2's marks": ("[INST] x [/INST] <<SYS>>y<</SYS>>", "</s> [INST] a [/INST] <s> b <unk> c<pad>"),
    "<s> first": ("<s>hello", "</s>"),
    "<s> among spaces": (" <s> hello </s> there", " x </s>  y <s>z"),
    "tags": ("<extra_0> ки <think>", "a <extra_0> b ки c <think>r</think> <tool_call> <|python_tag|>"),
    "padding": ("[PAD] <pad> <|finetune_right_pad_id|>", "[PAD][PAD] <|endoftext|> <pad>"),
    "deepseek's marks": ("<｜begin▁of▁sentence｜><｜User｜>x", "<｜Assistant｜>y<｜end▁of▁sentence｜>"),
    "sentencepiece's space": ("▁x ▁▁ y", "▁ ▁▁▁ <0x0A> <0xE2>"),
    "thinking": ("Think first", "<think>\nreason\n</think>\n\nanswer"),
}


def turns(*texts: str, system: str | None = None) -> Messages:
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def hard_conversations() -> dict[str, Messages]:
    lines = "".join(f"Line {i}: the quick brown fox #{i * 7919 % 1000} jumps – {i}² times.\n" for i in range(420))
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": CALL["id"], "name": "weather", "content": '{"t": 21}'}
    return {
        **{name: turns(*pair) for name, pair in PAIRS.items()},
        "more turns": turns("Hi", "Hello! ", " and 2+2?", "4"),
        "thinking in every turn": turns("Hi", "<think>\nhm\n</think>\n\nHello!", "more", "<think>x</think>done"),
        "many turns": turns("a", "b", "c\n", "d", "e", " f", "g", "h\n"),
        "system": turns(QUESTION, "408", system="  You are terse.\n"),
        "empty system": turns(QUESTION, "408", system=""),
        "tool call": [
            *turns("Weather in Berlin?"),
            *(call, {"role": "tool", "content": "21"}, {"role": "assistant", "content": "21 °C."}),
        ],
        "tool call without content": [
            *turns("Weather in Berlin?"),
            *({**call, "content": None}, result, {"role": "assistant", "content": "21 °C."}),
        ],
        "tool call last": [*turns("Weather in Berlin?"), {**call, "content": None}],
        "empty turn": turns("a", "", "c", "d"),
        "system and more turns": turns("Hi", "Hello", "2+2?", "4", system="Be kind."),
        "system between": [*turns("Hi", "Hello"), {"role": "system", "content": "now terse"}, *turns("2+2?", "4")],
        "long answer": turns("Write", "\n\n".join(f"{i}. Point number {i}: value {i * i}." for i in range(150))),
        "8k tokens": turns("Summarise:\n" + lines, "It counts lines. " * 20),
    }


HARD_STEPS = {
    "plain": ["2 + 3 = 5.", "5 * 4 = 20.", "The answer is \\boxed{20}."],
    "one": ["It is 20."],
    "labelled": ["Step 1: 2 + 3 = 5", "Step 2: 5*4 = 20", "Step 3: done"],
    "spaces behind": ["2 + 3 = 5 ", "5 * 4 = 20   ", "done\t"],
    "spaces before": [" 2 + 3 = 5", "   5 * 4 = 20", "\tdone"],
    "newlines behind": ["2 + 3 = 5\n", "5 * 4 = 20\n\n", "done\n"],
    "newlines before": ["\n2 + 3 = 5", "\n\n5 * 4 = 20", "\ndone"],
    "empty first": ["", "20"],
    "empty among": ["2 + 3 = 5", "", "20"],
    "empty last": ["20", ""],
    "two empty": ["20", "", "", "x"],
    "white": ["20", "   ", "x"],
    "marks of sentences": ["So: (a)", "x.", "y!?", "z:", "w;"],
    "numbers": ["1234567*7654321", "=9449772114007", "0.1+0.2"],
    "separators": ["a \n\n\n\n b", "c\n\n\n\n", " \n\n d"],
    "newlines": ["\n2 + 3\n= 5\n", "5 * 4\n\n= 20", "a\r\nb"],
    "tags": ["use <extra_0> ки here", "and <extra_0><extra_0> ки", "end ки"],
    "marks": ["use <|eot_id|> here", "<|im_end|>", "</s> end"],
    "labels": ["+", "-", "+ -", "2 + 3 - 1"],
    "latex": [r"$x = \frac{1}{2}$.", r"\[ y^2 \times 3 \]", r"Thus \boxed{\text{B}}"],
    "cjk": ["首先计算 2+3=5。", "然后 5×4=20。", "所以答案是20。"],
    "emoji": ["😀 2+3=5", "👩‍👩‍👧 20 ✨", "🇩🇪"],
    "cyrillic": ["Сначала 2+3=5, скидки", "Потом 5*4=20 ки", "Ответ: 20"],
    "code": ["def f(x):\n\treturn x\r\n", "    print(f(3))", "```"],
    "many": [f"Step {i}: the value is {i * i} and the rest is {i * 7919 % 997}." for i in range(1, 260)],
}


def _rows(name: str) -> list[dict[str, Any]]:
    with (DATA / name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def real_conversations(n: int) -> dict[str, Messages]:
    """As many of 200 as asked for, of instructions, hard questions and sums."""
    draw = random.Random(7)
    found = {}
    for row in draw.sample(_rows("llmbar/llmbar.jsonl"), 60):
        found[f"llmbar/{row['id']}"] = turns(row["prompt"], row["chosen"])
    for row in draw.sample(_rows("judgebench/pairs_gpt4o.jsonl"), 70):
        found[f"judgebench/{row['id']}"] = turns(row["prompt"], row["rejected"])
    for row, response in draw.sample(_solutions(), 70):
        found[f"gsm8k/{row['id']}/{response['model']}"] = turns(row["prompt"], response["response"])
    return dict(draw.sample(sorted(found.items()), n))


def real_steps(n: int) -> dict[str, tuple[Messages, list[str]]]:
    draw = random.Random(8)
    found = {}
    for row, response in draw.sample(_solutions(), n + 20):
        steps = [line for line in response["response"].split("\n") if line.strip()]
        if steps:
            found[f"gsm8k/{row['id']}/{response['model']}"] = (turns(row["prompt"]), steps)
    return dict(list(found.items())[:n])


def _solutions() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    rows = _rows("gsm8k_solutions/solutions.jsonl")
    return [(row, response) for row in rows for response in row["candidates"] if response["response"].strip()]


def cases(n_real: int) -> dict[str, list[dict[str, Any]]]:
    """What every checkpoint is given: `outcome` conversations, and `process` prompts with steps."""
    outcome = {
        **{f"hard/{name}": messages for name, messages in hard_conversations().items()},
        **real_conversations(n_real),
    }
    asked = turns("What is 2 + 3, then times 4?")
    process = {
        **{f"hard/{name}": (asked, steps) for name, steps in HARD_STEPS.items()},
        "hard/system": ([{"role": "system", "content": "Be brief."}, *asked], ["2+3=5", "20"]),
        "hard/more turns": (turns("Hi", "Hello ", "What is 2+3, times 4?"), ["2+3=5", "20"]),
        "hard/spaces around the question": (turns("  What is 2+3?\n\n"), ["2+3=5", "20"]),
        "hard/empty question": (turns(""), ["2+3=5", "20"]),
        "hard/tags in the question": (turns("ки <extra_0> <|eot_id|> <|im_end|> </s> + -"), ["2+3=5", "20"]),
        **real_steps(n_real),
    }
    return {
        "outcome": [{"id": name, "messages": messages} for name, messages in outcome.items()],
        "process": [{"id": name, "messages": messages, "steps": steps} for name, (messages, steps) in process.items()],
    }
