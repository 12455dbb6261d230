"""From Inspect's logs back to demur, to compare prompts that were measured in separate runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from inspect_ai.log import EvalLog

from demur.errors import DemurError
from demur.evaluation.jsonl import write_rows
from demur.inspect.scoring import given

TASK = "safeguard"


def save_responses(logs: EvalLog | Sequence[EvalLog], path: str | Path) -> int:
    """Write the responses of logs for `demur evaluate --responses`, whole or not at all.

    Args:
        logs: of the task `demur/safeguard`, with their samples.
        path: of the new file, which should end in `.jsonl`.

    Returns:
        How many samples are left out, for want of a response: they failed, or have no text.

    Raises:
        DemurError: a log is of another task or has no response at all, or the file cannot be
            written.
    """
    logs = [logs] if isinstance(logs, EvalLog) else list(logs)
    samples = sum(len(log.samples or ()) for log in logs)
    rows = [row for log in logs for row in _rows(log)]
    if not rows:
        raise DemurError("the logs hold no responses: give those of finished runs, with samples")
    write_rows(Path(path), rows)
    return samples - len(rows)


def _rows(log: EvalLog) -> Iterator[dict[str, Any]]:
    if log.eval.task.rpartition("/")[2] != TASK:
        raise DemurError(f"a log is of the task {log.eval.task!r:.100}: give logs of demur/{TASK}")
    for sample in log.samples or ():
        text = sample.output.completion
        if sample.error is None and text.strip():
            query = sample.input if isinstance(sample.input, str) else sample.input[-1].text
            yield {**given(sample.metadata), "query": query, "response": text}
