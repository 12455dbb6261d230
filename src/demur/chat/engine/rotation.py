"""Rotary positions with fewer calls into torch.

Architectures of transformers rotate queries and keys by a function of one name, which autograd
takes apart into slices, copies and additions. Here a rotation and its gradient are six operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

_NAME = "apply_rotary_pos_emb"

_DTYPES = torch.float32, torch.bfloat16, torch.float16

_Own = Callable[..., tuple[Tensor, Tensor]]


class Rotation:
    """Takes the place of `apply_rotary_pos_emb(query, key, cosines, sines)`.

    Args:
        own: the architecture's function, which gets every other call.
    """

    def __init__(self, own: _Own) -> None:
        self._own = own
        self._made_of: tuple[Tensor, Tensor] | None = None
        self._factors: tuple[Tensor, Tensor]

    def __call__(
        self, query: Tensor, key: Tensor, cosines: Tensor, sines: Tensor, *more: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """Rotate (B, H, T, D) queries and keys by (B, T, D) cosines and sines."""
        width = cosines.shape[-1]
        plain = not more and not named and cosines.dim() == 3 and width % 2 == 0
        if not plain or any(
            states.shape[-1] != width or states.dtype != cosines.dtype for states in (query, key)
        ):
            return self._own(query, key, cosines, sines, *more, **named)
        cosines, signed = self._factors_of(cosines, sines)
        rotate: Callable[..., Tensor] = _Rotated.apply
        return rotate(query, cosines, signed), rotate(key, cosines, signed)

    def is_right_in(self, dtype: torch.dtype) -> bool:
        """Whether it gives the same numbers as the architecture's function on random input."""
        random = torch.Generator().manual_seed(0)
        query, key = (torch.randn(1, 5, heads, 8, generator=random).to(dtype) for heads in (4, 2))
        angles = torch.rand(2, 1, 5, 8, generator=random).to(dtype)  # unlike in both halves
        with torch.inference_mode(False), torch.no_grad():
            try:
                both = [
                    turn(query.transpose(1, 2), key.transpose(1, 2), *angles)
                    for turn in (self._own, self)
                ]
            except Exception:  # a function of the same name that takes something else
                return False
        return all(torch.equal(one, other) for one, other in zip(*both, strict=True))

    @contextmanager
    def instead_of_own(self, code: ModuleType) -> Iterator[None]:
        """Stand in a Python module in place of the architecture's function inside."""
        own = getattr(code, _NAME)
        setattr(code, _NAME, self)
        try:
            yield
        finally:
            setattr(code, _NAME, own)
            self._made_of = None

    def _factors_of(self, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, T, D) cosines, and sines with the sign of their half; made once for all layers."""
        made_of = self._made_of
        if made_of is None or made_of[0] is not cosines or made_of[1] is not sines:
            half = sines.shape[-1] // 2
            signed = torch.cat([-sines[..., :half], sines[..., half:]], dim=-1)
            self._factors = cosines[:, None], signed[:, None]
            self._made_of = cosines, sines
        return self._factors


class _Rotated(torch.autograd.Function):
    """States times cosines, plus states with their halves exchanged times signed sines."""

    @staticmethod
    def forward(context: Any, states: Tensor, cosines: Tensor, signed: Tensor) -> Tensor:
        context.factors = cosines, signed
        return (states * cosines).add_(_exchanged(states).mul_(signed))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cosines, signed = context.factors
        (arriving,) = gradients
        return _exchanged(arriving * signed).add_(arriving * cosines), None, None


def _exchanged(states: Tensor) -> Tensor:
    """(..., D) states with their halves exchanged."""
    halves = states.view(*states.shape[:-1], 2, states.shape[-1] // 2)
    return halves.flip(-2).view(states.shape)


def rotation_of(code: ModuleType) -> Rotation | None:
    """The rotation that gives the same numbers as the function of a Python module, if it has one.

    Args:
        code: the Python module of an architecture.
    """
    own = getattr(code, _NAME, None)
    if own is None or isinstance(own, Rotation):
        return None
    rotation = Rotation(own)
    return rotation if all(map(rotation.is_right_in, _DTYPES)) else None
