"""What a report of several results says of the differences between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from demur.errors import DemurError
from demur.evaluation.captions import p_value_text
from demur.evaluation.comparison import Comparison
from demur.gate import EvaluationChanges, GroupChange, PromptChange, compare_evaluations
from demur.optimization import Run
from demur.queries import is_own_set
from demur.records import transcript_of
from demur.report.subject import Table, capitalized, rate_text
from demur.settings import command_line

MOST_QUERIES = 20
"""Number of changed queries that are listed of a pair of prompts."""


@dataclass(frozen=True)
class SideBySide:
    """How one result differs from the one before it.

    Attributes:
        before: name of the result before.
        after: name of the result after.
        remarks: statements, the most important one first.
        tables: the differences with their tests, and the queries that changed.
        command: command that tells more, or nothing.
    """

    before: str
    after: str
    remarks: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    command: str = ""


def differences_between(works: Sequence[object], names: Sequence[str]) -> list[SideBySide]:
    """Each result compared with the one before it, where that is possible.

    Args:
        works: the results in their order.
        names: name of each.
    """
    pairs = zip(works, works[1:], names, names[1:], strict=False)
    return [found for pair in pairs if (found := _between(*pair)) is not None]


def _between(before: object, after: object, first: str, second: str) -> SideBySide | None:
    if isinstance(before, Comparison) and isinstance(after, Comparison):
        if before.folder.resolve() == after.folder.resolve():
            return None
        try:
            changes = compare_evaluations(before, after)
        except DemurError as error:
            return SideBySide(first, second, (f"They cannot be compared. {error}",))
        return SideBySide(first, second, tuple(_remarks(changes)), tuple(_tables(changes)))
    if isinstance(before, Run) and isinstance(after, Run):
        if before.path.resolve() == after.path.resolve():
            return None
        prompts = [word for run in (before, after) for word in ("--prompt", str(run.path))]
        return SideBySide(
            first,
            second,
            ("Each run measured its own prompt. Measure both on the same queries, with tests:",),
            command=command_line("evaluate", prompts),
        )
    return None


def _remarks(changes: EvaluationChanges) -> Iterator[str]:
    for one in changes.prompts:
        yield f"{_pair(one)}: {one.sentence}"
    yield from changes.remarks


def _pair(one: PromptChange) -> str:
    return one.after if one.before == one.after else f"{one.before} -> {one.after}"


def _tables(changes: EvaluationChanges) -> Iterator[Table]:
    changed = [one for one in changes.prompts if not one.is_same]
    if changed:
        yield _differences(changed, changes.judged)
    for one in changed:
        rows = _changed(one)
        if rows:
            left = len(rows) - MOST_QUERIES
            yield Table(
                title=f"Queries that changed, {_pair(one)}",
                columns=("query", "set", "its responses"),
                rows=tuple(rows[:MOST_QUERIES]),
                note=f"And {left} more: `demur compare` lists them." if left > 0 else "",
                words=("set", "its responses"),
            )
    if changes.costs:
        yield Table(
            title="Cost on harmless queries",
            columns=("prompt", "queries", "figure", "before", "after", "difference"),
            rows=tuple(
                (one.prompt, one.set, one.figure, one.before, one.after, one.told)
                for one in changes.costs
            ),
            words=("queries", "figure", "difference"),
        )


def _differences(prompts: Sequence[PromptChange], judged: str) -> Table:
    return Table(
        title="Differences on the same queries",
        columns=("prompt", "queries", "measure", "before", "after", "points", "p", "difference"),
        rows=tuple(_row(one, group) for one in prompts for group in one.groups),
        note=f"{capitalized(judged)}. In brackets: 95 % intervals. Paired sign-flip "
        "permutation test; p adjusted for all tests of a prompt (Holm).",
        words=("queries", "measure", "difference"),
    )


def _row(one: PromptChange, group: GroupChange) -> tuple[str, ...]:
    told = "worse" if group.is_worse else "more than chance"
    return (
        _pair(one),
        group.title,
        group.verb,
        rate_text(group.before),
        rate_text(group.after),
        f"{100 * group.difference:+.1f}",
        p_value_text(group.adjusted_p_value),
        told if group.more_than_chance else "too few" if group.too_few else "within chance",
    )


def _changed(one: PromptChange) -> list[tuple[str, ...]]:
    """The queries that changed, each once: the user's own first, then the largest changes."""
    found: dict[str, tuple[bool, float, tuple[str, ...]]] = {}
    for group in one.groups:
        for query in (*group.more, *group.fewer):
            text = transcript_of(query.query)
            if text not in found:
                own, size = is_own_set(group.set), abs(query.after - query.before)
                found[text] = (not own, -size, (text, group.title, query.in_words))
    return [row for _, _, row in sorted(found.values(), key=lambda one: one[:2])]
