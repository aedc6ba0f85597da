"""Implicit rewards: log-ratios of two models over the tokens of the response, held to plain forwards of each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from golden_sets import GoldenModels, GoldenSet
from local_servers import VllmLike, local_server

from reward_hub import (
    AutoRM,
    CheckpointError,
    DrSow,
    InputTooLongError,
    InvalidConversationError,
    UnknownModelError,
)

DPO = GoldenSet("dpo-implicit", "own")
EURUS = GoldenSet("eurus-implicit-prm", "own")
DRSOW = GoldenSet("drsow", "own")
CASE = DPO.cases[0]
MESSAGES = CASE["messages"]


@pytest.fixture(scope="module")
def dpo(golden_models: GoldenModels):
    return golden_models.load(DPO)


@pytest.fixture(scope="module")
def folder(golden_models: GoldenModels) -> Path:
    return golden_models.checkpoint(DPO)


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A copy of the DPO pair that a test may change."""
    return DPO.make(tmp_path)


def load(folder: Path, **options):
    options = {"reference": folder / "reference", "torch_dtype": "float32", **options}
    return AutoRM.load(folder / "policy", **options)


def plain_logprobs(folder: Path, token_ids: list[int], positions: list[int]) -> list[float]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    with torch.inference_mode():
        table = torch.log_softmax(model(torch.tensor([token_ids])).logits[0], dim=-1)
    return [float(table[p - 1, token_ids[p]]) for p in positions]


def change_tokenizer(folder: Path, **changes) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# The score


def test_the_score_is_beta_times_the_sum_of_log_ratios(folder, dpo):
    tokens = dpo.model.family.encode(parsed(MESSAGES), dpo.model.setup)
    ours, theirs = (
        plain_logprobs(folder / part, tokens.token_ids, tokens.positions) for part in ("policy", "reference")
    )
    score, details = load(folder, beta=0.5).score(MESSAGES, return_details=True)
    # Sums of ten float32 log-probabilities against float64 ones.
    assert score == pytest.approx(0.5 * (sum(ours) - sum(theirs)), abs=1e-4)
    assert details["raw_logits"] == pytest.approx([a - b for a, b in zip(ours, theirs, strict=True)], abs=1e-4)
    assert details["logp_policy_sum"] == pytest.approx(sum(ours), abs=1e-4)
    assert details["logp_reference_sum"] == pytest.approx(sum(theirs), abs=1e-4)


def parsed(messages):
    from reward_hub.messages import parse

    return parse(messages)


def test_beta_is_a_tenth_unless_given(folder):
    assert load(folder).score(MESSAGES) == pytest.approx(load(folder, beta=0.1).score(MESSAGES))
    assert load(folder, beta=1.0).score(MESSAGES) == pytest.approx(10 * load(folder).score(MESSAGES))


def test_length_normalize_divides_by_the_tokens_of_the_response(folder):
    score, details = load(folder).score(MESSAGES, return_details=True)
    mean = load(folder, length_normalize=True).score(MESSAGES)
    assert mean == pytest.approx(score / details["n_completion_tokens"])


@pytest.mark.parametrize("given", [True, False])
def test_without_a_reference_the_policys_own_log_probabilities_count(folder, given):
    reference = {"reference": folder / "reference"} if given else {"reference": None}
    rm = load(folder, family="implicit", options={"reference_free": True}, beta=1.0, **reference)
    score, details = rm.score(MESSAGES, return_details=True)
    assert score == pytest.approx(load(folder).score(MESSAGES, return_details=True)[1]["logp_policy_sum"], abs=1e-4)
    assert "logp_reference_sum" not in details


def test_equal_models_give_zero(folder):
    assert load(folder, reference=folder / "policy").score(MESSAGES) == 0.0


def test_compare_and_rank_follow_the_scores(dpo):
    question = MESSAGES[:-1]
    texts = ["Paris.", "I think it is Lyon.", "It is Rome, I guess, or Berlin."]
    scores = [dpo.score([*question, {"role": "assistant", "content": text}]) for text in texts]
    assert dpo.rank(messages=question, responses=texts) == sorted(range(3), key=lambda i: -scores[i])
    assert dpo.compare(messages=question, a=texts[0], b=texts[1]) > 0.5 or scores[0] < scores[1]


def test_a_batch_gives_the_scores_of_its_members(dpo):
    batch = [case["messages"] for case in DPO.cases]
    alone = [dpo.score(messages) for messages in batch]
    # Sums of log-probabilities: 1e-4 is what api.md promises.
    assert dpo.score_batch(batch) == pytest.approx(alone, abs=1e-4)


