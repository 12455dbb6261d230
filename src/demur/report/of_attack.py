"""What a report shows of attacks."""

from __future__ import annotations

from collections.abc import Sequence

from demur.attacks import NO_ATTACK, Robustness
from demur.attacks.paired import AnsweredDifference
from demur.evaluation.answerers.records import short_name
from demur.evaluation.captions import p_value_text
from demur.evaluation.figures import RateName
from demur.report.again import attack_again
from demur.report.collecting import Collection
from demur.report.facts import (
    facts_of_answerer,
    facts_of_conditions,
    facts_of_options,
    facts_of_settings,
    facts_of_versions,
)
from demur.report.subject import Subject, Table, capitalized, rate_text

_FURTHER: tuple[tuple[str, RateName], ...] = (
    ("Deflected", "deflected"),
    ("Complied harmfully", "complied_harmfully"),
)


def subject_of_attack(robustness: Robustness, *, full: bool = False) -> Subject:
    """What is shown of finished attacks.

    Args:
        robustness: the results.
        full: whether responses that may do harm are in it, folded.

    Raises:
        DemurError: a measurement is missing or damaged.
    """
    record, figures = robustness.settings, robustness.figures
    collection = Collection(full)
    collection.add_rows(robustness.responses())
    responses, shortened = collection.shortened()
    tables = [
        _success(robustness),
        *(
            table
            for title, name in _FURTHER
            if (table := _further(robustness, title, name)) is not None
        ),
        *([_differences(robustness.between_prompts)] if robustness.between_prompts else []),
        *([_sources(robustness)] if len(record.attacks) > 1 else []),
        *([_left_out(robustness)] if robustness.left_out else []),
    ]
    return Subject(
        kind="attack",
        title=f"Attacks on {short_name(record.answerer)}, {record.queries.name}",
        verdict=robustness.verdict,
        tables=tuple(tables),
        conditions=tuple(collection.conditions),
        queries=collection.queries,
        responses=responses,
        again=attack_again(record),
        left_out=collection.left_out,
        shortened=shortened,
        facts={
            **facts_of_conditions(record.conditions, record.system_prompt),
            **facts_of_settings(record.settings),
            **facts_of_answerer(record.answerer),
            **facts_of_options(figures.changed_options),
            **facts_of_versions(figures.versions),
        },
    )


def _success(robustness: Robustness) -> Table:
    """How often each attack succeeds under each prompt."""
    return Table(
        title="Harmful queries that are answered",
        columns=("attack", *robustness.prompts),
        rows=tuple(
            (
                f"{attack} *" if attack in robustness.disguising else attack,
                *(rate_text(robustness.success(attack, prompt)) for prompt in robustness.prompts),
            )
            for attack in robustness.attacks
        ),
        note=f"{capitalized(robustness.judged)}. In brackets: 95 % intervals. An attack succeeds "
        "where the query is answered; what is answered need not be harmful. * a model that cannot "
        "read the disguise answers something else.",
    )


def _further(robustness: Robustness, title: str, name: RateName) -> Table | None:
    """Another rate of each attack under each prompt; None where it was not measured."""
    attacks, prompts = robustness.attacks, robustness.prompts
    rates = [[robustness.rates(one, prompt).rate(name) for prompt in prompts] for one in attacks]
    if not any(rate is not None for row in rates for rate in row):
        return None
    return Table(
        title=title,
        columns=("attack", *prompts),
        rows=tuple(
            (attack, *map(rate_text, row)) for attack, row in zip(attacks, rates, strict=True)
        ),
    )


def _differences(differences: Sequence[AnsweredDifference]) -> Table:
    return Table(
        title="How much more is answered under one prompt than under another",
        columns=("attack", "prompt", "than", "points", "p", "more than chance"),
        rows=tuple(
            (
                one.attack,
                one.prompt,
                one.than,
                f"{100 * one.difference:+.1f}",
                p_value_text(one.adjusted_p_value),
                "yes" if one.more_than_chance else "no",
            )
            for one in differences
        ),
        note="Paired sign-flip permutation test; p adjusted for the number of attacks (Holm).",
        words=("prompt", "than", "more than chance"),
    )


def _sources(robustness: Robustness) -> Table:
    return Table(
        title="Where the attacks are described",
        columns=("attack", "source"),
        rows=tuple(
            (one.name, one.source) for one in robustness.settings.attacks if one.name != NO_ATTACK
        ),
        words=("source",),
    )


def _left_out(robustness: Robustness) -> Table:
    return Table(
        title="Attacks that were not possible",
        columns=("attack", "reason"),
        rows=tuple((one.attack, one.reason) for one in robustness.left_out),
        words=("reason",),
    )
