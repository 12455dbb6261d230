"""`demur benchmarks`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal

import typer
from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table
from rich.text import Text

from demur.cli.command import Command
from demur.cli.screen import console, new_table
from demur.queries import BENCHMARKS, BenchmarkState, benchmark_address, benchmark_state


class BenchmarksOptions(BaseModel):
    """How the benchmarks are listed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark_dir: Path | None = Field(
        default=None,
        description="folder to look for the benchmarks' files in",
        json_schema_extra={"default": "demur's cache"},
    )
    format: Literal["table", "json"] = Field(
        default="table", description="form of the list; json has addresses and checksums as well"
    )


def run_benchmarks(options: BenchmarksOptions) -> None:
    """Print the list."""
    states = {name: benchmark_state(name, options.benchmark_dir) for name in BENCHMARKS}
    if options.format == "json":
        typer.echo(json.dumps([_plain(name, state) for name, state in states.items()], indent=2))
    else:
        console.print(_table(states, "cached" if options.benchmark_dir is None else "in DIR"))


def _plain(name: str, state: BenchmarkState) -> dict[str, object]:
    benchmark = BENCHMARKS[name]
    return {
        **dataclasses.asdict(benchmark),
        "file_name": benchmark.file_name,
        "address": benchmark_address(benchmark),
        "state": state,
    }


def _table(states: dict[str, BenchmarkState], here: str) -> Table:
    # Each benchmark takes two lines, so that the table fits into 80 columns.
    table = new_table()
    table.show_edge, table.padding = False, (0, 1, 0, 0)
    table.add_column("name\nside", no_wrap=True)
    table.add_column("queries\nsize", justify="right", no_wrap=True)
    table.add_column("source", overflow="fold")
    table.add_column("licence", no_wrap=True)
    table.add_column(here, no_wrap=True)
    words = {"ready": "yes", "missing": "no", "wrong SHA-256": "wrong SHA-256"}
    for name, benchmark in BENCHMARKS.items():
        queries = "" if benchmark.queries is None else str(benchmark.queries)
        table.add_row(
            Text(f"{name}\n{benchmark.side}"),
            f"{queries}\n{benchmark.size / 1000:.1f} kB",
            Text(benchmark.repository.replace("/", "/\n")),
            benchmark.licence,
            words[states[name]],
        )
    return table


BENCHMARKS_COMMAND = Command(
    verb="benchmarks",
    settings=BenchmarksOptions,
    run=run_benchmarks,
)