def test_a_failed_conversation_does_not_take_the_others_with_it(folder):
    rm = load(folder, max_length=60)
    long = [MESSAGES[0], {"role": "assistant", "content": "word " * 80}]
    scores = rm.score_batch([MESSAGES, long, MESSAGES], on_error="none")
    assert scores[1] is None and scores[0] == scores[2] == pytest.approx(rm.score(MESSAGES), abs=1e-4)


def test_the_fingerprint_covers_both_models_and_beta(folder, dpo):
    prints = {
        dpo.fingerprint,
        load(folder, reference=folder / "policy").fingerprint,
        load(folder, beta=0.5).fingerprint,
        load(folder, length_normalize=True).fingerprint,
    }
    assert len(prints) == 4


# Which tokens are the response


def test_a_response_that_merges_with_the_prompts_last_token_is_read_from_that_token(golden_models):
    rm = AutoRM.load(golden_models.checkpoint(DRSOW) / "policy", family="implicit", options={"reference_free": True})
    tokenizer = rm.model.setup.tokenizer
    tokens = rm.model.family.encode(parsed([MESSAGES[0], {"role": "assistant", "content": "\nYes"}]), rm.model.setup)
    read = tokenizer.decode(tokens.token_ids[tokens.positions[0] :])
    assert read.endswith("Yes<|im_end|>\n") and read.startswith("\n")


def test_a_template_that_rewrites_the_prompt_is_refused(folder):
    template = "{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}"
    rm = load(folder, chat_template=template)
    with pytest.raises(CheckpointError, match="chat template"):
        rm.score(MESSAGES)


def test_a_response_without_any_token_is_refused(folder):
    rm = load(folder, chat_template="{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(InvalidConversationError, match="no response token"):
        rm.score(prompt="Question", response="")


# Length


def test_too_long_a_conversation_is_an_error(folder):
    with pytest.raises(InputTooLongError) as caught:
        load(folder, max_length=len(CASE["input_ids"]) - 1).score(MESSAGES)
    assert (caught.value.n_tokens, caught.value.max_length) == (len(CASE["input_ids"]), len(CASE["input_ids"]) - 1)


@pytest.mark.parametrize("truncation", ["prompt", "left"])
def test_a_cut_prompt_leaves_every_response_token(folder, truncation):
    rm = load(folder, max_length=len(CASE["input_ids"]) - 3, truncation=truncation)
    _, details = rm.score(MESSAGES, return_details=True)
    assert (details["truncated"], details["dropped_tokens"]) == (True, 3)
    assert details["n_completion_tokens"] == len(CASE["positions"])


@pytest.mark.parametrize(("truncation", "spare"), [("right", 1), ("right", 3), ("left", 0), ("prompt", 0)])
def test_no_response_token_is_cut_off(folder, truncation, spare):
    n = len(CASE["input_ids"])
    # All of the prompt would have to go, and the first response token has no log-probability without it.
    limit = n - spare if spare else n - CASE["positions"][0]
    with pytest.raises(InputTooLongError):
        load(folder, max_length=limit, truncation=truncation).score(MESSAGES)


# What does not fit together


@pytest.mark.parametrize("name", ["eos_token", "bos_token"])
def test_other_special_tokens_in_the_reference_are_an_error(own_folder, name):
    (own_folder / "reference" / "special_tokens_map.json").unlink(missing_ok=True)
    change_tokenizer(own_folder / "reference", **{name: "<|reserved_special_token_0|>"})
    with pytest.raises(CheckpointError, match=f"{name}_id"):
        load(own_folder)


def test_another_vocabulary_in_the_reference_is_an_error(own_folder):
    other = json.loads((own_folder / "reference" / "tokenizer.json").read_text())
    vocabulary = other["model"]["vocab"]
    first, second = list(vocabulary)[:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (own_folder / "reference" / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(CheckpointError, match="2 token"):
        load(own_folder)


def test_another_padding_token_in_the_reference_changes_nothing(own_folder, folder):
    (own_folder / "reference" / "special_tokens_map.json").unlink(missing_ok=True)
    change_tokenizer(own_folder / "reference", pad_token="<|reserved_special_token_1|>")
    assert load(own_folder).score(MESSAGES) == pytest.approx(load(folder).score(MESSAGES), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"reference": None, "beta": 0.1, "family": "sequence-classifier"}, "beta"),
        ({"reference": None, "family": "implicit"}, "reference="),
        ({"reference": None, "family": "eurus-prm"}, "reference="),
        ({"family": "rlhflow-prm"}, "reference="),
        ({"beta": -1.0}, "beta"),
        ({"beta": float("nan")}, "beta"),
        ({"family": "drsow", "beta": 0.1}, "beta"),
        ({"family": "eurus-prm", "length_normalize": True}, "length_normalize"),
        ({"options": {"boundaries": "exact"}}, "boundaries"),
        ({"aggregation": "min"}, "aggregation"),
    ],
)
def test_an_argument_that_does_not_go_with_the_family_is_a_type_error(folder, options, named):
    with pytest.raises(TypeError, match=named):
        load(folder, **options)


