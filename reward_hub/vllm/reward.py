"""VllmProcessRewardModel, as reward_hub 0.1 named it and its_hub imports it; new code calls `AutoRM.load`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reward_hub.auto import AutoRM
from reward_hub.base import AggregationMethod, Messages, PRMResult
from reward_hub.errors import UnsupportedError
from reward_hub.messages import is_single


class VllmProcessRewardModel:
    """A process reward model on vLLM, with the calls of reward_hub 0.1.10.

    Every process family that vLLM serves is loaded, not Qwen2.5-Math-PRM alone. What is too long is an error: 0.1 cut
    it to `max_input_tokens`, which is not an argument here (`truncation=` and `max_length=` of `AutoRM.load` are).

    Args:
        model_name: a Hub id or a checkpoint folder.
        device: "cuda", "cuda:0" or "cpu"; it must be what the installed vLLM was built for. Which GPUs are seen is up
            to CUDA_VISIBLE_DEVICES.
        options: further arguments of `AutoRM.load`, vLLM's engine options among them.

    Raises:
        UnsupportedError: the model is not a process reward model.
    """

    def __init__(self, model_name: str, *, device: str | None = None, **options: Any) -> None:
        # vLLM takes the first device by itself and has no name for it.
        device = "cuda" if device == "cuda:0" else device
        self.rm = AutoRM.load(model_name, load_method="vllm", device=device, **options)
        if self.rm.kind != "process":
            self.rm.close()
            raise UnsupportedError(
                f"{model_name} is not a process reward model; AutoRM.load({model_name!r}) scores it."
            )

    def score(
        self,
        messages: Messages | Sequence[Messages],
        *,
        step_sep: str = "\n\n",
        aggregation_method: str | AggregationMethod = AggregationMethod.LAST,
        return_full_prm_result: bool = False,
        use_tqdm: bool = False,
    ) -> list[float] | list[PRMResult]:
        """Score the last message of one conversation or of several; a list in either case.

        Args:
            step_sep: where responses are split into steps; "model" takes the whole response as one.
            aggregation_method: how step scores become the score.
            return_full_prm_result: `PRMResult`s, with the step scores.
            use_tqdm: show a progress bar.
        """
        conversations: Any = [messages] if is_single(messages) else messages
        return self.rm.score_batch(
            conversations,
            step_delimiter=step_sep,
            aggregation=aggregation_method,
            return_full_prm_result=return_full_prm_result,
            show_progress=use_tqdm,
        )

    def close(self) -> None:
        self.rm.close()
