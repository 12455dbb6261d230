"""Ordinary instructions, from what a caller names or hands over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from demur.errors import DemurError
from demur.evaluation.alpaca import DATASET
from demur.prompts import SafetyPrompt
from demur.queries import QueryChoice, QuerySet, as_query_set, labelled, load_instructions
from demur.records import Queries

BUILT_IN = "built-in"

InstructionChoice = QueryChoice
"""`built-in`, or harmless queries as `as_query_set` takes them."""


@dataclass(frozen=True)
class Instructions:
    """Ordinary instructions under one name.

    Attributes:
        name: `built-in`, or the name of the query set; for people.
        texts: the instructions.
    """

    name: str
    texts: tuple[str, ...]

    @cached_property
    def queries(self) -> Queries:
        """The instructions as harmless queries."""
        return labelled(self.name, QuerySet(self.name, "harmless", self.texts))

    @property
    def dataset(self) -> str:
        """The field `dataset` of the outputs."""
        return DATASET if self.name == BUILT_IN else self.name


def choose_instructions(
    choice: InstructionChoice | None,
    prompts: Sequence[SafetyPrompt | None],
    *,
    compared: bool,
) -> Instructions | None:
    """The instructions that a caller chose, None where there are none.

    Args:
        choice: `built-in`, or harmless queries: a text file with one a line, `FILE:COLUMN`,
            `hf:ORG/NAME:COLUMN`, a `QuerySet`, or a list of texts.
        prompts: prompts under which they are answered.
        compared: whether a judge compares the outputs under each prompt with those without one.

    Raises:
        DemurError: the choice cannot be read, or there is nothing to compare.
    """
    if compared and choice is None:
        raise DemurError(
            "A preference judge compares outputs for instructions: choose some, for example "
            "--instructions built-in."
        )
    if compared and all(prompt is None for prompt in prompts):
        raise DemurError(
            "A preference judge compares the outputs under a prompt with those without one: give a "
            "prompt other than none."
        )
    if choice is None:
        return None
    if choice == BUILT_IN:
        return Instructions(BUILT_IN, load_instructions())
    read = as_query_set(choice, "harmless")
    texts = tuple(query for query in read.texts if isinstance(query, str))
    if len(texts) < len(read):
        raise DemurError(
            f"The instructions {read.name!r:.80} hold conversations with a history or a "
            "system message, which the format of alpaca_eval has no place for: give single "
            "messages."
        )
    return Instructions(read.name, texts)
