"""What a prompt costs in capability: outputs for ordinary instructions, compared in pairs.

The outputs are written in the format of `alpaca_eval`, whose annotators can then compare them, or
compared here through a pairwise judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.evaluation.statistics import Rate, rate_over_queries
from demur.files import read_json, write_json
from demur.judges import PairwiseJudge, Preference
from demur.progress import Progress, SilentProgress

DATASET = "demur"
"""What the built-in instructions are called in the field `dataset`."""

_SHARES = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True)
class AlpacaOutputs:
    """Outputs for instructions, one each.

    Attributes:
        instructions: N texts.
        outputs: N texts; one may be empty.
        generator: the model and its prompt, the name in the leaderboard.
        dataset: where the instructions are from.

    Raises:
        DemurError: the numbers differ, there are none, an instruction is repeated, or the generator
            has no name.
    """

    instructions: tuple[str, ...]
    outputs: tuple[str, ...]
    generator: str
    dataset: str = DATASET

    def __post_init__(self) -> None:
        count = len(self.instructions)
        if count != len(self.outputs):
            raise DemurError(f"{count} instructions and {len(self.outputs)} outputs; give one each")
        if not count:
            raise DemurError("There are no outputs; give at least one")
        if len(set(self.instructions)) != count:
            raise DemurError("An instruction is repeated, so outputs cannot be paired; drop one")
        if not self.generator.strip():
            raise DemurError("The generator has no name; give the model's")

    def save(self, path: Path) -> None:
        """Write the JSON file that `alpaca_eval --model_outputs` reads, whole or not at all.

        Raises:
            DemurError: it cannot be written.
        """
        rows = [
            {
                "instruction": _whole(instruction),
                "output": _whole(output),
                "generator": _whole(self.generator),
                "dataset": _whole(self.dataset),
            }
            for instruction, output in zip(self.instructions, self.outputs, strict=True)
        ]
        write_json(path, rows)

    @classmethod
    def load(cls, path: Path) -> AlpacaOutputs:
        """Read a file of outputs in that format, for example the ones of a reference model.

        Raises:
            DemurError: it cannot be read or is of another format.
        """
        rows = read_json(path)
        if not isinstance(rows, list) or not rows or not all(_is_output(row) for row in rows):
            raise DemurError(
                f"{path} holds no outputs; give a JSON list of objects with instruction, output and"
                " generator"
            )
        generators = {row["generator"] for row in rows}
        if len(generators) > 1:
            raise DemurError(f"{path} holds {len(generators)} generators; give a file of one")
        return cls(
            instructions=tuple(row["instruction"] for row in rows),
            outputs=tuple(row["output"] for row in rows),
            generator=rows[0]["generator"],
            dataset=str(rows[0].get("dataset", DATASET)),
        )


@dataclass(frozen=True)
class WinRate:
    """How often one model's outputs are preferred to another's.

    Attributes:
        rate: the mean over the judged pairs, 1 for a win, 0.5 for a tie; 0.5 is no difference. The
            interval is Wilson's at 95 %. None where the judge had no verdict on any pair.
        wins: pairs whose first output is preferred.
        ties: pairs where neither is.
        losses: pairs whose second output is preferred.
        undecided: pairs on which the judge had no verdict; they are not in the rate.
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


def win_rate(
    outputs: AlpacaOutputs,
    baseline: AlpacaOutputs,
    judge: PairwiseJudge,
    progress: Progress | None = None,
) -> WinRate:
    """Compare outputs with those of a baseline for the same instructions, in whatever order.

    Raises:
        DemurError: the instructions differ, the judge fails, or it has no verdict on any pair.
    """
    others = dict(zip(baseline.instructions, baseline.outputs, strict=True))
    if set(others) != set(outputs.instructions):
        raise DemurError(
            f"{outputs.generator} and {baseline.generator} answered different instructions; export"
            " both for the same ones"
        )
    preferences = judge.prefer(
        outputs.instructions,
        outputs.outputs,
        [others[instruction] for instruction in outputs.instructions],
        progress or SilentProgress(),
    )
    won = WinRate.of(preferences)
    if won.rate is None:
        raise DemurError(f"{judge.name} has no verdict on any pair; choose another judge")
    return won


def _whole(text: str) -> str:
    """The text as it can be written: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _is_output(row: Any) -> bool:
    return isinstance(row, dict) and all(
        isinstance(row.get(name), str) for name in ("instruction", "output", "generator")
    )
