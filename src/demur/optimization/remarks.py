"""What a person should know about a run before it takes its time, and about its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur.optimization.validation import Pick, Validation, allowed_share

if TYPE_CHECKING:
    from demur.optimization.plan import Plan

MOST_UNEQUAL = 3
"""How many times as many queries of one label as of the other need no remark."""


def remarks_on(plan: Plan) -> list[str]:
    """What was left out of the queries, flatters the figures, or leaves a choice without effect.

    Args:
        plan: what is to be optimized and how.
    """
    read = [one for one in (plan.anchors, plan.validation, plan.held_out) if one is not None]
    found = list(dict.fromkeys(remark for one in read for remark in one.remarks))
    shared, held_out = plan.shared_queries, len(plan.held_out)
    if shared:
        found.append(
            f"{shared} of the {held_out} held-out queries are trained on as well, so the final "
            "figures flatter the prompt: give other held-out queries."
        )
    chosen_by = plan.shared_with_validation
    if chosen_by:
        found.append(
            f"{chosen_by} of the {held_out} held-out queries choose among the epochs as well, so "
            "the final figures flatter the prompt: give other held-out queries."
        )
    seen = plan.shared_validation
    if seen and plan.validation is not None:
        found.append(
            f"{seen} of the {len(plan.validation)} validation queries are trained on as well, so "
            "the choice among the epochs favours later ones: give other validation queries."
        )
    harmful, harmless = (len(plan.anchors.rows(harmful=wanted)) for wanted in (True, False))
    if max(harmful, harmless) > MOST_UNEQUAL * min(harmful, harmless):
        rarer = "harmful" if harmful < harmless else "harmless"
        found.append(
            f"The queries to train on are {harmful} harmful and {harmless} harmless ones, so the "
            f"{rarer} ones count for little: add more {rarer} queries, for example the set "
            f"training, or give a lower --most-anchors."
        )
    if plan.settings.pick != "balanced" and not plan.method.validated:
        found.append(
            f"The method {plan.method.name!r} scores no refusals, so --pick {plan.settings.pick} "
            "changes nothing: leave it out."
        )
    return found


def remark_on_choice(scored: Validation, epoch: int, pick: Pick, budget: float) -> str:
    """Whether the prompt that is kept refuses more harmless validation queries than it may.

    Args:
        scored: the scores of the prompt that is kept.
        epoch: the epoch that it is from.
        pick: how it was chosen.
        budget: the benign budget, in [0, 1].

    Returns:
        A sentence on what to do; empty where the prompt keeps to its budget.
    """
    allowed = allowed_share(budget, pick)
    if scored.harmless <= allowed:
        return ""
    return (
        f"The prompt goes over its benign budget: --pick {pick} allows {100 * allowed:.1f} % of "
        f"the harmless validation queries to be refused, and epoch {epoch}, whose prompt is kept, "
        f"is scored at {100 * scored.harmless:.1f} %. Train longer (--epochs), or give more "
        "harmless queries of the kinds that are refused (--harmless)."
    )
