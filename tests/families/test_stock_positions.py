"""A stock classifier is read where its class reads: at the last token that is not the pad token of its config."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from golden_sets import GoldenSet, golden_sets
from hypothesis import given
from hypothesis import strategies as st
from local_servers import VllmLike, local_server, routes
from made_tokenizers import edit_json
from model_classes import tiny_classifier, tiny_config

from reward_hub import AutoRM, CheckpointError, UnsupportedError
from reward_hub.backends.stock_config import stock_config
from reward_hub.backends.stock_position import KNOWN, pad_token_of, position_read
from reward_hub.backends.vllm.plan import STEMS
from reward_hub.messages import parse
from reward_hub.models.model_rm import ModelRM
from reward_hub.registry import families
from reward_hub.server.rendered import RenderedScorer
from reward_hub.types import last_position

PROMPT, RESPONSE = "How many legs do two cats have?", "Two cats have 8 legs."
CONVERSATION = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": RESPONSE}]
STOCK = [
    golden for golden in golden_sets("own") if golden.registered and golden.family in ("sequence-classifier", "grm-ft")
]
LLAMA = GoldenSet("seqcls-llama3", "own")
CLOSING = 629
CLASSIFIERS = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

FAST = ("bloom", "gemma2", "gpt2", "llama", "mpt", "olmo2", "opt", "phi3")
SLOW = (
    *("arcee", "biogpt", "diffllama", "doge", "exaone4", "gemma", "gemma3_text", "glm", "glm4", "gpt_bigcode"),
    *("gpt_neox", "helium", "jetmoe", "minimax", "mistral", "mixtral", "nemotron", "olmo", "openai-gpt"),
    *("persimmon", "phi", "qwen2", "qwen3", "seed_oss", "smollm3", "stablelm", "starcoder2"),
)
TYPES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def class_score(folder: Path, token_ids: list[int], **config: Any) -> float:
    """By transformers' own class, of one conversation that is not padded."""
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    model = load(folder, dtype=torch.float32, attn_implementation="eager")
    for name, value in config.items():
        setattr(model.config, name, value)
    with torch.inference_mode():
        return float(model.eval()(input_ids=torch.tensor([token_ids])).logits)


def made(golden: GoldenSet, folder: Path, **config: Any) -> Path:
    """The checkpoint of a golden set with other fields in its config.json; `...` takes one out."""
    golden.make(folder)
    edit_json(folder / "config.json", **{name: value for name, value in config.items() if value is not ...})
    left_out = [name for name, value in config.items() if value is ...]
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in stored.items() if k not in left_out}))
    return folder


def pads(golden: GoldenSet) -> dict[str, Any]:
    """What a config may call its pad token, of one golden set."""
    ids = golden.cases[0]["input_ids"]
    return {
        "the last token": ids[-1],
        "the one before": ids[-2],
        "the first token": ids[0],
        "bos": golden.spec["config"].get("bos_token_id"),
        "eos": golden.spec["config"].get("eos_token_id"),
        "id 0": 0,
        "none": None,
        "absent": ...,
        "negative": -1,
    }


@pytest.mark.parametrize("name", pads(STOCK[0]))
@pytest.mark.parametrize("golden", STOCK, ids=str)
def test_every_stock_classifier_is_read_where_its_class_reads(golden: GoldenSet, name: str, tmp_path: Path) -> None:
    pad = pads(golden)[name]
    if isinstance(pad, list):
        pytest.skip("this set has several eos tokens")
    case = golden.cases[0]
    folder = made(golden, tmp_path / "model", pad_token_id=pad)
    rm: Any = golden.load(folder)
    score, details = rm.score(case["messages"], return_details=True)
    ids = rm.model.family.tokens_of(parse(case["messages"]), rm.model.setup).token_ids
    assert ids == case["input_ids"]
    assert score == pytest.approx(class_score(folder, ids), abs=golden.tolerance)
    expected = max(place for place, token_id in enumerate(ids) if token_id != pad)
    assert [token["index"] for token in details["read_tokens"]] == [expected]


