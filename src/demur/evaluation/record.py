"""What is recorded of an evaluation, so that the same one can go on and be done again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from demur.chat.settings import WorkLoadSettings
from demur.evaluation.answerers.records import AnswererRecord
from demur.evaluation.settings import EvaluateSettings, FileSettings, ServerSettings
from demur.judges.preference import PairwiseJudge
from demur.judges.protocol import Judge
from demur.records import ConditionRecord, ModelRecord, Queries

KIND = "evaluation"


@dataclass(frozen=True)
class SetRecord:
    """A set of queries.

    Attributes:
        name: name of the set; for people.
        queries: number of queries.
        fingerprint: fingerprint of texts, labels and categories.
    """

    name: str
    queries: int
    fingerprint: str

    @classmethod
    def of(cls, queries: Queries) -> SetRecord:
        """What is recorded of queries."""
        return cls(queries.name, len(queries), queries.fingerprint)


@dataclass(frozen=True)
class JudgeRecord:
    """A judge.

    Attributes:
        name: name of the judge; for people.
        fingerprint: fingerprint that changes whenever its verdicts may change.
    """

    name: str
    fingerprint: str

    @classmethod
    def of(cls, judge: Judge | PairwiseJudge) -> JudgeRecord:
        """What is recorded of a judge."""
        return cls(judge.name, judge.fingerprint)


@dataclass(frozen=True)
class EvaluationIdentity:
    """What makes an evaluation the same one: everything but names and wording.

    Attributes:
        answerer: what answers.
        choice_of_prompts: fingerprints of the conditions.
        choice_of_queries: fingerprints of the query sets.
        samples: number of responses to each query.
        tokens: largest number of tokens in a response.
        seed: seed of the sampling.
        judge: fingerprint of the judge of refusal.
        harm_judge: fingerprint of the judge of harm, or None.
        instructions: fingerprint of the instructions, or None.
        output_tokens: largest number of tokens in an output, or None.
        preference_judge: fingerprint of the preference judge, or None.
    """

    answerer: AnswererRecord
    choice_of_prompts: tuple[str, ...]
    choice_of_queries: tuple[str, ...]
    samples: int
    tokens: int
    seed: int
    judge: str
    harm_judge: str | None
    instructions: str | None
    output_tokens: int | None
    preference_judge: str | None


@dataclass(frozen=True)
class EvaluationRecord:
    """What an evaluation measures, and how.

    Attributes:
        answerer: what answers: a model, a server or files.
        conditions: conditions that are compared; none for files, whose rows name them.
        sets: query sets; none for files.
        instructions: ordinary instructions, or None.
        judge: judge of refusal.
        harm_judge: judge of harm, or None.
        preference_judge: judge of pairs of outputs, or None.
        settings: settings as they were chosen, by name.
        source: settings by which a command names the answerer.
        objects: names of the settings that were given as objects, which no command can name; what
            `settings` has for them is only a description.
    """

    answerer: AnswererRecord
    conditions: tuple[ConditionRecord, ...]
    sets: tuple[SetRecord, ...]
    instructions: SetRecord | None
    judge: JudgeRecord
    harm_judge: JudgeRecord | None
    preference_judge: JudgeRecord | None
    settings: EvaluateSettings
    source: WorkLoadSettings | ServerSettings | FileSettings
    objects: tuple[str, ...] = ()

    @property
    def most_tokens(self) -> int:
        """The largest number of tokens in a response to a query."""
        return self.settings.most_tokens

    @property
    def system_prompt(self) -> str | None:
        """The application's own system text, or None."""
        return next((each.system_prompt for each in self.conditions), None)

    def identity(self) -> EvaluationIdentity:
        """What must be the same for the evaluation to go on."""
        sampling, instructions = self.settings.sampling, self.instructions
        return EvaluationIdentity(
            answerer=_without_name(self.answerer),
            choice_of_prompts=tuple(each.fingerprint for each in self.conditions),
            choice_of_queries=tuple(each.fingerprint for each in self.sets),
            samples=sampling.samples,
            tokens=self.settings.most_tokens,
            seed=sampling.seed,
            judge=self.judge.fingerprint,
            harm_judge=_fingerprint(self.harm_judge),
            instructions=None if instructions is None else instructions.fingerprint,
            output_tokens=None if instructions is None else self.settings.output_tokens,
            preference_judge=_fingerprint(self.preference_judge),
        )


def _fingerprint(judge: JudgeRecord | None) -> str | None:
    return None if judge is None else judge.fingerprint


def _without_name(record: AnswererRecord) -> AnswererRecord:
    """A model is the same under any name; a server's model is its name, and a file's matters."""
    return replace(record, name="") if isinstance(record, ModelRecord) else record
