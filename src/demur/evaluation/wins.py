"""How often one prompt's outputs are preferred to another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demur.evaluation.statistics import rate_over_queries
from demur.judges.preference import Preference
from demur.records import Rate

_SHARES = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True)
class WinRate:
    """How often one model's outputs are preferred to another's.

    Attributes:
        rate: mean over the judged pairs, 1 for a win and 0.5 for a tie, with Wilson's 95 %
            interval; 0.5 is no difference. None where the judge had no verdict on any pair.
        wins: number of pairs whose first output is preferred.
        ties: number of pairs where neither is.
        losses: number of pairs whose second output is preferred.
        undecided: number of pairs on which the judge had no verdict; they are not in the rate.
    """

    rate: Rate | None
    wins: int
    ties: int
    losses: int
    undecided: int

    @classmethod
    def of(cls, preferences: Sequence[Preference]) -> WinRate:
        """Count the preferences on pairs, those for the first outputs as wins."""
        decided = [preference for preference in preferences if preference is not None]
        shares = [_SHARES[preference] for preference in decided]
        return cls(
            rate=rate_over_queries(shares) if shares else None,
            wins=decided.count("first"),
            ties=decided.count("tie"),
            losses=decided.count("second"),
            undecided=len(preferences) - len(decided),
        )

    def __str__(self) -> str:
        if self.rate is None:
            return f"no verdict on any of {self.undecided} pairs"
        return f"{self.rate} of {self.rate.queries} pairs"


@dataclass(frozen=True)
class PromptWins:
    """How often the outputs under one prompt are preferred to those under another.

    Attributes:
        prompt: name of a prompt.
        baseline: name of another one, `none` in an evaluation.
        won: win rate of `prompt`.
    """

    prompt: str
    baseline: str
    won: WinRate

    def __str__(self) -> str:
        return f"{self.prompt} is preferred to {self.baseline}: {self.won}"
