"""A run as a person reads it. Queries and responses are shown as text, never as markup."""

from __future__ import annotations

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demur.evaluation.results import Evaluation
from demur.optimization import Run
from demur.optimization.examples import Example

NAMES = {"none": "no prompt", "optimized": "optimized prompt"}


def print_run(console: Console, run: Run) -> None:
    """The table, two examples, where the run lies and what to do next."""
    console.print()
    console.print(evaluation_table(run.evaluation))
    for example in run.examples:
        console.print(_example(example))
    console.print(Text.assemble("The run lies in ", (str(run.path), "bold"), "."))
    console.print(
        Text.assemble(
            "Next: see it again with ",
            (f"demur show {run.path}", "bold"),
            ", or use the prompt in Python: ",
            (f"SafetyPrompt.load({str(run.path)!r})", "bold"),
            ".",
        )
    )


def evaluation_table(evaluation: Evaluation) -> Table:
    """Refusal rates with their 95 % intervals."""
    table = Table(title="Refused on held-out queries (95 % intervals)", title_justify="left")
    table.add_column("")
    table.add_column("harmful: more is better", justify="right")
    table.add_column("harmless: less is better", justify="right")
    table.add_column("KL divergence", justify="right")
    for result in evaluation.results:
        best = result.prompt == "optimized"
        table.add_row(
            Text(NAMES.get(result.prompt, f"basic prompt ({result.prompt})")),
            str(result.harmful_refused),
            str(result.harmless_refused),
            f"{result.divergence:.2f}",
            style="bold" if best else None,
        )
    return table


def printable(text: str) -> str:
    """Model output without control characters, so that it cannot drive the terminal."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    ).strip()


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
