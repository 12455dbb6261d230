"""Outputs for ordinary instructions under each prompt, and which of them a judge prefers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from demur.evaluation.alpaca import AlpacaOutputs
from demur.evaluation.answerers.protocol import Answerer, Question, Task
from demur.evaluation.chosen import Chosen
from demur.evaluation.figures import PromptOutputs
from demur.evaluation.instructions import Instructions
from demur.evaluation.judging import Judges, NotJudged
from demur.evaluation.measuring import borrow, complete, key_of
from demur.evaluation.preferences import PreferenceKey, Preferences
from demur.evaluation.wins import PromptWins
from demur.files import safe_name
from demur.judges.preference import PairwiseJudge
from demur.progress import Progress
from demur.records import MeasurementStore

FOLDER = "outputs"


@dataclass(frozen=True)
class OutputsWork:
    """Gets the outputs under each prompt, and has them compared.

    Attributes:
        instructions: what is answered.
        tasks: one task for each condition.
        bare: index of the condition without a safety prompt, or None.
        protocol: fingerprint of the sampling.
        model: short name of the model.
        path: folder of the evaluation; outputs are kept in its subfolder `outputs`.
        progress: reports progress.
        lenders: folders of other work, one of which may have the very same outputs.
    """

    instructions: Instructions
    tasks: tuple[Task, ...]
    bare: int | None
    protocol: str
    model: str
    path: Path
    progress: Progress
    lenders: Sequence[Path] = ()

    @classmethod
    def of(
        cls,
        instructions: Instructions,
        chosen: Chosen,
        answerer: Answerer,
        model: str,
        path: Path,
        progress: Progress,
        lenders: Sequence[Path] = (),
    ) -> OutputsWork:
        """The work that an evaluation asks for.

        Where outputs are compared and no condition is without a safety prompt, one is added.
        """
        conditions, names = list(chosen.conditions), list(chosen.names)
        bare = [place for place, one in enumerate(conditions) if one.safety_prompt is None]
        if not bare and chosen.preference_judge is not None:
            conditions.insert(0, replace(conditions[0], safety_prompt=None))
            names.insert(0, answerer.bare_name)
            bare = [0]
        protocol = chosen.output_protocol
        questions = [
            Question(condition, name, instructions.queries, protocol)
            for condition, name in zip(conditions, names, strict=True)
        ]
        return cls(
            instructions=instructions,
            tasks=tuple(answerer.tasks(questions)),
            bare=bare[0] if bare else None,
            protocol=protocol.fingerprint(NotJudged()),
            model=model,
            path=path,
            progress=progress,
            lenders=lenders,
        )

    def run(self) -> tuple[PromptOutputs, ...]:
        """Sample the outputs that are missing, and write all."""
        found: list[PromptOutputs] = []
        store = MeasurementStore(self.path)
        for task in self.tasks:
            key = key_of(task, self.protocol)
            borrow(task, key, store, self.lenders, self.progress)
            stored = complete(task, key, Judges(NotJudged()), store, self.progress)
            file = f"{FOLDER}/{stored.rows_file.stem}.json"
            outputs = AlpacaOutputs(
                self.instructions.texts,
                tuple(row.response for row in stored.rows()),
                generator=safe_name(f"{self.model}-{task.condition.name}") or "model",
                dataset=self.instructions.dataset,
            )
            # What was damaged or belongs to another name is written again.
            if not outputs.is_in(self.path / file):
                outputs.save(self.path / file)
            found.append(PromptOutputs(task.condition.name, key, file))
        return tuple(found)

    def wins(
        self, outputs: Sequence[PromptOutputs], judge: PairwiseJudge
    ) -> tuple[PromptWins, ...]:
        """Compare the outputs under each prompt with those without one.

        Args:
            outputs: what `run` returned.
            judge: judge of pairs.
        """
        if self.bare is None:
            return ()
        base = outputs[self.bare]
        baseline = AlpacaOutputs.load(self.path / base.file)
        return tuple(
            PromptWins(
                each.prompt,
                base.prompt,
                Preferences(self.path, PreferenceKey(each.key, base.key, judge.fingerprint)).judged(
                    AlpacaOutputs.load(self.path / each.file),
                    baseline,
                    judge,
                    self.progress,
                    self._withheld(base) | self._withheld(each),
                ),
            )
            for each in outputs
            if each is not base
        )

    def _withheld(self, outputs: PromptOutputs) -> frozenset[int]:
        """Indices of the instructions that no output belongs to, because none was given."""
        stored = MeasurementStore(self.path).stored(outputs.key)
        stored.read()
        return frozenset(place for place, row in enumerate(stored.rows()) if row.is_withheld)
