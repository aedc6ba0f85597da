"""Who may import whom. Late imports count too; those for the type checker alone do not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "reward_hub"

ENGINES = {"torch", "transformers", "vllm", "peft", "accelerate"}
# The script that trains the built-in models runs by itself; loading those models imports none of it.
TRAINING = ("builtin.train", "builtin.batches")
FAMILY = {"family", "reads", "heads", "labels", "encoding", "numerics", "types", "errors"}
# What the HTTP backend uses besides: a vLLM server is asked as vLLM's plan says, every server in its dialect.
OVER_HTTP = {
    "loops",
    "http.client",
    *(f"backends.vllm.{name}" for name in ("plan", "folder", "attention")),
    *(f"http.dialects.{name}" for name in ("base", "vllm", "sglang", "lmdeploy")),
}
# The rooms of the house, lowest first: a file in the root, or a folder. Each imports only from lines above its own.
LAYERS = (
    ("errors", "lazy_names", "load_call", "loops", "types", "version"),
    ("messages", "numerics", "plugins", "tokenizers", "truncation", "work"),
    ("aggregation", "data", "heads", "http", "labels", "reward_model", "tokenizer"),
    ("calls", "checkpoints", "encoding", "preference_data", "ranking", "reads"),
    ("base", "family"),
    ("backends", "families", "fingerprints", "integrations", "wrapper_rm"),
    ("cache", "calibration", "ensemble", "judge", "registry", "testing"),
    ("llm_judge", "models"),
    ("loading", "server"),
    ("auto",),
    ("bench", "builtin", "drsow", "vllm"),
    ("cli",),
)
# Reward models over reward models: they know what every model offers, and nothing of how it comes by its scores.
WRAPPERS = ("wrapper_rm", "cache", "calibration", "ensemble")
BELOW_THE_MODELS = {"backends", "checkpoints", "families", "family", "http", "models", "registry", "tokenizer"}


def modules() -> list[str]:
    """Every module as a dotted name below the package; `__init__` stands for the package itself."""
    return sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))


def imports(module: str) -> set[str]:
    """Full dotted names of what a module imports, at the top or late."""
    tree = ast.parse((PACKAGE / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    return {name for node in _running(tree) for name in _names(node)}


def own_imports(module: str) -> set[str]:
    """The modules of this package that a module imports, as in `modules()`."""
    known = set(modules())
    found = set()
    for name in imports(module):
        place = name.removeprefix("reward_hub.") if name != "reward_hub" else "__init__"
        if name.split(".")[0] == "reward_hub":
            found |= {place} & known or {f"{place}.__init__"} & known or {place.rpartition(".")[0] or "__init__"}
    return found


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: without the bodies of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _running(child)


def _names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        # `from reward_hub import hub` imports a module, `from reward_hub.checkpoints.hub import resolve` a name of one.
        return {f"{node.module}.{alias.name}" for alias in node.names} if node.module else set()
    return set()


def named(prefix: str) -> list[str]:
    return [module for module in modules() if module.startswith(prefix) and not module.endswith("__init__")]


@pytest.mark.parametrize("module", named("families."))
def test_a_family_imports_only_what_families_are_built_from(module: str) -> None:
    # A family may build on one that shares its form on disk.
    assert {name for name in own_imports(module) if not name.startswith("families.")} - FAMILY == set()
    assert not {name.split(".")[0] for name in imports(module)} & ENGINES


@pytest.mark.parametrize("module", named("backends."))
def test_a_backend_knows_no_family_and_no_other_backend(module: str) -> None:
    # An engine may have a folder (vllm); files of no engine are shared.
    engine = engine_of(module)
    others = {other for other in named("backends.") if engine_of(other) not in (None, engine)}
    found = own_imports(module) - (OVER_HTTP if engine == "http" else set())
    assert {name for name in found if name.startswith("families") or name in others} == set()
    outside = {name for name in found if not name.startswith("backends.")}
    assert (
        outside
        - {
            *("checkpoints.files", "checkpoints.prefixes", "checkpoints.remote_code", "checkpoints.tensors"),
            *("errors", "family", "heads", "reads", "tokenizer", "types"),
        }
        == set()
    )


@pytest.mark.parametrize("module", named("http.dialects."))
def test_a_dialect_knows_neither_families_nor_backends(module: str) -> None:
    outside = {name for name in own_imports(module) if not name.startswith("http.dialects.")}
    assert outside - {"errors", "http.client", "types"} == set()


def engine_of(module: str) -> str | None:
    name = module.removeprefix("backends.").split(".")[0].split("_")[0]
    return name if name in ("transformers", "vllm", "http") else None


def room_of(module: str) -> str:
    return module.split(".")[0]


def rooms() -> list[str]:
    return sorted({room_of(module) for module in modules()} - {"__init__", "__main__"})


def rooms_imported_by(room: str) -> set[str]:
    reached = {room_of(name) for module in modules() if room_of(module) == room for name in own_imports(module)}
    return reached - {room}


def test_every_room_has_one_place() -> None:
    assert sorted(room for layer in LAYERS for room in layer) == rooms()
    assert len(LAYERS) <= 12


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    place = next(i for i, layer in enumerate(LAYERS) if room in layer)
    assert rooms_imported_by(room) - {below for layer in LAYERS[:place] for below in layer} == set()


@pytest.mark.parametrize("room", WRAPPERS)
def test_a_wrapper_knows_nothing_below_the_models(room: str) -> None:
    assert rooms_imported_by(room) & BELOW_THE_MODELS == set()


def test_no_files_import_each_other_in_a_circle() -> None:
    below = {module: own_imports(module) - {module} for module in modules()}
    left = dict(below)
    # What imports nothing that is left is taken away; only circles, and what stands on them, cannot be.
    while leaves := [module for module, names in left.items() if not names & set(left)]:
        for module in leaves:
            del left[module]
    assert left == {}


def test_nothing_inside_imports_the_package_root() -> None:
    assert [module for module in modules() if "__init__" in own_imports(module)] == []


@pytest.mark.parametrize("module", [m for m in modules() if not m.startswith("backends.") and m not in TRAINING])
def test_engines_are_imported_late_outside_of_backends(module: str) -> None:
    tree = ast.parse((PACKAGE / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    top = {name.split(".")[0] for node in _at_import(tree) for name in _names(node)}
    assert top & ENGINES == set()


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported."""
    for child in ast.iter_child_nodes(node):
        typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not typing and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _at_import(child)


def test_nothing_but_the_registry_knows_the_families() -> None:
    reaching = {m for m in modules() if any(name.startswith("families") for name in own_imports(m))}
    assert {module for module in reaching if not module.startswith("families.")} == {"registry"}


@pytest.mark.parametrize("module", TRAINING)
def test_nothing_imports_the_training_script(module: str) -> None:
    assert {m for m in modules() if module in own_imports(m)} - {*TRAINING, "builtin.evaluate"} == set()


def test_the_package_root_imports_next_to_nothing() -> None:
    assert {name.split(".")[0] for name in imports("__init__")} <= {
        *("__future__", "importlib", "logging", "typing", "reward_hub")
    }
    assert own_imports("__init__") == {"version"}


@pytest.mark.parametrize("module", ["judge.chat.openai", "judge.chat.vllm", "judge.chat.limits"])
def test_a_chat_client_knows_neither_rubrics_nor_published_judges(module: str) -> None:
    judge = {name for name in own_imports(module) if name.startswith("judge.")}
    assert judge - {f"judge.{name}" for name in ("chat.client", "form", "chat.limits", "chat.providers")} == set()
