"""Where a wording comes from, as it is written beside the prompt."""

from __future__ import annotations

from collections.abc import Iterator

from demur.evaluation.comparison import Comparison
from demur.optimization.wording.record import WordingRecord, WordingResults
from demur.prompts import Fact, MeasuredPrompt, Provenance
from demur.prompts.provenance import Role

METHOD = "GEPA"
PAPER = "https://arxiv.org/abs/2507.19457"


def provenance_of(
    record: WordingRecord, results: WordingResults, comparison: Comparison
) -> Provenance:
    """Where the prompt of a run comes from. Addresses of servers stay out of it.

    Args:
        record: what the run is.
        results: what the search found.
        comparison: the final measurement.
    """
    settings, search = record.settings, results.search
    best = search.candidates[search.best]
    return Provenance(
        method=METHOD,
        paper=PAPER,
        settings=(
            Fact("model behind an endpoint", record.model.name),
            Fact("proposer", record.proposer.name),
            Fact("basic prompt", record.basic_prompt.name),
            Fact("training queries", str(record.training.queries)),
            Fact("validation queries", str(record.validation.queries)),
            Fact("right on validation queries", f"{100 * best.score.value:.1f} %"),
            Fact("proposals", str(search.proposals)),
            Fact("calls", str(results.spent.calls)),
            Fact("tokens", str(results.spent.tokens)),
        ),
        measured=(
            Fact("refusal judge", record.judge.name),
            Fact("held-out queries", record.held_out.name),
            Fact("samples", str(settings.sampling.samples)),
            Fact("tokens of a response", str(settings.sampling.tokens)),
            Fact("seed", str(settings.seed)),
        ),
        results=tuple(_measured(comparison)),
        with_system_prompt=record.basic_prompt.system_prompt is not None,
    )


def _measured(comparison: Comparison) -> Iterator[MeasuredPrompt]:
    names = list(dict.fromkeys(rates.prompt for rates in comparison.rates))
    roles: list[Role] = ["none", "basic", "this"]
    # Where no wording is better, the basic prompt is also the result.
    for role, name in zip(roles, [*names, names[-1]][:3], strict=True):
        harmful = comparison.find(name, label="harmful").refused
        harmless = comparison.find(name, label="harmless").refused
        if harmful is not None and harmless is not None:
            yield MeasuredPrompt(role, name, harmful, harmless)
