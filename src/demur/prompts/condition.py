"""`Condition`: what stands before every query."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from demur.errors import DemurError
from demur.prompts.safety_prompt import SafetyPrompt
from demur.records import (
    NO_PROMPT,
    ConditionRecord,
    Query,
    fingerprint,
    tensor_fingerprint,
    text_of,
)


@dataclass(frozen=True)
class Condition:
    """What stands before every query.

    Attributes:
        safety_prompt: text or trained embeddings, or None for no safety prompt.
        system_prompt: the application's own system text, which follows the safety prompt, or None.

    Example:
        >>> Condition().name
        'none'
    """

    safety_prompt: SafetyPrompt | None = None
    system_prompt: str | None = None

    @property
    def name(self) -> str:
        """Name of the safety prompt, or `none`; for people."""
        return NO_PROMPT if self.safety_prompt is None else self.safety_prompt.name

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the condition: its texts and embeddings; names are left out."""
        prompt = self.safety_prompt
        embeddings = None if prompt is None else prompt.embeddings
        return fingerprint(
            "condition",
            text=None if prompt is None else prompt.text,
            embeddings=None if embeddings is None else tensor_fingerprint(embeddings),
            system_prompt=self.system_prompt,
        )

    def system_prompt_for(self, query: Query) -> str | None:
        """The application's own system text before a query: the condition's, or the query's own.

        Raises:
            DemurError: both have one.
        """
        own = None if isinstance(query, str) else query.system_prompt
        if own is not None and self.system_prompt is not None:
            raise DemurError(
                f"The query {text_of(query)!r:.60} has a system message of its own, and the "
                "application's system text would stand before it as well: leave out one of them "
                "(--system-prompt none)."
            )
        return self.system_prompt if own is None else own

    def record(self, name: str | None = None) -> ConditionRecord:
        """What is recorded of the condition.

        Args:
            name: name to record instead of the safety prompt's own, for example to tell two
                prompts of one name apart.
        """
        prompt = self.safety_prompt
        return ConditionRecord(
            name=name or self.name,
            fingerprint=self.fingerprint,
            text=None if prompt is None else prompt.text,
            trained=prompt is not None and prompt.is_trained,
            system_prompt=self.system_prompt,
        )


def check_system_texts(conditions: Iterable[Condition], queries: Iterable[Query]) -> None:
    """Check that no query has two system texts: its own, and that of a condition.

    Raises:
        DemurError: one has.
    """
    with_one = [one for one in conditions if one.system_prompt is not None][:1]
    for condition in with_one:
        for query in queries:
            condition.system_prompt_for(query)


def distinct_names(conditions: list[Condition]) -> list[str]:
    """A name for each condition, no two alike: `none` is no safety prompt and nothing else.

    A name that is taken gets a number, for example `long (2)`.
    """
    taken = {NO_PROMPT} if any(one.safety_prompt is None for one in conditions) else set()
    names: list[str] = []
    for condition in conditions:
        if condition.safety_prompt is None:
            names.append(NO_PROMPT)
            continue
        wanted = name = condition.name
        number = 2
        while name in taken or name == NO_PROMPT:
            name, number = f"{wanted} ({number})", number + 1
        taken.add(name)
        names.append(name)
    return names
