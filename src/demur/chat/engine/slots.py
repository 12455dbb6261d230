"""Keys and values of a running batch: one slot for each sequence, filled without gaps."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from demur.chat.engine.prefix import PrefixStates, SuffixStates, alike, states_of


class SlotLayer(DynamicLayer):
    """Keys and values of one layer in a buffer that never moves.

    Row `i` writes its next token at `positions[i]`, so rows of different lengths grow side by side
    and the index of a key is its position in the sequence.
    """

    key_buffer: Tensor
    value_buffer: Tensor

    @classmethod
    def over(cls, keys: Tensor, values: Tensor) -> SlotLayer:
        """A layer whose keys and values lie in buffers of (slots, H, capacity, D)."""
        layer = cls()
        layer.key_buffer, layer.value_buffer = keys, values
        layer.dtype, layer.device = keys.dtype, keys.device
        layer.is_initialized = True
        layer.keys, layer.values = keys[:, :, :0], values[:, :, :0]
        return layer

    def point_at(self, rows: Tensor, positions: Tensor, width: int) -> None:
        """Set where the next token of each of the A active rows goes.

        Args:
            rows: (A,), on the device.
            positions: (A,), likewise.
            width: of the keys and values that a row may look at.
        """
        self.rows, self.positions, self.width = rows, positions, width
        active = positions.shape[0]
        # What is there before the token, as the number of a cache's tokens is read off it.
        self.keys = self.key_buffer[:active, :, : width - 1]
        self.values = self.value_buffer[:active, :, : width - 1]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        self.key_buffer[self.rows, :, self.positions] = key_states[:, :, 0]
        self.value_buffer[self.rows, :, self.positions] = value_states[:, :, 0]
        active = key_states.shape[0]
        return (
            self.key_buffer[:active, :, : self.width],
            self.value_buffer[:active, :, : self.width],
        )


@dataclass(frozen=True)
class Arrival:
    """A sequence that gets a slot.

    Attributes:
        states: keys and values of the suffixes among which its own are.
        place: its place among them.
    """

    states: SuffixStates
    place: int


class SlotCache:
    """Slots for a running batch over one shared prefix.

    Slots `0..active-1` are in use; a sequence that leaves is replaced by the last one. Layers whose
    states have the same form share a buffer, so that a sequence comes and goes in few calls. Behind
    the last token of each slot stands one that belongs to no sequence, at `spare`.

    Args:
        prefix: what every sequence opens with.
        slots: sequences that may run at once.
        capacity: tokens of the longest sequence, prefix included.
    """

    def __init__(self, prefix: PrefixStates, slots: int, capacity: int) -> None:
        self.slots, self.spare = slots, capacity
        tensors = prefix.tensors()
        self._kinds = alike(tensors)
        self._buffers = [
            tensors[kind[0]].new_zeros(
                len(kind),
                slots,
                tensors[kind[0]].shape[1],
                capacity + 1,
                tensors[kind[0]].shape[3],
            )
            for kind in self._kinds
        ]
        own: dict[int, Tensor] = {}
        for kind, buffer in zip(self._kinds, self._buffers, strict=True):
            own.update(zip(kind, buffer, strict=True))
        places = iter(range(len(tensors)))
        self.layers = [
            SlotLayer.over(own[next(places)], own[next(places)])
            if states_of(layer)
            else copy.copy(layer)
            for layer in prefix.layers
        ]
        self.cache = Cache(layers=list(self.layers))
        self.lengths: list[int] = []
        self.open(prefix)

    def open(self, prefix: PrefixStates) -> None:
        """Let every slot open with a prefix; no sequence is left."""
        tensors = prefix.tensors()
        for kind, buffer in zip(self._kinds, self._buffers, strict=True):
            states = torch.stack([tensors[index] for index in kind])
            buffer[:, :, :, : prefix.length] = states
        self.prefix_length = prefix.length
        self.lengths.clear()

    @property
    def active(self) -> int:
        """Sequences in the batch."""
        return len(self.lengths)

    def add(self, arrivals: Sequence[Arrival]) -> None:
        """Put sequences into the next free slots."""
        for arrival in arrivals:
            slot, place = self.active, arrival.place
            end = self.prefix_length + arrival.states.lengths[place]
            for buffer, rows in zip(self._buffers, arrival.states.of_suffix(place), strict=True):
                buffer[:, slot, :, self.prefix_length : end] = rows
            self.lengths.append(end)

    def remove(self, leaving: Sequence[int]) -> list[int]:
        """Take sequences out; the last ones move to their slots.

        Args:
            leaving: their slots.

        Returns:
            The slot that each sequence that stays had before, in the order of the slots now.
        """
        kept, gone = list(range(self.active)), set(leaving)
        for slot in sorted(gone, reverse=True):
            kept[slot] = kept[-1]
            kept.pop()
        for slot, before in enumerate(kept):
            if slot != before:
                end = self.lengths[before]
                for buffer in self._buffers:
                    buffer[:, slot, :, :end] = buffer[:, before, :, :end]
        self.lengths[:] = [self.lengths[before] for before in kept]
        return kept

    def point_at(self, positions: Tensor, width: int) -> None:
        """Set where the next token of each row goes.

        Args:
            positions: (A,) on the CPU or the device, for the first A slots.
            width: of what a row may look at.
        """
        places: dict[torch.device, tuple[Tensor, Tensor]] = {}  # one copy for all of its layers
        for layer in self.layers:
            if not isinstance(layer, SlotLayer):
                continue
            device = layer.key_buffer.device
            if device not in places:
                rows = torch.arange(len(positions), device=device)
                places[device] = rows, positions.to(device)
            layer.point_at(*places[device], width)

    def stepped(self) -> None:
        """Note that every row has grown by one token."""
        self.lengths[:] = [length + 1 for length in self.lengths]
