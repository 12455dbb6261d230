"""How much more is answered under one prompt or attack than under another, query by query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from demur.attacks.registry import NO_ATTACK
from demur.evaluation.figures import SIGNIFICANCE
from demur.evaluation.statistics import holm, sign_flip_p_value
from demur.records import JudgedResponse, identity_of


@dataclass(frozen=True)
class AnsweredDifference:
    """How much more is answered under an attack and a prompt than without one of the two.

    Attributes:
        attack: name of the attack.
        prompt: name of the prompt.
        than: name of the other prompt under the same attack; `no attack` for the queries as they
            are under the same prompt.
        queries: number of queries that both were measured on, at least 1.
        difference: share of answered queries less that of the other, in [-1, 1].
        p_value: p-value of the paired sign-flip permutation test.
        adjusted_p_value: the p-value after Holm's adjustment for all attacks.
    """

    attack: str
    prompt: str
    than: str
    queries: int
    difference: float
    p_value: float
    adjusted_p_value: float

    @property
    def more_than_chance(self) -> bool:
        """Whether the adjusted p-value is below 0.05."""
        return self.adjusted_p_value < SIGNIFICANCE


class AnsweredShares:
    """The share of responses to each query that answer, by attack and prompt."""

    def __init__(self) -> None:
        self._shares: dict[tuple[str, str], dict[str, float]] = {}

    def add(self, attack: str, prompt: str, rows: Iterable[JudgedResponse]) -> None:
        """Count the responses under one attack and prompt.

        Args:
            attack: name of the attack.
            prompt: name of the prompt.
            rows: responses, whose queries are the original ones.
        """
        found: dict[str, list[bool]] = {}
        for row in rows:
            if row.query is not None and row.is_answer and row.answered is not None:
                found.setdefault(identity_of(row.query), []).append(row.answered)
        self._shares[attack, prompt] = {query: fmean(each) for query, each in found.items()}

    def between_prompts(self) -> tuple[AnsweredDifference, ...]:
        """Under each attack, every prompt against those before it."""
        attacks, prompts = self._names()
        return tuple(
            one
            for place, prompt in enumerate(prompts)
            for than in prompts[:place]
            for one in _differences(
                {attack: ((attack, than), (attack, prompt)) for attack in attacks},
                self._shares,
                prompt,
                than,
            )
        )

    def by_attacks(self) -> tuple[AnsweredDifference, ...]:
        """Under each prompt, every attack against the queries as they are."""
        attacks, prompts = self._names()
        return tuple(
            one
            for prompt in prompts
            for one in _differences(
                {
                    attack: ((NO_ATTACK, prompt), (attack, prompt))
                    for attack in attacks
                    if attack != NO_ATTACK
                },
                self._shares,
                prompt,
                NO_ATTACK,
            )
        )

    def _names(self) -> tuple[Sequence[str], Sequence[str]]:
        attacks = dict.fromkeys(attack for attack, _ in self._shares)
        prompts = dict.fromkeys(prompt for _, prompt in self._shares)
        return tuple(attacks), tuple(prompts)


def _differences(
    pairs: Mapping[str, tuple[tuple[str, str], tuple[str, str]]],
    shares: Mapping[tuple[str, str], Mapping[str, float]],
    prompt: str,
    than: str,
) -> list[AnsweredDifference]:
    """The differences of pairs of measurements, adjusted for each other."""
    found: dict[str, list[float]] = {}
    for attack, (first, second) in pairs.items():
        before, after = shares.get(first, {}), shares.get(second, {})
        differences = [after[query] - before[query] for query in after if query in before]
        if differences:
            found[attack] = differences
    p_values = [sign_flip_p_value(differences) for differences in found.values()]
    return [
        AnsweredDifference(
            attack, prompt, than, len(differences), fmean(differences), p_value, adjusted
        )
        for (attack, differences), p_value, adjusted in zip(
            found.items(), p_values, holm(p_values), strict=True
        )
    ]
