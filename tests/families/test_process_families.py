"""Process families on one model: what the golden sets do not hold - options, separators, near misses, other backbones.

Checkpoints are tiny and random, tokenizers are made here; expected numbers come from plain torch in the test.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_hub import (
    AutoRM,
    CheckpointError,
    InputTooLongError,
    InvalidConversationError,
    UnknownModelError,
    registry,
)
from reward_hub.family import Setup
from reward_hub.messages import parse_steps
from reward_hub.tokenizer import HFTokenizer, load_tokenizer
from reward_hub.types import Conversation, TokenInput

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

HIDDEN = 16
# Sums of a few hundred float32 products, once in torch and once in numpy.
TOLERANCE = 1e-5
QUESTION = [{"role": "user", "content": "What is 2 + 3?"}]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIALS = ("<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>")


# -- tokenizers and checkpoints --------------------------------------------------------------------------------------


def byte_tokenizer(folder: Path, *, merges: Sequence[tuple[str, str]] = (), **names: str) -> Path:
    """Byte-level BPE: a token a byte, and what `merges` make of them ("Ġ" is the space, "Ċ" the newline)."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *dict.fromkeys(a + b for a, b in merges)]
    model = tokenizers.models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=list(merges))
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    return save_tokenizer(folder, made, names)


def piece_tokenizer(folder: Path, *, add_bos: bool = True, **names: str) -> Path:
    """Llama's way: spaces are part of pieces, one is put before the text; the tag and the labels are such pieces."""
    merges = [("к", "и"), ("▁", "ки"), ("▁", "+"), ("▁", "-")]
    characters = ["<unk>", "▁", "\n", *(chr(c) for c in range(33, 127)), *"ки", *(a + b for a, b in merges)]
    model = tokenizers.models.BPE(
        vocab={piece: i for i, piece in enumerate(dict.fromkeys(characters))}, merges=merges, unk_token="<unk>"
    )
    made = tokenizers.Tokenizer(model)
    made.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    made.add_special_tokens(list(SPECIALS))
    if add_bos:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
        )
    return save_tokenizer(folder, made, {"bos_token": "<s>", "eos_token": "</s>", **names})


def save_tokenizer(folder: Path, made: Any, names: dict[str, str]) -> Path:
    made.add_special_tokens(list(SPECIALS))
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHATML, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def checkpoint(
    folder: Path,
    head: dict[str, tuple[int, ...]],
    *,
    model_type: str = "qwen2",
    architecture: str = "Qwen2ForCausalLM",
    pickled: str | None = None,
    **config: Any,
) -> Path:
    """A tiny random model with these further tensors (in the file `pickled`, where that is said) and this config."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        "vocab_size": 384,
        "hidden_size": HIDDEN,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "head_dim": HIDDEN // 2,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(7)
    made = transformers.AutoConfig.for_model(model_type, **sizes)
    state = {f"model.{n}": t.clone() for n, t in transformers.AutoModel.from_config(made).state_dict().items()}
    state = {name: tensor if "norm" in name else torch.randn_like(tensor) * 0.3 for name, tensor in state.items()}
    extra = {name: torch.randn(shape) for name, shape in head.items()}
    if pickled is None:
        state |= extra
    else:
        torch.save(extra, folder / pickled)
    save_file(state, str(folder / "model.safetensors"))
    stored = {**made.to_dict(), "architectures": [architecture], **config}
    (folder / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    return folder


def load(folder: Path, **options: Any) -> Any:
    return AutoRM.load(str(folder), load_method="transformers", torch_dtype="float32", **options)


def encoded(family: str, tokenizer: Path, steps: Sequence[str], **setup: Any) -> TokenInput:
    """What the family makes of the question and these steps."""
    return registry.family_named(family).encode(conversation(steps), a_setup(family, tokenizer, **setup))


def a_setup(family: str, tokenizer: Path, config: dict[str, Any] | None = None, **options: Any) -> Setup:
    model = registry.family_named(family).options
    return Setup(load_tokenizer(tokenizer), config or {}, {}, model(**options) if model is not None else None)


def conversation(steps: Sequence[str]) -> Conversation:
    return parse_steps(QUESTION, steps=list(steps), step_delimiter="\n\n")


def hidden_vectors(folder: Path, token_ids: list[int], positions: list[int]) -> Any:
    """The stock backbone's hidden vectors at these positions."""
    with torch.no_grad():
        model = transformers.AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
        return model(torch.tensor([token_ids])).last_hidden_state[0, positions]


