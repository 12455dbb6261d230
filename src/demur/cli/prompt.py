"""A safety prompt as a person reads it. Its texts may be a stranger's: shown, never trusted."""

from __future__ import annotations

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demur.cli.screen import printable
from demur.prompts import MeasuredPrompt, SafetyPrompt
from demur.sharing import base_model_of


def print_prompt(console: Console, prompt: SafetyPrompt) -> None:
    """Print what a prompt is, its model, what was measured, and its text."""
    known = prompt.provenance
    kind = f"{prompt.rows} trained embeddings of {prompt.width} numbers"
    console.print()
    console.print(Text(prompt.name, style="bold"), soft_wrap=True)
    console.print(kind if prompt.is_trained else "text", highlight=False)
    base = base_model_of(known) or (None if known.model is None else known.model.name)
    if base:
        console.print(Text(f"for {printable(base)}"), soft_wrap=True)
    if known.results:
        console.print()
        console.print(_results(known.results))
        console.print("The one who published it measured this: measure it again with")
        console.print(Text(f"demur evaluate --prompt {prompt.name}", style="bold"), soft_wrap=True)
    if prompt.text is not None:
        title = "it took the place of this text" if prompt.is_trained else "its text"
        console.print(Panel(Text(printable(prompt.text)), title=title, title_align="left"))


def _results(results: tuple[MeasuredPrompt, ...]) -> Table:
    table = Table(title="Refused on held-out queries", title_justify="left")
    for column in ("prompt", "harmful queries", "harmless queries", "KL cost (nats)"):
        table.add_column(column)
    for one in results:
        cost = "" if one.divergence is None else f"{one.divergence:.2f}"
        name = f"{one.prompt} (basic)" if one.role == "basic" else one.prompt
        table.add_row(
            Text(printable(name)), str(one.harmful_refused), str(one.harmless_refused), cost
        )
    return table
