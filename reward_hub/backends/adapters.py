"""A PEFT adapter over a loaded model: applied by PEFT itself, to modules of the names that it was trained on."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reward_hub.backends.rope_tables import kept_tables
from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.checkpoints.tensors import LM_HEADS, embeddings_name
from reward_hub.errors import CheckpointError, UnsupportedError, missing_dependency
from reward_hub.reads import Read, TokenLogits, TokenLogprobs

try:
    import torch
except ImportError as error:
    raise missing_dependency("torch", "transformers", "The transformers backend") from error

logger = logging.getLogger(__name__)

# Merged weights against kept adapters, on the hidden vectors and logits of a few tokens. In float32 the largest
# difference, in standard deviations; over every kind of LoRA it was 5e-6 at most.
TOLERANCE = 1e-5
# In half precision the root mean square distance to float32, merged over kept. Where merging loses nothing, rounding
# alone moved it by up to 7% either way; weights that a large adapter rounds away moved it by 12% to 65%.
FARTHER = 1.1
PROBE_TOKENS = 24


def apply_adapter(model: Any, files: CheckpointFiles, read: Read, *, merge: bool) -> Any:
    """The model with the adapter of `files` in it; what it makes of the heads is in `files.adapted` then.

    Args:
        merge: put the adapter into the weights, which is faster; else it is kept beside them.

    Raises:
        CheckpointError: the adapter does not fit the model.
        NotEqualError: merged weights give other numbers; `model` is of no use any more.
    """
    try:
        import peft
    except ImportError as error:
        raise missing_dependency("peft", "transformers", "A PEFT adapter") from error
    adapter = files.adapter
    assert adapter is not None
    config = peft.PeftConfig.from_pretrained(str(adapter.fetch()))
    if not any("lora_" in name for name in adapter.tensors):
        raise UnsupportedError(
            f"The adapter {adapter.id} ({config.peft_type}) holds no LoRA weights; LoRA adapters are read. "
            "Merge it into the base model with peft's merge_and_unload."
        )
    if getattr(config, "ensure_weight_tying", False):
        raise UnsupportedError(
            f"The adapter {adapter.id} keeps the LM head tied to the embeddings (ensure_weight_tying); merge it into "
            "the base model with peft's merge_and_unload."
        )
    whole, prefix = _model_of_its_names(model, files, config, read)
    tensors = {name: i for name, i in adapter.tensors.items() if i.file in adapter.weight_files}
    if config.target_modules == "all-linear":
        config.target_modules = sorted({_module_of(name) for name in tensors if ".lora_" in name})
    config.task_type, config.inference_mode = None, True
    _untie(whole, files)
    state = {f"base_model.model.{name}": adapter.torch_tensor(name) for name in tensors}
    try:
        wrapped = peft.PeftModel(whole, config)
        report: Any = peft.set_peft_model_state_dict(wrapped, state)
    except KeyError as error:
        raise CheckpointError(
            f"The adapter {adapter.id} does not hold {error}, which its config says that it trained.",
            tensor=str(error).strip("'"),
        ) from error
    except (ValueError, RuntimeError, TypeError, AttributeError, ImportError) as error:
        raise CheckpointError(f"The adapter {adapter.id} does not fit the model: {error}") from error
    _check_complete(adapter, wrapped, config, report)
    files.adapted = _heads(wrapped.base_model.model, model, files, read)
    files.__dict__.pop("shapes", None)
    if not merge or getattr(model, "is_quantized", False) or any(weight.is_meta for weight in model.parameters()):
        logger.info("The adapter %s is kept beside the weights.", adapter.id)
        return model
    kept = _probe(model)
    exact = kept if model.dtype == torch.float32 else _probe_in_float32(model)
    whole = wrapped.merge_and_unload(safe_merge=True)
    model = getattr(whole, prefix) if prefix else whole
    _require_equal(kept, _probe(model), exact)
    logger.info("The adapter %s is merged into the weights.", adapter.id)
    return model


class NotEqualError(Exception):
    """Merged weights give other numbers than the adapter beside them."""


class _Holder(torch.nn.Module):
    """A backbone and heads under the names of an adapter's keys."""


