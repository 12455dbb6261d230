"""A finished run: the optimized prompt with everything that was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.evaluation.results import Evaluation
from demur.files import read_json, write_json
from demur.optimization.examples import Example
from demur.prompts import SafetyPrompt
from demur.runs import RunFolder

METRICS = "metrics.json"
PROMPT = "safety_prompt"


@dataclass(frozen=True)
class Run:
    """What `optimize` returns.

    Attributes:
        path: the run's folder.
        settings: every setting, and the model they were used on.
        safety_prompt: the optimized prompt.
        evaluation: no prompt, the basic prompt and the optimized one on the held-out queries.
        examples: responses before and after.
        history: for each epoch the mean of every loss term.
    """

    path: Path
    settings: Mapping[str, Any]
    safety_prompt: SafetyPrompt
    evaluation: Evaluation
    examples: tuple[Example, ...]
    history: tuple[Mapping[str, float], ...]

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read a finished run.

        Raises:
            DemurError: the folder holds no run, an unfinished one, or a damaged one.
        """
        folder = RunFolder.open(Path(path))
        if not (folder.path / METRICS).exists():
            raise DemurError(f"The run in {path} is not finished: run its command again to go on.")
        metrics = read_json(folder.path / METRICS)
        try:
            return cls(
                path=folder.path,
                settings=folder.settings(),
                safety_prompt=SafetyPrompt.load(folder.path / PROMPT),
                evaluation=Evaluation.from_json(metrics["evaluation"]),
                examples=tuple(Example(**example) for example in metrics["examples"]),
                history=tuple(metrics["history"]),
            )
        except (KeyError, TypeError) as error:
            raise DemurError(
                f"{folder.path / METRICS} is damaged: delete it and run the command again."
            ) from error

    def save(self, versions: Mapping[str, str]) -> None:
        """Write the prompt, then the metrics, which mark the run as finished."""
        self.safety_prompt.save(self.path / PROMPT)
        metrics = {
            "evaluation": self.evaluation.to_json(),
            "examples": [vars(example) for example in self.examples],
            "history": [dict(terms) for terms in self.history],
            "versions": dict(versions),
        }
        write_json(self.path / METRICS, metrics)
