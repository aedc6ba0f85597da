"""A tuned model gives the scores of the model as it is, within what its dtype rounds."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_sets import GoldenModels, GoldenSet, score_case
from model_classes import LATENT, tiny_decoder

from reward_hub import AutoRM
from reward_hub.backends.tuning import kernels as in_torch
from reward_hub.backends.tuning import linears, parts
from reward_hub.backends.tuning import tune as tuning
from reward_hub.backends.tuning.kernels import ACTIVATIONS, Kernels
from reward_hub.backends.tuning.tune import tune
from reward_hub.cli.option_groups import LoadOptions

TOKENS = list(range(5, 45))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        in_torch.kernels.cache_clear()
        yield folder / "reward_hub"
        in_torch.kernels.cache_clear()


@pytest.fixture
def everything_pays(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is tried is faster, whatever this machine is."""
    monkeypatch.setattr(tuning._Tuner, "_ratio", lambda *_: 0.5)
    for file in cache.glob("tuning/*.json"):
        file.unlink()


@pytest.fixture
def kernels() -> Kernels:
    found = in_torch.kernels()
    if found is None:
        pytest.skip("no C compiler")
    return found


def states_of(model: Any) -> Callable[[list[int]], torch.Tensor]:
    def states(token_ids: list[int]) -> torch.Tensor:
        ids = torch.tensor([token_ids])
        more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        found: torch.Tensor = model(input_ids=ids, **more).last_hidden_state
        return found

    return states


def hidden(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return states_of(model)(TOKENS).float()


STOCK = {
    **dict.fromkeys(("llama", "qwen2", "mistral"), "9 norms in C; 4 gated modules in C; 4 rotary functions in C"),
    "qwen3": "17 norms in C; 4 gated modules in C; 4 rotary functions in C",
    "gemma": "9 norms in C; 4 gated modules in C; 4 rotary functions in C",
    "gemma2": "17 norms in C; 4 gated modules in C; 4 rotary functions in C",
    "olmo2": "17 norms in C; 4 gated modules in C",
    **dict.fromkeys(("gpt_neox", "opt", "gpt2", "bert", "t5", "cohere", "granite", "phi"), ""),
    **dict.fromkeys(("bloom", "falcon", "mamba", "deberta-v2", "roberta", "starcoder2", "stablelm", "gemma3_text"), ""),
}


@pytest.mark.parametrize(("model_type", "found"), STOCK.items())
def test_a_tuned_model_is_no_farther_from_float32(everything_pays: None, model_type: str, found: str) -> None:
    model = tiny_decoder(model_type, dtype=torch.bfloat16)
    exact = hidden(copy.deepcopy(model).float())
    own = (hidden(model) - exact).abs()
    tuned = tune(model, states_of(model))
    if in_torch.kernels() is not None:
        assert found in str(tuned)
    apart = (hidden(model) - exact).abs()
    # The means: of some thousand numbers one is the farthest by chance.
    assert apart.mean() <= 1.5 * own.mean()
    assert apart.max() <= 3 * own.max()


@pytest.mark.parametrize(("model_type", "values"), [("mixtral", {}), ("deepseek_v3", LATENT)])
def test_models_with_experts_are_tuned(everything_pays: None, model_type: str, values: dict[str, Any]) -> None:
    """Their routers have the weights of linear layers, and return several things."""
    model = tiny_decoder(model_type, dtype=torch.bfloat16, **values)
    exact = hidden(copy.deepcopy(model).float())
    own = (hidden(model) - exact).abs()
    tuned = str(tune(model, states_of(model)))
    assert "linear layers" in tuned and "nothing" not in tuned
    assert (hidden(model) - exact).abs().mean() <= 1.5 * own.mean()


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "opt", "bert"])
def test_float32_is_tuned_to_the_same_numbers(everything_pays: None, model_type: str) -> None:
    model = tiny_decoder(model_type)
    own = hidden(model)
    tuned = tune(model, states_of(model))
    assert "in C" not in str(tuned)
    assert torch.allclose(hidden(model), own, rtol=1e-5, atol=1e-5)


GOLDEN = (
    *("seqcls-llama3", "seqcls-gemma2", "seqcls-qwen3", "internlm2-reward", "deberta-rm", "armorm"),
    *("qwen2.5-math-prm", "skywork-o1-open-prm", "rlhflow-prm", "eurus-implicit-prm", "steamshp"),
)


