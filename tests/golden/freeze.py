"""Write the project's own golden set of a slug: python tests/golden/freeze.py SLUG... (or --all)

A slug is frozen only after the implementation equals all of ../shared/golden/SLUG. The own set has the config and the
tokenizer of that checkpoint, weights from a seed with the mean and deviation of each tensor there, and some of its
conversations. Their scores come from `plain_backend`, and a stock sequence classifier's from transformers' own class.
What no shared set shows, a training tool's format, is made from one of them by a change of its tensors' names.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import plain_backend  # noqa: F401 - registers the backend "plain"
import torch
import transformers
from golden_sets import (
    OWN,
    SHARED,
    GoldenSet,
    differences,
    expected_scores,
    golden_sets,
    observe,
    score_case,
)
from safetensors.torch import load_file
from sentencepiece_files import file_of_json, library_ids

# How the names of the cases that are kept begin; the rest of the shared ones say the same again.
KEPT = {
    "messages": (
        *(
            "single_short",
            "single_cjk",
            "single_emoji",
            "single_lookalike",
            "single_whitespace",
            "multi_two",
            "system_",
        ),
        *("short", "multi_turn3", "unicode", "empty_b", "whitespace", "special_text"),
    ),
    "prompt_messages": (
        "short",
        "swapped",
        "multi_turn",
        "unicode",
        "newlines",
        "empty_b",
        "whitespace",
        "special_text",
    ),
    "steps": (
        *("one_step", "empty_steps", "system_and_multi_turn", "system_prompt", "unicode", "newlines_in_step"),
        *("tag_in_step", "plus_minus_steps"),
    ),
}
# Seeds are tried until scores differ by this share of what they differ by in the shared set, and float32 is as near to
# float64 as this: what is tested is the code, not the rounding of an ill-conditioned model.
WANTED_SPREAD = 0.5
WANTED_ERROR = 1e-5
SEEDS = 30
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
COPIED = ("family_name", "decidable_from_checkpoint", "dtype", "tolerance", "beta")
INPUTS = ("messages", "steps", "prompt_messages", "response_a", "response_b")


SENTENCEPIECE = "seqcls-sentencepiece"


def openrlhf(spec: dict[str, Any]) -> None:
    """A stock classifier as OpenRLHF writes it."""
    tensors = spec["files"]["model.safetensors"]
    tensors["value_head.weight"] = tensors.pop("score.weight")
    more = {"value_head_prefix": "value_head", "normalize_reward": True, "mean": 0.75, "std": 1.5}
    spec["config"] |= {"architectures": ["RewardModel"], **more}


def llama_factory(spec: dict[str, Any]) -> None:
    """A stock classifier as LLaMA-Factory writes it: a causal LM with the head in a file of its own."""
    tensors = spec["files"]["model.safetensors"]
    head = tensors.pop("score.weight")
    tensors["lm_head.weight"] = dict(tensors["model.embed_tokens.weight"])
    bias = {"shape": [1], "value": 0.25}
    spec["files"]["value_head.safetensors"] = {"v_head.summary.weight": head, "v_head.summary.bias": bias}
    spec["config"]["architectures"] = [spec["config"]["architectures"][0].replace("SequenceClassification", "CausalLM")]


# Formats that no shared set has: slug -> shared set it is made from, family, change of the spec.
FORMATS = {
    "openrlhf": ("seqcls-mistral", "openrlhf", openrlhf),
    "llama-factory": ("seqcls-qwen2", "llama-factory", llama_factory),
    SENTENCEPIECE: ("seqcls-mistral", "sequence-classifier", lambda spec: None),
}


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


# Conversations of one format alone: what a conversion of a sentencepiece file that ignores its scores gets wrong.
FURTHER = {
    SENTENCEPIECE: [
        {"name": "math", "messages": turns("Compute $3 \\times 4$.", "$$3 \\times 4 = 12$$, so \\boxed{12}.")},
        {"name": "code", "messages": turns("Write a loop.", "```python\nfor i in range(10):\n    print(i)\n```")},
        {"name": "spaces", "messages": turns("  two  and   three spaces ", " a\tb \r\n\r\n  c  ")},
    ]
}


def freeze(slug: str) -> None:
    base, family, change = FORMATS.get(slug, (slug, None, lambda spec: None))
    shared = GoldenSet(base, "shared")
    require_equal(shared)
    folder = OWN / slug
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    header = {key: shared.data[key] for key in COPIED if key in shared.data}
    if family is not None:
        header["family_name"] = family
    write(folder / "cases.json", header | {"cases": []})
    owner = copy_tokenizer(base, slug)
    if slug == SENTENCEPIECE:
        owner = write_sentencepiece(OWN / owner, folder)
    wanted = WANTED_SPREAD * spread([case for case in shared.cases if is_kept(case)])
    tried = []
    for seed in range(SEEDS):
        spec = ({"tokenizer": owner} if owner != slug else {}) | spec_of(SHARED / base / "checkpoint", seed=seed)
        change(spec)
        write(folder / "spec.json", spec)
        cases, error = frozen_cases(GoldenSet(slug, "own"), shared)
        tried.append((min(spread(cases) / wanted, 1.0), -error, seed, spec, cases))
        if spread(cases) >= wanted and error <= WANTED_ERROR:
            break
    _, error, seed, spec, cases = max(tried)
    write(folder / "spec.json", spec)
    if slug == SENTENCEPIECE:
        require_library_ids(folder, cases)
    source = "one unpadded float64 forward of the stock backbone, read and scored as by tests/plain_backend.py"
    own = GoldenSet(slug, "own")
    if own.family in ("sequence-classifier", "grm-ft"):
        use_stock_scores(own, cases)
        source = "AutoModelForSequenceClassification in float64, one conversation at a time"
    header |= {"source": f"{source}; transformers {transformers.__version__}", "details": details_of(cases)}
    write(folder / "cases.json", header | {"cases": [{k: v for k, v in c.items() if k != "details"} for c in cases]})
    size = sum(path.stat().st_size for path in folder.iterdir()) // 1024
    print(
        f"{slug}: seed {seed}, {len(cases)} cases, {size} kB, spread {spread(cases):.3g}, float32 off by {-error:.1e}"
    )


def require_equal(shared: GoldenSet) -> None:
    """Nothing is frozen from an implementation that differs from the reference."""
    with shared.load(SHARED / shared.slug / "checkpoint", "recording") as rm:
        wrong = {name: what for name, _, what in differences(rm, shared) if what}
    if wrong:
        raise SystemExit(f"{shared.slug} does not equal ../shared/golden: {json.dumps(wrong, indent=1)}")


def spread(cases: list[dict[str, Any]]) -> float:
    scores = [score for case in cases for score in expected_scores(case)]
    return max(scores) - min(scores)


def spec_of(checkpoint: Path, *, seed: int) -> dict[str, Any]:
    """What `make_checkpoint` needs to make a checkpoint of the same form."""
    if (checkpoint / "policy").is_dir():
        return {
            "parts": {name: spec_of(checkpoint / name, seed=seed + i) for i, name in enumerate(("policy", "reference"))}
        }
    files = {path.name: path for path in sorted(checkpoint.iterdir()) if path.suffix in (".safetensors", ".bin", ".pt")}
    return {
        "seed": seed,
        "config": json.loads((checkpoint / "config.json").read_text()),
        "files": {name: tensors_of(path) for name, path in files.items()},
    }


def tensors_of(path: Path) -> dict[str, Any]:
    loaded = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    specs: dict[str, Any] = {}
    first: dict[bytes, str] = {}
    for name, tensor in loaded.items():
        assert isinstance(tensor, torch.Tensor), f"{path.name} holds more than tensors: {name}"
        spec: dict[str, Any] = {"shape": list(tensor.shape)}
        content = tensor.numpy().tobytes()
        if content in first and tensor.numel() > 1:
            spec["same_as"] = first[content]
        elif tensor.dtype == torch.int64:
            spec |= {"dtype": "I64", "value": int(tensor.reshape(-1)[0])}
        elif tensor.numel() == 1:
            spec["value"] = round(float(tensor.reshape(-1)[0]), 4)
        else:
            spec |= {"mean": round(float(tensor.mean()), 4), "std": round(float(tensor.std()), 4)}
            wide = (
                (tensor.std(1) > 2 * tensor.std()).nonzero()[:, 0].tolist()
                if min(tensor.shape, default=0) > 1 and tensor.dim() == 2
                else []
            )
            if 0 < len(wide) < len(tensor) / 10:
                spec["rows"] = {str(row): round(float(tensor[row].std()), 4) for row in wide}
            if "running_var" in name or name.endswith("normalizer.var"):
                spec["positive"] = True
        first.setdefault(content, name)
        specs[name] = spec
    return specs


def copy_tokenizer(base: str, slug: str) -> str:
    """Copy the tokenizer files without white space, and say in which own set's folder they lie, perhaps another's."""
    source = SHARED / base / "checkpoint"
    source = source / "policy" if (source / "policy").is_dir() else source
    contents = {}
    for name in TOKENIZER_FILES if (source / "tokenizer.json").is_file() else (*TOKENIZER_FILES, "tokenizer.model"):
        if (source / name).is_file():
            content = (source / name).read_bytes()
            if name.endswith(".json"):
                content = json.dumps(json.loads(content), ensure_ascii=False, separators=(",", ":")).encode()
            contents[name] = content
    for other in golden_sets("own"):
        files = {name: (other.folder / name).read_bytes() for name in contents if (other.folder / name).is_file()}
        if files == contents:
            return other.slug
    for name, content in contents.items():
        (OWN / slug / name).write_bytes(content)
    return slug


def write_sentencepiece(json_folder: Path, folder: Path) -> str:
    """The tokenizer of another set as a sentencepiece file, whose pieces do not stand in the order of their scores."""
    made = file_of_json(json.loads((json_folder / "tokenizer.json").read_text(encoding="utf-8")), seed=0)
    (folder / "tokenizer.model").write_bytes(made)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(json_folder / name, folder / name)
    return folder.name


def require_library_ids(folder: Path, cases: list[dict[str, Any]]) -> None:
    """The ids are those of the sentencepiece library, with no tokenizer of ours between."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {token["content"]: int(i) for i, token in config["added_tokens_decoder"].items()}
    model = (folder / "tokenizer.model").read_bytes()
    for case in cases:
        text = render_jinja(config["chat_template"], case["messages"], bos_token="<s>", eos_token="</s>")
        expected = library_ids(model, text, list(special), ids=special)
        assert case["input_ids"] == expected, f"{case['name']}: {case['input_ids']}, the library gives {expected}"


