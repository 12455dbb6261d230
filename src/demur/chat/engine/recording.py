"""Recording what a device does, to launch it whole later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from transformers import PreTrainedModel

from demur import processes
from demur.chat.engine.forward import input_device

Work = Callable[[], None]
"""Reads and writes tensors that stay where they are."""


class Recorder(Protocol):
    """Records work on a device."""

    def record(self, *works: Work) -> tuple[Work, ...]:
        """Record works that run one after the other.

        Args:
            *works: each may use what those before it made.

        Returns:
            For each a function that runs it again, in the same order, on what its tensors hold.

        Raises:
            Exception: of any kind, where something cannot be recorded.
        """
        ...


class CudaRecorder:
    """CUDA graphs that share one pool of memory, since no two of them run at once.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._failed = False

    def record(self, *works: Work) -> tuple[Work, ...]:
        """See `Recorder.record`. After one failure nothing is recorded any more."""
        if self._failed:
            raise RuntimeError("an earlier recording failed")
        here = torch.cuda.current_stream(self._device)
        self._failed = True
        try:
            recorded = self._recorded(here, works)
        finally:
            torch.cuda.set_stream(here)  # a recording that failed does not leave its stream
        self._failed = False
        return recorded

    def _recorded(self, here: torch.cuda.Stream, works: tuple[Work, ...]) -> tuple[Work, ...]:
        with torch.cuda.device(self._device):
            self._stream.wait_stream(here)
            with torch.cuda.stream(self._stream):  # what libraries make on their first call
                for work in works:
                    work()
            here.wait_stream(self._stream)
            graphs = [torch.cuda.CUDAGraph() for _ in works]
            for graph, work in zip(graphs, works, strict=True):
                with torch.cuda.graph(
                    graph,
                    pool=self._pool,
                    stream=self._stream,
                    capture_error_mode="thread_local",
                ):
                    work()
        return tuple(graph.replay for graph in graphs)


def recorder_for(model: PreTrainedModel) -> Recorder | None:
    """A recorder for the model's device; None where there is none, or the model moves about.

    Processes that share a model record nothing: what they tell each other must run as it is.

    Args:
        model: a causal language model.
    """
    device = input_device(model)
    spread = len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1
    quantized = getattr(model, "hf_quantizer", None) is not None
    if device.type != "cuda" or spread or quantized or processes.count() > 1:
        return None
    if any(part.device != device for part in model.parameters()):
        return None
    return CudaRecorder(device)


def weights_at(model: PreTrainedModel) -> int:
    """A number that changes where weights get other memory, which recorded work does not know."""
    return hash(tuple((part.data_ptr(), part.dtype) for part in model.parameters()))
