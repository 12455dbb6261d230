"""What training leaves on disk: the prompt of every epoch, and the state of the optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import DemurError
from demur.optimization.recorded import EpochRecord
from demur.records import (
    StoredTensors,
    damaged,
    from_plain,
    read_tensors,
    to_plain,
    write_tensors,
)

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "training"


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        prompt: (L, d) float32, the prompt after its last step.
        record: mean loss and mean of each term.
        representations: (N, d) float32, the anchor queries as the training read them; None where
            they are not kept.
    """

    prompt: Tensor
    record: EpochRecord
    representations: Tensor | None


@dataclass(frozen=True)
class OptimizerState:
    """The state of the optimizer after an epoch.

    Attributes:
        epoch: number of finished epochs.
        mean: (L, d), mean of the prompts after each step.
        tensors: state of AdamW: `step`, `exp_avg` and `exp_avg_sq`.
    """

    epoch: int
    mean: Tensor
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class _Notes:
    run: str
    epoch: int
    record: EpochRecord | None


class Checkpoints:
    """The checkpoints in the folder of a run: `training/epoch-001.safetensors` and so on.

    Args:
        folder: folder of the run.
        run: fingerprint of the run; files of another run count as missing.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._folder = folder / FOLDER
        self._run = run

    @property
    def finished(self) -> int:
        """Number of epochs that are stored with all that is needed to go on; 0 for none.

        Raises:
            DemurError: a file is damaged.
        """
        state = self.state()
        if state is None or any(self.epoch(each) is None for each in range(1, state.epoch + 1)):
            return 0
        return state.epoch

    def epoch(self, number: int) -> Epoch | None:
        """What an epoch came to; None where it is not stored.

        Args:
            number: from 1.

        Raises:
            DemurError: the file is damaged.
        """
        path = self._path(number)
        found = self._read(path, number)
        if found is None:
            return None
        stored, notes = found
        if notes.record is None or "prompt" not in stored.tensors:
            raise damaged(path)
        return Epoch(stored.tensors["prompt"], notes.record, stored.tensors.get("representations"))

    def require(self, number: int) -> Epoch:
        """What an epoch came to.

        Raises:
            DemurError: the file is missing or damaged.
        """
        found = self.epoch(number)
        if found is None:
            raise DemurError(
                f"{self._path(number)} is missing: run the command of that run again to go on."
            )
        return found

    def state(self) -> OptimizerState | None:
        """The state of the optimizer after the last epoch; None where there is none.

        Raises:
            DemurError: the file is damaged.
        """
        found = self._read(self._state_path, None)
        if found is None:
            return None
        stored, notes = found
        tensors = dict(stored.tensors)
        if set(tensors) != {"mean", "step", "exp_avg", "exp_avg_sq"} or notes.epoch < 1:
            raise damaged(self._state_path)
        return OptimizerState(notes.epoch, tensors.pop("mean"), tensors)

    def save(self, epoch: Epoch, state: OptimizerState) -> None:
        """Keep what an epoch came to, and then the state, which says that it is finished.

        Raises:
            DemurError: the disk is full or the place cannot be written.
        """
        tensors = {"prompt": epoch.prompt}
        if epoch.representations is not None:
            tensors["representations"] = epoch.representations
        notes = _Notes(self._run, state.epoch, epoch.record)
        write_tensors(self._path(state.epoch), tensors, to_plain(notes))
        write_tensors(
            self._state_path,
            {"mean": state.mean, **state.tensors},
            to_plain(_Notes(self._run, state.epoch, None)),
        )

    def _path(self, number: int) -> Path:
        return self._folder / f"epoch-{number:03}.safetensors"

    @property
    def _state_path(self) -> Path:
        return self._folder / "optimizer.safetensors"

    def _read(self, path: Path, number: int | None) -> tuple[StoredTensors, _Notes] | None:
        stored = read_tensors(path)
        if stored is None:
            return None
        try:
            notes = from_plain(_Notes, stored.notes)
        except ValueError as error:
            raise damaged(path) from error
        if notes.run != self._run or (number is not None and notes.epoch != number):
            return None
        return stored, notes