def render_jinja(template: str, messages: list[dict[str, str]], **names: str) -> str:
    import jinja2

    return str(
        jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(messages=messages, **names)
    )


def frozen_cases(own: GoldenSet, shared: GoldenSet) -> tuple[list[dict[str, Any]], float]:
    """The kept cases with plain scores, and by how much our own differ from those."""
    cases, worst = [], 0.0
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = own.make(Path(temporary))
        plain, ours = own.load(checkpoint, "plain"), own.load(checkpoint, "recording")
        for case in (*filter(is_kept, shared.cases), *FURTHER.get(own.slug, [])):
            observed = observe(ours, case)
            scores, _ = score_case(plain, case)
            worst = max(worst, *(abs(a - b) for a, b in zip(scores, observed.scores, strict=True)))
            assert worst < own.tolerance / 2, f"{own.slug}: ours {observed.scores}, plain {scores}"
            frozen = {"name": name_of(case), **{key: case[key] for key in INPUTS if key in case}}
            frozen |= {"input_ids": observed.tokens.token_ids, "positions": observed.tokens.positions}
            rounded = [float(f"{score:.8g}") for score in scores]
            if "score" in case or case in FURTHER.get(own.slug, []):
                frozen["score"] = rounded.pop()
            if rounded:
                frozen["step_scores"] = rounded
            cases.append(frozen | {"details": observed.details})
    return cases, worst