def tensor(folder: Path, name: str) -> Any:
    from safetensors import safe_open

    with safe_open(str(folder / "model.safetensors"), framework="pt") as opened:
        return opened.get_tensor(name)


def without(folder: Path, name: str) -> Path:
    """The same checkpoint with one tensor removed."""
    from safetensors.torch import load_file, save_file

    state = load_file(str(folder / "model.safetensors"))
    del state[name]
    save_file(state, str(folder / "model.safetensors"))
    return folder


SEPARATOR_MERGES = [("Ċ", "Ċ"), ("ĊĊ", "ĊĊ"), ("Ġ", "ĊĊĊĊ"), ("Ġ", "ĊĊ")]


@pytest.fixture
def bytes_folder(tmp_path: Path) -> Path:
    return byte_tokenizer(tmp_path / "bytes", merges=SEPARATOR_MERGES, bos_token="<|endoftext|>")


@pytest.fixture
def pieces_folder(tmp_path: Path) -> Path:
    return piece_tokenizer(tmp_path / "pieces", pad_token="</s>")


# -- every family ----------------------------------------------------------------------------------------------------

AWKWARD_STEPS = (
    ["one step"],
    ["a", "", "b", "", ""],
    ["", "a"],
    [f"step {i}" for i in range(40)],
    ["小明原来有12个苹果。", "Café 🙂", "ответ ки"],
    ["  spaces around  ", "a tag ки and <extra_0> and </s> and <s>", "two\nlines\n\nand a blank one"],
    ["+", "- ", "+ -"],
)


@pytest.mark.parametrize("steps", AWKWARD_STEPS, ids=lambda steps: f"{len(steps)} steps of {steps[0][:8]!r}")
@pytest.mark.parametrize("family", ["math-shepherd", "skywork-o1-prm", "trl-prm", "versaprm", "actprm", "reasoneval"])
def test_every_step_is_read_once_and_in_order(
    family: str, steps: list[str], bytes_folder: Path, pieces_folder: Path
) -> None:
    tokenizer = pieces_folder if family in ("math-shepherd", "reasoneval") else bytes_folder
    tokens = encoded(family, tokenizer, steps)
    assert len(tokens.positions) == len(steps)
    assert tokens.positions == sorted(tokens.positions)
    assert tokens.positions[0] > 0 and tokens.positions[-1] == len(tokens.token_ids) - 1


@pytest.mark.parametrize(
    ("family", "tokenizer", "step_end", "n_in_text"),
    [
        ("math-shepherd", "pieces", "ки", 1),
        ("actprm", "bytes", "<extra_0>", 1),
        ("versaprm", "bytes", " \n\n\n\n", 0),  # is taken out of texts
        ("skywork-o1-prm", "bytes", "\n", 2),  # stands after the problem, too
    ],
)
def test_step_ends_inside_a_step_are_text(
    family: str, tokenizer: str, step_end: str, n_in_text: int, bytes_folder: Path, pieces_folder: Path
) -> None:
    folder = pieces_folder if tokenizer == "pieces" else bytes_folder
    tokens = encoded(family, folder, [f"a {step_end} b", "c"])
    mark = load_tokenizer(folder).single_id(step_end)
    marks = [i for i, token_id in enumerate(tokens.token_ids) if token_id == mark]
    assert len(marks) == 2 + n_in_text
    assert tokens.positions == marks[-2:]


@pytest.mark.parametrize(
    ("family", "how"),
    [
        ("math-shepherd", "min"),
        ("skywork-o1-prm", "mean"),
        ("trl-prm", "last"),
        ("versaprm", "min"),
        ("actprm", "min"),
        ("reasoneval", "min"),
        ("reasonflux-prm", "model"),
    ],
)
def test_steps_are_aggregated_as_the_authors_do(family: str, how: str) -> None:
    assert registry.family_named(family).aggregate == how


