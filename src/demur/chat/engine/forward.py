"""One forward pass, read at the input of the LM head.

Every causal model of transformers ends in an output embedding. A hook in front of it sees exactly
the representation of the method ("what enters the LM head"), whatever norms, projections or scales
an architecture puts before it; by handing on only the positions that are read, the hook also saves
the logits of all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from demur.chat.engine.architecture import cached, execution_device, takes_boolean_masks
from demur.chat.engine.attention import is_grouped, packed
from demur.chat.engine.last_layer import only_read
from demur.chat.engine.layers import layer_outputs
from demur.chat.engine.packing import Packing
from demur.chat.engine.suffix_attention import RowLayout


@dataclass(frozen=True)
class Positions:
    """What a forward pass computes at the N positions that are read.

    Attributes:
        hidden: (N, d), what enters the LM head, in the model's dtype; with gradients where they
            are on.
        logits: (N, V), or None where they were not asked for.
        layers: (N, layers, d) float32 on the CPU, what each layer put out; None where it was not
            asked for.
    """

    hidden: Tensor
    logits: Tensor | None
    layers: Tensor | None = None


def embedding_table(model: PreTrainedModel) -> Tensor:
    """The input embeddings of the whole vocabulary, (V, d); on `meta` where they are offloaded."""
    table = model.get_input_embeddings().weight
    assert isinstance(table, Tensor)
    return table


def input_device(model: PreTrainedModel) -> torch.device:
    """Where inputs belong: where the embeddings are, or are brought to when they are used."""
    device = embedding_table(model).device
    if device.type != "meta":
        return device
    return execution_device(model.get_input_embeddings()) or torch.device("cpu")


def input_embeddings(model: PreTrainedModel, token_ids: Tensor) -> Tensor:
    """The embeddings that `inputs_embeds` expects for token ids, `(..., d)`."""
    embedded: Tensor = model.get_input_embeddings()(token_ids.to(input_device(model)))
    return embedded


def read_positions(
    model: PreTrainedModel,
    embeddings: Tensor,
    positions: Tensor,
    *,
    rows: Tensor | None = None,
    cache: Cache | None = None,
    logits: bool = False,
    layers: bool = False,
    **inputs: Any,
) -> Positions:
    """Run the model and read it at some positions.

    Args:
        model: a causal language model.
        embeddings: (B, T, d).
        positions: (N,), the index in `0..T-1` of each position to read.
        rows: (N,), the row of each; by default one position in each of the B rows.
        cache: what precedes the embeddings; it grows by them.
        logits: whether to compute the logits at the positions.
        layers: whether to keep what each layer puts out at the positions.
        **inputs: further arguments of the model's forward, for example `position_ids`.
    """
    rows = torch.arange(embeddings.shape[0]) if rows is None else rows
    kept: AbstractContextManager[list[Tensor]] = (
        layer_outputs(model, rows, positions) if layers else nullcontext([])
    )
    with _head_hook(model, rows, positions, logits) as seen, kept as outputs:
        output = model(
            inputs_embeds=embeddings,
            use_cache=cache is not None,
            **cached(model, cache),
            **inputs,
        )
    return Positions(
        seen[0],
        output.logits[:, 0] if logits else None,
        torch.stack(outputs, dim=1) if layers else None,
    )


@dataclass(frozen=True)
class RowTensors:
    """What a packing says of its row, in tensors on the device.

    A recorded pass is replayed with other rows of its shape, which are put into these tensors.

    Attributes:
        reads: (N,), the places in the row that are read.
        positions: (1, T), the position of each token in its own conversation.
        layout: what attention needs to know; None to work it out for this row.
    """

    reads: Tensor
    positions: Tensor
    layout: RowLayout | None = None


def read_packed(
    model: PreTrainedModel,
    embeddings: Tensor,
    packing: Packing,
    *,
    tensors: RowTensors | None = None,
    cache: Cache | None = None,
    logits: bool = False,
    layers: bool = False,
) -> Positions:
    """Run the model over conversations laid end to end and read it at `packing.reads`.

    Args:
        model: a causal language model.
        embeddings: (1, T, d), the row.
        packing: what lies where.
        tensors: the row's tensors where they are kept; by default those of `packing`.
        cache: the prefix, where it is not in the row; it grows by the suffixes.
        logits: whether to compute the logits.
        layers: whether to keep what each layer puts out.
    """
    device = embeddings.device
    if tensors is None:
        tensors = RowTensors(packing.reads.to(device), packing.position_ids.to(device))
    rows = torch.zeros_like(tensors.reads)
    with packed(packing, tensors.layout), only_read(model, rows, tensors.reads):
        return read_positions(
            model,
            embeddings,
            tensors.reads,
            rows=rows,
            cache=cache,
            logits=logits,
            layers=layers,
            position_ids=tensors.positions,
            attention_mask=_packed_mask(model, packing, embeddings),
        )


def attention_mask(model: PreTrainedModel, visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask of shape (B, 1, T, S) in the form that the model's attention takes."""
    if takes_boolean_masks(model):
        return visible
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill(~visible, torch.finfo(dtype).min)


def _packed_mask(model: PreTrainedModel, packing: Packing, embeddings: Tensor) -> Tensor:
    """The mask of a packed row, (1, 1, T, P + S), which has millions of entries in a large row."""
    device = embeddings.device
    if is_grouped(model):  # works out from the packing what a token sees
        some = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
        return some.expand(1, 1, embeddings.shape[1], packing.prefix + packing.total)
    return attention_mask(model, packing.visible.to(device), embeddings.dtype)


@contextmanager
def _head_hook(
    model: PreTrainedModel, rows: Tensor, positions: Tensor, logits: bool
) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def before_head(_module: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden: Tensor = arguments[0]
        seen.append(hidden[rows.to(hidden.device), positions.to(hidden.device)])
        kept = seen[0][:, None] if logits else hidden[:, :0]
        return (kept, *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(before_head)
    try:
        yield seen
    finally:
        handle.remove()
