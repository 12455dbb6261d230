"""What a model reads without a safety prompt, kept from one evaluation to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from torch import Tensor

from demur.chat import ChatModel
from demur.prompts import Condition
from demur.records import Query, fingerprint, identity_of

MOST_KEPT = 4
"""Readings of a model that are kept."""

MOST_BYTES = 2**26
"""Largest reading that is kept; 25 answers of 64 tokens have 10 MB at a width of 1,536."""

_kept: WeakKeyDictionary[ChatModel, dict[str, Tensor]] = WeakKeyDictionary()


def read_once(
    model: ChatModel,
    queries: Sequence[Query],
    condition: Condition,
    read: Callable[[], Tensor],
    answers: Sequence[Sequence[int]] = (),
) -> Tensor:
    """States of a model, read again only where a safety prompt stands before the queries.

    The cost of every prompt is measured against the model without one. The evaluations of a study
    share a model, so for all but the first of them these states are there.

    Args:
        model: the model; its weights never change.
        queries: what is read.
        condition: what stands before the queries.
        read: reads the states.
        answers: token ids of the answers that are read behind the queries, if any.
    """
    if condition.safety_prompt is not None:
        return read()
    key = fingerprint(
        "states without a prompt",
        condition=condition.fingerprint,
        queries=[identity_of(query) for query in queries],
        answers=[list(answer) for answer in answers],
    )
    kept = _kept.setdefault(model, {})
    if key in kept:
        return kept[key]
    states = read()
    if states.nbytes <= MOST_BYTES:
        while len(kept) >= MOST_KEPT:
            del kept[next(iter(kept))]
        kept[key] = states
    return states
