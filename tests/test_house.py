"""How the package is built: few files in its root, short functions, and no hand in another object's pockets."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "reward_hub"
TREES = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}

ROOT_FILES = 30  # beside __init__ and __main__
LINES_OF_A_FUNCTION = 90  # without its docstring

# Of the standard library, and documented there.
NOT_PRIVATE = {"sys._getframe"}


def test_the_root_holds_few_files() -> None:
    in_root = {name for name in TREES if "/" not in name} - {"__init__.py", "__main__.py"}
    assert len(in_root) <= ROOT_FILES, sorted(in_root)


def test_no_function_is_long() -> None:
    too_long = {
        f"{name}:{node.lineno} {node.name}": lines
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (lines := _lines(node)) > LINES_OF_A_FUNCTION
    }
    assert too_long == {}


def test_nobody_uses_what_another_object_keeps_to_itself() -> None:
    """`x._name` is for `self` and `cls`, and for the file that defines the name."""
    uses = [use for name, tree in TREES.items() for use in _private_uses(name, tree)]
    assert uses == []


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and ast.get_docstring(function)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def _private_uses(name: str, tree: ast.Module) -> Iterator[str]:
    defined, made_here = set(_defined(tree)), set(_made_by_its_class(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and not _is_own(node.value, made_here):
            text = ast.unparse(node)
            # A wrapper defines what its model defines too, and still asks it by public names alone.
            of_a_model = ast.unparse(node.value).split(".")[-1].lstrip("_").endswith("rm")
            if (node.attr not in defined or of_a_model) and text not in NOT_PRIVATE:
                yield f"{name}:{node.lineno} {text}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{name}:{node.lineno} import {a.name}" for a in node.names if _is_private(a.name))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _is_own(value: ast.expr, made_here: Collection[str] = ()) -> bool:
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls", *made_here)


def _made_by_its_class(tree: ast.Module) -> Iterator[str]:
    """Names of what a class method makes of its class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _is_own(node.value.func):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _defined(tree: ast.Module) -> Iterator[str]:
    """Names that a file gives to functions, classes, variables, fields and its own attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node.value):
            yield node.attr
