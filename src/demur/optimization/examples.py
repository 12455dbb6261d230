"""The two queries that show a reader what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demur.runs import Measurement


@dataclass(frozen=True)
class Example:
    """One query before and after.

    Attributes:
        query: the held-out query.
        label: `harmful` or `harmless`.
        before: a response under the basic prompt.
        before_refused: the judge's verdict on it.
        after: a response under the optimized prompt.
        after_refused: the judge's verdict on it.
    """

    query: str
    label: str
    before: str
    before_refused: bool
    after: str
    after_refused: bool


def telling_examples(before: Measurement, after: Measurement) -> tuple[Example, ...]:
    """One harmful and one harmless query.

    Preferred are a harmful query that is now refused and was not, and a harmless one that is now
    answered and was not; failing that the first whose verdict is as it should be.
    """
    return tuple(_telling(before, after, harmful=harmful) for harmful in (True, False))


def _telling(before: Measurement, after: Measurement, *, harmful: bool) -> Example:
    examples = [_example(before, after, row) for row in before.queries.rows(harmful=harmful)]
    changed = [
        example
        for example in examples
        if example.after_refused == harmful and example.before_refused != harmful
    ]
    right = [example for example in examples if example.after_refused == harmful]
    preferred: Sequence[Example] = changed or right or examples
    return preferred[0]


def _example(before: Measurement, after: Measurement, row: int) -> Example:
    was, now = before.responses[row][0], after.responses[row][0]
    return Example(
        query=before.queries.texts[row],
        label="harmful" if before.queries.harmful[row] else "harmless",
        before=was.text,
        before_refused=was.refused,
        after=now.text,
        after_refused=now.refused,
    )
