"""Fit a probe to other queries and try it on those that are diagnosed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from demur.chat import ChatModel
from demur.diagnosis.headroom import Headroom, make_headroom
from demur.diagnosis.layer_readings import read_layers, read_representations
from demur.diagnosis.plan import Plan
from demur.diagnosis.readings import Readings
from demur.geometry import LEAST_FITTED, fit_probe, paired_folds
from demur.progress import Progress
from demur.records import MeasurementKey, Queries

PROBE_FOLDS = 5
"""Folds of the cross-validation that chooses the layer and the penalty of the probe."""

FITTING_THE_PROBE = "Fitting the probe"

_PROBE, _HELD_OUT = "queries of the probe", "held-out queries"


def measure_headroom(
    model: ChatModel, plan: Plan, readings: Readings, path: Path, progress: Progress
) -> Headroom | None:
    """What a probe that is fitted to other queries tells of those that are diagnosed.

    With a run these are the held-out queries, which show the optimized prompt.

    Args:
        model: model to read.
        plan: what is diagnosed.
        readings: the queries under every condition.
        path: folder of the diagnosis.
        progress: receives the stages, and a message where there are no queries to fit to.

    Returns:
        None where no probe is wanted, or there are no queries to fit it to.

    Raises:
        DemurError: a query has no verdict or is too long, or a stored file is damaged.
    """
    if plan.fitting is None:
        if plan.settings.probe.headroom:
            progress.message(
                "The headroom is left out: the sets that a probe is fitted to have fewer than "
                f"{LEAST_FITTED} queries of a label that are not diagnosed. Give others with "
                "--probe-harmful and --probe-harmless."
            )
        return None
    fitted = plan.fitting.queries
    fitted_states, states, by_layer = _states(model, plan, fitted, readings, path, progress)
    with progress.stage(FITTING_THE_PROBE, fitted_states.shape[1], "layers") as stage:
        folds = paired_folds(fitted.harmful, PROBE_FOLDS)
        probe = fit_probe(fitted_states, fitted.harmful, folds, stage=stage)
    return make_headroom(
        probe,
        states,
        readings.held_out or readings.anchors,
        queries="held-out" if readings.held_out else "anchors",
        fitted=len(fitted),
        by_layer=by_layer,
    )


def _states(
    model: ChatModel,
    plan: Plan,
    fitted: Queries,
    readings: Readings,
    path: Path,
    progress: Progress,
) -> tuple[Tensor, Tensor, bool]:
    """States of the queries to fit to and of the diagnosed ones, and whether they are by layer."""
    none, condition = (readings.held_out or readings.anchors)[0], plan.conditions[0]
    key: MeasurementKey = replace(none.key, queries=fitted.fingerprint)
    first = read_layers(model, fitted, condition, key, _PROBE, path, progress)
    if first is None:
        first = read_representations(model, fitted, condition, key, _PROBE, path, progress)
        return first, none.states[:, None], False
    second = None if readings.layers is None or readings.held_out else readings.layers[0]
    if second is None:
        kept = replace(none.key, queries=none.queries.fingerprint)
        second = read_layers(model, none.queries, condition, kept, _HELD_OUT, path, progress)
    if second is None:
        raise RuntimeError("the layers of the same model were read before")
    return first, second, True
