"""What a report shows of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from demur.errors import DemurError
from demur.evaluation.agreements import Agreement
from demur.evaluation.answerers.records import short_name
from demur.evaluation.captions import p_value_text
from demur.evaluation.comparison import Comparison, Difference, PromptRates
from demur.evaluation.costs import Cost
from demur.evaluation.figures import wrong_title
from demur.evaluation.record import EvaluationRecord
from demur.evaluation.verdict import Verdict
from demur.evaluation.wins import PromptWins
from demur.queries import queries_in_words
from demur.records import NO_PROMPT, FilesRecord, Label, Rate
from demur.report.again import evaluation_again
from demur.report.collecting import Collection
from demur.report.facts import (
    facts_of_answerer,
    facts_of_conditions,
    facts_of_options,
    facts_of_settings,
    facts_of_versions,
)
from demur.report.of_costs import answers_tables
from demur.report.steps import steps_of_evaluation
from demur.report.subject import (
    Subject,
    Table,
    capitalized,
    dots_of,
    number_of_queries,
    percent,
    rate_text,
)

MOST_STATEMENTS = 6
_WRONG = {
    False: "Wrong: a harmful query not refused, a harmless one refused.",
    True: "Deflected: neither refused nor answered, for example a warning and no more. Wrong: a "
    "harmful query answered, a harmless one refused or deflected.",
}


def subject_of_evaluation(comparison: Comparison, *, full: bool = False) -> Subject:
    """What is shown of a finished evaluation.

    Args:
        comparison: the comparison of the evaluation.
        full: whether responses that may do harm are in it, folded.

    Raises:
        DemurError: the comparison is not that of an evaluation, or a measurement is missing or
            damaged.
    """
    record = comparison.settings
    if record is None:
        raise DemurError(
            "This comparison belongs to other work than an evaluation: report on that instead."
        )
    collection = Collection(full)
    collection.add_rows(comparison.responses())
    responses, shortened = collection.shortened()
    wholes = [rates for rates in comparison.rates if rates.category is None]
    categories = [rates for rates in comparison.rates if rates.category is not None]
    tables = [
        _rates(wholes, comparison.judged),
        *_categories(categories),
        *([_differences(comparison.differences)] if comparison.differences else []),
        *([_costs(comparison.costs)] if comparison.costs else []),
        *answers_tables(comparison.costs),
        *([_wins(comparison.wins)] if comparison.wins else []),
        *([_agreements(comparison.agreements)] if comparison.agreements else []),
    ]
    found = comparison.verdicts
    return Subject(
        kind="evaluation",
        title=_title(record),
        verdict=_verdict(wholes, found),
        outcome=found[0].kind if len(found) == 1 else "",
        dots=dots_of([(one.set, one) for one in wholes]),
        tables=tuple(tables),
        conditions=tuple(collection.conditions),
        queries=collection.queries,
        responses=responses,
        again=evaluation_again(record),
        left_out=collection.left_out,
        shortened=shortened,
        compared=_compared(record, collection.conditions),
        steps=steps_of_evaluation(comparison, record),
        facts={
            **facts_of_conditions(record.conditions, record.system_prompt),
            **facts_of_settings(record.settings),
            **facts_of_answerer(record.answerer),
            **facts_of_options(comparison.changed_options),
            **facts_of_versions(comparison.versions),
        },
    )


def _compared(record: EvaluationRecord, shown: Sequence[str]) -> tuple[int, int] | None:
    """Places of no prompt, or of the first one, and of the last: what the verdicts compare."""
    bare = next((one.name for one in record.conditions if one.is_bare), None)
    first, last = shown.index(bare) if bare in shown else 0, len(shown) - 1
    return (first, last) if first < last else None


def _title(record: EvaluationRecord) -> str:
    if isinstance(record.answerer, FilesRecord):
        return "Responses, judged"
    names = dict.fromkeys(queries_in_words(one.name) for one in record.sets)
    sets = ", ".join(name.removeprefix("queries of ") for name in names)
    return f"{short_name(record.answerer)} on {sets}"


def _verdict(wholes: Sequence[PromptRates], found: Sequence[Verdict]) -> tuple[str, ...]:
    """Whether each prompt is better; the rates where there is nothing to compare."""
    if found:
        rest = len(found) - MOST_STATEMENTS
        more_below = (f"And {rest} more prompts, in the tables below.",) if rest > 0 else ()
        single = (f"Next: {found[0].advice}",) if len(found) == 1 and found[0].advice else ()
        return (*(one.sentence for one in found[:MOST_STATEMENTS]), *more_below, *single)
    return tuple(map(_alone, wholes[:MOST_STATEMENTS]))


def _alone(one: PromptRates) -> str:
    """The rate of a prompt beside which there is no other."""
    queries = f"the {queries_in_words(one.set, one.label)}"
    under = "" if one.prompt == NO_PROMPT else f" under {one.prompt}"
    if one.refused is None:
        return f"No response to {queries}{under} has a verdict."
    return f"{percent(one.refused)} of {queries} are refused{under}."


def _group(one: PromptRates | Difference) -> str:
    return f"{one.set}, {one.label}" if one.label else one.set


def _rates(wholes: Sequence[PromptRates], judged: str) -> Table:
    """Rates of whole sets. Columns that no row fills are left out."""
    told = any(rates.tells_deflections for rates in wholes)
    deflected = ["deflected"] if told else []
    columns = ["queries", "prompt", "number", "refused", *deflected, wrong_title(wholes)]
    rows = [
        [
            _group(rates),
            rates.prompt,
            number_of_queries(rates.refused),
            rate_text(rates.refused),
            *([rate_text(rates.deflected)] if told else []),
            "" if rates.wrong_any is None else rate_text(rates.wrong_any),
        ]
        for rates in wholes
    ]
    if any(rates.complied_harmfully is not None for rates in wholes):
        columns.append("complied harmfully")
        for row, rates in zip(rows, wholes, strict=True):
            row.append(rate_text(rates.complied_harmfully))
    note = f"{capitalized(judged)}. In brackets: 95 % intervals. {_WRONG[told]}"
    if any(_left_out(rates) for rates in wholes):
        note += (
            " Left out: responses that no rate counts, because they hold no answer, a filter "
            "withheld them, or a judge had no verdict."
        )
        columns.append("left out")
        for row, rates in zip(rows, wholes, strict=True):
            row.append(_left_out(rates))
    return Table(
        title="Refused",
        columns=tuple(columns),
        rows=tuple(map(tuple, rows)),
        note=note,
        words=("prompt", "left out"),
    )


def _left_out(rates: PromptRates) -> str:
    """The responses that are left out of rates, in words."""
    counts = (
        (rates.no_answer, "no answer"),
        (rates.filtered, "withheld by a filter"),
        (rates.no_refusal_verdict, "no verdict of refusal"),
        (rates.no_harm_verdict, "no verdict of harm"),
    )
    return ", ".join(f"{count} {what}" for count, what in counts if count)


def _categories(rates: Sequence[PromptRates]) -> list[Table]:
    """A table for each set: categories down, prompts across."""
    groups: dict[tuple[str, Label | None], list[PromptRates]] = {}
    for one in rates:
        groups.setdefault((one.set, one.label), []).append(one)
    return [
        _by_category(queries_in_words(*group), categories) for group, categories in groups.items()
    ]


def _by_category(queries: str, rates: Sequence[PromptRates]) -> Table:
    prompts = list(dict.fromkeys(one.prompt for one in rates))
    rows: dict[str, dict[str, Rate | None]] = {}
    for one in rates:
        rows.setdefault(one.category or "", {})[one.prompt] = one.refused
    return Table(
        title=f"Refused by category: {queries}",
        columns=("category", "number", *prompts),
        rows=tuple(
            (
                category,
                str(max(one.queries if one else 0 for one in found.values())),
                *(rate_text(found[prompt]) if prompt in found else "" for prompt in prompts),
            )
            for category, found in sorted(rows.items())
        ),
        note="In brackets: 95 % intervals, which are wide where there are few queries.",
    )


def _differences(differences: Sequence[Difference]) -> Table:
    return Table(
        title="Differences between prompts on the same queries",
        columns=("queries", "measure", "from", "to", "points", "p", "more than chance"),
        rows=tuple(
            (
                _group(one),
                one.measure.replace("_", " "),
                one.first,
                one.second,
                f"{100 * one.difference:+.1f}",
                p_value_text(one.adjusted_p_value),
                "yes" if one.more_than_chance else "no",
            )
            for one in differences
        ),
        note="Paired sign-flip permutation test; p adjusted for the number of pairs (Holm).",
        words=("measure", "from", "to", "more than chance"),
    )


def _costs(costs: Sequence[Cost]) -> Table:
    return Table(
        title="Cost on harmless queries",
        columns=("queries", "prompt", "number", "KL cost (nats)", "first word changed"),
        rows=tuple(
            (one.set, one.prompt, str(one.queries), str(one), rate_text(one.changed))
            for one in costs
        ),
        note="KL cost: mean KL divergence of the first token from the model without a prompt. "
        "First word changed: share of the queries whose likeliest first token is another. In "
        "brackets: 95 % intervals.",
        words=("prompt",),
    )


def _agreements(agreements: Sequence[Agreement]) -> Table:
    return Table(
        title="Agreement of further judges with the judge of the rates",
        columns=("judge", "responses", "agree", "kappa", "only it", "only the first", "no verdict"),
        rows=tuple(
            (
                one.judge,
                str(one.responses),
                "" if one.share is None else f"{100 * one.share:.1f} %",
                "" if one.kappa is None else f"{one.kappa:.2f}",
                *map(str, (one.second, one.first, one.no_verdict)),
            )
            for one in agreements
        ),
        note="Only it, only the first: responses that one of the two alone calls refusals or "
        "deflections. Kappa is Cohen's.",
        words=("judge",),
    )


def _wins(wins: Sequence[PromptWins]) -> Table:
    return Table(
        title="Outputs for instructions preferred to those without a prompt",
        columns=("prompt", "preferred", "wins", "ties", "losses", "no verdict"),
        rows=tuple(
            (
                one.prompt,
                rate_text(one.won.rate),
                *map(str, (one.won.wins, one.won.ties, one.won.losses, one.won.undecided)),
            )
            for one in wins
        ),
        note="50 % is no difference; a tie counts half, and a pair without a verdict does not "
        "count.",
    )
