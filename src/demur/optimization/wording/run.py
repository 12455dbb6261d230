"""A finished run: the wording that was found, and everything that was measured of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from demur.errors import DemurError
from demur.evaluation.comparison import Comparison
from demur.evaluation.record import KIND as EVALUATION_KIND
from demur.evaluation.record import EvaluationRecord
from demur.evaluation.verdict import Verdict, verdict
from demur.notebook import html_table
from demur.optimization.wording.record import (
    RESULTS,
    RESULTS_FORMAT,
    Candidate,
    WordingRecord,
    WordingResults,
)
from demur.optimization.wording.settings import KIND
from demur.prompts import Condition, SafetyPrompt
from demur.prompts.storage import JSON_FILE
from demur.records import SETTINGS, WorkFolder, damaged, read_record

PROMPT = "safety_prompt"
EVALUATION = "evaluation"

SEARCH_MORE = "give a larger --budget-calls or another --proposer-model."
"""What to do where the wording that was found is not good."""


@dataclass(frozen=True)
class WordingRun:
    """What `optimize_wording` returns.

    Attributes:
        path: folder of the run.
        settings: what the run is: model, proposer, prompt, queries, judge and every setting.
        safety_prompt: the wording that was found.
        results: everything that `results.json` holds.
        comparison: the final measurement, an evaluation in a folder of its own.

    Example:
        >>> run = WordingRun.load("demur-runs/my-model-long-text")  # doctest: +SKIP
        >>> print(run.safety_prompt.text)  # doctest: +SKIP
    """

    path: Path
    settings: WordingRecord
    safety_prompt: SafetyPrompt
    results: WordingResults
    comparison: Comparison

    @property
    def basic(self) -> Candidate:
        """The basic prompt on the validation queries."""
        return self.results.search.candidates[0]

    @property
    def best(self) -> Candidate:
        """The wording that was found, on the validation queries."""
        return self.results.search.candidates[self.results.search.best]

    @property
    def is_better(self) -> bool:
        """Whether a wording was found that does better on the validation queries."""
        return self.best is not self.basic

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the prompts in the comparison: none, the basic one, and a better one if any."""
        return tuple(dict.fromkeys(rates.prompt for rates in self.comparison.rates))

    @property
    def verdict(self) -> Verdict:
        """Whether the prompt is better than the one before it on the held-out queries.

        The one before is the basic prompt; where no better wording was found, it is no prompt.
        """
        before, after = self.names[-2:]
        found = verdict(
            self.comparison, before, after, bare=self.names[0], trained=False, held_out=True
        )
        if self.is_better and found.kind in ("unknown", "better"):
            return found
        return replace(found, advice=SEARCH_MORE)  # nothing can be trained behind an endpoint

    @classmethod
    def load(cls, path: str | Path) -> WordingRun:
        """Read the folder of a finished run.

        Raises:
            DemurError: the folder holds none, an unfinished one, or a damaged one.
        """
        found = read_wording_run(WorkFolder.open(Path(path), WordingRecord, KIND))
        if found is None:
            raise DemurError(f"The run in {path} is not finished: run its command again to go on.")
        return found

    def __str__(self) -> str:
        return f"{self.verdict.sentence}\n\n{self.safety_prompt.text}\n\n{self.comparison}"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        wording = html_table((), [self.safety_prompt.text or ""], above=[self.verdict.sentence])
        return f"{wording}\n{self.comparison._repr_html_()}"


def read_wording_run(folder: WorkFolder[WordingRecord]) -> WordingRun | None:
    """The run whose results lie in a folder; None where some are missing or of another run.

    Raises:
        DemurError: a file is damaged.
    """
    path = folder.path
    needed = (path / RESULTS, path / PROMPT / JSON_FILE, path / EVALUATION / SETTINGS)
    if not all(file.exists() for file in needed):
        return None
    results = read_record(path / RESULTS, WordingResults, RESULTS_FORMAT, in_work=True)
    if results.run != folder.settings.identity().fingerprint:
        return None
    try:
        prompt = SafetyPrompt.load(path / PROMPT)
    except DemurError as error:
        raise damaged(path / PROMPT) from error
    if prompt.text != results.search.candidates[results.search.best].text:
        return None
    comparison = Comparison.find_finished(
        WorkFolder.open(path / EVALUATION, EvaluationRecord, EVALUATION_KIND)
    )
    condition = Condition(prompt, folder.settings.basic_prompt.system_prompt)
    if comparison is None or condition.fingerprint not in _measured(comparison):
        return None
    run = WordingRun(path, folder.settings, prompt, results, comparison)
    if len(run.names) < 2:
        raise damaged(path / EVALUATION / RESULTS)
    return run


def _measured(comparison: Comparison) -> set[str | None]:
    return {rates.condition for rates in comparison.rates}