@pytest.mark.parametrize("slug", GOLDEN)
def test_tuned_scores_of_golden_sets_are_no_farther_from_float32(
    everything_pays: None, golden_models: GoldenModels, slug: str
) -> None:
    golden = GoldenSet(slug, "own")
    checkpoint = golden_models.checkpoint(golden)

    def scores(**options: Any) -> np.ndarray:
        rm = golden.load(checkpoint, **options)
        return np.concatenate([score_case(rm, case)[0] for case in golden.cases])

    exact = scores()
    own = np.abs(scores(torch_dtype="bfloat16") - exact)
    tuned = np.abs(scores(torch_dtype="bfloat16", tune=True) - exact)
    # Of some ten numbers: a single one may be nearer or farther by chance.
    assert tuned.mean() <= 1.5 * own.mean() + 1e-3 * np.abs(exact).mean()
    assert np.abs(scores(tune=True) - exact).max() <= golden.tolerance


def test_the_weights_that_were_ordered_are_held_once_and_read_as_before() -> None:
    layer: Any = torch.nn.Linear(32, 48)
    before, x = layer.weight.detach().clone(), torch.randn(5, 32)
    ordered = linears.packed(layer.weight, 512)
    if ordered is None:
        pytest.skip("this torch orders no weights here")
    expected = layer(x)
    layer.forward = linears.in_other_way(layer, "prepacked", 0, ordered)
    linears.let_go(layer, ordered)
    assert "weight" not in dict(layer.named_parameters())
    assert isinstance(layer, torch.nn.Linear)
    assert torch.equal(layer.weight, before)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    linears.take_back(layer)
    del layer.forward
    assert type(layer) is torch.nn.Linear
    assert torch.equal(layer.weight, before)
    assert torch.equal(layer(x), expected)


def test_a_weight_that_two_modules_share_is_not_ordered(everything_pays: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_decoder("llama")
    model.layers[0].self_attn.q_proj.weight = model.layers[1].self_attn.q_proj.weight
    own = hidden(model)
    tune(model, states_of(model))
    assert model.layers[0].self_attn.q_proj.weight is model.layers[1].self_attn.q_proj.weight
    assert torch.allclose(hidden(model), own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 7, 3), (40, 33, 65), (1500, 40, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_widened_layers_round_once(dtype: torch.dtype, shape: tuple[int, int, int], bias: bool) -> None:
    rows, n_in, n_out = shape
    layer = torch.nn.Linear(n_in, n_out, bias=bias, dtype=dtype)
    x = torch.randn(2, rows, n_in).to(dtype)
    exact = torch.nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    ours = linears.widened(x, layer.weight, layer.bias)
    assert ours.shape == exact.shape
    assert torch.allclose(ours.double(), exact, rtol=torch.finfo(dtype).eps / 2, atol=1e-5)


# Only what computes the same ---------------------------------------------------------------------------------------


class Gated(torch.nn.Module):
    """A gated module, with what a class may do besides."""

    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor], limit: float | None = None) -> None:
        super().__init__()
        self.one, self.two, self.three = torch.nn.Linear(32, 48), torch.nn.Linear(48, 32), torch.nn.Linear(32, 48)
        self._activation, self._limit = activation, limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.three(x), self.one(x)
        if self._limit is not None:
            gate, up = gate.clamp(max=self._limit), up.clamp(-self._limit, self._limit)
        return self.two(self._activation(gate) * up)


def some(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).bfloat16()


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_a_gated_module_is_found_whatever_its_names(kernels: Kernels, name: Any) -> None:
    module, x = Gated(ACTIVATIONS[name]).bfloat16(), some(40, 32)
    ours = parts.gated(kernels, module, x)
    assert ours is not None
    for ours.rows in (7, 40, 1024):
        apart = (ours(x) - module(x)).float().abs().max()
        assert apart <= 2**-7 * module(x).float().abs().max()


@pytest.mark.parametrize(
    "module",
    [
        Gated(torch.relu),
        Gated(torch.nn.functional.gelu),
        Gated(torch.sigmoid),
        Gated(torch.nn.functional.silu, limit=7.0),
        torch.nn.Sequential(torch.nn.Linear(32, 48), torch.nn.SiLU(), torch.nn.Linear(48, 32)),
    ],
    ids=["relu", "gelu", "sigmoid", "limit", "no gate"],
)
def test_what_computes_something_else_is_not_replaced(kernels: Kernels, module: torch.nn.Module) -> None:
    assert parts.gated(kernels, module.bfloat16(), some(40, 32)) is None


class Norm(torch.nn.Module):
    def __init__(self, formula: Callable[..., torch.Tensor], **settings: Any) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(1 + 0.3 * torch.randn(48, generator=torch.Generator().manual_seed(2)))
        self.small = settings.pop("eps", 1e-5)
        self._formula = formula

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._formula(x, self.scale, self.small)


