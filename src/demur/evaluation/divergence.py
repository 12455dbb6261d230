"""What a prompt costs: how far it moves what the model would have said anyway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.errors import DemurError

if TYPE_CHECKING:
    from torch import Tensor

    from demur.chat import ChatModel


@dataclass(frozen=True)
class NextTokens:
    """How a prompt changes the first token of the response to each of N queries.

    Attributes:
        divergences: (N,) float64 on the CPU: KL divergence of the next-token distribution under
            the prompt from the one without, in nats; rounding may leave one below 0.
        changed: (N,) bool on the CPU: whether the likeliest next token is another one.
    """

    divergences: Tensor
    changed: Tensor


def next_tokens(
    model: ChatModel, prompted: Tensor, unprompted: Tensor, *, at_once: int = 64
) -> NextTokens:
    """How a prompt changes the next token of queries.

    Args:
        model: model that the representations are from.
        prompted: (N, d), representations of queries under a prompt: P.
        unprompted: (N, d), representations of the same queries without one: Q.
        at_once: number of queries whose logits are held together.

    Returns:
        D(P || Q) of each query, and whether the most probable token of P is another than that of Q.

    Raises:
        DemurError: a divergence is not a finite number.
    """
    import torch

    divergences: list[Tensor] = []
    changed: list[Tensor] = []
    for start in range(0, len(prompted), at_once):
        rows = slice(start, start + at_once)
        log_p = model.next_token_logits(prompted[rows]).double().log_softmax(-1)
        log_q = model.next_token_logits(unprompted[rows]).double().log_softmax(-1)
        p = log_p.exp()
        # A token that is never said adds nothing, even where its logit is minus infinity. What is
        # not a number is kept, so that it is noticed below.
        divergences.append(torch.where(p == 0, 0.0, p * (log_p - log_q)).sum(-1).cpu())
        changed.append((log_p.argmax(-1) != log_q.argmax(-1)).cpu())
    found = NextTokens(torch.cat(divergences), torch.cat(changed))
    if not bool(torch.isfinite(found.divergences).all()):
        raise DemurError(
            f"The KL divergence of {model.name} is not a finite number: load the model with "
            "another dtype, for example float32."
        )
    return found