def test_a_plain_language_model_alone_is_not_guessed(folder):
    with pytest.raises(UnknownModelError, match="reference=") as caught:
        AutoRM.load(folder / "policy")
    assert {"implicit", "rlhflow-pair-pm"} <= set(caught.value.near)


# Models whose LM head is not the plain one


@pytest.mark.parametrize("tied", [True, False])
def test_caps_and_tied_heads_are_followed(tmp_path, folder, tied):
    config = transformers.Gemma2Config(
        vocab_size=640, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, final_logit_softcapping=2.0, tie_word_embeddings=tied, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Gemma2ForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    model.save_pretrained(tmp_path)
    for file in (folder / "policy").glob("*token*"):
        shutil.copyfile(file, tmp_path / file.name)
    rm = AutoRM.load(tmp_path, family="implicit", options={"reference_free": True}, beta=1.0, torch_dtype="float32")
    tokens = rm.model.family.encode(parsed(MESSAGES), rm.model.setup)
    plain = plain_logprobs(tmp_path, tokens.token_ids, tokens.positions)
    assert rm.score(MESSAGES, return_details=True)[1]["raw_logits"] == pytest.approx(plain, abs=1e-4)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft on transformers 5
def test_a_lora_policy_is_scored_as_the_merged_model(tmp_path, folder):
    peft = pytest.importorskip("peft")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "reference", dtype=torch.float32)
    torch.manual_seed(0)
    tuned = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.2)
    tuned.save_pretrained(tmp_path / "adapter")
    tuned.merge_and_unload().save_pretrained(tmp_path / "merged")
    for file in (folder / "policy").glob("*token*"):
        shutil.copyfile(file, tmp_path / "merged" / file.name)

    base_folder = folder / "reference"
    options = {"reference": base_folder, "torch_dtype": "float32"}
    merged = AutoRM.load(tmp_path / "merged", **options).score(MESSAGES)
    assert abs(merged) > 1e-2
    assert AutoRM.load(base_folder, adapter=tmp_path / "adapter", **options).score(MESSAGES) == pytest.approx(
        merged, abs=1e-4
    )


# EurusPRM


@pytest.fixture(scope="module")
def eurus(golden_models: GoldenModels):
    return golden_models.load(EURUS)


def test_exact_boundaries_sum_from_the_response_to_the_end_of_each_step(golden_models):
    folder = golden_models.checkpoint(EURUS)
    rm = load(folder, family="eurus-prm", options={"boundaries": "exact"})
    tokenizer = rm.model.setup.tokenizer
    messages, steps = [{"role": "user", "content": "What is 3 + 4?"}], ["3 + 4 = 7.", "", "So 7"]
    scores, details = rm.score_steps(messages=messages, steps=steps, return_details=True)
    labelled = [f"Step {k}: {step}" for k, step in enumerate(steps, start=1)]
    ratios, ends = details["raw_logits"], []
    response = tokenizer.encode("\n\n".join(labelled))
    for k in range(1, len(steps) + 1):
        # The longest run of the response's tokens that does not go beyond the first k steps.
        text = "\n\n".join(labelled[:k])
        ends.append(max(n for n in range(len(response) + 1) if text.startswith(tokenizer.decode(response[:n]))))
    assert len(ratios) == len(response)
    assert scores == pytest.approx([0.001 * sum(ratios[:end]) for end in ends], abs=1e-7)


def test_the_own_coefficient_is_a_thousandth_unless_beta_is_given(golden_models, eurus):
    case = EURUS.cases[0]
    given = load(golden_models.checkpoint(EURUS), family="eurus-prm", beta=1.0)
    plain = eurus.score_steps(messages=case["messages"], steps=case["steps"])
    scaled = given.score_steps(messages=case["messages"], steps=case["steps"])
    assert scaled == pytest.approx([1000 * score for score in plain], rel=1e-4)


def test_the_last_step_is_the_score(eurus):
    case = next(case for case in EURUS.cases if len(case["steps"]) > 1)
    score, details = eurus.score(case["messages"], return_details=True)
    assert score == details["step_scores"][-1]


@pytest.mark.parametrize("boundaries", ["reference", "exact"])
@pytest.mark.parametrize("n", [1, 2, 40])
def test_every_step_has_a_score(golden_models, boundaries, n):
    rm = load(golden_models.checkpoint(EURUS), family="eurus-prm", options={"boundaries": boundaries})
    steps = [["", "\n", "Step 2: yes", "数学 🙂", "  "][i % 5] for i in range(n)]
    scores = rm.score_steps(messages=[{"role": "user", "content": "Why?"}], steps=steps)
    assert len(scores) == n