def test_a_family_that_fits_into_a_stock_class_with_its_head_is_read_so() -> None:
    """Over the registry: what holds a class's own tensors, its `score` among them, is that class."""
    stock = set()
    for golden in golden_sets("own"):
        if golden.two_models or not golden.registered:
            continue
        config = golden.spec["config"]
        shapes = {name: tuple(t["shape"]) for tensors in golden.spec["files"].values() for name, t in tensors.items()}
        if "score.weight" not in shapes or config["model_type"] not in transformers.CONFIG_MAPPING:
            continue
        classifier: Any = CLASSIFIERS[transformers.CONFIG_MAPPING[config["model_type"]]]
        with torch.device("meta"):
            own = set(classifier(stock_config({**config, "num_labels": 1})).state_dict())
        if own == set(shapes) and shapes["score.weight"][0] == 1:
            stock.add(golden.family)
    assert stock == {family.name for family in families() if family.stock_classifier}


@pytest.mark.parametrize("model_type", TYPES)
def test_many_classes_are_read_before_a_closing_token_that_is_their_pad_token(model_type: str, tmp_path: Path) -> None:
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
    model = tiny_classifier(model_type, tmp_path, pad_token_id=CLOSING)
    rm: Any = AutoRM.load(tmp_path, torch_dtype="float32")
    score, details = rm.score(CONVERSATION, return_details=True)
    ids = rm.model.family.tokens_of(parse(CONVERSATION), rm.model.setup).token_ids
    with torch.inference_mode():
        expected = float(model(input_ids=torch.tensor([ids])).logits)
    assert score == pytest.approx(expected, abs=2e-5 * max(1, abs(expected)))
    assert details["read_tokens"][0]["index"] == len(ids) - 2


@pytest.mark.parametrize("model_type", sorted(KNOWN))
def test_what_is_known_without_torch_is_what_the_class_does(model_type: str) -> None:
    made = transformers.CONFIG_MAPPING[model_type]
    assert made().pad_token_id == KNOWN[model_type] == pad_token_of({"model_type": model_type})
    classifier: Any = CLASSIFIERS.get(made, None)
    if classifier is None:
        return  # the head is somebody else's, over this backbone
    with torch.device("meta"):
        model = classifier(tiny_config(model_type, pad_token_id=7)).eval()
    assert [position_read(model, ids) for ids in ([3, 7, 3], [3, 7, 3, 7, 7], [7, 7])] == [2, 2, 0]


def test_whatever_vllm_runs_is_known_without_torch() -> None:
    assert set(STEMS) <= set(KNOWN)


def test_a_class_that_pools_otherwise_is_refused() -> None:
    if "cohere_compass_text" not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no cohere_compass_text")
    config = transformers.CONFIG_MAPPING["cohere_compass_text"]().to_dict()
    for pooling in ("mean", "bos"):
        with pytest.raises(UnsupportedError, match="CohereCompass"):
            pad_token_of({**config, "pooling": pooling})


@pytest.mark.parametrize("model_type", ["opt", "olmo2", "smollm3", "gpt2"])
def test_a_pad_token_that_the_config_does_not_name_is_the_class_s_own(model_type: str) -> None:
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
    default = transformers.CONFIG_MAPPING[model_type]().pad_token_id
    assert pad_token_of({"model_type": model_type}) == default
    assert pad_token_of({"model_type": model_type, "pad_token_id": None}) is None
    assert pad_token_of({"model_type": model_type, "pad_token_id": 5}) == 5


def test_a_nested_config_is_asked_for_its_text_part() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 64}
    vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "num_attention_heads": 2}
    vision = {**vision, "num_hidden_layers": 1, "intermediate_size": 32}
    config = {"model_type": "gemma3", "vision_config": vision, "pad_token_id": 9}
    assert pad_token_of({**config, "text_config": {**text, "pad_token_id": 5}}) == 5
    assert pad_token_of({**config, "text_config": text}) == 0


def test_a_config_that_its_class_refuses_is_a_checkpoint_error() -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is not one of olmo2"):
        pad_token_of({"model_type": "olmo2", "hidden_size": "many"})


