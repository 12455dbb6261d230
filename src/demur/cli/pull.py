"""`demur pull`."""

from __future__ import annotations

from typing import Annotated

import typer

from demur.cli.screen import TerminalProgress, console


def pull_command(
    name: Annotated[str, typer.Argument(help="A catalog name, for example qwen2.5-coder-0.5b.")],
) -> None:
    """Fetch a catalog model ahead of time."""
    from demur.chat.download import pull

    path = pull(name, TerminalProgress())
    console.print(f"{name} is ready: {path}", markup=False, highlight=False, soft_wrap=True)
