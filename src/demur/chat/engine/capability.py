"""Whether the shared path gives what the plain path gives, found out once for each model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.chat.engine.architecture import shortest_window, takes_position_ids
from demur.chat.engine.decoder import Decoder
from demur.chat.engine.finite import FiniteNumbers
from demur.chat.engine.forward import embedding_table
from demur.chat.engine.inputs import Inputs
from demur.chat.engine.plain import read_whole
from demur.chat.engine.prefix import SuffixStates, compute_prefix, unexpandable_layers
from demur.chat.engine.reading import packing_of, prefix_embeddings, read_part, read_with_prefix
from demur.chat.engine.slots import Arrival
from demur.errors import DemurError

TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 6e-2}
"""Largest relative difference between the paths, by dtype.

A wrong mask or position gives far more."""

PrefixSharing = Literal["auto", "on", "off"]
"""Whether conversations share the computation of their opening.

`auto` where that is exact, `on` always (an error where it is not exact), `off` never."""

Cause = Literal["turned off", "cache", "positions", "error", "not finite", "difference"]


@dataclass(frozen=True)
class Verdict:
    """Whether the shared path serves a model.

    Attributes:
        shares_prefix: True for the shared path, False for the plain path.
        cause: kind of the reason for the plain path; None for the shared path. `turned off`: as
            asked for. `cache`: the model's cache is not plain attention. `positions`: it cannot be
            told positions. `error`: the shared path raised an exception. `not finite`: it gave NaN
            or infinity. `difference`: the two paths disagree.
        reason: the reason as the end of a sentence, after "because"; empty for the shared path.
    """

    shares_prefix: bool
    cause: Cause | None = None
    reason: str = ""

    def remark(self, name: str) -> str | None:
        """What is reported of a model on the plain path; None where that is as asked for.

        Args:
            name: name of the model.
        """
        if self.shares_prefix or self.cause == "turned off":
            return None
        return (
            f"{name} takes the plain path, which is slower and gives the same results up to "
            f"rounding, because {self.reason}."
        )


@dataclass(frozen=True)
class _Example:
    """Short random conversations with what the plain path makes of them.

    Attributes:
        inputs: two conversations; the first has two targets, so its suffix forks.
        answers: a token that is said to each, for a step of sampling.
        hidden: what the plain path reads at `Packing.reads`.
        logits: (2, V), after each conversation.
        next_logits: (2, V), after its answer.
    """

    inputs: Inputs
    answers: tuple[int, int]
    hidden: Tensor
    logits: Tensor
    next_logits: Tensor


def check_sharing(sharing: str) -> None:
    """Check a choice of prefix sharing.

    Raises:
        DemurError: it is none of the three.
    """
    if sharing not in get_args(PrefixSharing):
        raise DemurError(f"There is no prefix sharing {sharing!r}: choose auto, on or off.")


def judge_paths(
    model: PreTrainedModel, sharing: PrefixSharing = "auto", name: str = "The model"
) -> Verdict:
    """Decide which path serves a model.

    Short random conversations are run both ways, up to the second token of a response and with
    continuations that are scored.

    Args:
        model: a causal language model.
        sharing: `auto` takes the shared path where it gives what the plain path gives, `on` insists
            on it, `off` takes the plain path.
        name: what messages call the model.

    Raises:
        DemurError: the model cannot be run, gives values that are not numbers, or cannot share a
            prefix though `sharing` is `on`.
    """
    check_sharing(sharing)
    with torch.inference_mode():
        example = _example(model, name)
        if sharing == "off":
            return Verdict(False, "turned off", "prefix sharing is turned off")
        verdict = _judge(model, example)
    if sharing == "on" and not verdict.shares_prefix:
        raise DemurError(
            f"{name} cannot share a prefix because {verdict.reason}: "
            "leave prefix sharing at auto or turn it off."
        )
    return verdict


def _example(model: PreTrainedModel, name: str) -> _Example:
    vocabulary = embedding_table(model).shape[0]
    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (length,), generator=generator).tolist())

    # Eight tokens in all, so that they fit in the shortest windows.
    prefix, suffixes = tokens(3), (tokens(1), tokens(2))
    first, second, other = tokens(3)
    targets = ((first, 0), (other, 0))
    inputs = Inputs(prefix, suffixes, None, (targets, ()))
    longer = ((*suffixes[0], first), (*suffixes[0], other), (*suffixes[1], second))
    try:
        read = read_whole(model, Inputs(prefix, suffixes + longer, None), None, logits=True)
    except Exception as error:  # a model's forward function may fail in any way
        raise DemurError(
            f"{name} cannot be run ({_one_line(error)}): use a causal language model that takes"
            " inputs_embeds."
        ) from error
    assert read.logits is not None
    numbers = FiniteNumbers(model, name)
    numbers.check_any(read.hidden)
    numbers.check_logits(read.logits)
    return _Example(
        inputs=inputs,
        answers=(first, second),
        hidden=read.hidden[:4],  # the ends of both suffixes, then the two branches
        logits=read.logits[:2],
        next_logits=read.logits[[2, 4]],
    )


def _judge(model: PreTrainedModel, example: _Example) -> Verdict:
    kinds = unexpandable_layers(model)
    if kinds:
        return Verdict(
            False,
            "cache",
            f"its cache cannot be expanded (it holds {', '.join(kinds)}, not the keys and values"
            " of attention alone)",
        )
    if not takes_position_ids(model):
        return Verdict(False, "positions", "its forward function takes no position_ids")
    try:
        pairs = _shared_values(model, example)
    except Exception as error:  # a model's forward function may fail in any way
        return Verdict(False, "error", f"the shared path failed on it ({_one_line(error)})")
    worst = 0.0
    for found, expected in pairs:
        norms = float((found.float() - expected.float()).norm()), float(expected.float().norm())
        if not bool(found.isfinite().all()) and bool(expected.isfinite().all()):
            return Verdict(
                False, "not finite", "the shared path gave values that are not numbers on it"
            )
        worst = max(worst, norms[0] / max(norms[1], 1e-30))
    most = TOLERANCE.get(model.dtype, 1e-3)
    if worst <= most:
        return Verdict(True)
    return Verdict(
        False,
        "difference",
        f"the two paths differ by {100 * worst:.2f} % on it, and at most {100 * most:.1f} % is "
        f"allowed in {_short(model.dtype)}",
    )


def _shared_values(model: PreTrainedModel, example: _Example) -> list[tuple[Tensor, Tensor]]:
    """What the shared path computes, each with what the plain path computed."""
    inputs, opening = example.inputs, prefix_embeddings(model, example.inputs, None)
    row = read_with_prefix(model, inputs, None)
    pairs = [(row.hidden, example.hidden)]
    prefix = compute_prefix(model, opening)
    pairs.append((read_part(model, inputs, prefix, None).hidden, example.hidden))

    alone = inputs.without_targets()
    cache = prefix.cache()
    behind = read_part(model, alone, prefix, None, cache=cache, logits=True)
    assert behind.logits is not None
    pairs += [(behind.hidden, example.hidden[:2]), (behind.logits, example.logits)]
    if alone.longest + 1 > shortest_window(model):
        return pairs  # such conversations are not sampled in slots
    decoder = Decoder(model, prefix, slots=2, capacity=alone.longest + 1)
    states = SuffixStates.of(cache, packing_of(alone, inside=False))
    decoder.cache.add([Arrival(states, place) for place in range(2)])
    return [*pairs, (decoder.step(example.answers), example.next_logits)]


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
