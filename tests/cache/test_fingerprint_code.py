"""The fingerprint of a model covers its code, the code around it, and the files that it was loaded from."""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType

import pytest
from cached_models import CLASS, WRAPPER, CountingRM, Network, flag, module, times, turns
from golden_sets import GoldenSet

import reward_hub
from reward_hub import AutoRM, BaseRM
from reward_hub.cache.cached_rm import CachedRM
from reward_hub.fingerprints import fingerprint_of


def test_the_fingerprint_of_a_users_class_is_the_same_for_the_same_code_and_settings():
    moved = "# a comment\n\n\n" + CLASS
    fingerprints = [fingerprint_of(module(text).MyRM()) for text in (CLASS, CLASS, moved)]
    assert len(set(fingerprints)) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE = 100", "SCALE = 10"),
        ("return n / SCALE", "return n // SCALE"),
        ("len(text)", "len(text) + 1"),
        ("top=1.0", "top=2.0"),
        ('"a", "b"', '"a", "c"'),
        ('compile("a+")', 'compile("b+")'),
        ('{"x", "y", "z"}', '{"x", "y"}'),
    ],
)
def test_the_fingerprint_of_a_users_class_changes_with_its_code(old, new):
    assert CLASS.count(old) == 1
    changed = CLASS.replace(old, new)
    assert fingerprint_of(module(CLASS).MyRM()) != fingerprint_of(module(changed).MyRM())


def test_the_fingerprint_of_a_users_class_is_the_same_in_another_process(tmp_path):
    import subprocess
    import sys

    (tmp_path / "my_models.py").write_text("from reward_hub import BaseRM\nimport re\nimport logging\n" + CLASS)
    code = "import my_models; from reward_hub.fingerprints import fingerprint_of as f; print(f(my_models.MyRM()))"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": f"{tmp_path}:{Path(reward_hub.__file__).parents[1]}", "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_a_changed_setting_of_a_users_class_is_another_model(cached):
    models = module(CLASS)
    assert cached(models.MyRM(top=0.5)).score(turns("a" * 90)) == 0.5
    assert cached(models.MyRM(top=0.7)).score(turns("a" * 90)) == 0.7
    assert flag(cached(models.MyRM(top=0.5)).score(turns("a" * 90), return_details=True)) is True


def test_a_users_wrapper_is_told_by_what_it_wraps():
    half = module(WRAPPER).Half
    one, other = CountingRM(), CountingRM()
    other.__class__ = type("Other", (CountingRM,), {"fingerprint": "counting-2"})
    assert fingerprint_of(half(one)) == fingerprint_of(half(CountingRM()))
    assert fingerprint_of(half(one)) != fingerprint_of(half(other))


def test_a_model_that_cannot_be_told_from_others_is_refused_until_it_is_named(tmp_path):
    class OpenRM(BaseRM):
        def __init__(self, weight):
            self.network = object()
            self.weight = weight

        def score(self, messages):
            return self.weight

    with pytest.raises(TypeError, match=r"self\.network is a object.*fingerprint="):
        CachedRM(OpenRM(1.0), cache_dir=tmp_path / "cache")
    first = CachedRM(OpenRM(1.0), cache_dir=tmp_path / "cache", fingerprint="open-1")
    second = CachedRM(OpenRM(2.0), cache_dir=tmp_path / "cache", fingerprint="open-2")
    assert [first.score(turns("a")), second.score(turns("a")), first.score(turns("a"))] == [1.0, 2.0, 1.0]
    first.close()
    second.close()


def test_a_changed_model_of_ours_is_refused_until_it_is_named(tmp_path):
    from reward_hub.models.model_rm import ModelRM

    class ShiftedRM(ModelRM):
        def score(self, messages, **kwargs):
            return super().score(messages, **kwargs) + 1

    with AutoRM.load("builtin/arithmetic-orm") as rm:
        shifted = ShiftedRM(rm.model)
        with pytest.raises(TypeError, match="changes ModelRM, whose fingerprint does not tell"):
            CachedRM(shifted, cache_dir=tmp_path / "cache")


NETWORK = """
class NetworkRM(BaseRM):
    def score(self, messages):
        return network(messages)
"""


def test_an_open_model_in_the_module_of_a_users_class_is_refused_as_one_in_an_attribute_is(tmp_path):
    with pytest.raises(TypeError, match="network is a Network, which identifies no model"):
        CachedRM(module(NETWORK, network=Network(1.0)).NetworkRM(), cache_dir=tmp_path / "cache")


def test_the_same_code_with_another_import_is_another_model():
    named = [times(2.0), times(2.0)]
    for function, name in zip(named, ("scoring_v1", "scoring_v2"), strict=True):
        function.__module__ = name
    functions = [fingerprint_of(module(NETWORK, network=function).NetworkRM()) for function in named]
    modules = [
        fingerprint_of(module(NETWORK, network=ModuleType(name)).NetworkRM()) for name in ("scoring_v1", "scoring_v2")
    ]
    assert len({*functions, *modules}) == 4


def test_a_class_of_the_program_itself_is_the_same_in_a_spawned_process():
    names = ("__main__", "__mp_main__", "my_models")
    fingerprints = [fingerprint_of(module(CLASS, __name__=name).MyRM()) for name in names]
    assert fingerprints[0] == fingerprints[1]
    assert fingerprints[0] != fingerprints[2]


def test_an_attribute_is_not_taken_for_the_global_of_its_name():
    text = CLASS.replace("self.top = top", "self.top = self.network = top")
    assert fingerprint_of(module(text, network=Network(1.0)).MyRM()) == fingerprint_of(module(text).MyRM())


def test_a_class_that_inherits_a_users_fingerprint_is_told_by_its_code(cached):
    class DoubledRM(CountingRM):
        def _one(self, conversation):
            return self._own_details(2.0 * len(conversation.response))

    assert fingerprint_of(CountingRM()) == "counting-1"
    assert [cached(CountingRM()).score(turns("a")), cached(DoubledRM()).score(turns("a"))] == [1 / 7, 2.0]


def test_quantization_is_part_of_a_models_fingerprint():
    from dataclasses import replace

    with AutoRM.load("builtin/arithmetic-orm") as rm:
        plain, same = rm.model, replace(rm.model, numerics={})
        quantized = [replace(plain, numerics={"quantization": how}) for how in ("fp8", "awq")]
        assert plain.fingerprint() == same.fingerprint()
        assert len({plain.fingerprint(), *(model.fingerprint() for model in quantized)}) == 3


def test_special_tokens_are_part_of_a_tokenizers_fingerprint(golden_models):

    tokenizer = golden_models.load(GoldenSet("seqcls-qwen3", "own")).model.setup.tokenizer
    other = copy.copy(tokenizer)
    other.bos_token = "<other>"
    assert tokenizer.fingerprint() != other.fingerprint()


def test_code_in_a_folder_is_part_of_its_fingerprint(tmp_path):
    import shutil

    from reward_hub import builtin
    from reward_hub.checkpoints.files import open_checkpoint

    folder = tmp_path / "model"
    shutil.copytree(builtin.path("arithmetic-orm"), folder)
    found = [open_checkpoint(str(folder)).fingerprint()]
    for text in ("a = 1", "a = 2"):
        (folder / "modeling_x.py").write_text(text)
        found.append(open_checkpoint(str(folder)).fingerprint())
    assert len(set(found)) == 3
