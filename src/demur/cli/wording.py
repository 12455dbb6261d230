"""`demur optimize --method text`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from demur.cli.command import Command
from demur.cli.config import Recorded
from demur.cli.screen import console, print_again, printable
from demur.cli.stages import TerminalProgress
from demur.cli.work import check_output, own_report
from demur.optimization.wording import WordingSettings
from demur.optimization.wording.settings import percent
from demur.settings import part_of, values_of

if TYPE_CHECKING:
    from demur.optimization.wording import WordingRun

SUMMARY = "Improve the wording of a safety prompt for a model behind an endpoint, and measure it."
DETAILS = """
The model's embeddings are out of reach there, so another model proposes wordings (GEPA), and
demur's judges say which are better: first on validation queries, in the end on held-out ones. The
proposer is shown queries, verdicts and the first words of responses.

Needs demur[gepa]. An interrupted run goes on when the same command is given again, and so does a
finished one with a larger budget; nothing is asked twice."""
COMMON = (
    *("endpoint", "served_model", "proposer_model", "basic_prompt", "system_prompt"),
    *("budget_calls", "harmful", "harmless", "output", "method"),
)
EXAMPLES = ("demur optimize --method text --endpoint http://localhost:8000/v1",)

_ENDINGS = {
    "budget": "the budget was spent",
    "all right": "every validation query was right",
    "nothing new": "every training query was right",
    "no proposals": "the proposer gave nothing usable many times in a row",
}


class WordingOptions(WordingSettings):
    """What is searched, and where the results are written."""

    output: Path | None = Field(
        default=None,
        description="folder of the results; the same folder with the same settings goes on",
        json_schema_extra={"default": "one in demur-runs, named after model and prompt"},
    )


def wording_command(verb: str) -> Command[WordingOptions]:
    """The command.

    Args:
        verb: name of the command.
    """
    return Command(
        verb=verb,
        common=COMMON,
        examples=EXAMPLES,
        settings=WordingOptions,
        run=run_wording,
        summary=SUMMARY,
        details=DETAILS,
        recorded=recorded_wording,
    )


def run_wording(options: WordingOptions) -> None:
    """Search for a better wording and print what came of it."""
    from demur.optimization.wording import WordingRecord, carry_out_wording, wording_plan_of
    from demur.optimization.wording.settings import KIND

    # Mistakes are found before anything is asked.
    plan = wording_plan_of(part_of(options, WordingSettings))
    check_output(
        options.output, KIND, WordingRecord, lambda old: plan.record(old.model, old.proposer)
    )
    run = carry_out_wording(plan, output=options.output, progress=TerminalProgress())
    with own_report(run.comparison, run.path / "report.html"):
        print_wording_run(console, run)


def recorded_wording(file: Path) -> Recorded:
    """The settings that a run recorded."""
    from demur.optimization.wording import WordingRecord
    from demur.optimization.wording.settings import KIND
    from demur.records import read_record

    record = read_record(file, WordingRecord, KIND)
    values = {**values_of(record.settings)}
    # The folder may be a stranger's, who does not say which secret is sent.
    del values["proposer_key_variable"]
    return Recorded(values, record.objects)


def print_wording_run(console: Console, run: WordingRun) -> None:
    """Print the wording, the search, the rates, and where the results are."""
    from demur.cli.comparison import print_figures

    console.print()
    console.print(Text(printable(_headline(run)), style="bold"))
    console.print(
        Panel(
            Text(printable(run.safety_prompt.text or "")),
            title="The new wording" if run.is_better else "The basic prompt stays as it is",
            title_align="left",
        )
    )
    for line in _search_lines(run):
        console.print(line)
    print_figures(console, run.comparison, [run.comparison.judged])
    print_again(console, run.path, "All responses and the wordings that were tried")
    console.print("Use the prompt as the system message, or in Python with:")
    console.print(Text(f"SafetyPrompt.load({str(run.path)!r})", style="bold"), soft_wrap=True)


def _headline(run: WordingRun) -> str:
    """The result in one sentence, and what to do where it is not good."""
    from demur.optimization.wording.run import SEARCH_MORE

    if not run.is_better:
        return (
            "No better wording was found: no proposal did better on the validation queries than "
            f"the basic prompt ({percent(run.basic.score.value)} right). Next: {SEARCH_MORE}"
        )
    return str(run.verdict)


def _search_lines(run: WordingRun) -> Iterator[str]:
    results, search = run.results, run.results.search
    basic, best = run.basic.score, run.best.score
    if run.is_better:
        yield (
            f"Right on validation queries: {percent(basic.value)} with the basic prompt, "
            f"{percent(best.value)} now (harmful {percent(best.harmful.value)}, harmless "
            f"{percent(best.harmless.value)})."
        )
    if basic.unknown or best.unknown:
        yield (
            f"Responses without an answer or a verdict, which count as half right: {basic.unknown} "
            f"with the basic prompt, {best.unknown} with the best one."
        )
    unusable = f", {search.unusable} of which could not be used" if search.unusable else ""
    yield (
        f"{search.proposals} proposals{unusable}; {len(search.candidates) - 1} of them were "
        f"measured on all validation queries. The search ended because {_ENDINGS[search.ending]}."
    )
    yield (
        f"Asked: {results.spent.calls} of {results.budget.calls} calls, {results.spent.tokens} of "
        f"{results.budget.tokens} tokens."
    )