# -- math-shepherd ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "line"),
    [
        ("We add.", "Step 1: We add."),
        ("Step 7: we add.", "Step 7: we add."),
        ("step by step", "step by step"),
        ("", "Step 1:"),
        ("  x  ", "Step 1: x"),
    ],
)
def test_math_shepherd_labels_steps_that_have_no_label(step: str, line: str, pieces_folder: Path) -> None:
    tokens = encoded("math-shepherd", pieces_folder, [step])
    expected = load_tokenizer(pieces_folder).encode(f"{QUESTION[0]['content']} {line} ки", add_special_tokens=True)
    assert tokens.token_ids == expected


def test_math_shepherd_refuses_a_vocabulary_without_its_tag(bytes_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="ки"):
        encoded("math-shepherd", bytes_folder, ["a"])


def test_math_shepherd_refuses_a_tag_that_is_another_piece_after_a_space(tmp_path: Path) -> None:
    # "ки" (bytes D0 BA D0 B8) is one token here, but "Ġки" is not that token.
    merges = [("Ð", "º"), ("Ð", "¸"), ("Ðº", "Ð¸"), ("Ġ", "ÐºÐ¸")]
    folder = byte_tokenizer(tmp_path / "merging", merges=merges)
    assert len(load_tokenizer(folder).encode("ки")) == 1
    with pytest.raises(InvalidConversationError, match="merges"):
        encoded("math-shepherd", folder, ["a"])


# -- versaprm --------------------------------------------------------------------------------------------------------


def test_versaprm_strips_steps_and_takes_separators_out_of_texts(bytes_folder: Path) -> None:
    assert encoded("versaprm", bytes_folder, ["\n a \n\n\n\nb ", "c"]) == encoded("versaprm", bytes_folder, ["ab", "c"])


def test_versaprm_refuses_separators_that_merge_around_an_empty_step(tmp_path: Path) -> None:
    merges = [*SEPARATOR_MERGES, ("ĠĊĊĊĊ", "ĠĊĊĊĊ")]
    folder = byte_tokenizer(tmp_path / "merging", merges=merges)
    assert len(encoded("versaprm", folder, ["a", "b"]).positions) == 2
    with pytest.raises(InvalidConversationError, match="step 0") as caught:
        encoded("versaprm", folder, ["a", "", "b"])
    assert caught.value.field == "steps[0]"


def test_versaprm_refuses_a_vocabulary_without_its_separator(pieces_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="one token"):
        encoded("versaprm", pieces_folder, ["a"])


# -- skywork-o1-prm --------------------------------------------------------------------------------------------------

V_HEAD = {"v_head.summary.weight": (1, HIDDEN), "v_head.summary.bias": (1,), "lm_head.weight": (384, HIDDEN)}


def test_skywork_needs_the_bos_token_of_the_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="bos_token"):
        encoded("skywork-o1-prm", byte_tokenizer(tmp_path / "t"), ["a"])


def test_skywork_splits_at_newlines_and_gives_the_mean(tmp_path: Path) -> None:
    folder = byte_tokenizer(tmp_path, bos_token="<|endoftext|>")
    rm = load(checkpoint(folder, V_HEAD, architecture="Qwen2ForPrmModel"))
    steps = rm.score_steps(prompt="q", response="a\nb\n\nc")
    assert len(steps) == 3
    assert rm.score(prompt="q", response="a\nb\n\nc") == pytest.approx(sum(steps) / 3)


@pytest.mark.parametrize("name", ["v_head.summary.weight", "v_head.summary.bias"])
def test_skywork_names_a_missing_head_tensor(name: str, tmp_path: Path) -> None:
    folder = byte_tokenizer(tmp_path, bos_token="<|endoftext|>")
    with pytest.raises(CheckpointError) as caught:
        load(without(checkpoint(folder, V_HEAD, architecture="Qwen2ForPrmModel"), name))
    assert caught.value.tensor == name


@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "MistralForCausalLM", "LlamaForCausalLM"])
def test_a_lone_value_head_on_another_class_is_not_skyworks(architecture: str, tmp_path: Path) -> None:
    folder = checkpoint(byte_tokenizer(tmp_path), V_HEAD, architecture=architecture)
    with pytest.raises(UnknownModelError):
        load(folder)


# -- trl-prm ---------------------------------------------------------------------------------------------------------

