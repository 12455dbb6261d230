"""What requirements can be about in files of responses, before anything is judged."""

from __future__ import annotations

from dataclasses import replace

from demur.evaluation.answerers.files import FileTask, ResponseFiles
from demur.evaluation.tally import Tally
from demur.gate.scope import Scope
from demur.progress import Progress, SilentProgress
from demur.records import JudgedResponse


def scope_of_files(
    files: ResponseFiles, progress: Progress, *, harm_judged: bool, tells_deflections: bool
) -> Scope:
    """The prompts and queries in files of responses, which are read for it.

    Args:
        files: the files.
        progress: reports how far their sizes and checksums are.
        harm_judged: whether a judge of harm will be asked.
        tells_deflections: whether the judge of refusal tells deflections from answers.

    Raises:
        DemurError: a file cannot be read, or a row of it is damaged.
    """
    files.describe(progress)
    tally = Tally()
    with SilentProgress().stage("Reading names", 0, "bytes") as stage:
        for task in files.tasks([]):
            if isinstance(task, FileTask):
                tally.add(
                    JudgedResponse(
                        prompt=answer.prompt,
                        condition=answer.condition,
                        set=answer.set,
                        label=answer.label,
                        category=answer.category,
                        query=answer.query,
                        response="",
                        refused=None,
                        end=None,
                    )
                    for answer in task.answers(stage)
                )
    found = Scope.of_rates(tally.rates(), harm_judged=harm_judged, has_costs=False)
    return replace(found, tells_deflections=tells_deflections)
