"""`demur pull`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from demur.cli.command import Command
from demur.cli.screen import show_path
from demur.cli.stages import TerminalProgress


class PullOptions(BaseModel):
    """A model of the catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        description="catalog name of the model, for example qwen2.5-coder-0.5b",
        json_schema_extra={"argument": True},
    )


def run_pull(options: PullOptions) -> None:
    """Fetch a model and say where it is."""
    from demur.chat.download import pull

    show_path(f"{options.name} is in", pull(options.name, TerminalProgress()))


PULL = Command(
    verb="pull",
    settings=PullOptions,
    run=run_pull,
)