SCORE_HEAD = {"score.weight": (2, HIDDEN), "score.bias": (2,)}


def test_trl_reads_the_last_token_of_a_separator_of_several(bytes_folder: Path) -> None:
    tokens = encoded("trl-prm", bytes_folder, ["ab", ""], separator="<->")
    tokenizer = load_tokenizer(bytes_folder)
    start = 1 + len(tokenizer.encode(QUESTION[0]["content"]))
    assert tokens.positions == [start + 2 + 2, start + 2 + 3 + 2]
    assert tokens.token_ids[start:] == tokenizer.encode("ab<-><->")
    assert tokens.token_ids[0] == tokenizer.bos_token_id


def test_trl_never_lets_a_separator_merge_with_the_step(bytes_folder: Path) -> None:
    # "a\n" + "\n" would be one token for two newlines, were the text tokenised in one go.
    tokens = encoded("trl-prm", bytes_folder, ["a\n", "b"])
    newline = load_tokenizer(bytes_folder).single_id("\n")
    assert [tokens.token_ids[p] for p in tokens.positions] == [newline, newline]


@pytest.mark.parametrize(
    ("model_id", "separator", "output"),
    [
        ("trl-lib/Qwen2-0.5B-Reward-Math-Sheperd", "\n", "probability"),
        ("HuggingFaceH4/Qwen2.5-Math-7B-Instruct-PRM-0.2", "\n\n", "probability"),
        ("jinachris/PURE-PRM-7B", "\n", "difference"),
    ],
)
def test_trl_table_knows_what_published_checkpoints_were_trained_with(
    model_id: str, separator: str, output: str
) -> None:
    family = registry.family_of_id(model_id)
    assert family is not None and family.name == "trl-prm" and family.options is not None
    options: Any = family.options(**family.checkpoint(model_id).options)  # type: ignore[union-attr]
    assert (options.separator, options.output) == (separator, output)


@pytest.mark.parametrize("options", [{"separator": ""}, {"output": "logit"}, {"seperator": "\n"}, {"separator": 3}])
def test_trl_options_are_checked(options: dict[str, Any], tmp_path: Path) -> None:
    folder = checkpoint(byte_tokenizer(tmp_path), SCORE_HEAD, architecture="Qwen2ForTokenClassification")
    with pytest.raises(TypeError):
        load(folder, options=options)


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [
        ("qwen2", "Qwen2ForTokenClassification"),
        ("llama", "LlamaForTokenClassification"),
        ("mistral", "MistralForTokenClassification"),
        ("qwen3", "Qwen3ForTokenClassification"),
    ],
)
def test_trl_scores_are_the_stock_classifiers_on_every_backbone(
    model_type: str, architecture: str, tmp_path: Path
) -> None:
    folder = checkpoint(byte_tokenizer(tmp_path), SCORE_HEAD, model_type=model_type, architecture=architecture)
    steps = ["We add.", "It is 5."]
    tokens = encoded("trl-prm", folder, steps)
    stock = transformers.AutoModelForTokenClassification.from_pretrained(str(folder), dtype=torch.float32).eval()
    with torch.no_grad():
        p = stock(torch.tensor([tokens.token_ids])).logits[0, tokens.positions].softmax(-1).numpy()
    probability = load(folder).score_steps(QUESTION, steps=steps)
    difference, details = load(folder, options={"output": "difference"}).score_steps(
        QUESTION, steps=steps, return_details=True
    )
    np.testing.assert_allclose(probability, p[:, 1], atol=TOLERANCE)
    np.testing.assert_allclose(difference, p[:, 1] - p[:, 0], atol=TOLERANCE)
    assert details["normalized_score"] == pytest.approx((difference[-1] + 1) / 2)


def test_trl_separator_changes_what_is_rendered_not_where_text_is_split(tmp_path: Path) -> None:
    folder = checkpoint(byte_tokenizer(tmp_path), SCORE_HEAD, architecture="Qwen2ForTokenClassification")
    response = "one\nline\n\ntwo"
    plain = load(folder).score_steps(prompt="q", response=response)
    other = load(folder, options={"separator": "||"}).score_steps(prompt="q", response=response)
    assert len(plain) == len(other) == 2
    assert plain != pytest.approx(other)