def test_a_model_type_that_transformers_does_not_know_has_what_its_config_says() -> None:
    assert pad_token_of({"model_type": "mine"}) is None
    assert pad_token_of({"model_type": "mine", "pad_token_id": 3}) == 3


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.sampled_from([None, 0, 1, 7, -1]))
def test_the_last_position_is_that_of_the_class_s_formula(token_ids: list[int], pad: int | None) -> None:
    ids = torch.tensor([token_ids])
    expected = len(token_ids) - 1
    if pad is not None:
        expected = int((torch.arange(len(token_ids), dtype=torch.int32) * (ids != pad).int()).argmax(-1))
    assert last_position(token_ids, pad) == expected


@pytest.fixture
def padded(tmp_path: Path) -> Path:
    """A classifier whose pad token closes every turn, as TRL's RewardTrainer writes them."""
    return made(LLAMA, tmp_path / "padded", pad_token_id=CLOSING)


@pytest.mark.parametrize("truncation", ["left", "right", "prompt"])
def test_what_is_cut_is_read_where_the_class_reads_what_is_left(truncation: str, padded: Path) -> None:
    whole: Any = AutoRM.load(padded)
    ids = whole.model.family.tokens_of(parse(CONVERSATION), whole.model.setup).token_ids
    for limit in (len(ids) - 1, len(ids) - 2, len(ids) - 4):
        score = AutoRM.load(padded, max_length=limit, truncation=truncation).score(CONVERSATION)
        left = ids[:limit] if truncation == "right" else ids[len(ids) - limit :]
        assert score == pytest.approx(class_score(padded, left), abs=1e-5)


def test_batches_and_lists_read_the_same_place(padded: Path) -> None:
    rm = AutoRM.load(padded)
    chats = [parse(prompt="Count.", response="1 " * n).to_dicts() for n in range(1, 6)]
    alone = [rm.score(chat) for chat in chats]
    assert rm.score_batch(chats, batch_size=5) == pytest.approx(alone, abs=1e-5)
    assert rm.rank(prompt="Count.", responses=["1 " * n for n in range(1, 6)]) == sorted(
        range(5), key=lambda i: -alone[i]
    )


def test_inspect_and_one_line_at_load_say_which_token_is_read(padded: Path, caplog: pytest.LogCaptureFixture) -> None:
    sentence = AutoRM.inspect(padded)["positions"]
    assert sentence.startswith("head at the last token that is not the pad token '<|eot_id|>' (629)")
    assert sentence.endswith("1 before the end")
    with caplog.at_level(logging.INFO, "reward_hub"):
        AutoRM.load(padded)
    assert [sentence in record.getMessage() for record in caplog.records].count(True) == 1


def test_the_last_token_needs_no_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = LLAMA.make(tmp_path / "plain")
    assert AutoRM.inspect(folder)["positions"] == "head at the last token that is not the pad token of config.json"
    with caplog.at_level(logging.INFO, "reward_hub"):
        AutoRM.load(folder)
    assert not any("before the end" in record.getMessage() for record in caplog.records)


def test_another_position_is_another_fingerprint(padded: Path, tmp_path: Path) -> None:
    assert AutoRM.load(padded).fingerprint != AutoRM.load(LLAMA.make(tmp_path / "plain")).fingerprint


@pytest.mark.parametrize("task", ["classify", "token_classify", "embed", "token_embed"])
def test_a_server_of_others_is_sent_what_ends_with_the_token_that_is_read(task: str, padded: Path) -> None:
    rm = AutoRM.load(padded)
    with local_server(VllmLike(rm, task, root=str(padded))) as server:
        over_http = AutoRM.load("rm", "api", api_base=server.address, checkpoint=str(padded))
        with over_http:
            assert over_http.score(CONVERSATION) == pytest.approx(rm.score(CONVERSATION), abs=2e-5)


