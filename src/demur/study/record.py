"""What is recorded of a study: its cells, and what came of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from demur.evaluation.settings import EvaluateSettings
from demur.records import ListedFile

KIND = "study"
RESULTS_FORMAT = f"{KIND} results"
OUTCOMES = "outcomes"
FIGURES = "figures"

CellKind = Literal["run", "evaluation"]
Status = Literal["done", "failed"]

UNTRAINED = "untrained"
"""What stands in the place of a method where a prompt is measured as it is."""


@dataclass(frozen=True)
class Cell:
    """One run or evaluation of a study.

    Attributes:
        kind: `run` or `evaluation`.
        model: name of the model.
        prompt: name of the basic prompt; None for the evaluation of all prompts that are measured
            as they are.
        method: name of the method, or `untrained`.
        seed: seed of training and sampling.
        folder: its folder in that of the study, with `/` between the parts.
        content: fingerprint of all that it depends on, as far as that is known without the model.
    """

    kind: CellKind
    model: str
    prompt: str | None
    method: str
    seed: int
    folder: str
    content: str

    @property
    def subject(self) -> str:
        """What the cell is about: prompt and method, or that its prompts are untrained."""
        return UNTRAINED if self.prompt is None else f"{self.prompt}, {self.method}"

    @property
    def title(self) -> str:
        """What the cell is, for people."""
        return f"{self.kind}: {self.model}, {self.subject}, seed {self.seed}"


@dataclass(frozen=True)
class PromptOf:
    """A prompt that is measured as it is.

    Attributes:
        name: name in the study, or `none`.
        basic: whether methods start from it.
    """

    name: str
    basic: bool


@dataclass(frozen=True)
class MethodOf:
    """A method of the study.

    Attributes:
        name: name in the study.
        base: name of the method that it is.
    """

    name: str
    base: str


@dataclass(frozen=True)
class StudyRecord:
    """What a study is.

    Attributes:
        name: name of the study.
        models: names of the models.
        prompts: prompts that are measured as they are, none first, in the order in which the
            evaluations have them.
        methods: the methods.
        seeds: the seeds.
        evaluation: settings of the evaluations.
        cells: the cells, in the order of the work.
    """

    name: str
    models: tuple[str, ...]
    prompts: tuple[PromptOf, ...]
    methods: tuple[MethodOf, ...]
    seeds: tuple[int, ...]
    evaluation: EvaluateSettings
    cells: tuple[Cell, ...]

    def identity(self) -> str:
        """A study may grow: what must stay the same is checked cell by cell."""
        return KIND


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes:
        folder: folder of the cell.
        content: fingerprint that the cell had.
        status: `done` or `failed`.
        seconds: seconds that it took.
        reason: why it failed, in one line; empty where it is done.
        files: the results that it ended with, and those of the run whose prompt it measures; names
            are paths in the folder of the study. Empty where it failed.
        finished: when it ended, in seconds since 1970; 0 where that was not recorded.
    """

    folder: str
    content: str
    status: Status
    seconds: float
    reason: str = ""
    files: tuple[ListedFile, ...] = ()
    finished: float = 0.0


@dataclass(frozen=True)
class StudyResults:
    """The content of a study's `results.json`.

    Attributes:
        outcomes: what came of each cell, in their order.
    """

    outcomes: tuple[Outcome, ...]
