"""An explanation as text for a terminal: the tokens that are read stand in marks, step scores go from red to green."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from reward_hub.cli.explanation import Explained, Explanation
from reward_hub.cli.tables import console_for, listed, print_pairs
from reward_hub.numerics import in_unit_interval

if TYPE_CHECKING:
    from rich.text import Text

    from reward_hub.base import BaseRM
    from reward_hub.types import ModelInput, ShownToken

OPEN, CLOSE = "⟦", "⟧"
"""Around a token that is read."""

# Near those of terminals with sixteen colours, which take the nearest; to be read on black and on white.
_RED, _YELLOW, _GREEN = (200, 0, 0), (180, 120, 0), (0, 150, 0)
# What would move the cursor, change colours or turn the direction of writing, written out; line ends and tabs stay.
_CODES = (*range(32), *range(127, 160), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = {code: repr(chr(code))[1:-1] for code in _CODES if chr(code) not in "\n\t"}


def print_explanation(explanation: Explanation, *, file: TextIO | None = None) -> None:
    """Print it, in colour on a terminal (or where FORCE_COLOR is set, and NO_COLOR is not)."""
    file = file or sys.stdout
    console = console_for(file)
    rm = explanation.rm
    print_pairs(
        (
            ("model", rm.name),
            ("family", f"{rm.family} ({rm.kind})" if rm.family else rm.kind),
            *((name.replace("_", " "), _said(value)) for name, value in rm.load_report.items()),
        ),
        file=file,
    )
    for number, one in enumerate(explanation.explained, start=1):
        title = f"Response {number}" if len(explanation.explained) > 1 else ""
        for text in _explained_text(rm, one, title):
            console.print(text, soft_wrap=True, highlight=False)
        print_pairs(_figures(rm, one), file=file)


def _explained_text(rm: BaseRM, one: Explained, title: str) -> list[Text]:
    from rich.text import Text

    qualities = [_quality(rm, score) for score in one.details.step_scores or ()]
    lines = [Text()]
    if title:
        lines += [Text(title, style="bold"), Text()]
    for model_input in one.inputs:
        # One of the steps so far is read for one step alone.
        of_steps = qualities if len(one.inputs) == 1 else []
        lines += _input_text(model_input, of_steps)
    lines += _replies(one.details.extra.get("samples") or ())
    lines += _step_lines(one, qualities)
    return [*lines, Text()] if one.steps else lines


# -- what the model is given -------------------------------------------------------------------------------------------


def _input_text(model_input: ModelInput, qualities: Sequence[float]) -> list[Text]:
    from rich.text import Text

    lines = []
    parts = {"": model_input.tokens}
    if model_input.decoder_tokens:
        parts = {"encoder": model_input.tokens, "decoder": model_input.decoder_tokens}
    for part, tokens in parts.items():
        if tokens:
            n_read = sum(token.read for token in tokens)
            heading = f"{len(tokens)} tokens, {n_read} read" if n_read else f"{len(tokens)} tokens"
            lines += [_heading(model_input.title, part, heading), _marked(tokens, qualities)]
    if model_input.text is not None:
        lines += [_heading(model_input.title, "sent"), Text(_visible(model_input.text))]
    if model_input.messages:
        lines.append(_heading(model_input.title, "sent"))
        for message in model_input.messages:
            lines.append(Text(_visible(f"[{message.get('role')}] {_content(message)}")))
    return [*lines, Text()]


def _heading(*parts: str) -> Text:
    from rich.text import Text

    return Text(", ".join(filter(None, parts)) + ":", style="bold")


def _marked(tokens: Sequence[ShownToken], qualities: Sequence[float]) -> Text:
    """The text, with marks around each token that is read: in its step's colour, where there is one step a token."""
    from rich.text import Text

    n_read = sum(token.read for token in tokens)
    colours = iter([f"bold {colour_of(quality)}" for quality in qualities] if len(qualities) == n_read else [])
    text = Text()
    for token in tokens:
        if token.read:
            # A line end inside of the marks would not be seen.
            shown = OPEN + _visible(token.text).replace("\n", "↵") + CLOSE + "\n" * token.text.count("\n")
            text.append(shown, style=next(colours, "bold reverse"))
        else:
            text.append(_visible(token.text))
    return text


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    others = {name: value for name, value in message.items() if name not in ("role", "content") and value}
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    return text + (f"\n{json.dumps(others, ensure_ascii=False, default=str)}" if others else "")


def _replies(samples: Sequence[Mapping[str, Any]]) -> list[Text]:
    """What a judge replied, and what was read of it."""
    from rich.text import Text

    lines = []
    for sample in samples:
        verdict = sample.get("score", sample.get("scores"))
        order = f"order {sample['order']}" if "order" in sample else ""
        lines.append(_heading("reply", order, f"read as {_number(verdict)}"))
        lines += [Text(_visible(text)) for text in sample.get("text") or ()]
        lines.append(Text())
    return lines


# -- scores ------------------------------------------------------------------------------------------------------------


def _step_lines(one: Explained, qualities: Sequence[float]) -> list[Text]:
    from rich.text import Text

    scores = one.details.step_scores or []
    lines = [_heading("steps")] if one.steps else []
    for number, (step, score, quality) in enumerate(zip(one.steps, scores, qualities, strict=True), start=1):
        lowest = "  <- lowest" if len(scores) > 1 and quality == min(qualities) else ""
        indented = _visible(step.strip()).replace("\n", "\n" + " " * 14)
        line = Text(f"{number:>3}  ")
        line.append(f"{score:>7.4f}", style=f"bold {colour_of(quality)}")
        line.append("  ")
        line.append(indented, style=colour_of(quality))
        lines.append(line.append(lowest))
    return lines


def _quality(rm: BaseRM, score: float) -> float:
    """A score in [0, 1], higher is better."""
    anything = (float("-inf"), float("inf"))
    score_range = rm.capabilities.score_range or anything
    return in_unit_interval(score, score_range, higher_is_better=rm.higher_is_better)


def colour_of(quality: float) -> str:
    """From red (0) over yellow to green (1)."""
    low, high, share = (_RED, _YELLOW, 2 * quality) if quality < 0.5 else (_YELLOW, _GREEN, 2 * quality - 1)
    mixed = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return f"rgb({','.join(map(str, mixed))})"


def _figures(rm: BaseRM, one: Explained) -> list[tuple[str, str]]:
    details = one.details
    better = "higher" if rm.higher_is_better else "lower"
    score = f"{details.score:.6g} ({better} is better; normalized {details.normalized_score:.4f})"
    if one.call == "compare":
        score = f"{details.score:.6g}: the probability that the first response is the better one"
    cut = f"{details.dropped_tokens} tokens" if details.dropped_tokens else "part of the response"
    return [
        ("score", score),
        ("logits", listed([f"{logit:.6g}" for logit in details.raw_logits])),
        ("read at", listed([_read_token(token) for token in details.read_tokens or ()])),
        ("dropped", ", ".join(details.dropped or ())),
        ("truncated", cut if details.truncated else ""),
    ]


def _read_token(token: Mapping[str, Any]) -> str:
    return f"{token.get('index')} {token.get('text')!r} (id {token.get('id')})"


def _number(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_number, value))
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


def _said(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _visible(text: str) -> str:
    return text.translate(_CONTROLS)
