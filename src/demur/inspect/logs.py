"""From Inspect's logs back to demur, to compare prompts that were measured in separate runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from inspect_ai.log import EvalLog

from demur.errors import DemurError
from demur.files import write_bytes
from demur.inspect.scoring import Origin, end_of, query_of
from demur.records import REFUSAL, to_plain

TASK = "safeguard"


def save_responses(logs: EvalLog | Sequence[EvalLog], path: str | Path) -> int:
    """Write the responses of logs for `demur evaluate --responses`, whole or not at all.

    Args:
        logs: logs of the task `demur/safeguard`, with their samples.
        path: path of the new file, which should end in `.jsonl`.

    Returns:
        Number of samples that are left out, because they failed or hold no answer.

    Raises:
        DemurError: a log is of another task or has no response at all, or the file cannot be
            written.
    """
    logs = [logs] if isinstance(logs, EvalLog) else list(logs)
    samples = sum(len(log.samples or ()) for log in logs)
    rows = [row for log in logs for row in _rows(log)]
    if not rows:
        raise DemurError("The logs hold no responses: give those of finished runs, with samples.")
    # Half of a surrogate pair cannot be written.
    write_bytes(Path(path), "".join(rows).encode("utf-8", "replace"))
    return samples - len(rows)


def _rows(log: EvalLog) -> Iterator[str]:
    """A line for each response."""
    if log.eval.task.rpartition("/")[2] != TASK:
        raise DemurError(f"A log is of the task {log.eval.task!r:.100}: give logs of demur/{TASK}.")
    for sample in log.samples or ():
        text, end = sample.output.completion, end_of(sample.output)
        if sample.error is None and end in (None, REFUSAL):
            query = query_of(sample.input)
            asked = query if isinstance(query, str) else to_plain(query)
            row = {**vars(Origin.of(sample.metadata)), "query": asked, "response": text}
            row |= {} if end is None else {"end": end}
            yield json.dumps(row, ensure_ascii=False) + "\n"
