"""The kernels in C give torch's numbers, and nothing is loaded that was not compiled here."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_hub.backends.tuning import compiled
from reward_hub.backends.tuning import kernels as in_torch
from reward_hub.backends.tuning.compiled import NoKernelsError, library
from reward_hub.backends.tuning.kernels import ACTIVATIONS, Activation, Kernels, same_numbers


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    try:
        return Kernels(library(tmp_path_factory.mktemp("cache") / "kernels"))
    except NoKernelsError as error:
        pytest.skip(str(error))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own, and no kernels that were found before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    in_torch.kernels.cache_clear()
    yield tmp_path / "reward_hub" / "kernels"
    in_torch.kernels.cache_clear()


def some(*shape: int, seed: int = 0, size: float = 4.0) -> torch.Tensor:
    return (size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).bfloat16()


SIZES = st.floats(1e-6, 1e6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 300), SIZES, st.floats(1e-8, 1e-2), st.booleans(), st.integers(0, 99))
def test_norms_are_those_of_torch(
    kernels: Kernels, rows: int, size: int, scale: float, eps: float, first: bool, seed: int
) -> None:
    x, weight = some(rows, size, seed=seed, size=scale), some(size, seed=seed + 1).float()
    ours = kernels.rms_norm(x, weight, eps, round_first=first)
    assert same_numbers(ours, in_torch.rms_norm(x, weight, eps, round_first=first))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(ACTIVATIONS)), st.integers(1, 300), st.integers(1, 900), SIZES, st.integers(0, 99))
def test_gates_are_those_of_torch(
    kernels: Kernels, name: Activation, rows: int, size: int, scale: float, seed: int
) -> None:
    gate, up = some(rows, size, seed=seed, size=scale), some(rows, size, seed=seed + 1)
    assert same_numbers(kernels.gated(gate.clone(), up, name), ACTIVATIONS[name](gate) * up)


@settings(max_examples=60, deadline=None)
@given(
    *(st.integers(1, 3), st.integers(1, 5), st.integers(1, 200), st.integers(1, 40)),
    st.booleans(),
    st.integers(0, 99),
)
def test_rotary_positions_are_those_of_torch_to_the_bit(
    kernels: Kernels, rows: int, heads: int, tokens: int, half: int, tokens_first: bool, seed: int
) -> None:
    if tokens_first:
        x = some(rows, tokens, heads, 2 * half, seed=seed).transpose(1, 2)
    else:
        x = some(rows, heads, tokens, 2 * half, seed=seed)
    cosines, sines = (some(rows, tokens, 2 * half, seed=seed + i, size=1.0) for i in (1, 2))
    assert torch.equal(kernels.rotary(x, cosines, sines), in_torch.rotary(x, cosines, sines))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_stays_none(kernels: Kernels, value: float) -> None:
    x, up = some(4, 64), some(4, 64)
    x[1, 7] = value
    weight = torch.ones(64)
    for first in (True, False):
        assert kernels.rms_norm(x, weight, 1e-6, round_first=first)[1].isnan().any()
    for name, activation in ACTIVATIONS.items():
        ours, expected = kernels.gated(x.clone(), up, name), activation(x) * up
        assert torch.equal(ours.isnan(), expected.isnan())
        assert torch.equal(ours.isinf(), expected.isinf())


def test_threads_give_the_same_bits(kernels: Kernels) -> None:
    x, weight, before = some(1000, 96), some(96).float(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = kernels.rms_norm(x, weight, 1e-6, round_first=True)
        torch.set_num_threads(2)
        assert torch.equal(kernels.rms_norm(x, weight, 1e-6, round_first=True), alone)
    finally:
        torch.set_num_threads(before)


# Compiling -------------------------------------------------------------------------------------------------------


def test_the_compiled_file_is_found_again(kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = library(tmp_path / "kernels")
    assert (tmp_path / "kernels").stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(compiled, "_compile", None)
    assert library(tmp_path / "kernels") == file


def test_a_file_that_was_changed_is_not_loaded(
    kernels: Kernels, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = library(tmp_path / "kernels")
    whole = file.read_bytes()
    file.write_bytes(whole + b"more")
    again = library(tmp_path / "kernels")
    assert again.read_bytes() == whole
    assert "is not what was compiled" in caplog.text
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere.so")
    (tmp_path / "elsewhere.so").write_bytes(whole)
    assert not library(tmp_path / "kernels").is_symlink()


def test_a_folder_that_others_may_write_into_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(NoKernelsError, match="open to other users"):
        library(folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(NoKernelsError, match="not a folder"):
        library(tmp_path / "link")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    with pytest.raises(NoKernelsError, match="belongs to another user"):
        library(folder)


@pytest.mark.parametrize(("command", "said"), [("no-such-compiler", "no C compiler"), ("false", "failed")])
def test_without_a_compiler_torch_is_used_and_it_is_said_once(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, command: str, said: str
) -> None:
    monkeypatch.setenv("CC", command)
    with caplog.at_level(logging.WARNING):
        assert in_torch.kernels() is None
        assert in_torch.kernels() is None
    assert len([record for record in caplog.records if said in record.getMessage()]) == 1


def test_kernels_that_give_other_numbers_are_not_used(
    kernels: Kernels, own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def otherwise(self: Kernels, x: torch.Tensor, *_: object) -> torch.Tensor:
        return x

    monkeypatch.setattr(Kernels, "rotary", otherwise)
    assert in_torch.kernels() is None
    assert "rotary gives other numbers than torch" in caplog.text


def test_two_processes_may_compile_at_once(kernels: Kernels, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; import sys; from reward_hub.backends.tuning.compiled import library; "
        "print(library(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "kernels")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    files = {Path(process.communicate(timeout=120)[0].strip()) for process in running}
    assert all(process.returncode == 0 for process in running)
    assert all(file.is_file() for file in files)
    assert sorted(tmp_path.glob("kernels/*")) == sorted(files)


def test_no_compiler_runs_at_import() -> None:
    code = (
        "import subprocess; subprocess.run = subprocess.Popen = None; "
        "import reward_hub.backends.transformers, reward_hub.backends.tuning.tune"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
