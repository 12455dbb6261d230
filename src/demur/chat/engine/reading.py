"""Reading a part of a batch: behind the states of its prefix, in one row with it, or whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from demur.chat.engine.buckets import OVERHEAD_TOKENS, PACKED_PADDING, length_buckets
from demur.chat.engine.forward import Positions, input_embeddings, read_packed
from demur.chat.engine.head import Head
from demur.chat.engine.inputs import Inputs
from demur.chat.engine.packing import Packing
from demur.chat.engine.plain import read_whole, replace_rows
from demur.chat.engine.prefix import PrefixStates, compute_prefix
from demur.chat.engine.row_graphs import RowGraphs
from demur.chat.engine.targets import Read, TargetTokens, TokenReader


def packing_of(inputs: Inputs, *, inside: bool) -> Packing:
    """How conversations lie in a row, with their prefix in it or in a cache."""
    branches = inputs.branches if inputs.targets else ()
    return Packing(len(inputs.prefix), tuple(inputs.lengths), inside, branches)


def prefix_embeddings(model: PreTrainedModel, inputs: Inputs, prompt: Tensor | None) -> Tensor:
    """The embeddings (1, P, d) of the shared prefix, with the prompt's rows in their place."""
    embeddings = input_embeddings(model, torch.tensor([inputs.prefix]))
    if prompt is None:
        return embeddings
    return replace_rows(embeddings, inputs.spans()[:1], prompt)


def prefix_states(
    model: PreTrainedModel, inputs: Inputs, prompt: Tensor | None
) -> PrefixStates | None:
    """The keys and values of the shared prefix; None where there is none."""
    if not inputs.prefix:
        return None
    return compute_prefix(model, prefix_embeddings(model, inputs, prompt))


def read_part(
    model: PreTrainedModel,
    inputs: Inputs,
    prefix: PrefixStates | None,
    prompt: Tensor | None,
    *,
    cache: Cache | None = None,
    logits: bool = False,
    layers: bool = False,
) -> Positions:
    """Read conversations behind the states of their prefix, or whole where there are none.

    Args:
        model: a causal language model.
        inputs: the conversations.
        prefix: states of their prefix; None for the plain path.
        prompt: (L, d), the prompt's rows, which the plain path puts in their place.
        cache: filled by the pass, where it is needed afterwards; made by `prefix.cache()`.
        logits: whether to compute the logits.
        layers: whether to keep what each layer puts out.
    """
    if prefix is None:
        return read_whole(model, inputs, prompt, logits=logits, layers=layers)
    return read_packed(
        model,
        input_embeddings(model, torch.tensor([inputs.row_tokens()])),
        packing_of(inputs, inside=False),
        cache=cache if cache is not None else prefix.cache(),
        logits=logits,
        layers=layers,
    )


def read_with_prefix(
    model: PreTrainedModel,
    inputs: Inputs,
    prompt: Tensor | None,
    graphs: RowGraphs | None = None,
) -> Positions:
    """Read prefix and suffixes in one row, so that gradients need no detour.

    Args:
        model: a causal language model.
        inputs: the conversations.
        prompt: (L, d), the prompt's rows.
        graphs: recorded passes, one of which is replayed where it fits.
    """
    packing, tokens = packing_of(inputs, inside=True), inputs.row_tokens()
    recorded = graphs.recorded(packing) if graphs is not None else None
    if recorded is not None:
        tokens += tokens[-1:] * recorded.more
    suffixes = input_embeddings(model, torch.tensor([tokens]))
    row = torch.cat([prefix_embeddings(model, inputs, prompt), suffixes], dim=1)
    if recorded is not None:
        return Positions(recorded.read(row), None)
    return read_packed(model, row, packing)


def read_targets(
    head: Head, positions: Positions, batch: Inputs, rows: list[int], reader: TokenReader
) -> Read:
    """Representations and token values of a part of a batch, on the CPU.

    Args:
        head: of the model.
        positions: what the model computed for the part.
        batch: the whole batch.
        rows: places in the batch of the part's conversations.
        reader: what is read of the logits.
    """
    part = batch.select(rows)
    tokens = TargetTokens.of(batch, rows)
    hidden = positions.hidden
    values = torch.zeros(0)
    if len(tokens):
        places = tokens.positions(part).to(hidden.device)
        at_tokens = hidden.index_select(0, places)
        values = head.read_tokens(at_tokens, tokens.to(hidden.device), reader).cpu()
    return Read(
        representations=hidden[: len(rows)].float().cpu(),
        token_values=values,
        tokens=tokens,
        lengths=tuple(tuple(map(len, part.targets_of(row))) for row in range(len(rows))),
    )


def states_at_targets(positions: Positions, batch: Inputs, rows: list[int]) -> list[Tensor]:
    """What enters the LM head where the target tokens of a part of a batch are predicted.

    Args:
        positions: what the model computed for the part.
        batch: the whole batch.
        rows: places in the batch of the part's conversations.

    Returns:
        For each conversation (t, d) float32 on the CPU, t tokens in all its targets.
    """
    part = batch.select(rows)
    places = TargetTokens.of(batch, rows).positions(part).to(positions.hidden.device)
    counts = [sum(map(len, part.targets_of(row))) for row in range(len(rows))]
    states = positions.hidden.index_select(0, places).float().cpu()
    return list(torch.split(states, counts))


def parts_of(
    inputs: Inputs,
    waiting: Sequence[int],
    most_tokens: int,
    window: float,
    overhead: int = OVERHEAD_TOKENS,
) -> list[list[int]]:
    """Cut conversations into parts that are read together.

    Args:
        inputs: the batch.
        waiting: places in the batch of the conversations to read.
        most_tokens: tokens that a part may hold.
        window: tokens that the model's layers look back.
        overhead: tokens that take as much time as one more part.
    """
    if inputs.prefix:
        lengths = [inputs.lengths[row] for row in waiting]
        limit = min(float(most_tokens), window - len(inputs.prefix))
        buckets = length_buckets(lengths, limit, PACKED_PADDING, overhead=overhead)
    else:
        branches = [inputs.branches[row] for row in waiting]
        lengths = [
            len(inputs.suffixes[row]) + max(some, default=0)
            for row, some in zip(waiting, branches, strict=True)
        ]
        counts = [max(1, len(some)) for some in branches]
        buckets = length_buckets(lengths, float(most_tokens), counts=counts, overhead=overhead)
    return [[waiting[index] for index in bucket] for bucket in buckets]
