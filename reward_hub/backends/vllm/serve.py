"""`vllm serve`, started so that it answers as the plan says: what the HTTP backend needs of somebody else's server."""

from __future__ import annotations

from pathlib import Path

from reward_hub.backends.vllm.attention import longest_input
from reward_hub.backends.vllm.folder import check_backbone, is_plain_among, pieces_of, weight_shapes, write_folder
from reward_hub.backends.vllm.options import dtype_name
from reward_hub.backends.vllm.plan import LOGPROB_BATCH_TOKENS, plan
from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.errors import CheckpointError, UnsupportedError
from reward_hub.family import Backbone
from reward_hub.reads import Read

NEEDS_PLUGIN = (
    "reward_hub must be installed beside vLLM on the server (pip install reward_hub): its plug-in drops and renames "
    "the tensors that vLLM would refuse. With --folder a folder is written that needs no plug-in."
)


def serve_command(
    files: CheckpointFiles,
    read: Read,
    backbone: Backbone | None,
    *,
    many: bool,
    max_length: int | None = None,
    torch_dtype: str = "auto",
    folder: Path | None = None,
    name: str | None = None,
) -> tuple[list[str], list[str]]:
    """The command as a list of words, and what has to be known besides.

    Args:
        many: inputs are read at many positions (process families).
        folder: an empty folder to write a checkpoint to that vLLM takes without a plug-in.
        name: the served name; default: the checkpoint's.

    Raises:
        UnsupportedError: vLLM cannot serve it, or only from a folder of its own.
        CheckpointError: a tensor is missing, or `folder` is not empty.
    """
    wanted = plan(read, files.config, weight_shapes(files), backbone=backbone, many=many, pieces=pieces_of(files, read))
    check_backbone(files, wanted, backbone)
    notes = []
    place = files.id
    if folder is not None:
        if folder.exists() and any(folder.iterdir()):
            raise CheckpointError(f"{folder} is not empty; name a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
        written = write_folder(folder.resolve(), files, wanted, backbone, link_all=False)
        notes.append(f"Wrote {written / 1e9:.2f} GB to {folder}; the rest are links to {files.fetch()}.")
        place = str(folder.resolve())
    elif wanted.config is not None or (wanted.weights is not None and wanted.weights.split):
        raise UnsupportedError(
            f"vLLM does not take {files.id} as it is stored (another model type, packed tensors, odd fields in "
            "config.json). Say with --folder where to write a checkpoint that it takes."
        )
    elif not is_plain_among(files, files.files):
        raise UnsupportedError(
            f"Beside the weights of {files.id} lie files that vLLM would load too. Say with --folder where to write a "
            "checkpoint without them."
        )
    adapted = wanted.weights is not None and folder is None
    if adapted:
        notes.append(NEEDS_PLUGIN)
    words = ["vllm", "serve", place, *wanted.serve_flags(plugin=adapted), "--dtype", dtype_name(torch_dtype, files)]
    words += ["--served-model-name", name or files.id]
    if files.revision is not None and folder is None:
        words += ["--revision", files.revision]
    logprobs = wanted.asks == "logprobs"
    stock = files.config if wanted.config is None else wanted.config
    longest = longest_input(stock)
    if longest is not None and (max_length is None or max_length > longest):
        notes.append(f"Longer inputs than {longest} tokens would be read with another rotary table than transformers'.")
        max_length = longest
    if max_length is not None:
        # A generating engine needs room for one more token, where the model has it.
        more = logprobs and max_length < (longest or int(stock.get("max_position_embeddings") or 0))
        words += ["--max-model-len", str(max_length + more)]
    if logprobs:
        # Each token makes a row over the whole vocabulary.
        words += ["--max-num-batched-tokens", str(LOGPROB_BATCH_TOKENS)]
    return words, notes
