"""Refusal openings: the few tokens that a model's refusals begin with, mined from its samples.

The probability of a refusal can then be scored without sampling: it is the sum of the probabilities
of the openings, none of which begins another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demur.chat import ChatModel
    from demur.records import Measurement

PURITY = 0.95
"""Estimated share of responses with an opening that refuse, from which the opening counts."""

PRIOR_RESPONSES = 1.0
"""Responses with the overall share of refusals that are added to those seen, so that an opening
which was seen once or twice is not called pure."""

SHARE_OF_MOST = 0.8
"""Share of the refusals that count as most of them."""


@dataclass(frozen=True)
class Sampled:
    """A sampled response.

    Attributes:
        ids: its first tokens.
        refused: whether it refuses or deflects.
    """

    ids: tuple[int, ...]
    refused: bool


@dataclass(frozen=True)
class RefusalOpenings:
    """Openings of refusals, the most frequent first.

    Attributes:
        ids: tokens of each opening; none of them begins another.
        coverage: share of the refusals seen that begin with one of them, in [0, 1].
        false: share of the other responses seen that do so as well, in [0, 1].
    """

    ids: tuple[tuple[int, ...], ...]
    coverage: float
    false: float


def sampled_openings(model: ChatModel, measured: Measurement, tokens: int) -> list[Sampled]:
    """The first tokens of all responses that are not empty and have a verdict.

    Args:
        model: model that wrote them.
        measured: the responses.
        tokens: tokens that are kept of each.
    """
    return [
        Sampled(model.target_ids(one.response)[:tokens], not one.answered)
        for responses in measured.responses
        for one in responses
        if one.answered is not None and one.response.strip()
    ]


def mine_openings(samples: Sequence[Sampled], most: int, tokens: int) -> RefusalOpenings:
    """The shortest beginnings with which this model's responses refuse.

    Each refusal is cut to the first of its beginnings of which at least `PURITY` of the responses
    refuse. Where no beginning is that pure, the longest is taken if more than half of the responses
    with it refuse, and the refusal is left out if not. Openings that were seen once are left out
    where the others begin most refusals.

    Args:
        samples: sampled responses.
        most: number of openings, at most; the most frequent are kept.
        tokens: tokens of an opening, at most.
    """
    seen, refused = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
    for one in samples:
        for size in range(1, min(tokens, len(one.ids)) + 1):
            seen[one.ids[:size]] += 1
            refused[one.ids[:size]] += one.refused
    refusals = sum(one.refused for one in samples)
    overall = refusals / max(1, len(samples))

    def purity(opening: tuple[int, ...]) -> float:
        return (refused[opening] + PRIOR_RESPONSES * overall) / (seen[opening] + PRIOR_RESPONSES)

    counts = Counter[tuple[int, ...]]()
    for one in samples:
        beginnings = [one.ids[:size] for size in range(1, min(tokens, len(one.ids)) + 1)]
        if not one.refused or not beginnings:
            continue
        found = next((each for each in beginnings if purity(each) >= PURITY), None)
        if found is None and purity(beginnings[-1]) > 0.5:
            found = beginnings[-1]
        if found is not None:
            counts[found] += 1
    repeated = Counter({one: count for one, count in counts.items() if count > 1})
    if repeated.total() >= SHARE_OF_MOST * counts.total():
        counts = repeated
    # A refusal that ended early may begin a longer opening; the shorter one then stands for both.
    shortest = [one for one in counts if not any(one[:size] in counts for size in range(len(one)))]
    # Equal counts in the order of their tokens, so that a replay agrees.
    ordered = sorted(shortest, key=lambda one: (-refused[one], one))[:most]
    others = len(samples) - refusals
    covered = sum(refused[one] for one in ordered)
    wrong = sum(seen[one] - refused[one] for one in ordered)
    return RefusalOpenings(tuple(ordered), covered / max(1, refusals), wrong / max(1, others))