# Dr. SoW


def test_nothing_is_loaded_before_the_first_conversation():
    rm = DrSow(strong="no/such-model", weak="no/such-model-either")
    assert rm.kind == "outcome" and rm.name == "no/such-model / no/such-model-either"


def test_both_models_must_be_named():
    with pytest.raises(TypeError, match="weak="):
        DrSow(strong="m")


def drsow(folder: Path, **options) -> DrSow:
    return DrSow(strong=folder / "policy", weak=folder / "reference", torch_dtype="float32", **options)


def test_the_score_is_the_mean_log_ratio(golden_models):
    case = DRSOW.cases[0]
    with drsow(golden_models.checkpoint(DRSOW)) as rm:
        score, details = rm.score(case["messages"], return_details=True)
    assert score == pytest.approx(sum(details["raw_logits"]) / len(details["raw_logits"]), abs=1e-6)


def test_special_tokens_may_be_left_out(golden_models):
    case = DRSOW.cases[0]
    folder = golden_models.checkpoint(DRSOW)
    _, every = drsow(folder).score(case["messages"], return_details=True)
    _, masked = drsow(folder, mask_special_tokens=True).score(case["messages"], return_details=True)
    # The end of turn is a special token, the line break after it is not.
    assert masked["raw_logits"] == pytest.approx([*every["raw_logits"][:-2], every["raw_logits"][-1]], abs=1e-5)


def test_the_strong_models_padding_token_does_not_count(tmp_path):
    folder = DRSOW.make(tmp_path)
    case = DRSOW.cases[0]
    _, every = drsow(folder).score(case["messages"], return_details=True)
    (folder / "policy" / "special_tokens_map.json").unlink(missing_ok=True)
    change_tokenizer(folder / "policy", pad_token="<|im_end|>")
    _, padded = drsow(folder).score(case["messages"], return_details=True)
    assert padded["n_completion_tokens"] == every["n_completion_tokens"] - 1


def test_a_system_prompt_is_put_in_front(golden_models):
    case = DRSOW.cases[0]
    folder = golden_models.checkpoint(DRSOW)
    system = [{"role": "system", "content": "Be brief."}]
    given = drsow(folder, system_prompt="Be brief.").score(case["messages"])
    assert given == pytest.approx(drsow(folder).score([*system, *case["messages"]]), abs=1e-6)


def test_each_model_reads_its_own_tokens(golden_models):
    strong = golden_models.checkpoint(DRSOW) / "policy"
    weak = golden_models.checkpoint(GoldenSet("drsow-bos", "own")) / "policy"
    rm = DrSow(strong=strong, weak=weak, torch_dtype="float32")
    score, details = rm.score(MESSAGES, return_details=True)
    sums = {}
    for name, folder in (("strong", strong), ("weak", weak)):
        free = AutoRM.load(folder, family="implicit", options={"reference_free": True}, torch_dtype="float32")
        sums[name] = free.score(MESSAGES, return_details=True)[1]["logp_policy_sum"]
    n = details["n_completion_tokens"]
    assert score == pytest.approx((sums["strong"] - sums["weak"]) / n, abs=1e-5)
    assert sum(details["raw_logits"]) == pytest.approx(score * n, abs=1e-4)


class OneOfTwo:
    """One of the two models of an implicit reward, for a server that stands in front of it."""

    def __init__(self, model) -> None:
        self.model = model


@pytest.mark.parametrize("symmetric", [True, False], ids=["two addresses", "a name and an address"])
def test_two_servers_with_a_tokenizer_each_give_the_score_of_the_models_they_hold(golden_models, symmetric):
    strong = golden_models.checkpoint(DRSOW) / "policy"
    weak = golden_models.checkpoint(GoldenSet("drsow-bos", "own")) / "policy"
    local = AutoRM.load(strong, family="drsow", reference=weak, torch_dtype="float32")
    answers = [
        VllmLike(OneOfTwo(model), "generate", served=name, root=str(folder))
        for model, name, folder in ((local.policy, "strong", strong), (local.reference, "weak", weak))
    ]
    with local_server(answers[0]) as one, local_server(answers[1]) as other:
        first = {"strong": f"{one.address}/v1"} if symmetric else {"strong": "strong", "api_base": f"{one.address}/v1"}
        with DrSow(**first, weak=f"{other.address}/v1", load_method="api") as rm:
            for case in DRSOW.cases[:3]:
                assert rm.score(case["messages"]) == pytest.approx(local.score(case["messages"]), abs=1e-5)
    local.close()


def test_two_addresses_for_the_strong_model_are_refused():
    rm = DrSow(strong="http://one/v1", weak="http://other/v1", api_base="http://third/v1")
    with pytest.raises(TypeError, match="one of them"):
        rm.score(MESSAGES)
