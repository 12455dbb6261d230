"""A safety prompt as a person reads it. Its texts may be a stranger's: shown, never trusted."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from demur.cli.screen import printable
from demur.cli.tables import evaluation_table
from demur.evaluation.results import Evaluation
from demur.prompts import SafetyPrompt
from demur.prompts.card import base_model_of


def print_prompt(console: Console, prompt: SafetyPrompt) -> None:
    """What it is, for which model, what was measured, and its text."""
    kind = f"{prompt.rows} trained embeddings of {prompt.width} numbers"
    model = prompt.metadata.get("model")
    recorded = model if isinstance(model, Mapping) else {}
    console.print()
    console.print(Text(prompt.name, style="bold"), soft_wrap=True)
    console.print(kind if prompt.is_trained else "text", highlight=False)
    base = base_model_of(prompt) or recorded.get("name")
    if base:
        console.print(Text(f"for {printable(str(base))}"), soft_wrap=True)
    evaluation = _evaluation(prompt)
    if evaluation is not None:
        console.print()
        console.print(evaluation_table(evaluation))
        console.print("These are the figures of whoever published it: measure them again with")
        console.print(Text(f"demur evaluate --prompt {prompt.name}", style="bold"), soft_wrap=True)
    if prompt.text is not None:
        title = "it took the place of this text" if prompt.is_trained else "its text"
        console.print(Panel(Text(printable(prompt.text)), title=title, title_align="left"))


def _evaluation(prompt: SafetyPrompt) -> Evaluation | None:
    try:
        return Evaluation.from_json(prompt.metadata["results"])
    except (KeyError, TypeError, AttributeError):
        return None
