"""One figure of a finished run: how its prompts move the held-out queries."""

from __future__ import annotations

from demur.diagnosis.figures import movement_figure
from demur.diagnosis.plane import make_plane
from demur.diagnosis.readings import Readings
from demur.diagnosis.settings import FOLDS
from demur.drawing import drawing, render
from demur.errors import DemurError
from demur.optimization import Run
from demur.records import Measurement
from demur.records.store import FOLDER as MEASUREMENTS


def draw_movement(run: Run, kind: str = "png") -> bytes | None:
    """Draw held-out queries under no prompt, the basic prompt and the optimized one.

    The plane is that of the queries which the method read under hand-written prompts, or of the
    held-out queries where it read none; that of the movement where theirs hides it.

    Args:
        run: finished run.
        kind: type of the file, `png` or `svg`.

    Returns:
        The content of the file, which holds the text of no query; None where the run's folder does
        not have the measurements any more.

    Raises:
        DemurError: some of the measurements are missing or damaged.
    """
    if not any((run.path / MEASUREMENTS).glob("*.journal")):
        return None
    held_out = tuple(run.held_out())
    anchors = anchors_of(run) or held_out
    seed = run.settings.settings.seed
    try:
        readings = Readings.of(anchors, 2, FOLDS, seed, held_out=held_out)
        plane = make_plane(readings, FOLDS, seed, (held_out[1], held_out[2]))
    except DemurError:
        return None
    with drawing():
        return render(movement_figure(plane), kind)


def anchors_of(run: Run) -> tuple[Measurement, ...]:
    """What a run's method read under hand-written prompts, of the same queries as the first.

    Raises:
        DemurError: a measurement is missing or damaged.
    """
    found = [reading.measurement for reading in run.readings() if reading.epoch is None]
    return tuple(
        one
        for one in found
        if one.representations is not None and one.key.queries == found[0].key.queries
    )
