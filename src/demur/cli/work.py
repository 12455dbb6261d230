"""What `optimize`, `evaluate` and `diagnose` have in common."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from demur.chat.settings import WorkLoadSettings
from demur.errors import DemurError
from demur.records import RESULTS, SETTINGS, WorkFolder, kind_of

if TYPE_CHECKING:
    from demur.attacks import Robustness
    from demur.diagnosis import Diagnosis
    from demur.evaluation.comparison import Comparison
    from demur.optimization import Run

Record = TypeVar("Record")

OFF = "`--no-X` turns an option X off."


class WorkOptions(BaseModel):
    """Where the results are written, and which model is loaded."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    output: Path | None = Field(
        default=None,
        description="folder of the results; the same folder with the same settings goes on",
        json_schema_extra={"default": "one that is named after the work"},
    )
    load: WorkLoadSettings = Field(default_factory=WorkLoadSettings)


def check_output(
    output: Path | None, kind: str, record: type[Record], renewed: Callable[[Record], Record]
) -> None:
    """Check the folder of the results as far as that is possible without the model.

    Args:
        output: folder that was chosen, or None.
        kind: what the work is, for example `run`.
        record: type of the record that is stored in such a folder.
        renewed: the record of the new work with the model of a stored record.

    Raises:
        DemurError: the folder holds something else, or work with other settings.
    """
    if output is None:
        return
    if kind_of(output) != kind:
        WorkFolder.check(output, None, kind)
        return
    stored = WorkFolder.open(output, record, kind).settings
    WorkFolder.check(output, renewed(stored), kind)


@contextmanager
def own_report(
    work: Run | Comparison | Diagnosis | Robustness, output: Path | None = None
) -> Iterator[None]:
    """Write the report of finished work into its folder, again where one is there.

    In here the results are shown. Where the report cannot be written that is an error only
    afterwards, so that no results are lost from view.

    Args:
        work: what was done.
        output: file to write; None for the one in the folder of the work, if it has one.

    Raises:
        DemurError: the report cannot be written.
    """
    from demur.report import write_report

    failed: Exception | None = None
    if output is not None or work.path is not None:
        try:
            write_report([work], output)
        except Exception as error:
            failed = error
    yield
    if failed is not None:
        raise failed


def require_finished(path: Path, kind: str | None) -> None:
    """Say by which command work goes on that has no results yet.

    Args:
        path: folder of the work, or any other path.
        kind: what it holds, as `kind_of` says.

    Raises:
        DemurError: the work is not finished.
    """
    if (path / RESULTS).exists() or kind not in ("run", "evaluation", "diagnosis", "attack"):
        return
    from demur.attacks import AttackRecord
    from demur.diagnosis import DiagnosisRecord
    from demur.evaluation.record import EvaluationRecord
    from demur.optimization.recorded import RunRecord
    from demur.records import read_record
    from demur.report.again import attack_again, diagnosis_again, evaluation_again, run_again

    file = path / SETTINGS
    if kind == "run":
        again = run_again(read_record(file, RunRecord, kind))
    elif kind == "evaluation":
        again = evaluation_again(read_record(file, EvaluationRecord, kind))
    elif kind == "attack":
        again = attack_again(read_record(file, AttackRecord, kind))
    else:
        again = diagnosis_again(read_record(file, DiagnosisRecord, kind))
    output = shlex.join(["--output", str(path)])
    raise DemurError(
        f"The {kind} in {path} is not finished: go on with `{again.command} {output}`."
    )