def test_a_token_classifier_of_five_labels_is_no_process_model(tmp_path: Path) -> None:
    head = {"score.weight": (5, HIDDEN), "score.bias": (5,)}
    labels = {str(i): f"LABEL_{i}" for i in range(5)}
    folder = checkpoint(byte_tokenizer(tmp_path), head, architecture="Qwen2ForTokenClassification", id2label=labels)
    with pytest.raises(UnknownModelError, match=r"score\.weight"):
        load(folder)
    with pytest.raises(CheckpointError) as caught:
        load(folder, family="trl-prm")
    assert caught.value.tensor == "score.weight"


def test_an_encoder_for_token_classification_is_no_process_model() -> None:
    config = {"architectures": ["BertForTokenClassification"], "model_type": "bert"}
    assert not registry.family_named("trl-prm").matches(config, {"classifier.weight": (2, HIDDEN)}, frozenset())


@pytest.mark.parametrize("name", list(SCORE_HEAD))
def test_trl_names_a_missing_head_tensor(name: str, tmp_path: Path) -> None:
    folder = checkpoint(byte_tokenizer(tmp_path), SCORE_HEAD, architecture="Qwen2ForTokenClassification")
    with pytest.raises(CheckpointError) as caught:
        load(without(folder, name))
    assert caught.value.tensor == name


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft 0.21 on transformers 5.23
def test_trl_adapters_bring_their_own_head(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = checkpoint(byte_tokenizer(tmp_path / "base"), {"lm_head.weight": (384, HIDDEN)})
    stock = transformers.AutoModelForTokenClassification.from_pretrained(str(base), dtype=torch.float32, num_labels=2)
    lora = peft.LoraConfig(task_type="TOKEN_CLS", r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    trained = peft.get_peft_model(stock, lora).eval()
    trained.save_pretrained(str(tmp_path / "adapter"))
    steps = ["a", "b"]
    tokens = encoded("trl-prm", base, steps)
    with torch.no_grad():
        expected = trained(torch.tensor([tokens.token_ids])).logits[0, tokens.positions].softmax(-1)[:, 1].numpy()
    scores = load(base, adapter=str(tmp_path / "adapter")).score_steps(QUESTION, steps=steps)
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)


# -- actprm ----------------------------------------------------------------------------------------------------------


def ensemble(members: int, inner: int) -> dict[str, tuple[int, ...]]:
    layers = {"nn1": (HIDDEN, inner), "nn2": (inner, inner), "nn_out": (inner, 1)}
    return {
        f"score.{copy}.{layer}.{kind}": (members, *shape) if kind == "weight" else (members, shape[1])
        for copy in ("model", "reg_model")
        for layer, shape in layers.items()
        for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(("members", "inner", "config"), [(3, 8, {"num_ensemble": 3}), (1, 5, {})])
def test_actprm_is_the_mean_of_its_members(members: int, inner: int, config: dict[str, int], tmp_path: Path) -> None:
    folder = byte_tokenizer(tmp_path)
    checkpoint(folder, ensemble(members, inner), architecture="Qwen2ForEnsemblePRM", rr_token="<s>", **config)
    steps = ["a <extra_0> b", "c"]
    tokens = encoded("actprm", folder, steps, config={"rr_token": "<s>"})
    h = hidden_vectors(folder, tokens.token_ids, tokens.positions)
    for layer in ("nn1", "nn2", "nn_out"):
        weight, bias = (tensor(folder, f"score.model.{layer}.{kind}") for kind in ("weight", "bias"))
        h = torch.matmul(h, weight) + bias[:, None]
        h = h.relu() if layer != "nn_out" else h
    expected = h[:, :, 0].sigmoid().numpy()
    scores, details = load(folder).score_steps(QUESTION, steps=steps, return_details=True)
    np.testing.assert_allclose(scores, expected.mean(axis=0), atol=TOLERANCE)
    for i in range(members):
        np.testing.assert_allclose(details["attributes"][f"member_{i}"], expected[i], atol=TOLERANCE)


@pytest.mark.parametrize("name", [name for name in ensemble(2, 4) if "reg_model" not in name])
def test_actprm_names_a_missing_head_tensor(name: str, tmp_path: Path) -> None:
    folder = checkpoint(byte_tokenizer(tmp_path), ensemble(2, 4), architecture="Qwen2ForEnsemblePRM")
    with pytest.raises(CheckpointError) as caught:
        load(without(folder, name))
    assert caught.value.tensor == name


def test_actprm_refuses_another_number_of_members_than_its_config_says(tmp_path: Path) -> None:
    folder = checkpoint(byte_tokenizer(tmp_path), ensemble(2, 4), architecture="Qwen2ForEnsemblePRM", num_ensemble=4)
    with pytest.raises(CheckpointError, match="shape"):
        load(folder)


def test_actprm_refuses_a_step_token_id_that_is_another_token(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="rr_token_id"):
        encoded("actprm", byte_tokenizer(tmp_path), ["a"], config={"rr_token_id": 3})


# -- reasoneval ------------------------------------------------------------------------------------------------------


def authors_positions(tokenizer: HFTokenizer, steps: Sequence[str]) -> tuple[list[int], list[int]]:
    """Ids and positions of codes/examples.py: the 7B's way where bos and pad are one token, else the 34B's."""
    separator, separator_id = str(tokenizer.pad_token), tokenizer.pad_token_id
    text = f"Question:\n{QUESTION[0]['content']}\nAnswer:\nLet's think step by step.\n"
    positions: list[int] = []
    kept: list[int] = []
    text += separator + "".join(step + separator for step in steps)
    for i, token_id in enumerate(tokenizer.encode(text, add_special_tokens=True)):
        if token_id == separator_id:
            positions.append(i - 1 - len(positions))
        else:
            kept.append(token_id)
    if tokenizer.bos_token_id == separator_id:
        return [separator_id, *kept], positions[2:]
    return kept, positions[1:]


@pytest.mark.parametrize("pad_token", ["</s>", "<s>"])
@pytest.mark.parametrize("steps", [["a", "b c"], ["", "a", "", ""]], ids=str)
def test_reasoneval_reads_where_its_authors_script_does(pad_token: str, steps: list[str], tmp_path: Path) -> None:
    folder = piece_tokenizer(tmp_path, pad_token=pad_token)
    tokens = encoded("reasoneval", folder, steps)
    assert (tokens.token_ids, tokens.positions) == authors_positions(load_tokenizer(folder), steps)


def test_reasoneval_closes_no_step_at_the_separator_inside_one(pieces_folder: Path) -> None:
    tokens = encoded("reasoneval", pieces_folder, ["a </s> b", "c"])
    assert load_tokenizer(pieces_folder).pad_token_id not in tokens.token_ids
    assert len(tokens.positions) == 2
    assert tokens.positions[-1] == len(tokens.token_ids) - 1


def test_reasoneval_needs_a_pad_token(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="pad_token"):
        encoded("reasoneval", piece_tokenizer(tmp_path), ["a"])


@pytest.mark.parametrize(
    ("model_type", "architecture", "config", "bias"),
    [
        ("llama", "ReasonEval_34B", {"score_dim": 3, "bias": True}, True),
        ("llama", "ReasonEval_34B", {"score_dim": 3, "bias": False}, False),
        ("mistral", "ReasonEval_7B", {"score_dimension": 3, "use_bias": False}, False),
        ("mistral", "ReasonEval_7B", {"model_type": "reasoneval"}, True),
        ("llama", "ReasonEval_34B", {"model_type": "reasoneval"}, True),
    ],
)
def test_reasoneval_loads_in_both_forms(
    model_type: str, architecture: str, config: dict[str, Any], bias: bool, tmp_path: Path
) -> None:
    folder = piece_tokenizer(tmp_path, pad_token="</s>")
    head: dict[str, tuple[int, ...]] = {"score_head.weight": (3, HIDDEN), **({"score_head.bias": (3,)} if bias else {})}
    checkpoint(folder, head, model_type=model_type, architecture=architecture)
    steps = ["We add.", "5."]
    tokens = encoded("reasoneval", folder, steps)
    logits = hidden_vectors(folder, tokens.token_ids, tokens.positions) @ tensor(folder, "score_head.weight").T
    p = (logits + tensor(folder, "score_head.bias") if bias else logits).softmax(-1).numpy()
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stored, **config}))
    scores, details = load(folder).score_steps(QUESTION, steps=steps, return_details=True)
    np.testing.assert_allclose(scores, p[:, 1] + p[:, 2], atol=TOLERANCE)
    np.testing.assert_allclose(details["attributes"]["redundancy"], p[:, 1], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("config", "head", "name"),
    [
        ({"use_bias": True}, {"score_head.weight": (3, HIDDEN)}, "score_head.bias"),
        ({"use_bias": True}, {"score_head.bias": (3,)}, "score_head.weight"),
        ({}, {"score_head.weight": (1, HIDDEN), "score_head.bias": (3,)}, "score_head.weight"),
        ({}, {}, "score_head.weight"),
    ],
)
def test_reasoneval_names_a_missing_or_misshapen_head_tensor(
    config: dict[str, Any], head: dict[str, tuple[int, ...]], name: str, tmp_path: Path
) -> None:
    folder = piece_tokenizer(tmp_path, pad_token="</s>")
    checkpoint(folder, head, model_type="mistral", architecture="ReasonEval_7B", **config)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert caught.value.tensor == name


