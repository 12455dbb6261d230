"""A run as a person reads it."""

from __future__ import annotations

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from demur.cli.comparison import print_left_out
from demur.cli.screen import one_line, print_again, printable
from demur.cli.tables import Row, refusal_table
from demur.optimization import Run
from demur.optimization.examples import Example


def print_run(console: Console, run: Run) -> None:
    """Print the rates, two examples, where the results are and what to do next."""
    console.print()
    console.print(refusal_table("Refused on held-out queries, with 95 % intervals", _rows(run)))
    print_left_out(console, run.comparison)
    for example in run.examples:
        console.print(_example(example))
    console.print("More harmful and fewer harmless queries refused is better.")
    print_again(console, run.path, "All responses")
    console.print("Use the prompt in Python with:")
    console.print(Text(f"SafetyPrompt.load({str(run.path)!r})", style="bold"), soft_wrap=True)


def _rows(run: Run) -> list[Row]:
    _, basic, optimized = run.names
    costs = {cost.prompt: f"{cost.divergence:.2f}" for cost in run.comparison.costs}
    return [
        Row(
            name,
            run.comparison.find(name, label="harmful").refused,
            run.comparison.find(name, label="harmless").refused,
            costs.get(name, ""),
            main=name == optimized,
            basic=name == basic,
        )
        for name in run.names
    ]


def _example(example: Example) -> Panel:
    words = {True: "refused ", False: "answered", None: "no verdict"}
    body = Text(f"{one_line(example.query, 500)}\n", style="italic")
    for when, response, refused in (
        ("before", example.before, example.before_refused),
        ("after ", example.after, example.after_refused),
    ):
        body.append(f"{when}  {words[refused]}  ", style="bold not italic")
        body.append(" ".join(printable(response).split()) + " ...\n", style="not italic")
    body.rstrip()
    return Panel(body, title=Text(example.label), title_align="left")
