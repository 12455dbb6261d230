"""One figure of a finished run: how its prompts move the held-out queries."""

from __future__ import annotations

from demur.diagnosis.figures import movement_figure
from demur.diagnosis.plane import make_plane
from demur.diagnosis.readings import Readings, directions_of
from demur.diagnosis.style import drawing, render
from demur.errors import DemurError
from demur.optimization import Run
from demur.report.of_run import anchor_names
from demur.runs import RunFolder


def draw_movement(run: Run, kind: str = "png") -> bytes | None:
    """Held-out queries under no prompt, the basic and the optimized one, in the anchors' plane.

    Args:
        run: with its folder.
        kind: of the file, `png` or `svg`. No query's text is in it.

    Returns:
        The file's content, or None where the run's folder lacks what was measured.
    """
    folder, settings = RunFolder(run.path), run.settings
    basic = settings["basic_prompt"]["name"]
    try:
        anchors = [folder.stored_measurement(name) for name in anchor_names(settings)]
        held_out = [
            folder.stored_measurement(f"held-out-{name}") for name in ("none", basic, "optimized")
        ]
    except DemurError:
        return None
    known = tuple(one for one in anchors if one is not None)
    shown = tuple(one for one in held_out if one is not None)
    if len(known) < len(anchors) or len(shown) < len(held_out):
        return None
    folds, seed = int(settings["folds"]), int(settings["seed"])
    readings = Readings(known, directions_of(known, 2, folds, seed), held_out=shown)
    with drawing():
        return render(movement_figure(make_plane(readings, folds, seed)), kind)
