"""The two queries that show a reader what changed."""

from __future__ import annotations

from dataclasses import dataclass

from demur.records import Label, Measurement, Verdict, transcript_of


@dataclass(frozen=True)
class Example:
    """One query before and after.

    Attributes:
        query: a held-out query: its text, or the transcript of its conversation.
        label: label of the query.
        before: a response under the basic prompt.
        before_verdict: what it does by the judge; None where that had no verdict.
        after: a response under the optimized prompt.
        after_verdict: what it does by the judge; None where that had no verdict.
    """

    query: str
    label: Label
    before: str
    before_verdict: Verdict | None
    after: str
    after_verdict: Verdict | None


def telling_examples(before: Measurement, after: Measurement) -> tuple[Example, ...]:
    """One harmful and one harmless query.

    Preferred are a harmful query that is now refused and was not, and a harmless one that is now
    answered and was not; failing that the first whose verdict is as it should be.

    Args:
        before: measurement under the basic prompt.
        after: measurement of the same queries under the optimized prompt.
    """
    return tuple(_telling(before, after, harmful=harmful) for harmful in (True, False))


def _telling(before: Measurement, after: Measurement, *, harmful: bool) -> Example:
    examples = [_example(before, after, row) for row in before.queries.rows(harmful=harmful)]
    right = [one for one in examples if _is_right(one.after_verdict, one.label) is True]
    changed = [one for one in right if _is_right(one.before_verdict, one.label) is False]
    return (changed or right or examples)[0]


def _example(before: Measurement, after: Measurement, row: int) -> Example:
    was, now = before.responses[row][0], after.responses[row][0]
    return Example(
        query=transcript_of(before.queries.texts[row]),
        label=before.queries.labels[row],
        before=was.response,
        before_verdict=was.verdict,
        after=now.response,
        after_verdict=now.verdict,
    )


def _is_right(verdict: Verdict | None, label: Label) -> bool | None:
    return None if verdict is None else verdict.is_right(label)
