"""What each prompt costs on harmless queries, beside its rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from demur.evaluation.jsonl import damaged, read_rows, write_rows
from demur.evaluation.statistics import Interval, mean_interval
from demur.progress import Progress
from demur.runs import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from demur.chat import ChatModel, Condition
    from demur.evaluation.choices import TestSet


@dataclass(frozen=True)
class Cost:
    """How far a prompt moves what the model would have said to harmless queries.

    Attributes:
        prompt: its name, or `none`.
        set: the name of the query set.
        queries: how many harmless ones it has, at least 1.
        divergence: the mean KL divergence, in nats, of the next-token distribution from the
            un-prompted model's; 0 for the un-prompted model itself.
        interval: of that mean over queries, or None where there is a single query.
    """

    prompt: str
    set: str
    queries: int
    divergence: float
    interval: Interval | None

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.divergence:.2f}"
        return f"{self.divergence:.2f} ({self.interval.low:.2f} to {self.interval.high:.2f})"

    def to_row(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Cost:
        """Read what `to_row` gave; raises `TypeError` for anything else."""
        interval = row.get("interval")
        return cls(**{**row, "interval": None if interval is None else Interval(**interval)})


@dataclass
class CostMeter:
    """Measures what prompts cost, and keeps each query's divergence in the evaluation's folder.

    Attributes:
        model: whose next-token distributions are compared.
        path: the evaluation's folder; divergences are kept in `costs`.
        measured: where measurements lie whose representations can be used again.
        unprompted: the condition without a safety prompt.
        progress: hears of it.
    """

    model: ChatModel
    path: Path
    measured: RunFolder
    unprompted: Condition
    progress: Progress
    _unprompted: dict[str, Tensor] = field(default_factory=dict)

    def cost(
        self, name: str, unprompted_name: str, test_set: TestSet, condition: Condition
    ) -> Cost | None:
        """What a prompt costs on the harmless queries of a set.

        Args:
            name: of the measurement of that set under `condition`, and of the file in `costs`.
            unprompted_name: of the measurement without a safety prompt.
            test_set: the queries.
            condition: the prompt.

        Returns:
            None where the set has no harmless queries.
        """
        rows = test_set.queries.rows(harmful=False)
        if not rows:
            return None
        queries = [test_set.queries.texts[row] for row in rows]
        file = self.path / "costs" / f"{name}.jsonl"
        if not file.exists():
            divergences = self._divergences(name, unprompted_name, test_set, condition)
            write_rows(
                file,
                (
                    {"query": query, "divergence": divergence}
                    for query, divergence in zip(queries, divergences, strict=True)
                ),
            )
        try:
            kept = [float(row["divergence"]) for row in read_rows(file)]
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(file) from error
        if len(kept) != len(queries):
            raise damaged(file)
        return Cost(condition.name, test_set.name, len(kept), fmean(kept), mean_interval(kept))

    def _divergences(
        self, name: str, unprompted_name: str, test_set: TestSet, condition: Condition
    ) -> list[float]:
        from demur.evaluation.divergence import kl_divergences

        if condition.safety_prompt is None:
            return [0.0] * len(test_set.queries.rows(harmful=False))
        if test_set.name not in self._unprompted:
            self._unprompted[test_set.name] = self._representations(
                unprompted_name, test_set, self.unprompted
            )
        prompted = self._representations(name, test_set, condition)
        divergences = kl_divergences(self.model, prompted, self._unprompted[test_set.name])
        return [max(0.0, divergence) for divergence in divergences.tolist()]

    def _representations(self, name: str, test_set: TestSet, condition: Condition) -> Tensor:
        """Those of the harmless queries, from the measurement where it is at hand."""
        queries = test_set.queries
        rows = queries.rows(harmful=False)
        found = self.measured.load_measurement(name, condition.name, queries)
        if found is not None and len(found.responses) == len(queries):
            return found.representations[rows]
        description = f"Reading {test_set.name}: {condition.name}"
        with self.progress.stage(description, len(rows), "queries") as stage:
            return self.model.represent([queries.texts[row] for row in rows], condition, stage)
