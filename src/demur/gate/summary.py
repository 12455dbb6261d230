"""A gate as Markdown, for the page of a build or a comment on a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from demur.evaluation.figures import PromptRates
from demur.gate.changed import Changed, GroupChange, PromptChange
from demur.gate.costs import APART
from demur.gate.gate import GateResult
from demur.gate.pairing import EvaluationChanges
from demur.markdown import escaped
from demur.records import Rate, transcript_of

_LONGEST_QUERY = 200
_MARKS = {"passed": "passed", "failed": "**failed**", "undecided": "**undecided**"}


def markdown_summary(result: GateResult) -> str:
    """Everything that a person who reads a build wants to know.

    Texts of others, such as names and queries, are escaped.

    Args:
        result: what the gate came to.
    """
    comparison = result.comparison
    headline = result.sentence if result.checks else "Evaluation: nothing was required"
    parts = [f"## {escaped(headline)}"]
    if result.checks:
        parts.append(_checks(result))
    parts.append(_rates(comparison.rates))
    costs = [
        f"{one.set}, {one.prompt}: {'; '.join(one.all_in_words)}."
        for one in comparison.costs
        if one.divergence or one.changed.count  # no prompt costs nothing
    ]
    parts += [f"- {escaped(line)}" for line in costs[:1]]
    if len(costs) > 1:
        parts[-1] = "\n".join(f"- {escaped(line)}" for line in costs)
    if comparison.judged:
        parts.append(f"{escaped(comparison.judged)}. Rates with their 95 % Wilson intervals.")
    if result.changes is not None:
        parts.append(markdown_changes(result.changes, result.listed))
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_changes(changes: EvaluationChanges, listed: int) -> str:
    """How two evaluations differ.

    Args:
        changes: the changes.
        listed: number of changed queries to name, of each set and direction.
    """
    before, after = map(escaped, changes.names)
    parts = [f"### {after} compared with {before}"]
    if changes.remarks:
        parts.append("\n".join(f"- {escaped(one)}" for one in changes.remarks))
    for one in changes.prompts:
        parts.append(f"**{escaped(_pair(one))}.** {escaped(one.sentence)}")
        if one.is_same:
            continue
        parts.append(_changes(one.groups))
        parts += [text for group in one.groups if (text := _queries(group, listed))]
    if changes.costs:
        parts += [_costs(changes), f"In brackets: 95 % intervals; {APART}."]
    return "\n\n".join(parts)


def _costs(changes: EvaluationChanges) -> str:
    rows = [
        (
            escaped(one.prompt),
            escaped(one.set),
            one.figure,
            one.before,
            one.after,
            f"**{one.told}**" if one.is_worse else one.told,
        )
        for one in changes.costs
    ]
    return _table(("prompt", "harmless queries", "cost", "before", "after", ""), rows)


def _checks(result: GateResult) -> str:
    rows = [
        (
            _MARKS[one.status],
            escaped(one.name),
            escaped(one.about),
            escaped(one.found) + (f"<br>Next: {escaped(one.advice)}" if one.advice else ""),
        )
        for one in result.checks
    ]
    return _table(("", "check", "on", "measured"), rows)


def _rates(rates: Sequence[PromptRates]) -> str:
    wholes = [one for one in rates if one.category is None]
    harm = any(one.complied_harmfully for one in wholes)
    deflected = any(one.deflected is not None and one.deflected.value for one in wholes)
    header = ["queries", "prompt", "refused"]
    header += ["deflected"] if deflected else []
    header += ["complied harmfully"] if harm else []
    rows = []
    for one in wholes:
        title = ", ".join(part for part in (one.set, one.label) if part)
        row = [escaped(title), escaped(one.prompt), _rate(one.refused)]
        if deflected:
            row.append(_rate(one.deflected))
        if harm:
            row.append(_rate(one.complied_harmfully) if one.label == "harmful" else "")
        rows.append(row)
    return _table(header, rows) if rows else ""


def _rate(rate: Rate | None) -> str:
    return "no verdict" if rate is None else f"{rate} of {rate.queries}"


def _changes(groups: Sequence[GroupChange]) -> str:
    rows = [
        (
            escaped(one.title),
            one.measure.replace("-", " "),
            *one.cells,
            "**worse**" if one.is_worse else one.told,
        )
        for one in groups
    ]
    return _table(("queries", "", "before", "after", "points", "p", ""), rows)


def _queries(group: GroupChange, listed: int) -> str:
    """The queries that changed most, under a heading that opens."""
    lines: list[str] = []
    verb = group.verb
    for found, words in ((group.more, f"{verb} now"), (group.fewer, f"{verb} no longer")):
        if not found or not listed:
            continue
        lines.append(f"{len(found)} of {group.before.queries}, {words} or {_other(words)}:\n")
        lines += [_query(one) for one in found[:listed]]
        if len(found) > listed:
            lines.append(f"- {len(found) - listed} more")
        lines.append("")
    if not lines:
        return ""
    title = f"<details><summary>{escaped(group.title)}: queries that changed</summary>"
    return "\n".join([title, "", *lines, "</details>"])


def _other(words: str) -> str:
    return "less often" if words.endswith("no longer") else "more often"


def _query(one: Changed) -> str:
    text = " ".join(transcript_of(one.query).split())
    text = text if len(text) <= _LONGEST_QUERY else f"{text[:_LONGEST_QUERY]}..."
    return f"- {escaped(text)} ({one.in_words})"


def _pair(one: PromptChange) -> str:
    return one.after if one.before == one.after else f"{one.after}, before {one.before}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