# -- reasonflux-prm --------------------------------------------------------------------------------------------------

FLUX_HEAD = {"weight": (1, HIDDEN), "bias": (1,)}


@pytest.fixture
def flux(tmp_path: Path) -> Any:
    # Two newlines and a full stop with one merge, so that a cut response is tokenised otherwise than the whole.
    folder = byte_tokenizer(tmp_path, merges=[("Ċ", "Ċ"), (".", "ĊĊ")])
    return load(checkpoint(folder, FLUX_HEAD, pickled="reward_head.pt"))


def flux_score(rm: Any, response: str) -> float:
    return float(rm.score(prompt="q", response=response))


def test_reasonflux_scores_the_whole_response_as_it_is(flux: Any) -> None:
    response = "  one.\n\ntwo.\n\n\n"
    _, details = flux.score(prompt="q", response=response, return_details=True)
    assert details["tokens_scored"] == len(flux.model.setup.tokenizer.encode("q" + response))
    assert details["step_scores"] == [flux_score(flux, response)]


def test_reasonflux_step_scores_are_scores_of_the_cut_response(flux: Any) -> None:
    response = "one.\n\ntwo.\n\nthree."
    cut = [flux_score(flux, text) for text in ("one.", "one.\n\ntwo.", response)]
    scores, details = flux.score_steps(prompt="q", response=response, return_details=True)
    assert scores == pytest.approx(cut, abs=TOLERANCE)
    assert [response[start:end] for start, end in details["step_spans"]] == ["one.", "two.", "three."]
    assert details["normalized_score"] == pytest.approx(scores[-1])
    assert len(details["raw_logits"]) == 3


