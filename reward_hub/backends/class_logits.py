"""What a language model's class makes of its LM head's outputs: some divide them, multiply them or cap them.

No such arithmetic is written down here. The class's own forward is run, on an instance without weights whose decoder
is replaced by the numbers at hand and whose LM head by nothing. That this is what the class computes is checked when
it is made, against the same forward with a head of random weights, and column by column.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from reward_hub.errors import UnsupportedError
from reward_hub.types import Array, Config

if TYPE_CHECKING:
    import torch

# Model types whose class gives the LM head's outputs as they are, whatever its config says: known without torch.
PLAIN = frozenset({"gemma", "llama", "mistral", "phi3", "qwen2", "qwen3"})
# A cap hardly changes small numbers, and large ones a great deal.
SCALES = (1.0, 16.0, 256.0)


class ClassLogits:
    """From an LM head's own outputs to the logits of the class: for most classes the same numbers.

    Args:
        model: an instance of the class with an LM head, on the device "meta"; it is of no use for anything else then.

    Raises:
        UnsupportedError: its forward does more than can be told so.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._lock = threading.Lock()
        try:
            self.plain = self._probe()
        except Exception as error:
            # Whatever foreign code raises, it means the same: the class does not let its decoder be replaced.
            raise UnsupportedError(
                f"The logits of {type(model).__name__} cannot be read: what it does behind its LM head is not known "
                f"({type(error).__name__}: {error})."
            ) from error

    def __call__(self, outputs: Array) -> Array:
        """[n, width] outputs of the LM head, of all tokens or of some, to logits."""
        import torch

        if self.plain or not len(outputs):
            return outputs
        with torch.inference_mode():
            return np.asarray(self.tensor(torch.from_numpy(np.ascontiguousarray(outputs))).numpy(), np.float32)

    def tensor(self, outputs: torch.Tensor) -> torch.Tensor:
        """The same on the device and in the dtype of a tensor."""
        if self.plain:
            return outputs
        with self._lock:
            return self._forward(outputs, self._nothing)

    def _probe(self) -> bool:
        """Hold the two ways to each other; return whether the logits are the head's outputs unchanged."""
        import torch

        head = self._model.get_output_embeddings()
        n_tokens, width = head.weight.shape
        random = torch.Generator().manual_seed(0)
        hidden = torch.randn(3, width, generator=random)
        some = torch.nn.Linear(width, 5, bias=head.bias is not None, device="cpu", dtype=torch.float32)
        plain = True
        self._nothing = _nothing()
        with torch.inference_mode():
            for parameter in some.parameters():
                parameter.normal_(generator=random)
            for scale in SCALES:
                outputs = some(scale * hidden)
                logits = self._forward(outputs, self._nothing)
                _require_close(logits, self._forward(scale * hidden, some))
                every = scale * torch.randn(2, n_tokens, generator=random)
                some_ids = [0, n_tokens // 2, n_tokens - 1]
                whole = self._forward(every, self._nothing)
                _require_close(self._forward(every[:, some_ids], self._nothing), whole[:, some_ids])
                plain = plain and torch.equal(logits, outputs) and torch.equal(whole, every)
        return plain

    def _forward(self, states: torch.Tensor, head: torch.nn.Module) -> torch.Tensor:
        """The class's logits where its decoder gives these states and its LM head is this one."""
        import torch

        decoder_of(self._model).forward = lambda *_, **__: Decoded(states[None])
        self._model.set_output_embeddings(head)
        ids = torch.zeros((1, len(states)), dtype=torch.long, device=states.device)
        logits: torch.Tensor = self._model(input_ids=ids, use_cache=False).logits[0]
        return logits


class Decoded:
    """A decoder's output: the states, and None for whatever else a forward asks for."""

    def __init__(self, states: torch.Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, place: Any) -> Any:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _nothing() -> torch.nn.Module:
    """An LM head that gives what it is given; some classes look at the dtype of its weight."""
    import torch

    head = torch.nn.Identity()
    head.weight = torch.nn.Parameter(torch.zeros(()), requires_grad=False)
    head.bias = None  # type: ignore[assignment]
    return head


def decoder_of(model: Any) -> Any:
    """What stands before the LM head. (Llama 4 calls the whole model its decoder.)"""
    decoder = model.get_decoder()
    if decoder is not model:
        return decoder
    return next(part for part in model.children() if hasattr(part, "get_input_embeddings"))


def _require_close(logits: torch.Tensor, expected: torch.Tensor) -> None:
    import torch

    # Two sums of float32 products in another order; what classes do there changes far more.
    if not torch.allclose(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())):
        raise ValueError("it changes more than the outputs of the head, each by itself")


def class_logits(config: Any, *, trust_remote_code: bool = False) -> ClassLogits:
    """What the language model's class of a transformers config does behind its LM head.

    Raises:
        UnsupportedError: there is no such class, or it cannot be told.
    """
    import torch
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    try:
        with torch.device("meta"):
            model = auto.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, RuntimeError, AttributeError, TypeError, KeyError, ImportError) as error:
        raise UnsupportedError(
            f"The logits of the model type {config.model_type!r} cannot be read: no language model is made of it "
            f"({type(error).__name__}: {error})."
        ) from error
    return ClassLogits(model.eval())


def logits_of(stored: Config) -> Callable[[Array], Array]:
    """The same for a config.json whose model runs elsewhere; torch and transformers are needed for some classes alone.

    Raises:
        UnsupportedError: as `class_logits`, or those packages are missing.
    """
    if stored.get("model_type") in PLAIN:
        return _unchanged
    try:
        import torch  # noqa: F401

        from reward_hub.backends.stock_config import stock_config
    except ImportError as error:
        raise UnsupportedError(
            f"What a model of type {stored.get('model_type')!r} does behind its LM head is known to its class alone; "
            "reading its logits needs torch and transformers here: pip install 'reward_hub[transformers]'."
        ) from error
    return class_logits(stock_config(stored))


def _unchanged(outputs: Array) -> Array:
    return outputs
