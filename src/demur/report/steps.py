"""What a report says can be done next, each with its command."""

from __future__ import annotations

from collections.abc import Iterator

from demur.chat.settings import LoadSettings
from demur.evaluation.comparison import Comparison
from demur.evaluation.record import EvaluationRecord
from demur.evaluation.verdict import EXPORTED
from demur.optimization import Run
from demur.optimization.candidates import candidates_of
from demur.queries import own_files
from demur.report.again import pick_again
from demur.report.subject import NextStep
from demur.settings import command_line, item_of

LATER = "later"
"""Folder of a later evaluation in the command that is suggested."""


def steps_of_run(run: Run) -> tuple[NextStep, ...]:
    """Talk to the model, ask queries of one's own, and use the prompt, or another of the run."""
    prompt, none = item_of("--prompt", str(run.path)), item_of("--prompt", "none")
    own = own_queries_of(run)
    steps = [
        NextStep(
            "Talk to the model under this prompt, and under none (/compare answers under both)",
            command_line("chat", [*prompt, *none]),
        ),
        NextStep("Measure it on your own queries, which were trained on", own)
        if own
        else NextStep(
            "Measure it on queries of your own, which stand in two files, one a line",
            command_line(
                "evaluate",
                [
                    *(*_model(run.settings.load.model), *none, *prompt),
                    *("--harmful", "refuse.txt", "--harmless", "answer.txt"),
                ],
            ),
        ),
    ]
    if run.verdict.kind == "better":
        steps.append(
            NextStep(
                "Put it into a copy of the model, for vLLM, transformers and others",
                command_line("export", [str(run.path), EXPORTED]),
            )
        )
    return (*steps, *_other_picks(run))


def _other_picks(run: Run) -> Iterator[NextStep]:
    """Take another prompt of the run; none where objects were given, which no command can name."""
    if run.settings.objects:
        return
    for one in candidates_of(run):
        if one.pick is not None and not one.kept:
            again = pick_again(run.settings, one.pick, run.path)
            trusted = f"; it runs code that you must trust: {', '.join(again.trusted)}"
            yield NextStep(
                f"Take the {one.pick} prompt in place of this one (of epoch {one.epoch}, measured "
                f"without training again{trusted if again.trusted else ''})",
                again.command,
            )


def own_queries_of(run: Run) -> str:
    """The command that measures the user's own queries before and after.

    Args:
        run: a finished run.

    Returns:
        Empty where the run was trained on none of the user's own files, or where the basic prompt
        or the queries were given as objects, which no command can name.
    """
    chosen = run.settings.settings
    items: list[str] = []
    for label, named in (
        ("harmful", chosen.queries.harmful),
        ("harmless", chosen.queries.harmless),
    ):
        if label in run.settings.objects:
            return ""
        for one in own_files(named):
            items += item_of(f"--{label}", one)
    if not items or "basic_prompt" in run.settings.objects:
        return ""
    prompts = [*item_of("--prompt", chosen.basic_prompt), *item_of("--prompt", str(run.path))]
    return command_line("evaluate", [*_model(run.settings.load.model), *prompts, *items])


def steps_of_evaluation(comparison: Comparison, record: EvaluationRecord) -> tuple[NextStep, ...]:
    """Talk to the model under its prompts, and compare with a later evaluation."""
    steps: list[NextStep] = []
    if isinstance(record.source, LoadSettings) and not {"prompt", "prompts"} & set(record.objects):
        chosen = record.settings
        named = chosen.prompt or tuple(one.name for one in record.conditions)
        words = _model(record.source.model)
        for one in named:
            words += item_of("--prompt", one)
        if chosen.system_prompt is not None:
            words += item_of("--system-prompt", chosen.system_prompt)
        steps.append(
            NextStep(
                "Talk to the model under these prompts (/compare answers under each)",
                command_line("chat", words),
            )
        )
    steps.append(
        NextStep(
            f"Do the evaluation again another day with --output {LATER}, and compare the two",
            command_line("compare", [str(comparison.folder), LATER]),
        )
    )
    return tuple(steps)


def _model(name: str | None) -> list[str]:
    """The model as an argument, which never looks like an option; none for the default model."""
    if name is None:
        return []
    return [f"./{name}" if name.startswith("-") else name]
