"""`demur push`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from rich.text import Text

from demur.cli.command import Command
from demur.cli.screen import console, show_command
from demur.cli.stages import TerminalProgress
from demur.cli.work import require_finished


class PushOptions(BaseModel):
    """What is pushed, and where to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Path = Field(
        description="folder of a finished run or of a saved safety prompt",
        json_schema_extra={"argument": True},
    )
    name: str = Field(
        description="name of the repository on the hub, organisation/name",
        json_schema_extra={"argument": True},
    )
    private: bool = Field(default=False, description="make a new repository private")
    dry_run: Path | None = Field(
        default=None,
        description="push nothing, but write what would be pushed into this new folder",
    )
    license: str | None = Field(
        default=None,
        description="license of the prompt as the hub writes it, for example apache-2.0",
        json_schema_extra={"default": "what the repository's page says, if anything"},
    )
    base_model: str | None = Field(
        default=None,
        description="hub name of the model, organisation/name, for a run of a local model",
        json_schema_extra={"default": "the model that the run names"},
    )


def run_push(options: PushOptions) -> None:
    """Push, or write what would be pushed."""
    from demur.records import kind_of
    from demur.sharing import push

    require_finished(options.run, kind_of(options.run))
    if options.dry_run is not None:
        _write(options, options.dry_run)
        return
    address = push(
        options.run,
        options.name,
        private=options.private or None,
        license=options.license,
        base_model=options.base_model,
        progress=TerminalProgress(),
    )
    commit = address.rsplit("/", maxsplit=1)[-1]
    console.print("Pushed:")
    console.print(Text(address, style="bold"), soft_wrap=True)
    show_command(
        "Use it wherever a prompt is named, for example:",
        "evaluate",
        [*("--prompt", f"{options.name}@{commit[:12]}")],
    )


def _write(options: PushOptions, folder: Path) -> None:
    from demur.sharing import write_repository

    files = write_repository(
        options.run,
        options.name,
        folder,
        license=options.license,
        base_model=options.base_model,
        progress=TerminalProgress(),
    )
    console.print("Nothing was pushed. These files would be:")
    for file, size in files.items():
        console.print(Text(f"  {folder / file}  {size / 1000:.1f} kB"), soft_wrap=True)


PUSH = Command(
    verb="push",
    settings=PushOptions,
    run=run_push,
    details="""
    The prompt, its settings, the measured rates and a figure leave this machine. Queries, responses
    and your application's own system text stay here. Log in first with `hf auth login`.""",
)
