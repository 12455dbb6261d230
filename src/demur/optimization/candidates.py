"""The prompts of a run to choose from, as the terminal and the report show them."""

from __future__ import annotations

from dataclasses import dataclass

from demur.optimization.run import Run
from demur.optimization.validation import PRICE_OF_EXCESS, Pick, Validation

CANDIDATES = "Prompts to choose from: refused on validation queries, scored"
"""Title of their table."""

CHOSEN_BY = "chosen by"
COLUMNS = ("epoch", "harmful", "harmless", "at 2 %", "at 5 %", CHOSEN_BY)

_LATER_WINS: tuple[Pick, ...] = ("strict", "careful", "balanced")
"""Of several picks that take the same epoch, the last of these is named."""


@dataclass(frozen=True)
class Candidate:
    """A prompt that the run could have kept.

    Attributes:
        epoch: number of the epoch that it comes from, from 1.
        scored: how it does on the validation queries.
        pick: the `--pick` that takes it; None where there is none.
        kept: whether it is the prompt of the run.
    """

    epoch: int
    scored: Validation
    pick: Pick | None
    kept: bool

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of the table, a cell for each of `COLUMNS`."""
        ranking = self.scored.ranking
        found = () if ranking is None else (ranking.found_at_2, ranking.found_at_5)
        chosen = [f"--pick {self.pick}"] if self.pick else []
        return (
            str(self.epoch),
            f"{100 * self.scored.harmful:.1f} %",
            f"{100 * self.scored.harmless:.1f} %",
            *([f"{100 * share:.0f} %" for share in found] or ("", "")),
            " ".join([*chosen, *(["(this one)"] if self.kept else [])]),
        )


def candidates_of(run: Run) -> tuple[Candidate, ...]:
    """The prompts of the front and those of each `--pick`, from careful to strict.

    Args:
        run: a finished run.

    Returns:
        None at all where the method scores no refusals.
    """
    picks = {run.epoch_of(pick): pick for pick in _LATER_WINS}
    found = [
        Candidate(epoch, one.validation, picks.get(epoch), epoch == run.results.epoch)
        for epoch, one in enumerate(run.history, start=1)
        if one.validation is not None and (epoch in picks or epoch in run.front)
    ]
    return tuple(
        sorted(found, key=lambda one: (one.scored.harmless, one.scored.harmful, one.epoch))
    )


def notes_on_candidates(budget: float) -> tuple[str, ...]:
    """How their table is to be read, a sentence without its end each.

    Args:
        budget: the benign budget of the run, in [0, 1].
    """
    return (
        "scored: by the probability of a refusal, without sampling a response",
        "at 2 %, at 5 %: harmful queries more likely to be refused than all but 2 or 5 % of the "
        "harmless ones",
        f"chosen by: harmful refused, less {PRICE_OF_EXCESS:.0f} times what is refused of the "
        f"harmless beyond the benign budget, {100 * budget:.0f} % (careful: a quarter of it, "
        "strict: four times as much)",
    )
