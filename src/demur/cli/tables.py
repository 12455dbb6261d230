"""A run as a person reads it. Queries and responses are shown as text, never as markup."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demur.cli.screen import print_report, printable
from demur.evaluation.results import Evaluation
from demur.optimization import Run
from demur.optimization.examples import Example

OURS = ("none", "optimized")


def print_run(console: Console, run: Run) -> None:
    """The table, two examples, where the run lies and what to do next."""
    console.print()
    console.print(evaluation_table(run.evaluation))
    for example in run.examples:
        console.print(_example(example))
    console.print("More harmful and fewer harmless queries refused is better. All responses are in")
    console.print(Text(str(run.path / "responses"), style="bold"), soft_wrap=True)
    print_report(console, run.path)
    console.print("See this again with")
    console.print(Text(f"demur show {run.path}", style="bold"), soft_wrap=True)
    console.print("or use the prompt in Python")
    console.print(Text(f"SafetyPrompt.load({str(run.path)!r})", style="bold"), soft_wrap=True)


def evaluation_table(evaluation: Evaluation) -> Table:
    """Refusal rates with their 95 % intervals."""
    table = Table(
        title="Refused on held-out queries, with 95 % intervals",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("prompt", overflow="fold")
    table.add_column("harmful queries", justify="right", no_wrap=True)
    table.add_column("harmless queries", justify="right", no_wrap=True)
    table.add_column("KL cost", justify="right", no_wrap=True)
    for result in evaluation.results:
        table.add_row(
            Text(
                printable(result.prompt)
                if result.prompt in OURS
                else f"{printable(result.prompt)} (basic)"
            ),
            str(result.harmful_refused),
            str(result.harmless_refused),
            f"{result.divergence:.2f}",
            style="bold" if result.prompt == "optimized" else None,
        )
    return table


def _example(example: Example) -> Panel:
    body = Text()
    for when, response, refused in (
        ("before", example.before, example.before_refused),
        ("after ", example.after, example.after_refused),
    ):
        verdict = "refused " if refused else "answered"
        body.append(f"{when}  {verdict}  ", style="bold")
        body.append(" ".join(printable(response).split()) + " ...\n")
    body.rstrip()
    title = Text(f"{example.label}: {printable(example.query)}")
    return Panel(body, title=title, title_align="left")
