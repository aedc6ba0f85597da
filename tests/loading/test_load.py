"""AutoRM.load: what is known, what is refused, and that nothing is ignored."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import subprocess
import sys

import pytest
from golden_sets import GoldenSet

import reward_hub
from reward_hub import (
    AutoRM,
    BackendError,
    BaseRM,
    CacheError,
    CheckpointError,
    InputTooLongError,
    InvalidConversationError,
    JudgeParseError,
    MissingDependencyError,
    RegistryError,
    RemoteCodeRefusedError,
    ServerError,
    ServerTimeoutError,
    UnknownModelError,
    UnsupportedError,
    register_backend,
    register_family,
)
from reward_hub import builtin as builtin_models

ORM = "builtin/arithmetic-orm"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_batch_token": 5}, "Did you mean 'max_batch_tokens'"),
        ({"tensor_parallel_size": 2}, "has no option 'tensor_parallel_size'"),
        ({"api_key": "sk-secret"}, "api_key=... has no meaning"),
        ({"dialect": "tei"}, "dialect='tei' has no meaning"),
        ({"timeout_s": 5.0}, "timeout_s=5.0 has no meaning"),
        ({"beta": 0.1}, "give reference="),
        ({"length_normalize": True}, "give reference="),
        ({"aggregation": "min"}, "not a process family"),
        ({"options": {"separator": "x"}}, "has no option 'separator'; known: remove_every_bos"),
        ({"family": "inf-orm", "options": {"separator": "x"}}, "inf-orm has no options"),
        ({"device": "cpu", "device_map": "auto"}, "not both"),
        ({"truncation": "middle"}, "truncation='middle'"),
        ({"torch_dtype": "int8"}, "is not a floating-point type"),
        ({"max_length": 0}, "max_length=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_batch_tokens": -1}, "max_batch_tokens=-1"),
    ],
)
def test_an_option_without_meaning_is_a_type_error(options, words):
    with pytest.raises(TypeError, match=words):
        AutoRM.load(ORM, load_method="transformers", **options)


def test_the_api_key_is_in_no_message():
    with pytest.raises(TypeError) as caught:
        AutoRM.load(ORM, load_method="transformers", api_key="sk-secret")
    assert "sk-secret" not in str(caught.value)


def test_one_info_line_says_what_was_loaded_and_why(caplog):
    with caplog.at_level(logging.INFO, logger="reward_hub"):
        AutoRM.load(ORM)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert len(lines) == 1
    assert "sequence-classifier" in lines[0]
    assert "transformers" in lines[0]


def test_loading_prints_nothing(capfd):
    AutoRM.load(ORM)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", ["float32", "torch.float32", "bfloat16", "auto"])
def test_the_dtype_is_taken_as_text_or_as_torch_dtype(dtype):
    import torch

    conversation = {"prompt": "Hi", "response": "1 + 1 = 2"}
    score = AutoRM.load(ORM, torch_dtype=dtype).score(**conversation)
    exact = AutoRM.load(ORM, torch_dtype=torch.float32).score(**conversation)
    # bfloat16 has 8 bits of precision: a drift of a few hundredths of a score of this size.
    assert score == pytest.approx(exact, abs=0.3 if dtype == "bfloat16" else 1e-6)


def test_device_map_by_accelerate_gives_the_same_score():
    conversation = {"prompt": "Hi", "response": "1 + 1 = 2"}
    assert AutoRM.load(ORM, device_map="auto").score(**conversation) == pytest.approx(
        AutoRM.load(ORM, device="cpu").score(**conversation), abs=1e-6
    )


def test_inspect_tells_all_without_loading_weights():
    found = AutoRM.inspect(ORM)
    assert found["family"] == "sequence-classifier"
    assert list(found["head"]) == ["score.weight"]
    assert found["memory_bytes"] < 2_500_000
    assert found["max_length"] >= 2048


def test_a_family_of_ones_own_is_registered_once(monkeypatch):
    from dataclasses import replace

    from reward_hub import registry
    from reward_hub.registry import family_named

    monkeypatch.setattr(registry.FAMILIES, "registered", {})
    mine = replace(family_named("sequence-classifier"), name="my-classifier", matches=lambda *_: False)
    register_family(mine)
    register_family(mine)
    assert AutoRM.load(ORM, family="my-classifier").family == "my-classifier"
    with pytest.raises(RegistryError, match="'my-classifier' is taken"):
        register_family(replace(mine, source="elsewhere"))
    with pytest.raises(RegistryError, match="built in"):
        register_family(replace(mine, name="armorm"))
    with pytest.raises(RegistryError, match="'transformers' is taken"):
        register_backend("transformers", "my_pkg:Backend")


class TestErrorsAreRaisedByTheirCause:
    """Each error that loading and scoring can raise, by the input that causes it."""

    def test_no_such_folder(self):
        with pytest.raises(UnknownModelError):
            AutoRM.load("./no-such-folder")

    def test_no_such_builtin(self):
        with pytest.raises(UnknownModelError, match="arithmetic-orm"):
            AutoRM.load("builtin/no-such-model")

    def test_no_such_family(self):
        with pytest.raises(UnknownModelError) as caught:
            AutoRM.load(ORM, family="armorn")
        assert "armorm" in caught.value.near

    def test_no_such_backend(self):
        with pytest.raises(UnknownModelError, match="no backend 'tensorrt'"):
            AutoRM.load(ORM, load_method="tensorrt")

    def test_remote_code(self, tmp_path):
        copy(tmp_path, {"model_type": "secret", "architectures": ["SecretRM"], "auto_map": {"AutoModel": "m.SecretRM"}})
        with pytest.raises(RemoteCodeRefusedError, match="trust_remote_code=True"):
            AutoRM.load(tmp_path)

    def test_a_foreign_model_type(self, tmp_path):
        copy(tmp_path, {"model_type": "secret"})
        with pytest.raises(RemoteCodeRefusedError, match="'secret'"):
            AutoRM.load(tmp_path)

    def test_a_folder_without_config(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"no config\.json"):
            AutoRM.load(tmp_path)

    def test_a_folder_has_no_revision(self):
        with pytest.raises(CheckpointError, match="no revisions"):
            AutoRM.load(builtin_models.path("arithmetic-orm"), revision="main")

    def test_a_device_that_is_not_there(self):
        with pytest.raises(BackendError, match="device='cuda:9'"):
            AutoRM.load(ORM, device="cuda:9")

    def test_a_missing_package(self):
        code = (
            "import sys; sys.modules['transformers'] = None\n"
            "from reward_hub import AutoRM, MissingDependencyError\n"
            "try: AutoRM.load('builtin/arithmetic-orm')\n"
            "except MissingDependencyError as e: print(e)"
        )
        printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert "pip install 'reward_hub[transformers]'" in printed

    def test_sdpa_on_a_model_with_a_soft_cap(self):
        import transformers

        from reward_hub.backends.transformers_loading import _attention

        config = transformers.Gemma2Config(attn_logit_softcapping=50.0)
        assert _attention(config, None) == "eager"
        with pytest.raises(UnsupportedError, match="soft cap"):
            _attention(config, "sdpa")


@pytest.mark.parametrize(
    ("error", "standard"),
    [
        (InvalidConversationError("m", index=2, field="messages[0].role"), ValueError),
        (InputTooLongError("m", n_tokens=9, max_length=8), ValueError),
        (UnknownModelError("m", near=["a"]), LookupError),
        (UnsupportedError("m"), NotImplementedError),
        (RemoteCodeRefusedError("m"), PermissionError),
        (MissingDependencyError("m"), ImportError),
        (CheckpointError("m", tensor="score.weight"), ValueError),
        (BackendError("m"), RuntimeError),
        (ServerError("m", status=503, retryable=True), RuntimeError),
        (ServerTimeoutError("m"), TimeoutError),
        (JudgeParseError("m", text="?"), ValueError),
        (RegistryError("m"), ValueError),
        (CacheError("m"), OSError),
    ],
)
def test_an_error_is_a_standard_type_and_pickles_with_its_fields(error, standard):
    assert isinstance(error, standard)
    assert isinstance(error, reward_hub.RewardHubError)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_auto_rm_is_not_instantiated():
    with pytest.raises(TypeError, match=r"AutoRM\.load"):
        AutoRM()
    assert issubclass(type(AutoRM.load(ORM)), BaseRM)


def copy(folder, changes):
    """The built-in outcome model with another config."""
    import json
    import shutil

    source = builtin_models.path("arithmetic-orm")
    for path in source.iterdir():
        if path.is_file():
            shutil.copy(path, folder / path.name)
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(("slug", "warns"), [("deberta-rm", True), ("starling-7b", True), ("seqcls-qwen2", False)])
def test_a_chat_template_that_the_family_does_not_render_is_warned_of(golden_models, caplog, slug, warns):
    checkpoint = golden_models.checkpoint(GoldenSet(slug, "own"))
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    with caplog.at_level(logging.WARNING, logger="reward_hub"):
        AutoRM.load(checkpoint, load_method="transformers", chat_template=template)
    told = [record.getMessage() for record in caplog.records if "chat_template= changes nothing" in record.getMessage()]
    assert len(told) == warns


def test_a_folder_without_a_vocabulary_is_refused(tmp_path) -> None:
    # transformers makes a tokenizer of tokenizer_config.json alone, which drops all but special tokens.
    folder = tmp_path / "model"
    shutil.copytree(builtin_models.path("arithmetic-orm"), folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="has no vocabulary"):
        AutoRM.load(folder)


@pytest.mark.parametrize(
    ("quantization", "package"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "optimum"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed-tensors"),
    ],
)
def test_a_missing_package_of_quantised_weights_is_named(tmp_path, quantization, package) -> None:
    folder = tmp_path / "model"
    shutil.copytree(builtin_models.path("arithmetic-orm"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}), encoding="utf-8")
    with pytest.raises(MissingDependencyError, match=f"pip install .*{package}"):
        AutoRM.load(folder, "transformers")


@pytest.mark.parametrize(
    "changes", [{"dtype": {}}, {"dtype": "nothing"}, {"num_hidden_layers": "two"}, {"self": 1, "vocab_size": {}}]
)
def test_a_config_that_is_no_config_is_a_checkpoint_error(tmp_path, changes) -> None:
    folder = tmp_path / "model"
    shutil.copytree(builtin_models.path("arithmetic-orm"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        AutoRM.load(folder, "transformers")
