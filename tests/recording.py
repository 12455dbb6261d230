"""A recorder for tests that works like a CUDA graph: Python does not run again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

Work = Callable[[], None]
Operation = tuple[Any, tuple[Any, ...], dict[str, Any], Any]


class _Tape(TorchDispatchMode):
    """Notes each operation with the tensors that it read and made."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        made = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, made))
        return made


class Tracing:
    """Records operations and does them again in the same tensors; counts what it did."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, *works: Work) -> tuple[Work, ...]:
        """See `demur.chat.engine.recording.Recorder`."""
        for work in works:
            work()
        tapes = []
        for work in works:
            with (tape := _Tape()):
                work()
            tapes.append(tape.operations)
        self.recorded += 1

        def again(operations: list[Operation]) -> Work:
            def run() -> None:
                self.replayed += 1
                with torch.no_grad():
                    for operation in operations:
                        _repeat(*operation)

            return run

        return tuple(map(again, tapes))


def _repeat(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> None:
    for old, new in zip(
        tree_flatten(made)[0], tree_flatten(function(*args, **kwargs))[0], strict=True
    ):
        if isinstance(old, Tensor) and old.numel() and old.data_ptr() != new.data_ptr():
            old.copy_(new)


class Refusing:
    """Can record nothing."""

    def record(self, *works: Work) -> tuple[Work, ...]:
        """See `demur.chat.engine.recording.Recorder`."""
        raise RuntimeError("operation not permitted when stream is capturing")
