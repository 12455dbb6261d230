"""`demur benchmarks`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from demur.cli.screen import console
from demur.queries import BENCHMARKS, BenchmarkState, benchmark_address, benchmark_state


def benchmarks_command(
    benchmark_dir: Annotated[
        Path | None,
        typer.Option(help="Look for their files in this folder instead of the cache."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with addresses.")] = False,
) -> None:
    """List the public benchmarks that demur knows by name, and which are here already."""
    states = {name: benchmark_state(name, benchmark_dir) for name in BENCHMARKS}
    if as_json:
        rows = [
            {
                **dataclasses.asdict(benchmark),
                "file_name": benchmark.file_name,
                "address": benchmark_address(benchmark),
                "state": states[name],
            }
            for name, benchmark in BENCHMARKS.items()
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    console.print(_table(states, "cached" if benchmark_dir is None else "in DIR"))


def _table(states: dict[str, BenchmarkState], here: str) -> Table:
    # Two lines a benchmark, so that the table fits into 80 columns.
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("side", no_wrap=True)
    table.add_column("queries\nsize", justify="right", no_wrap=True)
    table.add_column("source", overflow="fold")
    table.add_column("licence", no_wrap=True)
    table.add_column(here, no_wrap=True)
    words = {"ready": "yes", "missing": "no", "wrong SHA-256": "wrong SHA-256"}
    for name, benchmark in BENCHMARKS.items():
        queries = "" if benchmark.queries is None else str(benchmark.queries)
        table.add_row(
            name,
            benchmark.side,
            f"{queries}\n{benchmark.size / 1000:.1f} kB",
            Text(benchmark.repository.replace("/", "/\n")),
            benchmark.licence,
            words[states[name]],
        )
    return table
