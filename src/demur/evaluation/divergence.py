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
    """How a prompt changes the next token at N places.

    Attributes:
        divergences: (N,) float64 on the CPU: KL divergence of one next-token distribution from the
            other, in nats; rounding may leave one below 0.
        changed: (N,) bool on the CPU: whether the likeliest next token is another one.
    """

    divergences: Tensor
    changed: Tensor


def next_tokens(
    model: ChatModel,
    first: Tensor,
    second: Tensor,
    *,
    at_once: int = 64,
    exact: bool = True,
) -> NextTokens:
    """How far two next-token distributions lie apart, at N places.

    Only the logits of a few places are held at a time.

    Args:
        model: model that the states are from.
        first: (N, d), representations or states at target tokens: they give P.
        second: (N, d), those at the same places under another condition: they give Q.
        at_once: number of places whose logits are held together.
        exact: whether to compute in float64; float32 is wrong by some 1e-5 nats and faster.

    Returns:
        D(P || Q) at each place, and whether the most probable token of P is another than that of Q.

    Raises:
        DemurError: a divergence is not a finite number.
    """
    import torch

    dtype = torch.float64 if exact else torch.float32
    divergences: list[Tensor] = []
    changed: list[Tensor] = []
    for start in range(0, len(first), at_once):
        rows = slice(start, start + at_once)
        log_p = model.next_token_logits(first[rows]).to(dtype).log_softmax(-1)
        log_q = model.next_token_logits(second[rows]).to(dtype).log_softmax(-1)
        p = log_p.exp()
        # A token that is never said adds nothing, even where its logit is minus infinity. What is
        # not a number is kept, so that it is noticed below.
        divergences.append(torch.where(p == 0, 0.0, p * (log_p - log_q)).sum(-1).double().cpu())
        changed.append((log_p.argmax(-1) != log_q.argmax(-1)).cpu())
    found = NextTokens(torch.cat(divergences), torch.cat(changed))
    if not bool(torch.isfinite(found.divergences).all()):
        raise DemurError(
            f"The KL divergence of {model.name} is not a finite number: load the model with "
            "another dtype, for example float32."
        )
    return found
