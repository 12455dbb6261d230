"""Where an optimized prompt comes from, as it is written beside the prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from demur.optimization.recorded import RunRecord, RunResults
from demur.optimization.settings import OptimizeSettings
from demur.optimization.validation import BUDGETS, chosen_epoch
from demur.prompts import Fact, MeasuredPrompt, Provenance
from demur.prompts.provenance import Role
from demur.queries import name_of_pair
from demur.records import Label
from demur.settings import options_in, values_of

_TRAINING = ("training", "method_settings")
_SAMPLING = ("sampling",)


def provenance_of(
    record: RunRecord,
    settings: OptimizeSettings[Any],
    results: RunResults,
    base_model: str | None,
) -> Provenance:
    """Where the prompt of a run comes from.

    Args:
        record: what the run is.
        settings: its settings, of the type that its method has.
        results: what it came to.
        base_model: name of the model on the hub, or None.
    """
    return Provenance(
        model=record.model,
        base_model=base_model,
        method=record.method.title,
        paper=record.method.paper,
        settings=(
            Fact("basic prompt", record.basic_prompt.name),
            Fact("training queries", name_of_pair(record.anchors.harmful, record.anchors.harmless)),
            Fact("preset", settings.preset),
            *_facts(settings, _TRAINING),
            *_choice(record, settings, results),
        ),
        measured=(
            Fact("refusal judge", record.judge.name),
            Fact(
                "held-out queries", name_of_pair(record.held_out.harmful, record.held_out.harmless)
            ),
            *_facts(settings, _SAMPLING),
            Fact("seed", str(settings.seed)),
        ),
        results=tuple(_measured(results)),
        with_system_prompt=record.basic_prompt.system_prompt is not None,
    )


def _facts(settings: OptimizeSettings[Any], groups: tuple[str, ...]) -> Iterable[Fact]:
    values = values_of(settings)
    for option in options_in(type(settings)):
        if option.groups[:1] and option.groups[0] in groups and option.name != "tokens":
            yield Fact(option.name.replace("_", " "), option.text(values[option.name]))


def _choice(
    record: RunRecord, settings: OptimizeSettings[Any], results: RunResults
) -> Iterable[Fact]:
    """Which epoch was kept, and how and by which queries it was chosen."""
    if record.validation is not None and results.epoch is not None:
        yield Fact(
            "validation queries",
            name_of_pair(record.validation.harmful, record.validation.harmless),
        )
        validations = [one.validation for one in results.history]
        budget = settings.training.benign_budget
        # All that take this epoch: the prompt is the same, whichever of them was asked for.
        picks = [
            pick for pick in BUDGETS if chosen_epoch(validations, budget, pick) == results.epoch
        ]
        yield Fact("pick", ", ".join(picks))
        yield Fact("epoch kept", f"{results.epoch} of {len(results.history)}")


def _measured(results: RunResults) -> Iterable[MeasuredPrompt]:
    figures = results.figures
    costs = {cost.condition: cost for cost in figures.costs}
    for role, measured in zip(get_args(Role), figures.measured, strict=True):
        name = str(measured.prompt)
        labels: tuple[Label, Label] = ("harmful", "harmless")
        harmful, harmless = (figures.find(name, label=label).refused for label in labels)
        if harmful is not None and harmless is not None:
            cost = costs.get(measured.key.condition)
            divergence = None if cost is None else cost.divergence
            changed = None if cost is None else cost.changed
            yield MeasuredPrompt(role, name, harmful, harmless, divergence, changed)
