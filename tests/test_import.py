"""`import reward_hub` is light, and every public name is there."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import reward_hub

HEAVY = ("torch", "transformers", "vllm", "numpy", "pydantic", "httpx")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, reward_hub; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_help_lists_the_commands_without_what_they_need() -> None:
    code = (
        "import sys, reward_hub.cli\n"
        "try:\n    reward_hub.cli.main(['--help'])\n"
        f"finally:\n    print([name for name in {HEAVY} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Score each conversation of a file." in found.stdout
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("module", ["reward_hub.auto", "reward_hub.base", "reward_hub.testing", "reward_hub.registry"])
def test_no_part_but_an_engine_loads_an_engine(module: str) -> None:
    code = f"import sys, {module}; print([name for name in ('torch', 'transformers', 'vllm') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(reward_hub.__all__))
def test_a_public_name_can_be_imported(name: str) -> None:
    assert getattr(reward_hub, name) is not None
    assert name in dir(reward_hub)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchName"):
        _ = reward_hub.NoSuchName


def test_the_names_of_reward_hub_0_1_are_where_they_were() -> None:
    base = importlib.import_module("reward_hub.base")
    assert base.AggregationMethod("prod") is base.AggregationMethod.PRODUCT
    assert base.PRMResult([0.5, 0.8], score=0.4).min == 0.5
