"""What every test shares: an environment that asks nobody, the golden models, and their table at the end."""

from __future__ import annotations

import os

# Before anything imports huggingface_hub or tokenizers, which read these once: with telemetry on, huggingface_hub asks
# the endpoint for more than what is loaded.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Before anything imports torch, and for the processes that tests start: the models are so small that a second thread
# costs more than it brings, tenfold on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from golden_sets import GoldenModels

# (place, slug) -> (cases, cases that fit, largest difference, tolerance)
GoldenTable = dict[tuple[str, str], tuple[int, int, float, float]]
_TABLE = pytest.StashKey[GoldenTable]()

# An example may load a model or start a server, and the machine may be busy: nothing is measured in time. Where changes
# are gated (CI=true, as .ci/run sets it) every run draws the same examples; elsewhere it draws new ones, and a failure
# prints what draws its example again.
_UNTIMED: Any = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("local", print_blob=True, **_UNTIMED)
settings.register_profile("ci", derandomize=True, database=None, **_UNTIMED)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = {}


@pytest.fixture(scope="session")
def golden_table(pytestconfig: pytest.Config) -> GoldenTable:
    """What the golden tests found, printed at the end."""
    return pytestconfig.stash[_TABLE]


@pytest.fixture(scope="session")
def golden_models(tmp_path_factory: pytest.TempPathFactory) -> GoldenModels:
    from golden_sets import GoldenModels

    return GoldenModels(tmp_path_factory.mktemp("golden"))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    _write_real_vocabularies(terminalreporter)
    table = config.stash[_TABLE]
    if not table:
        return
    terminalreporter.section("golden sets: largest difference of a score, float32")
    terminalreporter.line(f"{'place':8}{'slug':32}{'cases':>8}{'max difference':>16}{'tolerance':>11}")
    for (place, slug), (cases, fitting, difference, tolerance) in sorted(table.items()):
        terminalreporter.line(f"{place:8}{slug:32}{f'{fitting}/{cases}':>8}{difference:>16.1e}{tolerance:>11.0e}")


def _write_real_vocabularies(terminalreporter: Any) -> None:
    """What test_real_vocabularies.py compared, a row for each checkpoint; reports carry the rows from every worker."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    rows = sorted(row for report in reports for name, row in report.user_properties if name == "real vocabulary")
    if not rows:
        return
    terminalreporter.section("real vocabularies: conversations whose ids and read positions equal the card's")
    form = "{:46}{:21}{:>14}{:>7}{:>11}{:>8}{:>16}".format
    heads = ("checkpoint", "family", "conversations", "ids", "positions", "scored", "max difference")
    terminalreporter.line(form(*heads))
    for *values, largest in rows:
        terminalreporter.line(form(*values, f"{largest:.1e}"))
    sums = [sum(row[place] for row in rows) for place in range(2, 6)]
    terminalreporter.line(form(f"{len(rows)} checkpoints", "", *sums, f"{max(row[-1] for row in rows):.1e}"))
