"""What is said of an argument that is misspelled, belongs elsewhere, or is called otherwise in other libraries."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from reward_hub import AutoRM, UnknownModelError
from reward_hub.loading.arguments import KEY, table_of
from reward_hub.registry import nearest

ORM = "builtin/arithmetic-orm"
CONVERSATION = {"prompt": "Hi", "response": "1 + 1 = 2"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"load_in_4bit": True}, r"quantization_config=transformers\.BitsAndBytesConfig\(load_in_4bit=True\)"),
        ({"load_in_8bit": True}, r"BitsAndBytesConfig\(load_in_8bit=True\)"),
        ({"tensor_parallel_size": 2}, "It is an option of vllm: load with load_method='vllm'"),
        ({"gpu_memory_utilization": 0.5}, "It is an option of vllm"),
        ({"tensor_paralel_size": 2}, r"Did you mean 'tensor_parallel_size', an option of vllm \(load_method='vllm'\)"),
        ({"max_batch_token": 5}, "Did you mean 'max_batch_tokens'"),
        ({"Device": "cpu"}, "Did you mean 'device'"),
        ({"zzzzzz": 1}, "Its own options: device_mesh, "),
        ({"dtype": "float32", "torch_dtype": "bfloat16"}, "torch_dtype= or dtype=, not both"),
    ],
)
def test_an_unknown_option_is_told_where_to_go(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        AutoRM.load(ORM, "transformers", **options)


@pytest.mark.parametrize("name", ["model_name", "model_name_or_path", "pretrained_model_name_or_path", "path"])
def test_the_first_argument_is_told_its_name(name: str) -> None:
    with pytest.raises(TypeError, match=f"no argument '{name}'. The first argument is `model`"):
        AutoRM.load(**{name: ORM})


def test_an_unknown_method_is_shown_all_six() -> None:
    with pytest.raises(UnknownModelError, match="Did you mean 'vllm'") as caught:
        AutoRM.load(ORM, "vlm")
    for method in ("auto", "transformers (also hf)", "vllm", "api (also openai)"):
        assert method in str(caught.value)
    assert caught.value.near[0] == "vllm"


@pytest.mark.parametrize("family", ["sequence_classifier", "Sequence-Classifier", "sequence-clasifier"])
def test_a_misspelled_family_is_told_the_right_one(family: str) -> None:
    with pytest.raises(UnknownModelError, match="Did you mean 'sequence-classifier'") as caught:
        AutoRM.load(ORM, family=family)
    assert caught.value.near[0] == "sequence-classifier"


def test_case_and_kind_of_line_make_no_difference_to_what_is_near() -> None:
    assert nearest("Max_Length", ["max-length", "min-length"]) == ["max-length", "min-length"]


@pytest.mark.parametrize("name", ["fp32", "float32"])
def test_dtypes_are_taken_under_other_names(name: str) -> None:
    with AutoRM.load(ORM, torch_dtype="float32") as rm:
        expected = rm.score(**CONVERSATION)
    with AutoRM.load(ORM, dtype=name) as rm:
        assert rm.score(**CONVERSATION) == expected
    with AutoRM.load(ORM, torch_dtype="bf16") as rm:
        assert "dtype='bfloat16'" in repr(rm)


def test_an_argument_is_refused_wherever_nobody_reads_it() -> None:
    """Each row of the table that no engine in this process reads, with a value that is not its default."""
    table = table_of(AutoRM.load)
    values: dict[str, Any] = {
        "api_base": "http://127.0.0.1:9",
        "api_key": "k",
        "dialect": "tei",
        "checkpoint": ORM,
        "timeout_s": 5.0,
        "max_retries": 7,
        "max_concurrency": 3,
    }
    from reward_hub.loading.arguments import ENGINE

    assert {name for name, row in table.items() if not row.readers & ENGINE} == values.keys()
    for name, value in values.items():
        with pytest.raises(TypeError, match=f"{name}=.* has no meaning for transformers"):
            AutoRM.load(ORM, "transformers", **{name: value})


def test_every_argument_has_a_reader_and_a_line_in_the_docstring() -> None:
    table = table_of(AutoRM.load)
    named = set(inspect.signature(AutoRM.load).parameters) - {"model", "load_method", "engine_options"}
    assert table.keys() == named
    described = inspect.getdoc(AutoRM.load) or ""
    assert [name for name in named if f"\n    {name}: " not in described] == []
    assert {name for name, row in table.items() if KEY in row.notes} == {"token", "api_key"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trust_remote_code": "false"}, "trust_remote_code='false' is str; True or False is needed"),
        ({"length_normalize": 1}, "length_normalize=1 is int; True or False is needed"),
        ({"batch_size": "4"}, "batch_size='4' is str; a whole number is needed"),
        ({"max_length": 10.5}, "max_length=10.5 is float; a whole number is needed"),
        ({"max_batch_tokens": True}, "max_batch_tokens=True is bool; a whole number is needed"),
        ({"beta": "0.1"}, "beta='0.1' is str; a number is needed"),
    ],
)
def test_a_text_is_not_taken_for_a_switch_or_a_number(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        AutoRM.load(ORM, **options)