async def test_rendered_text_and_ids_have_the_score_of_the_messages(padded: Path) -> None:
    rm = AutoRM.load(padded)
    assert isinstance(rm, ModelRM)
    scorer = RenderedScorer(rm)
    conversation = parse(CONVERSATION)
    text = rm.model.setup.tokenizer.render(conversation.messages)
    ids = rm.model.family.tokens_of(conversation, rm.model.setup).token_ids
    inputs = [scorer.of_text(text), scorer.of_ids(ids), scorer.of_completion(text)]
    scores = [result.score for result in await scorer.score(inputs)]  # type: ignore[union-attr]
    assert scores == pytest.approx([rm.score(CONVERSATION)] * 3, abs=1e-5)


def test_a_server_that_reads_where_it_likes_is_refused(padded: Path) -> None:
    info = {"model_id": "rm", "model_type": {"classifier": {"id2label": {"0": "a"}}}, "max_input_length": 512}
    with local_server(routes({"/info": info})) as server, pytest.raises(UnsupportedError, match="before the end"):
        AutoRM.load("rm", "api", api_base=server.address, checkpoint=str(padded))


# -- odd fields --------------------------------------------------------------------------------------------------------

ODD: list[dict[str, Any]] = [
    {"pad_token_id": 128256},
    {"pad_token_id": [876]},
    {"bos_token_id": "<s>"},
    {"bos_token_id": [620]},
    {"eos_token_id": "</s>"},
    {"eos_token_id": [629, 621]},
    {"eos_token_id": [629, "x"]},
    {"problem_type": "single_label_classification"},
    {"problem_type": "multi_label_classification"},
    {"problem_type": "regression"},
    {"return_dict": False, "use_cache": True},
    {"use_return_dict": False},
    {"output_hidden_states": True, "output_attentions": True},
    {"id2label": ["LABEL_0"], "label2id": None},
    {"num_labels": None},
    {"num_labels": "1"},
]


@pytest.mark.parametrize("fields", ODD, ids=str)
def test_a_field_that_nothing_depends_on_changes_no_score(fields: dict[str, Any], tmp_path: Path) -> None:
    right = AutoRM.load(LLAMA.make(tmp_path / "plain")).score(CONVERSATION)
    assert AutoRM.load(made(LLAMA, tmp_path / "odd", **fields)).score(CONVERSATION) == pytest.approx(right, abs=1e-5)


def test_a_list_of_one_closing_token_is_passed_over(tmp_path: Path, padded: Path) -> None:
    odd = made(LLAMA, tmp_path / "odd", pad_token_id=[CLOSING])
    assert AutoRM.load(odd).score(CONVERSATION) == pytest.approx(AutoRM.load(padded).score(CONVERSATION), abs=1e-5)


@pytest.mark.parametrize("pad", ["<|eot_id|>", [876, 629], [], 1.5, True, {"id": 3}])
def test_a_pad_token_that_is_not_one_token_is_refused_by_name(pad: Any, tmp_path: Path) -> None:
    folder = made(LLAMA, tmp_path / "odd", pad_token_id=pad)
    with pytest.raises(CheckpointError, match="pad_token_id") as caught:
        AutoRM.load(folder)
    assert repr(pad) in caught.value.message
    assert "null" in caught.value.message


@pytest.mark.parametrize("pad", ["<pad>", [1, 2], 10**6])
def test_a_family_that_does_not_look_at_the_pad_token_loads_whatever_it_is(pad: Any, tmp_path: Path) -> None:
    golden = GoldenSet("armorm", "own")
    odd = golden.load(made(golden, tmp_path / "odd", pad_token_id=pad))
    case = golden.cases[0]
    assert odd.score(case["messages"]) == pytest.approx(case["score"], abs=golden.tolerance)


def test_the_hidden_size_of_the_head_may_be_another_than_the_backbone_s(tmp_path: Path) -> None:
    """OPT-350m: its last layer projects to word_embed_proj_dim."""
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 48, "do_layer_norm_before": False}
    model = tiny_classifier("opt", tmp_path, pad_token_id=1, **sizes)
    rm: Any = AutoRM.load(tmp_path, torch_dtype="float32")
    ids = rm.model.family.tokens_of(parse(CONVERSATION), rm.model.setup).token_ids
    with torch.inference_mode():
        expected = float(model(input_ids=torch.tensor([ids])).logits)
    assert rm.score(CONVERSATION) == pytest.approx(expected, abs=1e-5)