def _model_of_its_names(model: Any, files: CheckpointFiles, config: Any, read: Read) -> tuple[Any, str]:
    """The model whose modules have the adapter's names, and the name of the loaded one in it."""
    adapter = files.adapter
    assert adapter is not None
    targets = {_module_of(name) for name in adapter.tensors if ".lora_" in name}
    if isinstance(read, TokenLogprobs) or all(_has(model, name) for name in targets):
        return model, ""
    firsts = sorted({name.split(".")[0] for name in targets})
    prefix = next(
        (p for p in (model.base_model_prefix, *firsts) if any(_has(model, _below(name, p)) for name in targets)), None
    )
    if prefix is None:
        raise CheckpointError(
            f"The adapter {adapter.id} does not fit the model: it has no module {min(targets)!r}.", tensor=min(targets)
        )
    holder = _Holder()
    setattr(holder, prefix, model)
    # Heads that the adapter changes: with LoRA, in full, or as its config says.
    stored = {name for name in files.shapes if not name.startswith(f"{prefix}.")}
    named = config.modules_to_save or []
    touched = {name for name in targets if not name.startswith(f"{prefix}.")}
    touched |= {_module_of(name) for name in adapter.tensors if ".lora_" not in name and name in stored}
    touched |= {_module_of(name) for name in stored if any(part in named for part in name.split("."))}
    for name in sorted(touched):
        _add_head(holder, name, files)
    return holder, prefix


def _module_of(tensor: str) -> str:
    return tensor.split(".lora_")[0] if ".lora_" in tensor else tensor.rpartition(".")[0]


def _below(name: str, prefix: str) -> str:
    return name.removeprefix(f"{prefix}.") if name.startswith(f"{prefix}.") else ""


def _has(model: Any, name: str) -> bool:
    try:
        return bool(name) and model.get_submodule(name) is not None
    except AttributeError:
        return False


def _add_head(holder: torch.nn.Module, name: str, files: CheckpointFiles) -> None:
    """A linear layer of the checkpoint's tensors; those that the adapter brings in full are filled in by PEFT."""
    weight = f"{name}.weight"
    if weight not in files.shapes and name == "lm_head":
        weight = embeddings_name(files) or weight  # tied: the embeddings, cloned
    if weight not in files.shapes or len(files.shapes[weight]) != 2:
        return
    owner = holder
    *parents, last = name.split(".")
    for parent in parents:
        if not hasattr(owner, parent):
            setattr(owner, parent, torch.nn.Module())
        owner = getattr(owner, parent)
    bias = f"{name}.bias"
    width, n_inputs = files.shapes[weight]
    linear = torch.nn.Linear(n_inputs, width, bias=bias in files.shapes)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(files.read(weight)))
        if bias in files.shapes:
            linear.bias.copy_(torch.from_numpy(files.read(bias)))
    setattr(owner, last, linear)


def _untie(whole: Any, files: CheckpointFiles) -> None:
    """PEFT changes a tied weight for the head and the embeddings at once; training changed one of the two."""
    if not hasattr(whole, "get_output_embeddings"):
        return
    output, embeddings = whole.get_output_embeddings(), whole.get_input_embeddings()
    if output is not None and output.weight is embeddings.weight:
        output.weight = torch.nn.Parameter(output.weight.detach().clone(), requires_grad=False)
        whole.config.tie_word_embeddings = False  # as it is now; PEFT warns where a config says otherwise


def _check_complete(adapter: CheckpointFiles, wrapped: Any, config: Any, report: Any) -> None:
    """Every weight of the adapter has its place, and every place its weight; a head that it trained is in it."""
    unexpected = list(getattr(report, "unexpected_keys", ()))
    missing = [name for name in getattr(report, "missing_keys", ()) if ".lora_" in name or ".modules_to_save." in name]
    for name in config.modules_to_save or ():
        present = any(name in module.split(".") for module, _ in wrapped.base_model.model.named_modules())
        if present and not any(name in tensor.split(".") for tensor in adapter.tensors):
            missing.append(f"{name}.weight")
    if missing or unexpected:
        raise CheckpointError(
            f"The adapter {adapter.id} does not fit the model: missing {missing[:3]}, left over {unexpected[:3]}.",
            tensor=(missing or unexpected)[0],
        )


