"""Rates of refusal under several prompts, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from demur.evaluation.statistics import Interval, Rate, any_rate, rate_over_queries
from demur.runs import Measurement


@dataclass(frozen=True)
class PromptResult:
    """What one prompt does.

    Attributes:
        prompt: its name, or `none`.
        harmful_refused: mean rate at which harmful queries are refused.
        harmless_refused: mean rate at which harmless queries are refused.
        harmful_complied_any: harmful queries to which at least one response does not refuse.
        harmless_refused_any: harmless queries to which at least one response refuses.
        divergence: mean KL divergence, in nats, of the next-token distribution from the
            un-prompted model's on harmless queries; 0 for the un-prompted model itself.
    """

    prompt: str
    harmful_refused: Rate
    harmless_refused: Rate
    harmful_complied_any: Rate
    harmless_refused_any: Rate
    divergence: float


@dataclass(frozen=True)
class Evaluation:
    """Several prompts measured on the same queries."""

    results: tuple[PromptResult, ...]

    def __getitem__(self, prompt: str) -> PromptResult:
        """The result of a prompt by name.

        Raises:
            KeyError: it was not measured.
        """
        for result in self.results:
            if result.prompt == prompt:
                return result
        raise KeyError(prompt)

    def __str__(self) -> str:
        rows = [("prompt", "harmful refused", "harmless refused", "KL divergence")]
        rows += [
            (
                result.prompt,
                str(result.harmful_refused),
                str(result.harmless_refused),
                f"{result.divergence:.2f}",
            )
            for result in self.results
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data, for a file."""
        return [asdict(result) for result in self.results]

    @classmethod
    def from_json(cls, rows: Sequence[Mapping[str, Any]]) -> Evaluation:
        """Read what `to_json` gave."""
        return cls(tuple(_result(row) for row in rows))


def evaluate_measurements(
    measurements: Sequence[Measurement], divergences: Sequence[float]
) -> Evaluation:
    """Count refusals.

    Args:
        measurements: one for each prompt, of the same queries.
        divergences: for each prompt its `PromptResult.divergence`.
    """
    return Evaluation(
        tuple(
            _count(measurement, divergence)
            for measurement, divergence in zip(measurements, divergences, strict=True)
        )
    )


def _count(measurement: Measurement, divergence: float) -> PromptResult:
    rates = measurement.refusal_rates()
    harmful = [rates[row] for row in measurement.queries.rows(harmful=True)]
    harmless = [rates[row] for row in measurement.queries.rows(harmful=False)]
    return PromptResult(
        prompt=measurement.condition,
        harmful_refused=rate_over_queries(harmful),
        harmless_refused=rate_over_queries(harmless),
        harmful_complied_any=any_rate([1 - rate for rate in harmful]),
        harmless_refused_any=any_rate(harmless),
        divergence=divergence,
    )


def _result(row: Mapping[str, Any]) -> PromptResult:
    def rate(name: str) -> Rate:
        value = row[name]
        return Rate(value["count"], value["queries"], Interval(**value["interval"]))

    return PromptResult(
        prompt=row["prompt"],
        harmful_refused=rate("harmful_refused"),
        harmless_refused=rate("harmless_refused"),
        harmful_complied_any=rate("harmful_complied_any"),
        harmless_refused_any=rate("harmless_refused_any"),
        divergence=row["divergence"],
    )
