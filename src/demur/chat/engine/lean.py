"""Frozen parts of a model with fewer calls into torch, for passes with a gradient.

Each call into torch costs time of its own, which a GPU waits for where its kernels are small.
autograd dispatches several calls for each linear map (transposed weights, views there and back) and
some thirty for a norm that is written in Python. The weights are frozen here, so a gradient is one
matrix product for a map, and a few operations for a norm.

Nothing depends on names alone: a linear map must be torch's own class, and a norm or a rotation is
replaced only where it gives the same numbers, to the last bit, on random input. Every other part
runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.chat.engine.architecture import code_of, root_mean_square_norm
from demur.chat.engine.rotation import Rotation, rotation_of

_Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Replacements:
    """What takes whose place: forward functions of modules, and functions of Python modules.

    Attributes:
        made_for: device and dtype of the model.
        forwards: modules and their forward functions.
        rotations: Python modules and their rotations.
    """

    made_for: tuple[torch.device, torch.dtype]
    forwards: tuple[tuple[torch.nn.Module, _Forward], ...]
    rotations: tuple[tuple[ModuleType, Rotation], ...]

    @classmethod
    def of(cls, model: PreTrainedModel) -> _Replacements:
        """What there is for a model."""
        forwards = [
            (module, _forward_of(module))
            for module in model.modules()
            if "forward" not in vars(module)
        ]
        rotations = [(code, rotation_of(code)) for code in code_of(model)]
        return cls(
            (model.device, model.dtype),
            tuple((module, forward) for module, forward in forwards if forward is not None),
            tuple((code, rotation) for code, rotation in rotations if rotation is not None),
        )


_known: WeakKeyDictionary[PreTrainedModel, _Replacements] = WeakKeyDictionary()


@contextmanager
def lean(model: PreTrainedModel) -> Iterator[None]:
    """Let the frozen parts of a model dispatch fewer operations inside."""
    found = _known.get(model)
    if found is None or found.made_for != (model.device, model.dtype):
        found = _known[model] = _Replacements.of(model)
    with ExitStack() as changes:
        for module, forward in found.forwards:
            if "forward" not in vars(module):  # accelerate sets one, also later
                vars(module)["forward"] = forward
                changes.callback(vars(module).pop, "forward", None)
        for code, rotation in found.rotations:
            changes.enter_context(rotation.instead_of_own(code))
        yield


def _forward_of(module: torch.nn.Module) -> _Forward | None:
    """The forward function that takes the place of a module's own; None to leave it."""
    weights = list(module.parameters())
    if not weights or any(
        type(weight) is not torch.nn.Parameter
        or weight.requires_grad
        or not weight.is_floating_point()
        or weight.device.type == "meta"
        for weight in weights
    ):
        return None
    if type(module) is torch.nn.Linear:
        return _Linear(module)
    return _norm_of(module)


class _Linear:
    """A frozen linear map."""

    def __init__(self, module: torch.nn.Linear) -> None:
        self._module = module
        self._weight = module.weight.detach()
        self._turned = self._weight.t()

    def __call__(self, states: Tensor) -> Tensor:
        """The map of (..., n) states."""
        if self._weight.data_ptr() != self._module.weight.data_ptr():  # moved to another device
            self._weight = self._module.weight.detach()
            self._turned = self._weight.t()
        apply: Callable[..., Tensor] = _FrozenLinear.apply
        return apply(states, self._weight, self._turned, self._module.bias)


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, states: Tensor, weight: Tensor, turned: Tensor, bias: Tensor | None
    ) -> Tensor:
        context.weight = weight
        rows = _rows(states)
        mapped = rows.mm(turned) if bias is None else torch.addmm(bias, rows, turned)
        # A view would be refused where a model changes it in place.
        shape = [*states.shape[:-1], weight.shape[0]]
        unviewed: Tensor = torch.ops.aten._unsafe_view(mapped, shape)
        return unviewed

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        arriving = gradients[0]
        given = _rows(arriving).mm(context.weight)
        return given.view(*arriving.shape[:-1], given.shape[1]), None, None, None


def _rows(states: Tensor) -> Tensor:
    """(..., n) states as (N, n)."""
    width = states.shape[-1]
    rows = states.numel() // max(1, width)
    return states.view(rows, width) if states.is_contiguous() else states.reshape(rows, width)


@dataclass(frozen=True)
class _Norm:
    """A root mean square norm with frozen factors.

    Attributes:
        factors: (d,), in the dtype in which they are multiplied.
        width: d, as a tensor; a number would be made one at every call.
        epsilon: added to the mean square, likewise.
        early: whether the states are rounded to their dtype before the factors, or after them.
    """

    factors: Tensor
    width: Tensor
    epsilon: Tensor
    early: bool

    def __call__(self, states: Tensor) -> Tensor:
        """The norm of (..., d) states."""
        apply: Callable[..., Tensor] = _FrozenNorm.apply
        return apply(states, self)


class _FrozenNorm(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, states: Tensor, norm: _Norm) -> Tensor:
        wide = _float32(states)
        squares = (wide * wide).sum(-1, keepdim=True).div_(norm.width)
        scales = squares.add_(norm.epsilon).rsqrt_()
        normal = wide * scales
        context.norm, context.dtype = norm, states.dtype
        context.save_for_backward(normal, scales)
        if norm.early and states.dtype != torch.float32:
            return normal.to(states.dtype) * norm.factors
        return (normal * norm.factors).to(states.dtype)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normal, scales = context.saved_tensors
        arriving = _float32(gradients[0]) * context.norm.factors
        along = (arriving * normal).sum(-1, keepdim=True).div_(context.norm.width)
        return arriving.addcmul_(normal, along, value=-1).mul_(scales).to(context.dtype), None


def _float32(states: Tensor) -> Tensor:
    return states if states.dtype == torch.float32 else states.float()


def _norm_of(module: torch.nn.Module) -> _Norm | None:
    """The norm that gives the same numbers as a module, where it is one."""
    found = root_mean_square_norm(module)
    if found is None:
        return None
    weight, epsilon = found
    weight = weight.detach()
    width = torch.tensor(float(len(weight)), device=weight.device)
    least = torch.tensor(epsilon, dtype=torch.float32, device=weight.device)
    random = torch.Generator().manual_seed(0)
    states = torch.randn(1, 7, len(weight), generator=random).to(weight.device, weight.dtype)
    for factors, early in ((weight, True), (weight.float(), False), (1.0 + weight.float(), False)):
        norm = _Norm(factors, width, least, early)
        if _same(module, norm, states):
            return norm
    return None


def _same(module: torch.nn.Module, norm: _Norm, states: Tensor) -> bool:
    """Whether both give the same numbers, and gradients that are the same up to rounding."""
    found = []
    try:
        with torch.inference_mode(False), torch.enable_grad():
            for forward in (module, norm):
                leaf = (states * 3).detach().requires_grad_()
                put_out: Tensor = forward(leaf)
                (gradient,) = torch.autograd.grad(put_out, leaf, states.roll(1, dims=1))
                found.append((put_out.detach(), gradient.float()))
    except Exception:  # a module with another forward function
        return False
    (one, slope), (other, its_slope) = found
    rounding = 8 * torch.finfo(states.dtype).eps * slope.abs().max()
    return torch.equal(one, other) and bool((slope - its_slope).abs().max() <= rounding)
