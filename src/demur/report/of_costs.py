"""What a report shows of the cost of prompts along whole answers."""

from __future__ import annotations

from collections.abc import Sequence

from demur.evaluation.costs import ANSWER_TOKENS, Cost
from demur.queries import queries_in_words
from demur.report.subject import Table, rate_text


def answers_tables(costs: Sequence[Cost], name: str | None = None) -> list[Table]:
    """A table of what prompts cost along answers; none where nothing is known.

    Args:
        costs: the costs on each set under each prompt.
        name: name of the one set that they are on, which the title says then; None for the names
            that they have.
    """
    shown = [one for one in costs if one.answers or one.length]
    if not shown:
        return []
    return [
        Table(
            title="Answers to "
            + ("harmless queries" if name is None else queries_in_words(name, "harmless")),
            columns=(
                *(("queries",) if name is None else ()),
                "prompt",
                "answers read",
                "KL a token (nats)",
                "same word likeliest",
                "tokens",
                "change",
                "cut",
                "in another language",
            ),
            rows=tuple((*((one.set,) if name is None else ()), *_cells(one)) for one in shown),
            note="KL a token, same word likeliest: along the first "
            f"{ANSWER_TOKENS} tokens of the model's own answers without a prompt; 0 and 100 % are "
            "no change. Tokens: mean length of the answers that neither refuse nor deflect, and "
            "the change from no prompt. Cut: answers that did not end by themselves. In brackets: "
            "95 % intervals.",
            words=("prompt",),
        )
    ]


def _signed(tokens: float) -> str:
    """A difference with its sign; what rounds to 0 has no minus."""
    return f"{round(tokens, 1) + 0.0:+.1f}"


def _cells(cost: Cost) -> tuple[str, ...]:
    answers, length, other = cost.answers, cost.length, cost.other_language
    change = ""
    if length is not None and length.change is not None:
        change = _signed(length.change)
        if length.interval is not None:
            change += f" ({_signed(length.interval.low)} to {_signed(length.interval.high)})"
    return (
        cost.prompt,
        "" if answers is None or not answers.tokens else str(answers.queries),
        "" if answers is None else str(answers) if answers.tokens else "0",
        "" if answers is None else rate_text(answers.agreement) if answers.tokens else "100 %",
        "" if length is None else f"{length.tokens:.1f}",
        change,
        "" if length is None else f"{length.cut} of {length.answers}",
        "" if other is None else rate_text(other),
    )
