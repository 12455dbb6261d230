"""Keys and values of a running batch: one slot for each sequence, filled without gaps."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from demur.chat.engine.prefix import PrefixStates, states_of


class SlotLayer(DynamicLayer):
    """Keys and values of one layer in a buffer that never moves.

    Row `i` writes its next token at `positions[i]`, so rows of different lengths grow side by side
    and the index of a key is its position in the sequence.
    """

    key_buffer: Tensor
    value_buffer: Tensor

    @classmethod
    def over(cls, prefix: DynamicLayer, slots: int, capacity: int) -> SlotLayer:
        """Room for `slots` sequences of `capacity` tokens that open with a prefix."""
        layer = cls()
        keys, values = states_of(prefix)
        layer.key_buffer = _buffer(keys, slots, capacity)
        layer.value_buffer = _buffer(values, slots, capacity)
        layer.dtype, layer.device = keys.dtype, keys.device
        layer.is_initialized = True
        layer.keys = layer.key_buffer[:, :, : keys.shape[2]]
        layer.values = layer.value_buffer[:, :, : keys.shape[2]]
        return layer

    def point_at(self, rows: Tensor, positions: Tensor, longest: int) -> None:
        """Set where the next token of each of the A active rows goes, both (A,) on the device."""
        self.rows, self.positions = rows, positions
        self.longest = longest
        active = positions.shape[0]
        self.keys = self.key_buffer[:active, :, :longest]
        self.values = self.value_buffer[:active, :, :longest]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        self.key_buffer[self.rows, :, self.positions] = key_states[:, :, 0]
        self.value_buffer[self.rows, :, self.positions] = value_states[:, :, 0]
        active = key_states.shape[0]
        return (
            self.key_buffer[:active, :, : self.longest + 1],
            self.value_buffer[:active, :, : self.longest + 1],
        )


class SlotCache:
    """Slots for a running batch over one shared prefix.

    Slots `0..active-1` are in use; a sequence that leaves is replaced by the last one.
    """

    def __init__(self, prefix: PrefixStates, slots: int, capacity: int) -> None:
        """
        Args:
            prefix: what every sequence opens with.
            slots: sequences that may run at once.
            capacity: tokens of the longest sequence, prefix included.
        """
        self.layers = [
            SlotLayer.over(layer, slots, capacity) if states_of(layer) else copy.copy(layer)
            for layer in prefix.layers
        ]
        self.cache = Cache(layers=list(self.layers))
        self.prefix_length = prefix.length
        self.lengths: list[int] = []
        self.slots = slots

    @property
    def active(self) -> int:
        """Sequences in the batch."""
        return len(self.lengths)

    def add(self, states: Sequence[Tensor]) -> None:
        """Put a sequence into the next free slot.

        Args:
            states: keys and values of the suffix for each layer in turn, each (H, S, D).
        """
        slot, length = self.active, states[0].shape[1]
        pairs = zip(states[0::2], states[1::2], strict=True)
        for layer, (keys, values) in zip(self._filled(), pairs, strict=True):
            end = self.prefix_length + length
            layer.key_buffer[slot, :, self.prefix_length : end] = keys
            layer.value_buffer[slot, :, self.prefix_length : end] = values
        self.lengths.append(self.prefix_length + length)

    def remove(self, slot: int) -> None:
        """Take a sequence out; the last one moves to its slot."""
        last = self.active - 1
        if slot != last:
            end = self.lengths[last]
            for layer in self._filled():
                layer.key_buffer[slot, :, :end] = layer.key_buffer[last, :, :end]
                layer.value_buffer[slot, :, :end] = layer.value_buffer[last, :, :end]
            self.lengths[slot] = self.lengths[last]
        self.lengths.pop()

    def step_inputs(self) -> tuple[Tensor, Tensor]:
        """Get ready for one token a row.

        Returns:
            position_ids: (A, 1).
            visible: (A, 1, 1, longest + 1), True where a row may look.
        """
        lengths = torch.tensor(self.lengths)
        longest = int(lengths.max())
        places: dict[torch.device, tuple[Tensor, Tensor]] = {}  # one copy for all of its layers
        for layer in self._filled():
            device = layer.key_buffer.device
            if device not in places:
                places[device] = torch.arange(len(lengths), device=device), lengths.to(device)
            layer.point_at(*places[device], longest)
        visible = torch.arange(longest + 1)[None] <= lengths[:, None]
        return lengths[:, None], visible[:, None, None]

    def stepped(self) -> None:
        """Note that every row has grown by one token."""
        self.lengths = [length + 1 for length in self.lengths]

    def _filled(self) -> list[SlotLayer]:
        return [layer for layer in self.layers if isinstance(layer, SlotLayer)]


def _buffer(states: Tensor, slots: int, capacity: int) -> Tensor:
    """Room for (slots, H, capacity, D), opening with a prefix of (1, H, P, D) in every slot."""
    buffer = states.new_zeros(slots, states.shape[1], capacity, states.shape[3])
    buffer[:, :, : states.shape[2]] = states
    return buffer
