"""What a check came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "failed", "undecided"]
"""What a check came to.

- `passed`: what was measured shows that it holds.
- `failed`: what was measured shows that it does not.
- `undecided`: there are too few queries or verdicts to show either.
"""


@dataclass(frozen=True)
class Check:
    """One requirement, or one comparison with the baseline, on one prompt and group of queries.

    Attributes:
        name: what is checked: the requirement as it was written, or `not worse than` the baseline.
        about: the prompt and the queries.
        status: what it came to.
        found: what was measured, in words.
        advice: what to do next; empty where there is nothing to say.
    """

    name: str
    about: str
    status: Status
    found: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.status.upper()}  {self.name}  {self.about}: {self.found}"
