"""A checkpoint's own code runs only where the user says `trust_remote_code=True`.

Each poisoned folder is a working checkpoint whose JSON files name a module that lies beside them and writes a file when
it is imported. Loading may be refused; the file must not be there.
"""

from __future__ import annotations

import ast
import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from golden_sets import GoldenSet

import reward_hub
from reward_hub import AutoRM, BaseRM, DrSow, RemoteCodeRefusedError, RewardHubError, builtin
from reward_hub.backends.base import EngineOptions
from reward_hub.backends.vllm.folder import is_plain, write_folder
from reward_hub.backends.vllm.options import engine_options
from reward_hub.backends.vllm.plan import plan
from reward_hub.checkpoints.files import open_checkpoint
from reward_hub.heads import Linear
from reward_hub.reads import HeadOutputs

# As transformers says of every config that an older release wrote.
pytestmark = pytest.mark.filterwarnings("ignore:`rope_scaling` is deprecated:FutureWarning")

MODULES = ("modeling_evil", "configuration_evil", "tokenization_evil", "processing_evil", "custom_generate/generate")
# Whatever class transformers asks for is written as one of the module's, fast and slow tokenizers as a pair.
AUTO_MAP: dict[str, Any] = {
    "AutoConfig": "configuration_evil.Evil",
    **dict.fromkeys(("AutoImageProcessor", "AutoFeatureExtractor", "AutoProcessor"), "processing_evil.Evil"),
    **dict.fromkeys(("AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification"), "modeling_evil.Evil"),
    "AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"],
}
HIDDEN_MAP = {"attribute_map": {"zz": "auto_map"}, "zz": AUTO_MAP}
Poison = Callable[[Path], object]


def change(name: str, **values: Any) -> Poison:
    """Change one JSON file of a folder, or write it."""

    def poison(folder: Path) -> None:
        path = folder / name
        stored = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**stored, **values}))

    return poison


def without_tokenizer_json(folder: Path) -> None:
    """transformers is left to find the tokenizer's class by itself."""
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text("{}")
    change("tokenizer_config.json", tokenizer_class="Evil", auto_map=AUTO_MAP)(folder)


POISONS: dict[str, Poison] = {
    "a type without a base class": change("config.json", model_type="trocr", **HIDDEN_MAP),
    "the same, named openly": change("config.json", model_type="trocr", auto_map=AUTO_MAP),
    "an unknown type": change("config.json", model_type="evil", auto_map=AUTO_MAP),
    "a known type": change("config.json", auto_map=AUTO_MAP),
    "a known type, hidden": change("config.json", **HIDDEN_MAP),
    "nested": change(
        "config.json", model_type="llava", text_config={"model_type": "trocr", **HIDDEN_MAP, "auto_map": AUTO_MAP}
    ),
    "tokenizer": change("tokenizer_config.json", tokenizer_class="Evil", auto_map=AUTO_MAP),
    "tokenizer without tokenizer.json": without_tokenizer_json,
    "image processor": change("preprocessor_config.json", image_processor_type="Evil", auto_map=AUTO_MAP),
    "processor": change("processor_config.json", processor_class="Evil", auto_map=AUTO_MAP),
    "video processor": change("video_preprocessor_config.json", video_processor_type="Evil", auto_map=AUTO_MAP),
    "generation": change(
        "generation_config.json", custom_generate=".", auto_map=AUTO_MAP, transformers_version="5.0.0"
    ),
    "pipelines": change("config.json", custom_pipelines={"evil": {"impl": "modeling_evil.Evil", "pt": ["AutoModel"]}}),
}


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "code-was-run"


@pytest.fixture
def poisoned(tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Poison], Path]:
    """A copy of a checkpoint with code beside it, changed by a poison. Nobody answers questions on the terminal."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked on the terminal"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))

    def made(source: Path, poison: Poison) -> Path:
        folder = tmp_path / "poisoned"
        shutil.copytree(source, folder)
        for module in MODULES:
            path = folder / f"{module}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"open({str(canary)!r}, 'w').close()\nclass Evil: pass\ndef generate(): pass\n")
        poison(folder)
        return folder

    return made


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two causal language models, as policy and reference."""
    return GoldenSet("dpo-implicit", "own").make(tmp_path_factory.mktemp("pair"))


MESSAGES = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
OUTCOME = builtin.path("arithmetic-orm")