@pytest.mark.parametrize(
    ("steps", "separator", "cut"),
    [
        (["a.", "", "b."], "\n\n", ["a.", "a.\n\n", "a.\n\n\n\nb."]),
        (["a.", "", "", "b."], "\n", ["a.", "a.\n", "a.\n\n", "a.\n\n\nb."]),
        (["", "a.", ""], "\n\n", ["", "\n\na.", "\n\na.\n\n"]),
        (["", ""], "\n\n", ["", "\n\n"]),
    ],
)
def test_reasonflux_gives_empty_steps_their_place_between_the_others(
    steps: list[str], separator: str, cut: list[str], flux: Any
) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": separator.join(steps)}]
    scores = flux.score_steps(messages, steps=steps)
    assert scores == pytest.approx([flux_score(flux, text) for text in cut], abs=TOLERANCE)


@pytest.mark.parametrize("ending", ["\n", "\n\n", "\n \n\n", "  "])
def test_the_last_step_of_reasonflux_is_scored_with_the_blank_lines_behind_it(ending: str, flux: Any) -> None:
    response = f"one.\n\ntwo.{ending}"
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": response}]
    whole = flux_score(flux, response)
    assert whole != pytest.approx(flux_score(flux, "one.\n\ntwo."), abs=TOLERANCE)
    for scores in (flux.score_steps(messages), flux.score_steps(messages, steps=["one.", "two."])):
        assert scores == pytest.approx([flux_score(flux, "one."), whole], abs=TOLERANCE)
    assert flux.score(messages) == pytest.approx(whole, abs=TOLERANCE)
    assert flux.score(messages, aggregation="last") == pytest.approx(whole, abs=TOLERANCE)