def _rms(x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    return in_torch.rms_norm(x, scale.float(), eps, round_first=True)


def _with_mean(x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    return _rms(x - x.mean(-1, keepdim=True), scale, eps)


def _with_another_eps(x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    return _rms(x, scale, 10 * eps)


@pytest.mark.parametrize(("formula", "replaced"), [(_rms, True), (_with_mean, False), (_with_another_eps, False)])
def test_a_norm_is_replaced_where_it_is_the_plain_one(kernels: Kernels, formula: Any, replaced: bool) -> None:
    found = parts.norm(kernels, Norm(formula).bfloat16(), some(40, 48))
    assert (found is not None) is replaced


def test_a_model_that_would_be_another_is_left_as_it_was(
    everything_pays: None, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_decoder("llama", dtype=torch.bfloat16)
    own = hidden(model)
    own_norm = parts.norm

    def wrong_norm(*found: Any) -> Any:
        return None if own_norm(*found) is None else torch.zeros_like

    monkeypatch.setattr(parts, "norm", wrong_norm)
    tuned = tune(model, states_of(model))
    assert "hidden vectors were others" in str(tuned)
    assert torch.equal(hidden(model), own)
    assert not any("forward" in vars(module) for module in model.modules())


# What is remembered -----------------------------------------------------------------------------------------------


def test_a_second_load_measures_nothing(everything_pays: None, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tune(model := tiny_decoder("llama", dtype=torch.bfloat16), states_of(model))
    monkeypatch.setattr(tuning, "_seconds", None)
    monkeypatch.setattr(tuning._Tuner, "_ratio", None)
    again = tune(model := tiny_decoder("llama", dtype=torch.bfloat16), states_of(model))
    assert str(again) == str(first)
    assert len(list(cache.glob("tuning/*.json"))) == 1


@pytest.mark.parametrize(
    "change", [{"norms": 3}, {"rows": 0}, {"linears": {"1 x 1": {"way": "other"}}}, {"linears": []}, {"more": 1}]
)
def test_what_was_remembered_and_cannot_be_is_measured_again(
    everything_pays: None, cache: Path, caplog: pytest.LogCaptureFixture, change: dict[str, Any]
) -> None:
    first = tune(model := tiny_decoder("llama", dtype=torch.bfloat16), states_of(model))
    (file,) = cache.glob("tuning/*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    again = tune(model := tiny_decoder("llama", dtype=torch.bfloat16), states_of(model))
    assert "it is measured again" in caplog.text
    assert str(again) == str(first)


def test_threads_are_others_only_while_it_scores() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with tuning.Tuning(threads=1).running():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with tuning.Tuning(threads=8).running():
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# The option --------------------------------------------------------------------------------------------------------

MODEL = "builtin/arithmetic-orm"
CONVERSATIONS = [
    [{"role": "user", "content": f"What is {a} + {b}?"}, {"role": "assistant", "content": str(a + b)}]
    for a, b in ((1, 2), (13, 8), (40, 2))
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loaded_model_is_tuned_and_says_so(everything_pays: None, dtype: str) -> None:
    exact = AutoRM.load(MODEL, "transformers", torch_dtype="float32").score_batch(CONVERSATIONS)
    own = AutoRM.load(MODEL, "transformers", torch_dtype=dtype)
    tuned = AutoRM.load(MODEL, "transformers", torch_dtype=dtype, tune=True)
    drift = np.abs(np.array(own.score_batch(CONVERSATIONS)) - exact).max()
    assert np.abs(np.array(tuned.score_batch(CONVERSATIONS)) - exact).max() <= 1.5 * drift + 2e-5
    assert "tuning" in tuned.load_report
    assert "tuning" not in own.load_report
    assert tuned.fingerprint == own.fingerprint


def test_it_goes_with_a_pickle(everything_pays: None) -> None:
    again = pickle.loads(pickle.dumps(AutoRM.load(MODEL, "transformers", tune=True)))
    assert "tuning" in again.load_report


@pytest.mark.parametrize(
    ("method", "more"), [("vllm", {}), ("api", {"api_base": "http://localhost:9/v1"})], ids=["vllm", "api"]
)
def test_other_backends_refuse_it(method: str, more: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="tune=True has no meaning for"):
        AutoRM.load(MODEL, method, tune=True, **more)


def test_a_run_goes_on_tuned() -> None:
    assert LoadOptions(tune=True).settings() == LoadOptions().settings()
