"""Every release of transformers gives one checkpoint the same numbers: many classes against what one release gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_sets import OWN

from reward_hub.backends.base import EngineOptions
from reward_hub.backends.transformers import TransformersBackend
from reward_hub.checkpoints.files import open_checkpoint
from reward_hub.reads import TokenLogprobs
from reward_hub.testing import make_checkpoint
from reward_hub.types import TokenInput

# By transformers' own classes: golden/freeze_classes.py.
FROZEN: dict[str, Any] = json.loads((OWN.parent / "class_logprobs.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("model_type", sorted(FROZEN["models"]))
def test_a_checkpoint_has_the_numbers_of_another_release(model_type: str, tmp_path: Path) -> None:
    model = FROZEN["models"][model_type]
    backend = TransformersBackend.load(
        open_checkpoint(str(make_checkpoint(tmp_path, model["spec"]))),
        TokenLogprobs(),
        backbone=None,
        tokenizer=None,  # type: ignore[arg-type]
        options=EngineOptions(torch_dtype="float32"),
    )
    (found,) = backend.read([TokenInput(FROZEN["token_ids"], FROZEN["positions"])])
    # Two orders of summing float32 products; another reading of a config moves these numbers by 0.01 and more.
    np.testing.assert_allclose(found.ravel(), model["logprobs"], rtol=2e-4, atol=2e-4)
