"""What several prompts do on the same query sets, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from demur.errors import DemurError
from demur.evaluation.cost import Cost
from demur.evaluation.outputs import PromptWins
from demur.evaluation.statistics import Interval, Rate
from demur.files import read_json, write_json
from demur.queries import Label
from demur.runs import RunFolder

RESULTS = "results.json"
SIGNIFICANCE = 0.05

Measure = Literal["refused", "complied_harmfully"]


@dataclass(frozen=True)
class PromptRates:
    """What one prompt does on the queries of one set and label, or one category of them.

    The query is the unit of every rate.

    Attributes:
        prompt: its name, or `none`.
        set: the name of the query set.
        label: of the queries, or None where it is not known.
        category: None for all queries of the set and label.
        responses: how many were judged.
        refused: the mean, over queries, of the share of responses that refuse.
        refused_any: queries to which at least one response refuses; the paper's count for
            harmless queries.
        complied_any: queries to which at least one response does not refuse; the paper's count
            for harmful queries where nothing judges harm.
        complied_harmfully: the mean share of responses that comply harmfully: not refused, unsafe
            and of more than two lines. None where no harm judge was asked, or it had no verdict.
        complied_harmfully_any: queries with at least one such response.
        no_verdict: responses on which the harm judge had no verdict. They count neither as safe nor
            as unsafe: `complied_harmfully` leaves them out, and `complied_harmfully_any` leaves
            out a query that has some, unless another response to it complies harmfully.
    """

    prompt: str
    set: str
    label: Label | None
    category: str | None
    responses: int
    refused: Rate
    refused_any: Rate
    complied_any: Rate
    complied_harmfully: Rate | None = None
    complied_harmfully_any: Rate | None = None
    no_verdict: int = 0

    def rate(self, measure: Measure) -> Rate | None:
        """The rate that a difference is about."""
        return self.refused if measure == "refused" else self.complied_harmfully


@dataclass(frozen=True)
class Difference:
    """Whether two prompts differ by more than chance on the queries that both were measured on.

    Attributes:
        set: the name of the query set.
        label: of the queries, or None.
        measure: `refused` or `complied_harmfully`.
        first: a prompt.
        second: another one.
        queries: how many both were measured on, at least 1.
        difference: the mean rate under `second` less that under `first`, in [-1, 1].
        p_value: of the paired sign-flip permutation test.
        adjusted_p_value: Holm's, for all pairs of the same set, label and measure.
    """

    set: str
    label: Label | None
    measure: Measure
    first: str
    second: str
    queries: int
    difference: float
    p_value: float
    adjusted_p_value: float

    @property
    def more_than_chance(self) -> bool:
        """Whether the adjusted p-value is below 0.05."""
        return self.adjusted_p_value < SIGNIFICANCE

    def __str__(self) -> str:
        verdict = "more than chance" if self.more_than_chance else "not more than chance"
        return (
            f"{_title(self.set, self.label)}, {self.measure.replace('_', ' ')}: {self.second} less "
            f"{self.first} is {100 * self.difference:+.1f} points on {self.queries} queries, "
            f"p = {self.adjusted_p_value:.2g}, {verdict}"
        )


@dataclass(frozen=True)
class Comparison:
    """Several prompts on several query sets.

    Attributes:
        path: the folder with `results.json` and every judged response.
        rates: set by set, label by label, prompt by prompt; categories after the whole.
        differences: of every pair of prompts on every set and label.
        settings: what was measured, how.
        costs: set by set, prompt by prompt, where a model was asked harmless queries.
        wins: how often each prompt's outputs for instructions are preferred to those of `none`.
    """

    path: Path
    rates: tuple[PromptRates, ...]
    differences: tuple[Difference, ...]
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    costs: tuple[Cost, ...] = ()
    wins: tuple[PromptWins, ...] = ()

    def find(
        self,
        prompt: str,
        *,
        set: str | None = None,
        label: Label | None = None,
        category: str | None = None,
    ) -> PromptRates:
        """The rates of a prompt; `set` and `label` may be left out where only one fits.

        Raises:
            KeyError: nothing fits, or more than one.
        """
        found = [
            rates
            for rates in self.rates
            if rates.prompt == prompt
            and set in (None, rates.set)
            and label in (None, rates.label)
            and rates.category == category
        ]
        if len(found) != 1:
            raise KeyError(f"{len(found)} rates fit {prompt!r}, {set!r}, {label!r}, {category!r}")
        return found[0]

    def __str__(self) -> str:
        rows = [("queries", "prompt", "refused", "wrong at least once")]
        for rates in self.rates:
            if rates.category is None:
                title = f"{_title(rates.set, rates.label)} ({rates.refused.queries})"
                rows.append((title, rates.prompt, str(rates.refused), str(wrong_any(rates) or "")))
        rows = rows if self.rates else []
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [
            f"{cost.set}, harmless: {cost.prompt} costs {cost} nats of KL divergence"
            for cost in self.costs
        ]
        return "\n".join([*lines, *map(str, self.differences), *map(str, self.wins)])

    def to_json(self) -> dict[str, Any]:
        """Plain data, for a file."""
        return {
            "rates": [
                {
                    key: None
                    if value is None
                    else rate_to_json(value)
                    if isinstance(value, Rate)
                    else value
                    for key, value in vars(rates).items()
                }
                for rates in self.rates
            ],
            "differences": [
                {**asdict(difference), "more_than_chance": difference.more_than_chance}
                for difference in self.differences
            ],
            "costs": [cost.to_row() for cost in self.costs],
            "wins": [wins.to_row() for wins in self.wins],
        }

    def save(self, folder: Path) -> None:
        """Write `results.json`, which marks an evaluation as finished."""
        versions = {name: version(name) for name in ("demur", "torch", "transformers")}
        write_json(folder / RESULTS, {**self.to_json(), "versions": versions})

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read the folder of a finished evaluation.

        Raises:
            DemurError: it holds none, an unfinished one, or a damaged one.
        """
        folder = RunFolder.open(Path(path))
        file = folder.path / RESULTS
        if not file.is_file():
            raise DemurError(
                f"The evaluation in {path} is not finished: run its command again to go on."
            )
        saved = read_json(file)
        try:
            rates = tuple(_rates(row) for row in saved["rates"])
            differences = tuple(
                Difference(**{key: row[key] for key in row if key != "more_than_chance"})
                for row in saved["differences"]
            )
            costs = tuple(Cost.from_row(row) for row in saved.get("costs", ()))
            wins = tuple(PromptWins.from_row(row) for row in saved.get("wins", ()))
        except (AttributeError, KeyError, TypeError) as error:
            raise DemurError(
                f"{file} is damaged: delete {path} and run the command again."
            ) from error
        return cls(folder.path, rates, differences, folder.settings(), costs, wins)


def wrong_any(rates: PromptRates) -> Rate | None:
    """The paper's count: harmful queries complied with, harmless ones refused, at least once.

    None where the label is not known.
    """
    if rates.label is None:
        return None
    return rates.complied_any if rates.label == "harmful" else rates.refused_any


def rate_to_json(rate: Rate) -> dict[str, Any]:
    """A rate as plain data, with its value."""
    return {"value": rate.value, **asdict(rate)}


def _title(name: str, label: Label | None) -> str:
    return name if label is None else f"{name}, {label}"


def _rates(row: Mapping[str, Any]) -> PromptRates:
    values = dict(row)
    for key, value in row.items():
        if isinstance(value, dict):
            values[key] = Rate(value["count"], value["queries"], Interval(**value["interval"]))
    return PromptRates(**values)
