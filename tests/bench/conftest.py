"""Run `reward-hub bench` as a user would, in this process, away from what a launcher may have set."""

from __future__ import annotations

import pytest
from cli.conftest import reward_hub as reward_hub


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "REWARD_HUB_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
