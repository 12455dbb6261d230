"""How tables and reports word what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from demur.evaluation.figures import PromptRates

THIRD_TURN = "Refused in the third turn of a conversation"
IN_THIRD_TURN = "some of the held-out queries, behind two short harmless exchanges"
"""Title and note of a table of what a run measured in the third turn."""


def judged_text(judge: str, tokens: int, samples: int = 1, harmless: int | None = None) -> str:
    """Who judged what, for example `judge: default, 64 tokens`.

    Args:
        judge: name of the judge of refusal.
        tokens: largest number of tokens in a response.
        samples: number of responses to each query.
        harmless: largest number of tokens in a response to a harmless query, where it is another.
    """
    limit = f"{tokens} tokens" if harmless in (None, tokens) else f"{tokens} or {harmless} tokens"
    several = f"{samples} responses of " if samples > 1 else ""
    return f"judge: {judge}, {several}{limit}"


def deflected_notes(rates: Sequence[PromptRates]) -> list[str]:
    """A line on what deflects, beside a table of refusals; none where nothing does.

    Args:
        rates: rates of a table, one for each prompt and label.
    """
    told = [one for one in rates if one.deflected is not None]
    if not any(one.deflected.value for one in told if one.deflected is not None):
        return []
    shares: dict[str, list[str]] = {}
    for one in told:
        if one.deflected is not None:
            share = f"{100 * one.deflected.value:.0f} % of {one.label or 'all'} queries"
            shares.setdefault(one.prompt, []).append(share)
    each = "; ".join(f"{prompt} {' and '.join(found)}" for prompt, found in shares.items())
    return [f"deflected besides, neither refused nor answered: {each}"]


def p_value_text(p_value: float) -> str:
    """A p-value with three digits, for example `0.012` or `< 0.001`."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