def test_reasonflux_batches_keep_order_and_name_the_item_that_fails(flux: Any) -> None:
    items = [{"prompt": "q", "response": text} for text in ("a.\n\nb.", "x " * 2000 + "\n\ny", "c.")]
    results = flux.score_steps_batch(items, on_error="none", return_details=True)
    assert [len(scores) if scores is not None else None for scores, _ in results] == [2, None, 1]
    assert results[1][1]["error"]["type"] == "InputTooLongError"
    assert results[0][0][0] == pytest.approx(flux_score(flux, "a."), abs=TOLERANCE)
    with pytest.raises(InputTooLongError) as caught:
        flux.score_steps_batch(items)
    assert (caught.value.index, caught.value.n_tokens) == (1, 4003)


def test_reasonflux_aggregates_prefix_scores_where_asked(flux: Any) -> None:
    response = "one.\n\ntwo."
    steps = flux.score_steps(prompt="q", response=response)
    assert flux.score(prompt="q", response=response, aggregation="min") == pytest.approx(min(steps), abs=TOLERANCE)


@pytest.mark.parametrize("name", list(FLUX_HEAD))
def test_reasonflux_names_a_missing_head_tensor(name: str, tmp_path: Path) -> None:
    head = {other: shape for other, shape in FLUX_HEAD.items() if other != name}
    folder = checkpoint(byte_tokenizer(tmp_path), head, pickled="reward_head.pt")
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert caught.value.tensor == f"reward_head.{name}"


# -- near misses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "tensors", "files", "expected"),
    [
        ("Qwen2ForPrmModel", {"v_head.summary.weight": (1, 8)}, (), "skywork-o1-prm"),
        ("Qwen2ForTokenClassification", {"score.weight": (2, 8)}, (), "trl-prm"),
        ("Qwen2ForTokenClassification", {}, (), "trl-prm"),
        ("Qwen2ForEnsemblePRM", {}, (), "actprm"),
        ("Other", {"score.model.nn1.weight": (2, 8, 4)}, (), "actprm"),
        ("ReasonEval_7B", {"score_head.weight": (3, 8)}, (), "reasoneval"),
        ("ReasonEval_34B", {}, (), "reasoneval"),
        ("Qwen2ForCausalLM", {"lm_head.weight": (9, 8)}, ("reward_head.pt",), "reasonflux-prm"),
        ("LlamaForScore", {"score_head.weight": (1, 8)}, (), None),
        ("Qwen2ForCausalLM", {"lm_head.weight": (9, 8)}, (), None),
        ("MistralForCausalLM", {"lm_head.weight": (9, 8)}, (), None),
    ],
)
def test_checkpoints_match_at_most_one_process_family(
    architecture: str, tensors: dict[str, tuple[int, ...]], files: tuple[str, ...], expected: str | None
) -> None:
    config = {"architectures": [architecture], "model_type": "qwen2"}
    matching = [
        family.name
        for family in registry.families()
        if family.kind == "process" and family.matches(config, tensors, frozenset(files))
    ]
    assert matching == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("architecture", "candidate"), [("MistralForCausalLM", "math-shepherd"), ("LlamaForCausalLM", "versaprm")]
)
def test_a_plain_causal_model_names_the_families_it_could_be(architecture: str, candidate: str, tmp_path: Path) -> None:
    folder = checkpoint(byte_tokenizer(tmp_path), {"lm_head.weight": (384, HIDDEN)}, architecture=architecture)
    with pytest.raises(UnknownModelError) as caught:
        load(folder)
    assert candidate in caught.value.near


def test_longer_conversations_stand_before_the_question(bytes_folder: Path) -> None:
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "v"},
    ]
    long = parse_steps(turns, steps=["x"], step_delimiter="\n\n")
    short = parse_steps([{"role": "user", "content": "s\nu\na\nv"}], steps=["x"], step_delimiter="\n\n")
    family = registry.family_named("trl-prm")
    setup = a_setup("trl-prm", bytes_folder)
    assert family.encode(long, setup) == family.encode(short, setup)
