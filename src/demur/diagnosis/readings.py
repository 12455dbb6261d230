"""The measurements that a diagnosis is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from demur.geometry import Directions, estimate_directions
from demur.records import (
    Measurement,
    Queries,
    left_out_remarks,
    rows_with_verdicts,
    with_verdicts,
)

LEAST_READINGS = 10
"""Number of readings that must refuse, and of those that must comply, for a refusal direction."""


@dataclass(frozen=True)
class Readings:
    """The anchor queries under every condition, and the held-out ones where there is a run.

    Attributes:
        anchors: one measurement for each condition, no prompt first.
        directions: directions estimated from all of them.
        layers: outputs of every layer for each condition, (N, layers, d), or None where they could
            not be read.
        held_out: held-out queries under no prompt, the basic prompt and the optimized one; empty
            without a run.
        remarks: how many queries are left out for want of a verdict, a sentence each; for people.
    """

    anchors: tuple[Measurement, ...]
    directions: Directions
    layers: tuple[Tensor, ...] | None = None
    held_out: tuple[Measurement, ...] = ()
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        anchors: Sequence[Measurement],
        components: int,
        folds: int,
        seed: int,
        *,
        layers: Sequence[Tensor] | None = None,
        held_out: Sequence[Measurement] = (),
    ) -> Readings:
        """Readings of the queries that have a verdict under every condition.

        Args:
            anchors: one measurement for each condition, no prompt first.
            components: number of principal components, m.
            folds: number of folds that the regressions are averaged over.
            seed: seed of the folds.
            layers: outputs of every layer for each condition, (N, layers, d).
            held_out: held-out queries under every condition.

        Raises:
            DemurError: fewer than half of the queries of a label have verdicts, or directions
                cannot be estimated.
        """
        rows = rows_with_verdicts(anchors)
        kept = tuple(one.select(rows) for one in anchors)
        return cls(
            anchors=kept,
            directions=directions_of(kept, components, folds, seed),
            layers=None if layers is None else tuple(one[rows] for one in layers),
            held_out=with_verdicts(held_out),
            remarks=left_out_remarks(anchors, held_out),
        )

    @property
    def queries(self) -> Queries:
        """The anchor queries."""
        return self.anchors[0].queries

    @property
    def conditions(self) -> tuple[str, ...]:
        """The names of the conditions; no two are alike."""
        return tuple(measurement.name for measurement in self.anchors)

    @property
    def refusal_is_readable(self) -> bool:
        """Whether enough readings refuse, and enough comply, to speak of a refusal direction."""
        rates = [rate for measurement in self.anchors for rate in measurement.refusal_rates()]
        refusing, complying = sum(rate > 0 for rate in rates), sum(rate < 1 for rate in rates)
        return min(refusing, complying) >= LEAST_READINGS


def directions_of(
    measurements: Sequence[Measurement],
    components: int,
    folds: int,
    seed: int,
    basis: Tensor | None = None,
) -> Directions:
    """The directions that measurements give.

    Args:
        measurements: measurements with representations.
        components: number of principal components, m.
        folds: number of folds that the regressions are averaged over.
        seed: seed of the folds.
        basis: (d, m), orthonormal columns that take the place of the principal components.

    Raises:
        DemurError: a query has no verdict, or directions cannot be estimated.
    """
    states = torch.cat([measurement.states for measurement in measurements])
    return estimate_directions(
        states,
        torch.cat([measurement.refusal_probabilities() for measurement in measurements]),
        torch.cat([measurement.queries.label_tensor() for measurement in measurements]),
        components=components,
        folds=min(folds, len(states)),  # queries without a verdict may be left out
        seed=seed,
        basis=basis,
    )
