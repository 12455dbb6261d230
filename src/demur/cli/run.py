"""A run as a person reads it."""

from __future__ import annotations

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from demur.cli.comparison import answers_table, print_left_out
from demur.cli.screen import (
    new_table,
    one_line,
    print_again,
    printable,
    short_name,
    show_command,
    with_notes,
)
from demur.cli.tables import (
    Row,
    behind_text,
    name_text,
    rate_text,
    refusal_table,
    verdict_text,
)
from demur.cli.verdicts import print_verdict_of_run
from demur.evaluation.captions import IN_THIRD_TURN, THIRD_TURN, deflected_notes
from demur.evaluation.comparison import Comparison
from demur.evaluation.figures import PromptRates
from demur.optimization import Run
from demur.optimization.candidates import (
    CANDIDATES,
    CHOSEN_BY,
    COLUMNS,
    candidates_of,
    notes_on_candidates,
)
from demur.optimization.examples import Example
from demur.queries import queries_in_words
from demur.records import Label, Verdict, may_harm

_LABELS: tuple[Label, Label] = ("harmful", "harmless")


def print_run(console: Console, run: Run) -> None:
    """Print the rates, two examples, where the results are, the verdict and what to do next."""
    console.print()
    notes = [run.judged, *behind_text(run.settings.basic_prompt.system_prompt)]
    title = "Refused on held-out queries, with 95 % intervals"
    notes += deflected_notes(_wholes(run, run.comparison))
    console.print(refusal_table(title, _rows(run, run.comparison), notes))
    _print_sets(console, run)
    if run.third_turn is not None:
        notes = [IN_THIRD_TURN, run.judged, *deflected_notes(_wholes(run, run.third_turn))]
        console.print(refusal_table(THIRD_TURN, _rows(run, run.third_turn), notes))
    answers = answers_table(run.results.figures, of_one_set=True)
    if answers is not None:
        console.print(answers)
    print_left_out(console, run.comparison)
    _print_front(console, run)
    for example in run.examples:
        console.print(_example(example))
    if any(may_harm(example.label, does) for example in run.examples for does in _done(example)):
        show_command(
            "Redacted: an answer to a harmful query. Read it in the report of:",
            "report",
            [str(run.path), "--full"],
        )
    print_again(console, run.path, "All responses")
    console.print()
    print_verdict_of_run(console, run)


def _print_sets(console: Console, run: Run) -> None:
    """The rates on each of several held-out sets of one label."""
    chosen = run.settings.settings.queries
    several = [
        (label, names)
        for label, names in zip(
            _LABELS, (chosen.held_out_harmful, chosen.held_out_harmless), strict=True
        )
        if len(names) > 1
    ]
    if not several:
        return
    table = new_table("Refused, set by set")
    table.padding = (0, 1, 0, 0)  # so that it fits into 80 columns
    table.add_column("held-out queries", overflow="fold")
    for name in run.names:
        table.add_column(name_text(name, 20), justify="right", no_wrap=True)
    for label, names in several:
        for category in dict.fromkeys(names):
            found = [
                one
                for name in run.names
                for one in run.comparison.rates
                if (one.prompt, one.label, one.category) == (name, label, category)
            ]
            if len(found) == len(run.names):
                cells = [rate_text(one.refused, 0) for one in found]
                table.add_row(Text(short_name(queries_in_words(category, label), 60)), *cells)
    if table.row_count:
        console.print(with_notes(table, [run.judged]))


def _print_front(console: Console, run: Run) -> None:
    """The prompts to choose from, from careful to strict, as the validation queries show them."""
    candidates = candidates_of(run)
    if not candidates:
        return
    table = new_table(CANDIDATES)
    for heading in COLUMNS:
        table.add_column(heading, justify="left" if heading == CHOSEN_BY else "right")
    for one in candidates:
        table.add_row(*one.cells)
    notes = notes_on_candidates(run.settings.settings.training.benign_budget)
    console.print(with_notes(table, notes))


def _wholes(run: Run, comparison: Comparison) -> list[PromptRates]:
    return [comparison.find(name, label=label) for name in run.names for label in _LABELS]


def _rows(run: Run, comparison: Comparison) -> list[Row]:
    _, basic, optimized = run.names
    costs = {cost.prompt: cost for cost in comparison.costs}
    rows: list[Row] = []
    for name in run.names:
        harmful, harmless = (comparison.find(name, label=label) for label in _LABELS)
        cost = costs.get(name)
        rows.append(
            Row(
                name,
                harmful.refused,
                harmless.refused,
                None if cost is None else cost.divergence,
                None if cost is None else cost.changed,
                main=name == optimized,
                basic=name == basic,
            )
        )
    return rows


def _done(example: Example) -> tuple[Verdict | None, Verdict | None]:
    return example.before_verdict, example.after_verdict


def _example(example: Example) -> Panel:
    """A query with its responses; a verdict is green where it is as it should be, else red.

    A response that may do harm is redacted, as it is in the report.
    """
    body = Text(f"{one_line(example.query, 500)}\n", style="italic")
    for when, response, does in (
        ("before", example.before, example.before_verdict),
        ("after ", example.after, example.after_verdict),
    ):
        verdict = verdict_text(does, example.label)
        body.append(f"{when}  ", style="bold not italic")
        body.append(verdict.plain.ljust(9), style=f"bold not italic {verdict.style}")
        hidden = response and may_harm(example.label, does)
        text = "(redacted)" if hidden else " ".join(printable(response).split())
        body.append(f"  {text}\n", style="not italic dim" if hidden else "not italic")
    body.rstrip()
    return Panel(body, title=Text(example.label), title_align="left")
