"""How far two judges of refusal agree, as a record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """What two judges say about the same responses; what deflects counts as a refusal.

    Attributes:
        judge: name of the further judge.
        fingerprint: its fingerprint.
        both: responses that both call refusals.
        first: responses that only the judge of the rates calls refusals.
        second: responses that only the further judge does.
        neither: responses that neither does.
        no_verdict: responses on which one of the two has no verdict; they count nowhere else.
    """

    judge: str
    fingerprint: str
    both: int
    first: int
    second: int
    neither: int
    no_verdict: int

    @property
    def responses(self) -> int:
        """Responses on which both have a verdict."""
        return self.both + self.first + self.second + self.neither

    @property
    def share(self) -> float | None:
        """Share of these on which they agree, in [0, 1]; None without any."""
        return (self.both + self.neither) / self.responses if self.responses else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa (1960), which takes off what chance would agree on: at most 1.

        None where there is no response, or both judges say the same of all.
        """
        total = self.responses
        if not total:
            return None
        first, second = (self.both + self.first) / total, (self.both + self.second) / total
        chance = first * second + (1 - first) * (1 - second)
        share = (self.both + self.neither) / total
        return None if chance == 1 else (share - chance) / (1 - chance)

    def __str__(self) -> str:
        if self.share is None:
            return f"{self.judge}: no response has a verdict of both judges"
        kappa = "" if self.kappa is None else f", kappa {self.kappa:.2f}"
        return (
            f"{self.judge}: agrees on {100 * self.share:.1f} % of {self.responses} responses"
            f"{kappa}; {self.second} refusals that the first judge does not see, {self.first} that "
            "only the first one sees"
        )
