"""What is recorded of attacks, so that the same ones can go on and be done again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from demur.attacks.settings import AttackSettings, GcgSettings
from demur.chat.settings import WorkLoadSettings
from demur.evaluation.answerers.records import AnswererRecord
from demur.evaluation.record import JudgeRecord, SetRecord
from demur.evaluation.settings import FileSettings, ServerSettings
from demur.records import ConditionRecord, ModelRecord

KIND = "attack"
SUFFIXES = "suffixes"
"""Folder of a folder of results that keeps the suffixes which a search found."""


@dataclass(frozen=True)
class TemplateRecord:
    """An attack that rewrites queries.

    Attributes:
        name: name of the attack.
        source: where it is described; empty where its author does not say.
        opening: what every answer was made to begin with, or None.
        disguises: whether the words of the queries are disguised.
        queries: fingerprint of the attacked queries.
    """

    name: str
    source: str
    opening: str | None
    disguises: bool
    queries: str


@dataclass(frozen=True)
class AttackIdentity:
    """What makes attacks the same ones: everything but names and wording.

    Attributes:
        answerer: what is attacked.
        choice_of_prompts: fingerprints of the conditions.
        queries: fingerprint of the queries.
        choice_of_attacks: for each attack its opening and the fingerprint of its queries.
        gcg: how suffixes are searched; None where they are not.
        samples: number of responses to each query.
        tokens: largest number of tokens in a response.
        seed: seed of the sampling and the search.
        judge: fingerprint of the judge of refusal.
        harm_judge: fingerprint of the judge of harm, or None.
    """

    answerer: AnswererRecord
    choice_of_prompts: tuple[str, ...]
    queries: str
    choice_of_attacks: tuple[tuple[str | None, str], ...]
    gcg: GcgSettings | None
    samples: int
    tokens: int
    seed: int
    judge: str
    harm_judge: str | None


@dataclass(frozen=True)
class AttackRecord:
    """What is attacked, and how.

    Attributes:
        answerer: what is attacked: a model or a server.
        conditions: conditions that are attacked.
        queries: the harmful queries.
        attacks: the attacks that rewrite queries; the first one leaves them as they are.
        with_gcg: whether suffixes are searched as well.
        judge: judge of refusal.
        harm_judge: judge of harm, or None.
        settings: settings as they were chosen, by name.
        source: settings by which a command names the answerer.
        objects: names of the settings that were given as objects, which no command can name.
    """

    answerer: AnswererRecord
    conditions: tuple[ConditionRecord, ...]
    queries: SetRecord
    attacks: tuple[TemplateRecord, ...]
    with_gcg: bool
    judge: JudgeRecord
    harm_judge: JudgeRecord | None
    settings: AttackSettings
    source: WorkLoadSettings | ServerSettings | FileSettings
    objects: tuple[str, ...] = ()

    @property
    def most_tokens(self) -> int:
        """The largest number of tokens in a response."""
        return self.settings.as_evaluation.most_tokens

    @property
    def system_prompt(self) -> str | None:
        """The application's own system text, or None."""
        return next((each.system_prompt for each in self.conditions), None)

    def identity(self) -> AttackIdentity:
        """What must be the same for the attacks to go on."""
        answerer = self.answerer
        return AttackIdentity(
            answerer=replace(answerer, name="") if isinstance(answerer, ModelRecord) else answerer,
            choice_of_prompts=tuple(each.fingerprint for each in self.conditions),
            queries=self.queries.fingerprint,
            choice_of_attacks=tuple((each.opening, each.queries) for each in self.attacks),
            gcg=self.settings.gcg if self.with_gcg else None,
            samples=self.settings.sampling.samples,
            tokens=self.most_tokens,
            seed=self.settings.sampling.seed,
            judge=self.judge.fingerprint,
            harm_judge=None if self.harm_judge is None else self.harm_judge.fingerprint,
        )
