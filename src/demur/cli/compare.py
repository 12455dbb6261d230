"""`demur compare`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from demur.cli.command import Command
from demur.cli.gate import gate_of, leave, show_gate
from demur.cli.screen import console
from demur.cli.work import require_finished
from demur.gate.settings import CheckSettings

HELP = """Compare two finished evaluations of different days, paired by query.

It shows what changed, which queries are refused now and were not, and which no longer, and whether
that is more than chance. The two are never pooled. Nothing is measured.

With --require and --fail-if-worse it is a gate: the exit status is 1 where a check fails."""


class CompareOptions(BaseModel):
    """What is compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: Path = Field(
        description="folder of the earlier evaluation", json_schema_extra={"argument": True}
    )
    after: Path = Field(
        description="folder of the later evaluation", json_schema_extra={"argument": True}
    )
    gate: CheckSettings = Field(default_factory=CheckSettings)


def run_compare(options: CompareOptions) -> None:
    """Print how two evaluations differ."""
    from demur.evaluation.comparison import Comparison
    from demur.gate import as_gate_settings
    from demur.records import kind_of

    found: list[Comparison] = []
    for folder in (options.before, options.after):
        require_finished(folder, kind_of(folder, finished=True))
        found.append(Comparison.load(folder))
    before, after = found
    gate = gate_of(as_gate_settings(options.gate), before)
    leave(show_gate(console, gate, after))


COMPARE = Command(verb="compare", settings=CompareOptions, run=run_compare, help=HELP)
