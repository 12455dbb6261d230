"""When the evaluations of a study were measured, which a gate must say."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path

from demur.errors import DemurError
from demur.records.folder import RESULTS
from demur.study.planning import StudyPlan
from demur.study.record import Outcome
from demur.study.results import FinishedStudy

_DAY = 86_400
_LAST = 253_402_000_000
"""Seconds from 1970 to the last days that a date can tell."""


def measured_since(plan: StudyPlan, study: FinishedStudy) -> frozenset[str]:
    """The folders of the cells that were done since a plan was made.

    What was taken from a storage was done before.

    Args:
        plan: the plan, with what had come of the cells then.
        study: what came of them since.
    """
    return frozenset(
        one.folder
        for one in study.outcomes
        if one.folder not in plan.stored and one != plan.outcomes.get(one.folder)
    )


def told_age(study: FinishedStudy, measured: Collection[str] | None = None) -> str:
    """How many evaluations of a study were measured now, and when the oldest of the others was.

    Args:
        study: the study.
        measured: folders of the cells that were done now; None where nothing is known of that.

    Returns:
        A sentence; empty where no evaluation is done.

    Raises:
        DemurError: a folder cannot be read.
    """
    cells = study.evaluations
    older = [cell for cell in cells if measured is None or cell.folder not in measured]
    count, now = len(cells), len(cells) - len(older)
    if not cells:
        return ""
    if not older:
        return f"{_share(count, count)} measured now."
    outcomes = {one.folder: one for one in study.outcomes}
    oldest = _date(min(_finished(study.path, outcomes[cell.folder]) for cell in older))
    if measured is None:
        return f"The oldest of the measured evaluations ({count}) was measured {oldest}."
    if now:
        return f"{_share(now, count)} measured now; the oldest of the others was {oldest}."
    return (
        f"{_share(0, count)} measured now; the oldest was {oldest}. To measure again, give another "
        "--output."
    )


def _share(now: int, count: int) -> str:
    """How many of the evaluations, with the verb."""
    if count == 1:
        return "The evaluation was" if now else "The evaluation was not"
    if now in (0, count):
        return f"All {count} evaluations were" if now else f"None of {count} evaluations was"
    return f"{now} of {count} evaluations {'was' if now == 1 else 'were'}"


def _finished(path: Path, outcome: Outcome) -> float:
    """When a cell of the study in a folder was finished, in seconds since 1970."""
    if 0 < outcome.finished < _LAST:
        return outcome.finished
    file = path / outcome.folder / RESULTS
    try:
        return file.stat().st_mtime
    except OSError as error:
        raise DemurError(
            f"Cannot read {file} ({error.strerror or error}): run the study's command again."
        ) from error


def _date(seconds: float) -> str:
    """A day, for example `on 3 June 2026 (30 days ago)`."""
    then = datetime.fromtimestamp(seconds, timezone.utc)
    days = int((datetime.now(timezone.utc).timestamp() - seconds) // _DAY)
    ago = "less than a day ago" if days < 1 else "1 day ago" if days == 1 else f"{days} days ago"
    return f"on {then.day} {then:%B %Y} ({ago})"
