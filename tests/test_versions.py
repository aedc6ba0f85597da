"""The releases of transformers that are allowed, tested and documented are the same ones."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def pinned(constraints: str) -> Version:
    found = re.findall(r"^transformers==(.+)$", (ROOT / constraints).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(found) == 1, f"{constraints} pins transformers {len(found)} times"
    return Version(found[0])


@pytest.fixture(scope="module")
def allowed() -> Requirement:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (requirement,) = [entry for entry in map(Requirement, extras["transformers"]) if entry.name == "transformers"]
    return requirement


@pytest.fixture(scope="module")
def oldest(allowed: Requirement) -> Version:
    (floor,) = [specifier for specifier in allowed.specifier if specifier.operator == ">="]
    return Version(floor.version)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_oldest_release_that_is_allowed_and_that_of_vllm_are_those_tested_beside_the_pinned_one(
    oldest: Version,
) -> None:
    # By itself, whatever the make that runs the tests was told.
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "TRANSFORMERS_VERSIONS")}
    command = ["make", "-s", "transformers-versions"]
    said = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    tested = [Version(version) for version in said.stdout.split()]
    assert tested == [oldest, pinned("constraints-vllm.txt")], (
        f"`make test-transformers` runs {said.stdout.strip()}; pyproject.toml allows {oldest} and newer, and "
        f"constraints-vllm.txt pins {pinned('constraints-vllm.txt')}"
    )


@pytest.mark.parametrize("constraints", ["constraints.txt", "constraints-vllm.txt"])
def test_the_pinned_releases_are_allowed(constraints: str, allowed: Requirement) -> None:
    assert allowed.specifier.contains(pinned(constraints)), f"{constraints} pins {pinned(constraints)}, not {allowed}"


def test_the_page_about_numbers_names_the_releases_that_are_tested(oldest: Version) -> None:
    page = (ROOT / "docs" / "numerics.md").read_text(encoding="utf-8")
    section = page.split("## Releases of transformers\n")[1].split("\n## ")[0]
    named = [Version(version) for version in re.findall(r"^\| (\d+\.\d+\.\d+) \|", section, flags=re.MULTILINE)]
    assert named == [oldest, pinned("constraints-vllm.txt"), pinned("constraints.txt")]
