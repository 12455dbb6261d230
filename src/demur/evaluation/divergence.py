"""What a prompt costs: how far it moves what the model would have said anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur.errors import DemurError

if TYPE_CHECKING:
    from torch import Tensor

    from demur.chat import ChatModel


def kl_divergence(
    model: ChatModel, prompted: Tensor, unprompted: Tensor, *, at_once: int = 64
) -> float:
    """Mean KL divergence of the next-token distribution from the un-prompted model's.

    Args:
        model: model that the representations are from.
        prompted: (N, d), representations of queries under a prompt: P.
        unprompted: (N, d), representations of the same queries without one: Q.
        at_once: number of queries whose logits are held together.

    Returns:
        The mean of D(P || Q) over the queries, in nats, at least 0.

    Raises:
        DemurError: it is not a finite number.
    """
    divergences = kl_divergences(model, prompted, unprompted, at_once=at_once)
    return max(0.0, float(divergences.mean()))


def kl_divergences(
    model: ChatModel, prompted: Tensor, unprompted: Tensor, *, at_once: int = 64
) -> Tensor:
    """The divergence of each query: (N,) float64 on the CPU, in nats; see `kl_divergence`.

    Raises:
        DemurError: one is not a finite number.
    """
    import torch

    parts: list[Tensor] = []
    for start in range(0, len(prompted), at_once):
        rows = slice(start, start + at_once)
        log_p = model.next_token_logits(prompted[rows]).double().log_softmax(-1)
        log_q = model.next_token_logits(unprompted[rows]).double().log_softmax(-1)
        p = log_p.exp()
        # A token that is never said adds nothing, even where its logit is minus infinity. What is
        # not a number is kept, so that it is noticed below.
        parts.append(torch.where(p == 0, 0.0, p * (log_p - log_q)).sum(-1).cpu())
    divergences = torch.cat(parts)
    if not bool(torch.isfinite(divergences).all()):
        raise DemurError(
            f"The KL divergence of {model.name} is not a finite number: load the model with "
            "another dtype, for example float32."
        )
    return divergences