def attempt(load: Callable[[], Any]) -> None:
    """Load and score as far as it goes; a refusal may come from either."""
    with contextlib.suppress(RewardHubError):
        rm = load()
        if isinstance(rm, BaseRM):
            rm.score(MESSAGES)
            rm.close()


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS.keys())
@pytest.mark.parametrize("family", [None, "implicit"])
def test_no_file_beside_the_weights_makes_its_code_run(
    poisoned: Callable[..., Path], canary: Path, poison: Poison, family: str | None
) -> None:
    folder = poisoned(OUTCOME, poison)
    options = {"options": {"reference_free": True}} if family == "implicit" else {}
    attempt(lambda: AutoRM.load(folder, family=family, load_method="transformers", **options))
    attempt(lambda: AutoRM.inspect(folder, family=family, **options))
    assert not canary.exists()


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS.keys())
def test_no_other_place_that_a_checkpoint_is_named_in_runs_its_code(
    poisoned: Callable[..., Path], canary: Path, pair: Path, poison: Poison
) -> None:
    folder = poisoned(pair / "policy", poison)
    clean = pair / "reference"
    attempt(lambda: AutoRM.load(folder, reference=clean))
    attempt(lambda: AutoRM.load(clean, reference=folder))
    attempt(lambda: AutoRM.load(clean, reference=clean, tokenizer=str(folder)))
    attempt(lambda: DrSow(strong=str(folder), weak=str(clean)))
    attempt(lambda: DrSow(strong=str(clean), weak=str(folder)))
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft on transformers 5
def test_an_adapter_runs_no_code_of_its_own_or_of_its_base(
    poisoned: Callable[..., Path], canary: Path, pair: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(pair / "policy")
    peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM")).save_pretrained(tmp_path / "adapter")
    base = poisoned(pair / "policy", change("config.json", **HIDDEN_MAP))
    evil = {"base_model_class": "Evil", "parent_library": "modeling_evil"}
    change("adapter_config.json", auto_mapping=evil, task_type=None, base_model_name_or_path=str(base))(
        tmp_path / "adapter"
    )
    for module in base.glob("*.py"):
        shutil.copy(module, tmp_path / "adapter")
    attempt(lambda: AutoRM.load(pair / "policy", adapter=tmp_path / "adapter", reference=pair / "reference"))
    attempt(lambda: AutoRM.load(tmp_path / "adapter", reference=pair / "reference"))
    assert not canary.exists()

    change("adapter_config.json", megatron_config={"x": 1}, megatron_core="modeling_evil")(tmp_path / "adapter")
    with pytest.raises(reward_hub.UnsupportedError, match="modeling_evil"):
        AutoRM.load(pair / "policy", adapter=tmp_path / "adapter", reference=pair / "reference")
    # Left beside a whole checkpoint, transformers would apply it.
    for file in (tmp_path / "adapter").glob("adapter_*"):
        shutil.copy(file, base)
    with pytest.raises(reward_hub.UnsupportedError, match="modeling_evil"):
        AutoRM.load(base, reference=pair / "reference")
    assert not canary.exists()


def test_the_code_runs_where_the_user_says_so(poisoned: Callable[..., Path], canary: Path) -> None:
    """What the other tests would find if something trusted the folder: the canary is a good one."""
    folder = poisoned(OUTCOME, change("config.json", model_type="evil", auto_map=AUTO_MAP))
    with pytest.raises(RemoteCodeRefusedError, match="trust_remote_code=True"):
        AutoRM.load(folder, family="sequence-classifier")
    assert not canary.exists()
    # The class is of no use, so that loading ends with whatever transformers says.
    with contextlib.suppress(Exception):
        AutoRM.load(folder, family="sequence-classifier", trust_remote_code=True)
    assert canary.exists()


@pytest.mark.parametrize("trusted", [True, False])
def test_vllm_is_told_what_the_user_said(trusted: bool) -> None:
    assert engine_options(EngineOptions(trust_remote_code=trusted))["trust_remote_code"] is trusted
    assert engine_options(EngineOptions())["trust_remote_code"] is False


@pytest.mark.parametrize("poison", ["a known type", "a known type, hidden", "pipelines", "tokenizer"])
def test_the_folder_that_vllm_loads_names_no_code(poisoned: Callable[..., Path], tmp_path: Path, poison: str) -> None:
    files = open_checkpoint(str(poisoned(OUTCOME, POISONS[poison])))
    assert not is_plain(files), "vLLM would read the folder itself"
    (tmp_path / "written").mkdir()
    wanted = plan(HeadOutputs(Linear("score")), files.config, files.shapes)
    write_folder(tmp_path / "written", files, wanted, None, link_all=True)
    written = {path.name: path.read_text() for path in (tmp_path / "written").glob("*config.json")}
    assert set(written) == {"config.json", "tokenizer_config.json"}
    assert not [name for name, text in written.items() for word in ("auto_map", "custom_", "map") if f'"{word}' in text]
    assert not list((tmp_path / "written").glob("**/*.py"))


def test_nothing_in_the_package_trusts_code_by_itself() -> None:
    """`trust_remote_code` is passed on as a variable, the user's own word, or refused with a literal False."""
    package = Path(reward_hub.__file__).parent
    trusting = [
        f"{path.relative_to(package)}:{value.lineno}"
        for path in package.rglob("*.py")
        for value in _values_given(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(value, ast.Constant) and value.value not in (False, "trust_remote_code")
    ]
    assert trusting == []


def _values_given(tree: ast.AST) -> Iterator[ast.expr]:
    """Every value that `trust_remote_code` is given: in a call, in a dict, by assignment or as a default."""
    for node in ast.walk(tree):
        pairs: list[tuple[str, ast.expr | None]] = []
        if isinstance(node, ast.Call):
            pairs = [(word.arg or "", word.value) for word in node.keywords]
        elif isinstance(node, ast.Dict):
            pairs = [(ast.unparse(key), value) for key, value in zip(node.keys, node.values, strict=True) if key]
        elif isinstance(node, ast.arguments):
            pairs = [(name.arg, value) for name, value in zip(node.kwonlyargs, node.kw_defaults, strict=True)]
            pairs += [(name.arg, value) for name, value in zip(reversed(node.args), reversed(node.defaults))]  # noqa: B905
        elif isinstance(node, ast.Assign):
            pairs = [(ast.unparse(target), node.value) for target in node.targets]
        elif isinstance(node, ast.AnnAssign):
            pairs = [(ast.unparse(node.target), node.value)]
        yield from (value for name, value in pairs if "trust_remote_code" in name and value is not None)
