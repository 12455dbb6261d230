"""`demur push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from demur.cli.screen import TerminalProgress, console

# typer reads these annotations at run time, on Python 3.10 too.
Words = str | None
Place = Path | None


def push_command(
    run: Annotated[
        Path, typer.Argument(help="The folder of a finished run, or of a saved safety prompt.")
    ],
    name: Annotated[str, typer.Argument(help="organisation/name on the hub.", metavar="ORG/NAME")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository a private one.")
    ] = False,
    dry_run: Annotated[
        Place,
        typer.Option(
            help="Write what would be pushed into this new folder, and push nothing.",
            metavar="DIR",
        ),
    ] = None,
    license: Annotated[
        Words,
        typer.Option(
            help="Of the prompt, as the hub writes it: apache-2.0, for example.",
            show_default="what the repository's page says, if anything",
        ),
    ] = None,
    base_model: Annotated[
        Words,
        typer.Option(
            help="The model's name on the hub, for a run of a local model.", metavar="ORG/MODEL"
        ),
    ] = None,
) -> None:
    """Push a run's safety prompt to the hub, with a model card.

    The prompt, the settings and the measured rates leave this machine, and a figure of them.
    Queries, responses and your application's own system text stay. Log in first: `hf auth login`.
    """
    from demur.sharing import push, write_repository

    progress = TerminalProgress()
    if dry_run is not None:
        files = write_repository(
            run, name, dry_run, license=license, base_model=base_model, progress=progress
        )
        console.print("Nothing was pushed. These files would be:", highlight=False)
        for file, size in files.items():
            console.print(Text(f"  {dry_run / file}  {size / 1000:.1f} kB"), soft_wrap=True)
        return
    address = push(
        run,
        name,
        private=private or None,
        license=license,
        base_model=base_model,
        progress=progress,
    )
    commit = address.rsplit("/", maxsplit=1)[-1]
    console.print("Pushed:", highlight=False)
    console.print(Text(address, style="bold"), soft_wrap=True)
    console.print("Use it anywhere a prompt is named, for example", highlight=False)
    console.print(
        Text(f"demur evaluate --prompt {name}@{commit[:12]}", style="bold"), soft_wrap=True
    )
