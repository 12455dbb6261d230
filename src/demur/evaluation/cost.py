"""Measuring what prompts cost, from the representations that measurements hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from demur.evaluation.answerers.protocol import MeasuresCost
from demur.evaluation.choices import TestSet
from demur.evaluation.costs import Cost
from demur.progress import Progress
from demur.prompts import Condition
from demur.records import (
    MeasurementKey,
    Query,
    StoredMeasurement,
    damaged,
    fingerprint,
    read_record,
    to_plain,
    write_record,
)

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "costs"
_FORMAT = "KL divergences"


@dataclass(frozen=True)
class Divergences:
    """The divergences of single queries, as they are stored.

    Attributes:
        prompted: identity of the measurement under the prompt.
        unprompted: fingerprint of the condition without a safety prompt.
        queries: the harmless queries.
        values: divergence of each query, in nats.
        changed: for each query, whether its likeliest first token is another than without a prompt.
    """

    prompted: MeasurementKey
    unprompted: str
    queries: tuple[Query, ...]
    values: tuple[float, ...]
    changed: tuple[bool, ...]


@dataclass
class CostMeter:
    """Measures what prompts cost, and keeps each query's divergence in the evaluation's folder.

    Attributes:
        model: what has the model.
        path: folder of the evaluation; divergences are kept in its subfolder `costs`.
        unprompted: condition without a safety prompt.
        progress: reports progress.
    """

    model: MeasuresCost
    path: Path
    unprompted: Condition
    progress: Progress
    _unprompted: dict[str, Tensor] = field(default_factory=dict)

    def cost(
        self,
        name: str,
        condition: Condition,
        test_set: TestSet,
        stored: StoredMeasurement,
        unprompted: StoredMeasurement | None,
    ) -> Cost | None:
        """What a prompt costs on the harmless queries of a set.

        Args:
            name: name of the prompt; for people.
            condition: what stands before the queries.
            test_set: the queries.
            stored: measurement of the set under the condition.
            unprompted: measurement of the set without a safety prompt, where there is one.

        Returns:
            The cost; None where the set has no harmless queries.

        Raises:
            DemurError: a stored file is damaged, or a divergence is not a finite number.
        """
        rows = test_set.queries.rows(harmful=False)
        if not rows:
            return None
        queries = tuple(test_set.queries.texts[row] for row in rows)
        file = self._file(stored.key)
        if file.exists():
            kept = read_record(file, Divergences, _FORMAT, in_work=True)
            wanted = (stored.key, self.unprompted.fingerprint, queries)
            numbers = {len(kept.values), len(kept.changed)}
            if (
                (kept.prompted, kept.unprompted, kept.queries) != wanted
                or numbers != {len(queries)}
                or not all(map(isfinite, kept.values))
            ):
                raise damaged(file)
            values, changed = kept.values, kept.changed
        else:
            values, changed = self._values(condition, test_set, rows, stored, unprompted)
        cost = Cost.of(name, condition.fingerprint, test_set.name, values, changed)
        if not file.exists():
            kept = Divergences(stored.key, self.unprompted.fingerprint, queries, values, changed)
            write_record(file, kept, _FORMAT)
        return cost

    def _file(self, key: MeasurementKey) -> Path:
        name = fingerprint(
            "divergences", prompted=to_plain(key), unprompted=self.unprompted.fingerprint
        )
        return self.path / FOLDER / f"{name[:16]}.json"

    def _values(
        self,
        condition: Condition,
        test_set: TestSet,
        rows: list[int],
        stored: StoredMeasurement,
        unprompted: StoredMeasurement | None,
    ) -> tuple[tuple[float, ...], tuple[bool, ...]]:
        """The divergence of each query, and whether its likeliest first token changed."""
        if condition.safety_prompt is None:
            return (0.0,) * len(rows), (False,) * len(rows)
        if test_set.name not in self._unprompted:
            self._unprompted[test_set.name] = self._states(
                test_set, rows, self.unprompted, unprompted
            )
        states = self._states(test_set, rows, condition, stored)
        found = self.model.next_tokens(states, self._unprompted[test_set.name])
        return tuple(found.divergences.tolist()), tuple(found.changed.tolist())

    def _states(
        self,
        test_set: TestSet,
        rows: list[int],
        condition: Condition,
        stored: StoredMeasurement | None,
    ) -> Tensor:
        """Representations of the harmless queries, from the measurement where there is one."""
        states = None if stored is None else stored.states()
        if states is not None:
            return states[rows]
        description = f"Reading {test_set.name}: {condition.name}"
        with self.progress.stage(description, len(rows), "queries") as stage:
            queries = [test_set.queries.texts[row] for row in rows]
            return self.model.represent(queries, condition, stage)
