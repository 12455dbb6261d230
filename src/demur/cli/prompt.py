"""A safety prompt as a person reads it. Its texts may be a stranger's, so they are only shown."""

from __future__ import annotations

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from demur.cli.screen import one_line, printable, show_command
from demur.cli.tables import Row, refusal_table
from demur.prompts import SafetyPrompt


def print_prompt(console: Console, prompt: SafetyPrompt, spec: str) -> None:
    """Print what the prompt is, its model, what was measured, and its text.

    Args:
        console: where to print.
        prompt: the prompt.
        spec: name that the prompt was loaded by.
    """
    kind = f"{prompt.rows} trained embeddings of {prompt.width} numbers"
    origin = prompt.provenance
    console.print()
    console.print(Text(printable(prompt.name), style="bold"), soft_wrap=True)
    console.print(kind if prompt.is_trained else "text")
    base = origin.base_model or (origin.model.name if origin.model is not None else None)
    if base:
        console.print(Text(f"for {one_line(base, 200)}"), soft_wrap=True)
    if origin.with_system_prompt:
        console.print("trained behind an application's own system text, which is not part of it")
    if origin.results:
        rows = [
            Row(
                one.prompt,
                one.harmful_refused,
                one.harmless_refused,
                one.divergence,
                one.changed,
                main=one.role == "this",
                basic=one.role == "basic",
            )
            for one in origin.results
        ]
        console.print()
        title = "Refused on held-out queries, with 95 % intervals"
        console.print(refusal_table(title, rows, [_judged(prompt)]))
        show_command(
            "These are the figures of whoever published the prompt. Measure them yourself with:",
            "evaluate",
            ["--prompt", spec],
        )
    if prompt.text is not None:
        title = "it took the place of this text" if prompt.is_trained else "its text"
        console.print(Panel(Text(printable(prompt.text)), title=title, title_align="left"))


def _judged(prompt: SafetyPrompt) -> str:
    """The judge and the limit of tokens, as far as the prompt names them; a stranger's words."""
    facts = {one.name: one_line(one.text) for one in prompt.provenance.measured}
    judge, tokens = facts.get("refusal judge"), facts.get("tokens harmful")
    if judge is None:
        return ""
    return f"judge: {judge}" if tokens is None else f"judge: {judge}, {tokens} tokens"