def _heads(whole: Any, model: Any, files: CheckpointFiles, read: Read) -> dict[str, Any]:
    """The heads beside the loaded model as the adapter leaves them, float32."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    adapter = files.adapter
    assert adapter is not None
    heads: dict[str, Any] = {}
    ours = set(map(id, model.modules()))
    for name, module in whole.named_modules():
        if id(module) in ours or not isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)):
            continue
        if isinstance(module, ModulesToSaveWrapper):
            plain = module.modules_to_save[module.active_adapters[0]]
        else:
            merged: Any = copy.deepcopy(module)
            merged.float().merge(safe_merge=True)
            plain = merged.get_base_layer()
        for part, parameter in plain.named_parameters():
            heads[f"{name}.{part}"] = parameter.detach().float().cpu().numpy()
    embeddings = embeddings_name(files)
    tied = not any(name.endswith(LM_HEADS) for name in files.shapes) and "lm_head.weight" not in heads
    if isinstance(read, TokenLogits) and tied and embeddings in adapter.tensors and embeddings in files.tensors:
        # PEFT trains a copy of the embeddings; a tied LM head stays what it was.
        heads["lm_head.weight"] = files.read_own(embeddings)
    return heads


def _probe(model: Any) -> list[Any]:
    """The hidden vectors that the model makes of a few tokens, and its logits where it has some; float32."""
    size = int(model.get_input_embeddings().weight.shape[0])
    device = next(model.parameters()).device
    ids = torch.arange(1, PROBE_TOKENS + 1, device=device)[None] * 7919 % size
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    hidden: list[Any] = []
    head = model.get_output_embeddings()
    hooks = [] if head is None else [head.register_forward_pre_hook(lambda _, given: hidden.append(given[0]))]
    model.eval()
    try:
        with torch.inference_mode(), kept_tables(model):
            outputs = model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    parts = [*hidden, outputs.get("last_hidden_state"), outputs.get("logits")]
    return [part.float().cpu() for part in parts if part is not None]


def _probe_in_float32(model: Any) -> list[Any]:
    """What a model in half precision would make of them in float32.

    Raises:
        NotEqualError: it cannot compute in float32.
    """
    try:
        with _widened(model):
            return _probe(model)
    except (RuntimeError, ValueError, TypeError) as error:
        raise NotEqualError(f"nothing proves merged weights equal: {error}") from error


@contextmanager
def _widened(model: Any) -> Iterator[None]:
    """The model computes in float32, the weights of one layer at a time widened: memory is not doubled."""
    layers = {layer for module in model.modules() if isinstance(module, torch.nn.ModuleList) for layer in module}
    within = {part for layer in layers for part in layer.modules() if part is not layer}
    narrow: list[list[tuple[Any, Any]]] = []

    def widen(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        weights = [w for w in module.parameters(recurse=module in layers) if w.is_floating_point()]
        narrow.append([(weight, weight.data) for weight in weights])
        for weight in weights:
            weight.data = weight.data.float()
        return tuple(_wide(value) for value in arguments), {name: _wide(value) for name, value in named.items()}

    def restore(*_: Any) -> None:
        for weight, values in narrow.pop():
            weight.data = values

    hooks: list[Any] = []
    for module in set(model.modules()) - within:
        hooks.append(module.register_forward_pre_hook(widen, with_kwargs=True))
        hooks.append(module.register_forward_hook(restore))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        while narrow:  # modules that an exception left
            restore()


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _require_equal(kept: list[Any], merged: list[Any], exact: list[Any]) -> None:
    """Merged weights give what kept adapters give; in half precision, where `exact` is another, nothing less exact."""
    for ours, other, true in zip(kept, merged, exact, strict=True):
        deviation = true.std().clamp_min(1e-12)
        if exact is kept:
            farthest = float((ours - other).abs().max() / deviation)
            if not farthest <= TOLERANCE:
                raise NotEqualError(f"merged weights are {farthest:.2g} standard deviations off")
        else:
            far, farther = (float((part - true).square().mean().sqrt() / deviation) for part in (ours, other))
            if not farther <= FARTHER * far:
                raise NotEqualError(
                    f"merged weights are {farther:.2g} standard deviations from float32, kept adapters {far:.2g}"
                )
