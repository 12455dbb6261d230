"""Preferences between the outputs under two prompts, stored batch by batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from demur.errors import DemurError
from demur.evaluation.alpaca import AlpacaOutputs, answers_in
from demur.evaluation.changed_options import keep_changes
from demur.evaluation.wins import WinRate
from demur.judges.preference import PairwiseJudge, Preference
from demur.progress import Progress
from demur.records import MeasurementKey, MeasurementStore, fingerprint, to_plain
from demur.records.kept import KeptRecords

FOLDER = "preferences"
PAIRS_AT_ONCE = 64
"""Number of pairs that are judged before their preferences are stored."""


@dataclass(frozen=True)
class PreferenceRow:
    """The preference on one pair.

    Attributes:
        instruction: the instruction.
        preferred: `first` for the output under the prompt, `second` for the baseline's, `tie`, or
            None where the judge had no verdict.
    """

    instruction: str
    preferred: Literal["first", "second", "tie"] | None


@dataclass(frozen=True)
class PreferenceKey:
    """Identity of the preferences between two prompts.

    Attributes:
        outputs: identity of the measurement of the outputs under the prompt.
        baseline: identity of the measurement of the baseline's.
        judge: fingerprint of the judge.
    """

    outputs: MeasurementKey
    baseline: MeasurementKey
    judge: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the three together."""
        return fingerprint("preferences", **to_plain(self))


class Preferences:
    """Preferences in a folder; they grow by appending.

    Args:
        folder: folder of the evaluation.
        key: identity of the preferences.
    """

    def __init__(self, folder: Path, key: PreferenceKey) -> None:
        self._folder, self._key = folder, key

    def judged(
        self,
        outputs: AlpacaOutputs,
        baseline: AlpacaOutputs,
        judge: PairwiseJudge,
        progress: Progress,
        withheld: Collection[int] = (),
    ) -> WinRate:
        """Judge the pairs that are not stored yet, and count all.

        Args:
            outputs: outputs under the prompt.
            baseline: outputs of the baseline for the same instructions.
            judge: judge of pairs.
            progress: reports progress.
            withheld: indices of the pairs that lack an output. They have no verdict, and the judge
                is not asked about them.

        Raises:
            DemurError: a stored file is damaged, or the judge fails.
        """
        kept = KeptRecords(
            self._folder / FOLDER,
            self._key.fingerprint[:16],
            PreferenceRow,
            to_plain(self._key),
            "other outputs",
        )
        while (start := len(kept.found)) < len(outputs.instructions):
            pairs = range(start, min(start + PAIRS_AT_ONCE, len(outputs.instructions)))
            whole = [place for place in pairs if place not in withheld]
            found = dict(
                zip(whole, _preferred(outputs, baseline, whole, judge, progress), strict=True)
            )
            keep_changes(MeasurementStore(self._folder), (judge,))
            kept.append(
                [PreferenceRow(outputs.instructions[place], found.get(place)) for place in pairs],
                finished=pairs.stop == len(outputs.instructions),
            )
        if [row.instruction for row in kept.found] != list(outputs.instructions):
            raise kept.damaged("it belongs to other instructions")
        return WinRate.of([row.preferred for row in kept.found])


def _preferred(
    outputs: AlpacaOutputs,
    baseline: AlpacaOutputs,
    places: Sequence[int],
    judge: PairwiseJudge,
    progress: Progress,
) -> Sequence[Preference]:
    """The judge's preferences on some pairs."""
    if not places:
        return []
    preferred = judge.prefer(
        [outputs.instructions[place] for place in places],
        answers_in([outputs.outputs[place] for place in places]),
        answers_in([baseline.outputs[place] for place in places]),
        progress,
    )
    if len(preferred) != len(places):
        raise DemurError(
            f"The preference judge {judge.name!r} gave {len(preferred)} verdicts on "
            f"{len(places)} pairs: use one that gives a verdict on each."
        )
    return preferred
