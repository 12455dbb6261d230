"""Progress bars that appear by themselves in a terminal and in a notebook."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from demur import processes
from demur.markdown import printable
from demur.progress import Progress, SilentProgress, Stage, StagePlan


def default_progress() -> Progress:
    """What shows the progress where nobody says: bars where a person looks, else nothing.

    Of processes that share a model, the first one shows it.
    """
    shows = processes.is_first() and (_in_notebook() or sys.stderr.isatty())
    return BarProgress() if shows else SilentProgress()


class BarProgress:
    """Shows each stage as a bar of tqdm, on the error stream or in the notebook."""

    def __init__(self) -> None:
        self._plan = StagePlan()

    def plan(self, stages: Sequence[str]) -> None:
        """Number the stages to come."""
        self._plan = StagePlan(stages)

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        """Begin a stage with a bar of its own."""
        number = self._plan.number(description)
        title = f"{number} {description}" if number else description
        with _unwarned() as tqdm:
            bar = tqdm(total=total, desc=_line(title), unit=f" {unit}", leave=bool(number))
        try:
            yield _BarStage(bar)
        finally:
            bar.close()

    def message(self, text: str) -> None:
        """Show a line above the bars."""
        with _unwarned() as tqdm:
            tqdm.write(_line(text), file=sys.stderr)


class _BarStage:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def advance(self, amount: float = 1) -> None:
        self._bar.update(amount)

    def note(self, text: str) -> None:
        self._bar.set_postfix_str(_line(text), refresh=False)


@contextmanager
def _unwarned() -> Iterator[Any]:
    """The bars of tqdm, without the warnings of notebooks that have no ipywidgets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

        yield tqdm


def _line(text: str) -> str:
    return " ".join(printable(text).split())


def _in_notebook() -> bool:
    """Whether a notebook shows what this process writes."""
    found = sys.modules.get("IPython")
    shell = None if found is None else found.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"
