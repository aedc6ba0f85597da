"""`reward-hub families`: the table of families, generated from the registry."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reward_hub.cli.option_groups import Json, LogOptions
from reward_hub.cli.tables import print_pairs, print_table
from reward_hub.cli.usage import UsageError

if TYPE_CHECKING:
    from reward_hub.family import Checkpoint, Family
    from reward_hub.judge.form import JudgeForm

PLACE_IN_HELP = 70

_PAGE_HEAD = """# Families

Written by `make docs` from the registry. What a family reads, and where it departs from its source, stands in its file
under `reward_hub/families/`; `reward-hub families NAME` shows its options. The
backends are those that run the model types of the family; whether they run one checkpoint says `reward-hub inspect`.

"""
_READINGS_HEAD = """## Whose number it is

References of one checkpoint often differ: in the template, in the number of bos tokens, in the order of a pair. For
each family, what ours follows, and what others would give.
"""
_UNSUPPORTED = """## Not supported, and why

What is known of these does not make a number certain, so they are refused instead of guessed.

- IDEA-CCNL/Ziya-LLaMA-7B-Reward: the class of its head is not public in a form that could be checked.
- nicolinho/QRM-Llama3.1-8B-v2: no code seen; its layout (probably QRM-Gemma's, on Llama) is not confirmed.
- ai21labs/Jamba-tiny-reward-dev: a stock classifier on Jamba whose chat template is not known. With family=
  "sequence-classifier" it loads with the template it brings.
- Schrieffer/Llama-SARM-4B: reads a sparse autoencoder inside the backbone, of which only the forward pass is known.
- infly/Universal-PRM-7B: prompt and head could not be confirmed.
- ScalableMath/llemma-7b-prm-*: the reward is the mean over all vocabulary logits, and the tokenizer lies in another
  repository; no checkpoint to hold the reading against.
- openreasoner/Math-psa: an adapter over a base model that its repository does not hold.
- Skywork-VL-Reward and other models that look at pictures.
- internlm/POLAR-*: scores a response beside a demonstration. It has the form of `internlm2-reward`, is told from it by
  its reward token, and refused.
- Qwen3-Reranker and classifiers made of it: a text of their own for query, document and instruction.

## Recipes that look alike on disk

A checkpoint that names no published id shows its family by its config and its tensors. Of these, something else tells:

"""
_DOUBTS = """
A checkpoint that holds a head beside the one that its family reads is refused until `family=` says which was trained.
One whose head alone says its family (`regression_head` on a Llama, say) loads with a warning under another class name.

Weights that were saved inside a wrapper (`module.`, `_orig_mod.`, `_fsdp_wrapped_module.`, one more `model.`) are
refused with the lines that save them without it.

## Classes that have names

A head of two or three classes a step (`trl-prm`, `qwen-math-prm`, `reasoneval`) is read at the class that `id2label` or
`label2id` of config.json calls the good one, by one of these words. LABEL_0 and LABEL_1 say nothing: the last class is
the good one then. Names that contradict each other, or say nothing that is known, are an error.
"""
_JUDGES = """
## Judges

Published judges write their verdict. They load by their exact id, or by `family=`, on vLLM or an OpenAI-compatible
endpoint: [docs/published_judges.md](published_judges.md).
"""
_JUDGE_COLUMNS = ("judge", "mode", "published checkpoints", "score", "licence", "source")
_COLUMNS = ("family", "kind", "published checkpoints", "read", "head", "backends", "licence", "source")


def run(
    name: Annotated[str | None, typer.Argument(help="Show this one, with its options.")] = None,
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/families.md.")] = False,
    as_json: Json = False,
    log: LogOptions,
) -> None:
    """List the families of reward models, and the published judges, that can be loaded."""
    from reward_hub.judge.published import form_named, forms, names
    from reward_hub.registry import families, family_named

    if name is not None and markdown:
        raise UsageError("--markdown prints the whole table; leave out the name.")
    if name is not None and name in names():
        judge = describe_judge(form_named(name))
        print(json.dumps(judge, indent=2)) if as_json else _print_judge(judge)
        return
    shown = families() if name is None else (family_named(name),)
    if as_json:
        described = [describe(family) for family in shown]
        everything = [*described, *map(describe_judge, forms())]
        print(json.dumps(everything if name is None else described[0], indent=2))
    elif markdown:
        print(_markdown(shown) + _judges_markdown(forms()), end="")
    elif name is not None:
        _print_one(describe(shown[0]))
    else:
        _print_table(shown)
        print_table(_JUDGE_COLUMNS, map(_judge_cells, forms()), whole=("judge", "mode"))


def describe(family: Family) -> dict[str, Any]:
    """What there is to say about a family, as plain JSON; a bound that is not finite is None."""
    return {
        "name": family.name,
        "kind": family.kind,
        "source": family.source,
        "checkpoints": [_describe_checkpoint(checkpoint) for checkpoint in family.checkpoints],
        "read": _read_of(family),
        "head": family.head_summary,
        "score_range": [bound if math.isfinite(bound) else None for bound in family.score_range],
        "higher_is_better": family.higher_is_better,
        "costs_too": family.is_cost is not None,
        "aggregation": family.aggregate if family.kind == "process" else None,
        "step_delimiter": family.step_delimiter if family.kind == "process" else None,
        "backends": _backends_of(family),
        "options": _describe_options(family),
        "reading": family.reading,
    }


def describe_judge(form: JudgeForm) -> dict[str, Any]:
    """What there is to say about a published judge, as plain JSON."""
    from reward_hub.judge.published import options_of

    return {
        "name": form.name,
        "kind": "judge",
        "mode": form.mode,
        "source": form.source,
        "checkpoints": [_describe_checkpoint(checkpoint) for checkpoint in form.checkpoints],
        "score_range": list(form.score_range),
        "log_probabilities": form.logprobs,
        "max_tokens": form.max_tokens,
        "backends": ["vllm", "api"],
        "options": list(options_of(form.name)),
    }


def _judge_cells(form: JudgeForm) -> tuple[str, ...]:
    low, high = form.score_range
    score = {"pairwise": "p(a is better): 1 or 0", "stepwise": f"{low:g} to {high:g} a step"}
    return (
        form.name,
        form.mode,
        "\n".join(checkpoint.id for checkpoint in form.checkpoints) or "any of this form",
        score.get(form.mode, f"{low:g} to {high:g}"),
        "\n".join(dict.fromkeys(checkpoint.license for checkpoint in form.checkpoints)),
        form.source,
    )


def _judges_markdown(forms: tuple[JudgeForm, ...]) -> str:
    lines = ["| " + " | ".join(_JUDGE_COLUMNS) + " |", "|" + " --- |" * len(_JUDGE_COLUMNS)]
    for form in forms:
        name, mode, _, score, licences, source = _judge_cells(form)
        ids = "<br>".join(f"`{checkpoint.id}`" for checkpoint in form.checkpoints) or "any of this form"
        cells = (f"`{name}`", mode, ids, score, licences.replace("\n", ", "), f"[source]({source})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([_JUDGES, *lines]) + "\n"


def _print_judge(described: dict[str, Any]) -> None:
    low, high = described["score_range"]
    print_pairs(
        (
            ("judge", described["name"]),
            ("mode", described["mode"]),
            ("source", described["source"]),
            ("score", f"{low:g} to {high:g}, higher is better"),
            ("log-probabilities", "read" if described["log_probabilities"] else "not needed"),
            ("max_tokens", str(described["max_tokens"])),
            ("backends", ", ".join(described["backends"])),
            ("checkpoints", "\n".join(map(_checkpoint_line, described["checkpoints"])) or "any of this form"),
            ("options", ", ".join(described["options"])),
        )
    )


def _describe_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "id": checkpoint.id,
        "license": checkpoint.license,
        "max_length": checkpoint.max_length,
        "dtype": checkpoint.dtype,
        "options": dict(checkpoint.options),
        "note": checkpoint.note,
    }


def _read_of(family: Family) -> str:
    """What is read and where; a read that depends on the checkpoint is told by the family's own words."""
    return family.read_summary or ("depends on the checkpoint" if callable(family.read) else str(family.read))


def _backends_of(family: Family) -> list[str]:
    """The backends that can run checkpoints of the family; of which model type, where the family leaves that open."""
    from reward_hub.loading.engine import backends_for

    return backends_for(family.model_types)


def _describe_options(family: Family) -> dict[str, Any]:
    if family.options is None:
        return {}
    fields = family.options.model_json_schema().get("properties", {})
    return {name: {key: value for key, value in field.items() if key != "title"} for name, field in fields.items()}


def _licences_of(family: Family) -> list[str]:
    return list(dict.fromkeys(checkpoint.license for checkpoint in family.checkpoints))


def _markdown(families: tuple[Family, ...]) -> str:
    """The page docs/families.md."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + " --- |" * len(_COLUMNS)]
    for family in families:
        cells = (
            f"`{family.name}`",
            family.kind,
            "<br>".join(f"`{checkpoint.id}`" for checkpoint in family.checkpoints) or "any of this form",
            _read_of(family),
            family.head_summary,
            ", ".join(_backends_of(family)),
            ", ".join(_licences_of(family)),
            f"[recipe]({family.source})",
        )
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    readings = [f"- `{family.name}`: {family.reading}" for family in families if family.reading]
    page = [_PAGE_HEAD + lines[0], *lines[1:], "", _READINGS_HEAD, *readings, "", _UNSUPPORTED + _lookalikes(), _DOUBTS]
    return "\n".join([*page, *_words()]) + "\n"


def _lookalikes() -> str:
    from reward_hub.loading.lookalikes import LOOKALIKES

    return "\n".join(f"- {' and '.join(f'`{name}`' for name in row.recipes)}: {row.described}" for row in LOOKALIKES)


def _words() -> list[str]:
    from reward_hub.labels import MEANINGS

    return [f"- {name}: {', '.join(f'`{word}`' for word in sorted(words))}" for name, words in MEANINGS.items()]


def _print_table(families: tuple[Family, ...]) -> None:
    rows = (
        (
            family.name,
            family.kind,
            "\n".join(checkpoint.id for checkpoint in family.checkpoints) or "any of this form",
            _read_of(family),
            family.head_summary,
            ", ".join(_backends_of(family)),
            "\n".join(_licences_of(family)),
            family.source,
        )
        for family in families
    )
    print_table(_COLUMNS, rows, whole=("family", "kind"))


def _print_one(described: dict[str, Any]) -> None:
    low, high = described["score_range"]
    direction = "higher" if described["higher_is_better"] else "lower"
    direction += " (a cost checkpoint's: lower)" if described["costs_too"] else ""
    delimiter = described["step_delimiter"]
    print_pairs(
        (
            ("family", described["name"]),
            ("kind", described["kind"]),
            ("source", described["source"]),
            ("read", described["read"]),
            ("head", described["head"]),
            ("score", f"{'-inf' if low is None else low} to {'inf' if high is None else high}, {direction} is better"),
            ("aggregation", described["aggregation"] or ""),
            ("steps split at", "" if delimiter is None else repr(delimiter)),
            ("backends", ", ".join(described["backends"])),
            ("reading", described["reading"]),
            ("checkpoints", "\n".join(map(_checkpoint_line, described["checkpoints"])) or "any of this form"),
            ("options", "\n".join(f"{name}: {_option_line(field)}" for name, field in described["options"].items())),
        )
    )


def _checkpoint_line(checkpoint: dict[str, Any]) -> str:
    length = f", {checkpoint['max_length']} tokens" if checkpoint["max_length"] else ""
    note = f"; {checkpoint['note']}" if checkpoint["note"] else ""
    return f"{checkpoint['id']} ({checkpoint['license']}{length}{note})"


def _option_line(field: dict[str, Any]) -> str:
    kind = " | ".join(map(repr, field["enum"])) if "enum" in field else field.get("type", "any")
    default = f" = {field['default']!r}" if "default" in field else ""
    text = f"  {field['description']}" if "description" in field else ""
    return f"{kind}{default}{text}"
