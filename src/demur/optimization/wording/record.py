"""What is recorded of a search for a better wording, and of what it found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from demur.evaluation.record import JudgeRecord, SetRecord
from demur.optimization.wording.ledger import Spent
from demur.optimization.wording.scoring import Score
from demur.optimization.wording.settings import KIND, WordingSettings
from demur.records import ConditionRecord, ServerRecord, fingerprint, to_plain

RESULTS = "results.json"
RESULTS_FORMAT = f"{KIND} results"

Ending: TypeAlias = Literal["budget", "all right", "nothing new", "no proposals"]
"""Why a search ended: its budget was spent, every validation query was right, every minibatch was
right, or the proposer gave nothing that can be used, many times in a row."""


@dataclass(frozen=True)
class WordingIdentity:
    """What makes a run the same one: everything but names, the budget and how it is asked.

    Attributes:
        model: fingerprint of the model that the prompt is for.
        proposer: fingerprint of the model that proposes wordings.
        proposer_tokens: largest number of tokens in a proposal.
        proposer_temperature: temperature of the proposals.
        basic_prompt: fingerprint of the basic prompt and the application's own system text.
        training: fingerprint of the queries that proposals look at.
        validation: fingerprint of the queries that choose among the proposals.
        held_out: fingerprint of the queries of the final measurement.
        judge: fingerprint of the judge of refusal.
        samples: number of responses to each query.
        tokens: largest number of tokens in a response.
        seed: seed of the sampling and of the search.
        minibatch: pairs of queries that a proposal is made from.
        most_characters: largest number of characters in a prompt.
    """

    model: str
    proposer: str
    proposer_tokens: int
    proposer_temperature: float
    basic_prompt: str
    training: str
    validation: str
    held_out: str
    judge: str
    samples: int
    tokens: int
    seed: int
    minibatch: int
    most_characters: int

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all of it (64 hex digits)."""
        return fingerprint(KIND, identity=to_plain(self))


@dataclass(frozen=True)
class WordingRecord:
    """What a run searches, and how.

    Attributes:
        model: model that the prompt is for.
        proposer: model that proposes wordings.
        basic_prompt: the basic prompt, and the application's own system text.
        training: queries that proposals look at.
        validation: queries that choose among the proposals.
        held_out: queries of the final measurement.
        judge: judge of refusal.
        settings: settings as they were chosen, by name.
        objects: names of the settings that were given as objects, which no command can name; what
            `settings` has for them is only a description.
    """

    model: ServerRecord
    proposer: ServerRecord
    basic_prompt: ConditionRecord
    training: SetRecord
    validation: SetRecord
    held_out: SetRecord
    judge: JudgeRecord
    settings: WordingSettings
    objects: tuple[str, ...] = ()

    def identity(self) -> WordingIdentity:
        """What must be the same for the run to go on."""
        settings = self.settings
        return WordingIdentity(
            model=self.model.fingerprint,
            proposer=self.proposer.fingerprint,
            proposer_tokens=settings.proposer.proposer_tokens,
            proposer_temperature=settings.proposer.proposer_temperature,
            basic_prompt=self.basic_prompt.fingerprint,
            training=self.training.fingerprint,
            validation=self.validation.fingerprint,
            held_out=self.held_out.fingerprint,
            judge=self.judge.fingerprint,
            samples=settings.sampling.samples,
            tokens=settings.sampling.tokens,
            seed=settings.seed,
            minibatch=settings.search.minibatch,
            most_characters=settings.search.most_characters,
        )


@dataclass(frozen=True)
class Candidate:
    """A wording that was measured on all validation queries.

    Attributes:
        text: the wording.
        parent: place of the candidate that it was made from, or None for the basic prompt.
        score: what was right on the validation queries.
        spent: what had been asked when its measurement was complete.
    """

    text: str
    parent: int | None
    score: Score
    spent: Spent


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        candidates: wordings that were measured on all validation queries, the basic prompt first.
        proposals: number of proposals that were asked for.
        unusable: number of proposals that were blank, too long, measured before, held chat
            markup or repeated a query.
        ending: why the search ended.

    Raises:
        ValueError: there is no candidate.
    """

    candidates: tuple[Candidate, ...]
    proposals: int
    unusable: int
    ending: Ending

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ValueError("a search has at least one candidate, the basic prompt")

    @property
    def best(self) -> int:
        """Place of the candidate with the highest score; of several the first one."""
        scores = [one.score.value for one in self.candidates]
        return scores.index(max(scores))


@dataclass(frozen=True)
class WordingResults:
    """The content of `results.json`, which marks a run as finished.

    Attributes:
        run: fingerprint of what the run is.
        search: what the search found.
        budget: the most that the command might ask.
        spent: what it asked, the final measurement included.
    """

    run: str
    search: Search
    budget: Spent
    spent: Spent
