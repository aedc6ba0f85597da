"""A reward model goes to another process as the call that made it: no weights, no keys, the same scores."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file

from reward_hub import AutoRM, BaseRM, CachedRM, DrSow, EnsembleRM, LLMJudge, calibrate
from reward_hub.checkpoints import builtin
from reward_hub.judge import Rubric
from reward_hub.load_call import LoadCall

KEY = "sk-topsecret"
ENDPOINT = {"api_base": "http://127.0.0.1:9/v1", "api_key": KEY}


def test_a_judge_is_pickled_without_its_key() -> None:
    judge = LLMJudge("judge", rubric="from 1-5", temperature=0.5, **ENDPOINT)
    data = pickle.dumps(judge)
    assert KEY.encode() not in data
    assert len(data) < 2000
    again = pickle.loads(data)
    assert again.fingerprint == judge.fingerprint
    assert repr(again) == repr(judge)


def test_what_was_set_on_a_judge_goes_with_it() -> None:
    judge = LLMJudge(
        "judge", rubric=Rubric(instructions="Is it right?", score_range=(1, 7)), **ENDPOINT
    ).with_reference("18")
    judge.higher_is_better = False
    again = pickle.loads(pickle.dumps(judge))
    assert again.fingerprint == judge.fingerprint != LLMJudge("judge", rubric="from 1-7", **ENDPOINT).fingerprint
    assert not again.higher_is_better


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rubric": "from 1-5", "load_method": "vllm", "engine": object()}, "engine= is an object"),
        ({"rubric": "from 1-5", "api_base": "http://me:secret@host/v1"}, "api_base= holds a key"),
        ({"rubric": "from 1-5", "extra_body": {"headers": {"Authorization": "x"}}}, "extra_body= holds a key"),
        ({"rubric": "from 1-5", "extra_body": {"hook": lambda: None}}, "extra_body= cannot be pickled"),
    ],
)
def test_what_cannot_travel_is_an_error_that_names_it(arguments: dict, said: str) -> None:
    with pytest.raises(TypeError, match=said) as caught:
        pickle.dumps(LLMJudge("judge", **arguments))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"api_base": "http://h/v1?api_key=topsecret"},
        *({"extra_body": {"headers": {name: "topsecret"}}} for name in ("x-api-key", "api-key", "apikey", "X-Secret")),
        *({"extra_body": {name: "topsecret"}} for name in ("access_token", "provider_key", "apiKey", "accessToken")),
        {"extra_body": {"args": ["Bearer topsecret"]}},
        {"extra_body": {"args": ["sk-topsecret"]}},
    ],
)
def test_a_key_under_any_usual_name_is_neither_pickled_nor_shown(arguments: dict) -> None:
    judge = LLMJudge("judge", rubric="from 1-5", **{"api_base": "http://h/v1", **arguments})
    assert "topsecret" not in repr(judge)
    with pytest.raises(TypeError, match="holds a key") as caught:
        pickle.dumps(judge)
    assert "topsecret" not in str(caught.value)


def test_an_address_is_shown_with_what_is_no_key() -> None:
    keyed, plain = (
        LLMJudge("judge", rubric="from 1-5", api_base=f"http://h/v1?{query}")
        for query in ("version=2&api_key=topsecret", "version=2")
    )
    assert "http://h/v1?version=2'" in repr(keyed)
    assert keyed.fingerprint == plain.fingerprint
    assert plain.fingerprint != LLMJudge("judge", rubric="from 1-5", api_base="http://h/v1?version=3").fingerprint


def test_a_key_as_an_option_of_a_registered_engine_is_not_pickled() -> None:
    call = LoadCall.of(dict, {"model": "m", "hf_token": "hf_topsecret"}, object.__new__(LLMJudge), keys=("token",))
    with pytest.raises(TypeError, match="hf_token= holds a key"):
        call.reduced(object.__new__(LLMJudge))


def test_counts_and_tokens_of_text_are_no_keys() -> None:
    body = {"max_tokens": 5, "n_tokens": 3, "eos_token": "</s>", "return_token": True, "stop": ["sk- or Bearer of"]}
    judge = LLMJudge("judge", rubric="from 1-5", extra_body=body, **ENDPOINT)
    assert pickle.loads(pickle.dumps(judge)).fingerprint == judge.fingerprint


def test_a_copy_of_a_judge_shares_its_counts() -> None:
    judge = LLMJudge("judge", rubric="from 1-5", **ENDPOINT)
    assert copy.copy(judge).usage is judge.usage


def test_two_models_to_compare_are_named_not_sent(tmp_path: Path) -> None:
    rm = DrSow(strong="strong", weak="weak", token=KEY, system_prompt="Be brief.")
    data = pickle.dumps(rm)
    assert KEY.encode() not in data
    again = pickle.loads(data)
    assert (again.name, again.family, again.load_call.arguments["system_prompt"]) == (rm.name, "drsow", "Be brief.")


# -- models with weights -----------------------------------------------------------------------------------------------

ORM = "builtin/arithmetic-orm"
PROBLEM = "Ann has 16 eggs. She sells 3. Then she buys 5 more. How many eggs are there?"
CONVERSATIONS = [
    [{"role": "user", "content": PROBLEM}, {"role": "assistant", "content": response}]
    for response in ("16 - 3 = 13\n13 + 5 = 18", "16 - 3 = 12\n12 + 5 = 17", "")
]


def scores(rm: BaseRM) -> list[float]:
    return rm.score_batch(CONVERSATIONS)


def in_another_process(rm: BaseRM) -> list[float]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(scores, rm).result()


def test_a_spawned_process_loads_the_model_and_gives_the_same_scores() -> None:
    with AutoRM.load(ORM, dtype="fp32", batch_size=2, token=KEY) as rm:
        data = pickle.dumps(rm)
        assert KEY.encode() not in data
        assert len(data) < 1000
        assert in_another_process(rm) == scores(rm)


def test_wrappers_go_with_the_models_they_hold(tmp_path: Path) -> None:
    orm, prm = AutoRM.load(ORM), AutoRM.load("builtin/arithmetic-prm")
    conversations = CONVERSATIONS[:2]
    ensemble = EnsembleRM([(orm, 0.7), (prm, 0.3)], normalize="zscore").fit(conversations)
    rm = CachedRM(ensemble, cache_dir=tmp_path)
    assert repr(rm).startswith("CachedRM(EnsembleRM([(ModelRM('builtin/arithmetic-orm', family='sequence-classifier'")
    expected = rm.score_batch(conversations)
    again = pickle.loads(pickle.dumps(rm))
    assert again.fingerprint == rm.fingerprint
    assert [details["cached"] for _, details in again.score_batch(conversations, return_details=True)] == [True] * 2
    assert again.rm.score_batch(conversations) == expected


def test_a_calibrated_model_goes_with_its_map() -> None:
    pairs = [
        {"prompt": PROBLEM, "chosen": f"16 - 3 = 13\n13 + {n} = {n + 13}", "rejected": f"16 - 3 = 12\n12 + {n} = 17"}
        for n in range(12)
    ]
    rm = calibrate(AutoRM.load(ORM), pairs)
    again = pickle.loads(pickle.dumps(rm))
    question = {"prompt": PROBLEM, "a": "16 - 3 = 13\n13 + 5 = 18", "b": "18"}
    assert again.compare(**question) == rm.compare(**question)


def test_what_is_set_on_a_loaded_model_goes_with_it_or_is_refused() -> None:
    rm = AutoRM.load("builtin/arithmetic-prm")
    rm.step_delimiter = "\n"
    assert pickle.loads(pickle.dumps(rm)).score_steps(CONVERSATIONS[0]) == rm.score_steps(CONVERSATIONS[0])
    rm.model = replace(rm.model, truncation="left")  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"ModelRM\.model was set after loading, to a LoadedModel"):
        pickle.dumps(rm)


def test_a_tokenizer_object_is_named_when_it_cannot_go() -> None:
    with AutoRM.load(ORM) as rm:
        tokenizer = rm.model.setup.tokenizer  # type: ignore[attr-defined]
    with AutoRM.load(ORM, tokenizer=tokenizer) as rm, pytest.raises(TypeError, match="tokenizer= is an object"):
        pickle.dumps(rm)


def test_a_folder_is_found_from_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = builtin.path("arithmetic-orm")
    monkeypatch.chdir(folder.parent)
    rm = AutoRM.load(folder.name)
    data = pickle.dumps(rm)
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(data)
    assert scores(again) == scores(rm)
    assert again.fingerprint == rm.fingerprint


def test_a_model_of_the_hub_stays_at_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    later = shutil.copytree(builtin.path("arithmetic-orm"), tmp_path / "later")
    tensors = load_file(later / "model.safetensors")
    save_file({**tensors, "score.weight": -tensors["score.weight"]}, later / "model.safetensors")
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.add("org/rm", builtin.path("arithmetic-orm"))
        rm = AutoRM.load("org/rm", family="sequence-classifier")
        data = pickle.dumps(rm)
        hub.add("org/rm", later)
        assert scores(pickle.loads(data)) == scores(rm)
        moved = scores(AutoRM.load("org/rm", family="sequence-classifier"))
        assert moved == pytest.approx([-score for score in scores(rm)])


def test_names_of_built_in_and_served_models_are_not_taken_for_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge").mkdir()
    (tmp_path / ORM).mkdir(parents=True)
    judge = LLMJudge("judge", rubric="from 1-5", **ENDPOINT)
    assert pickle.loads(pickle.dumps(judge)).name == "judge"
    with AutoRM.load(ORM) as rm:
        assert pickle.loads(pickle.dumps(rm)).name == ORM


def test_a_copy_shares_the_engine() -> None:
    with AutoRM.load(ORM) as rm:
        assert copy.copy(rm).model is rm.model  # type: ignore[attr-defined]


def test_repr_says_what_a_model_is_and_where_it_runs() -> None:
    with AutoRM.load(ORM, device="cpu", torch_dtype="float32") as rm:
        assert repr(rm) == (
            "ModelRM('builtin/arithmetic-orm', family='sequence-classifier', kind='outcome', backend='transformers', "
            "dtype='float32', device='cpu')"
        )
