"""Outputs for ordinary instructions in the format of `alpaca_eval`, and how often one wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.bars import default_progress
from demur.errors import DemurError
from demur.evaluation.wins import WinRate
from demur.files import read_json, write_json
from demur.judges.preference import PairwiseJudge
from demur.progress import Progress
from demur.records import answer_in

DATASET = "demur"
"""The field `dataset` of the built-in instructions."""


@dataclass(frozen=True)
class AlpacaOutputs:
    """Outputs for instructions, one each.

    Attributes:
        instructions: N instructions.
        outputs: N outputs; one may be empty.
        generator: name of the model and its prompt on the leaderboard.
        dataset: name of what the instructions are from.

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
            raise DemurError(
                f"{count} instructions and {len(self.outputs)} outputs: give one each."
            )
        if not count:
            raise DemurError("There are no outputs: give at least one.")
        if len(set(self.instructions)) != count:
            raise DemurError("An instruction is repeated, so outputs cannot be paired: drop one.")
        if not self.generator.strip():
            raise DemurError("The generator has no name: give the model's.")

    def save(self, path: Path) -> None:
        """Write the JSON file that `alpaca_eval --model_outputs` reads, whole or not at all.

        Raises:
            DemurError: it cannot be written.
        """
        write_json(path, self._rows())

    def is_in(self, path: Path) -> bool:
        """Whether a file holds exactly these outputs."""
        try:
            return bool(read_json(path) == self._rows())
        except DemurError:
            return False

    def _rows(self) -> list[dict[str, str]]:
        return [
            {
                "instruction": _whole(instruction),
                "output": _whole(output),
                "generator": _whole(self.generator),
                "dataset": _whole(self.dataset),
            }
            for instruction, output in zip(self.instructions, self.outputs, strict=True)
        ]

    @classmethod
    def load(cls, path: Path) -> AlpacaOutputs:
        """Read a file of outputs in that format, for example the ones of a reference model.

        Raises:
            DemurError: it cannot be read or is of another format.
        """
        rows = read_json(path)
        if not isinstance(rows, list) or not rows or not all(_is_output(row) for row in rows):
            raise DemurError(
                f"{path} holds no outputs: give a JSON list of objects with instruction, output "
                "and generator."
            )
        generators = {row["generator"] for row in rows}
        if len(generators) > 1:
            raise DemurError(f"{path} holds {len(generators)} generators: give a file of one.")
        return cls(
            instructions=tuple(row["instruction"] for row in rows),
            outputs=tuple(row["output"] for row in rows),
            generator=rows[0]["generator"],
            dataset=str(rows[0].get("dataset", DATASET)),
        )


def win_rate(
    outputs: AlpacaOutputs,
    baseline: AlpacaOutputs,
    judge: PairwiseJudge,
    progress: Progress | None = None,
) -> WinRate:
    """Compare outputs with those of a baseline for the same instructions, in any order.

    Args:
        outputs: outputs of a model.
        baseline: outputs of another one.
        judge: judge of pairs.
        progress: reports progress.

    Raises:
        DemurError: the instructions differ, the judge fails, or it has no verdict on any pair.
    """
    others = dict(zip(baseline.instructions, baseline.outputs, strict=True))
    if set(others) != set(outputs.instructions):
        raise DemurError(
            f"{outputs.generator} and {baseline.generator} answered different instructions: "
            "export both for the same ones."
        )
    preferences = judge.prefer(
        outputs.instructions,
        answers_in(outputs.outputs),
        answers_in([others[instruction] for instruction in outputs.instructions]),
        progress or default_progress(),
    )
    won = WinRate.of(preferences)
    if won.rate is None:
        raise DemurError(f"{judge.name} has no verdict on any pair: choose another judge.")
    return won


def answers_in(outputs: Sequence[str]) -> list[str]:
    """Outputs without the reasoning before the answer; empty where one is reasoning alone."""
    return [answer_in(output) or "" for output in outputs]


def _whole(text: str) -> str:
    """The text as it can be written: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _is_output(row: Any) -> bool:
    return isinstance(row, dict) and all(
        isinstance(row.get(name), str) for name in ("instruction", "output", "generator")
    )