def name_of(case: dict[str, Any]) -> str:
    return str(case.get("name") or case["id"])


def is_kept(case: dict[str, Any]) -> bool:
    key = next(key for key in ("prompt_messages", "steps", "messages") if key in case)
    return name_of(case).startswith(KEPT[key])


def use_stock_scores(own: GoldenSet, cases: list[dict[str, Any]]) -> None:
    """Replace the scores by those of transformers' own class, whose pooling is not ours."""
    with tempfile.TemporaryDirectory() as temporary:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            own.make(Path(temporary)), attn_implementation="eager"
        )
    model.double().eval()
    model.config.pad_token_id = -1  # one conversation, no padding: the last token is read
    for case in cases:
        with torch.no_grad():
            score = float(model(torch.tensor([case["input_ids"]])).logits[0, 0])
        assert abs(score - case["score"]) < 1e-5, f"transformers {score}, ours {case['score']}"
        case["score"] = float(f"{score:.8g}")


def details_of(cases: list[dict[str, Any]]) -> list[str]:
    """The names of the details that every case has."""
    return sorted(set.intersection(*(set(case["details"]) for case in cases)))


def write(path: Path, value: Any) -> None:
    """JSON with a line for each tensor and each list of numbers, so that a change can be read."""
    path.write_text(_pretty(value, "") + "\n", encoding="utf-8")


def _pretty(value: Any, indent: str) -> str:
    text = json.dumps(value, ensure_ascii=False)
    numbers = isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)
    if not isinstance(value, (dict, list)) or len(text) < 100 or numbers:
        return text
    inner = indent + " "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key)}: {_pretty(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _pretty(item, inner) for item in value) + f"\n{indent}]"


if __name__ == "__main__":
    slugs = sys.argv[1:]
    if slugs == ["--all"]:
        slugs = [*(golden.slug for golden in golden_sets("shared") if golden.registered), *FORMATS]
    if not slugs:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    for each in slugs:
        freeze(each)
