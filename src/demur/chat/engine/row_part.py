"""Neighbouring suffixes of a packed row as blocks, and the products of attention on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from demur.chat.engine.packing import Packing


@dataclass(frozen=True)
class Seen:
    """What the queries of a part saw.

    Attributes:
        rows: (Hkv * B, R, D), the queries.
        keys: (Hkv * B, L, D), those of the suffixes.
        values: (Hkv * B, L, E), those of the suffixes.
        shares: (Hkv * B, R, P + L), what each row attends to.
    """

    rows: Tensor
    keys: Tensor
    values: Tensor
    shares: Tensor


class RowPart:
    """Neighbouring suffixes of a row in blocks of L tokens, the longest suffix; P tokens before.

    The prefix's own tokens, where they are in the row, are cut into the first of the B blocks:
    these see no suffix, and what precedes them in the prefix. So one product serves both.

    Rows are queries or what belongs to them. The R = G * L rows of a block and a group of heads
    stand together, so all rows are (Hkv * B, R, D), or (Hkv, B * R, D) for what a group of heads
    shares. What a row scores or weighs lies along the last axis, the prefix before its own suffix:
    (Hkv * B, R, P + L). All is float32.

    It is made for few calls into torch, each of which costs time of its own on a GPU. That is why
    `as_strided` stands where several views would do the same.
    """

    def __init__(
        self,
        packing: Packing,
        row: int,
        place: int,
        heads: tuple[int, int],
        scaling: float,
        device: torch.device,
    ) -> None:
        """Place suffixes at `row` of the queries and `place` of the keys."""
        self.heads, groups, longest = heads, heads[0] // heads[1], packing.longest
        self.scaling = torch.tensor(scaling)  # a number would be made one at every call
        opening = -(-packing.before // longest)
        batch = opening + len(packing.lengths)
        self._prefix, self._longest, self._opening = packing.prefix, longest, opening
        self._batch, self._rows = batch, groups * longest
        before = torch.arange(opening * longest)
        fitting = before[: packing.before]
        flat = torch.cat([fitting, packing.flat + opening * longest])

        # Which token and head stands in each row, and where each token and head stands.
        queries = torch.cat(
            [before.clamp(max=max(0, packing.before - 1)), packing.padded.flatten() + row]
        ).view(1, batch, 1, longest)
        of_group = torch.arange(heads[0]).view(heads[1], 1, groups, 1)
        places = torch.arange(heads[0] * batch * longest).view(heads[1], batch, groups, longest)
        places = places.permute(1, 3, 0, 2).reshape(batch * longest, heads[0])[flat].flatten()
        filled = torch.zeros(heads[0] * batch * longest, 1).index_fill(0, places, 1.0)
        self._held = (queries * heads[0] + of_group).flatten().to(device)
        self._places = places.to(device)
        # A rounded row has the same tensors whatever it holds, so its padding is always told apart.
        padded = packing.width > 0 or len(places) < len(filled)
        self._filled = filled.to(device) if padded else None

        # The same for the keys of the suffixes; the blocks of the prefix have none.
        states = torch.cat([before * 0, packing.padded.flatten() + place])
        of_head = torch.arange(heads[1])
        self._states = (states * heads[1] + of_head[:, None]).flatten().to(device)
        own = (packing.flat + opening * longest)[:, None] + of_head * batch * longest
        self._own = own.flatten().to(device)
        self._mask, self._causal = self._masks(packing, groups, device)

    def _masks(
        self, packing: Packing, groups: int, device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        """(Hkv * B, R, L), added to scores on suffixes; what the prefix hides from itself."""
        longest, rows = self._longest, self._rows
        visible = torch.zeros(self._batch, longest, longest, dtype=torch.bool)
        visible[self._opening :] = packing.own_visible.view(-1, longest, longest)
        visible = visible.to(device)  # before it grows with the heads
        mask = torch.zeros(visible.shape, device=device).masked_fill(~visible, -torch.inf)
        mask = mask.repeat(self.heads[1], groups, 1)
        if not self._opening:
            return mask, None
        tokens = torch.arange(self._opening * longest).view(self._opening, 1, longest)
        tokens = tokens.expand(-1, groups, -1).reshape(self._opening * rows, 1)
        return mask, (torch.arange(self._prefix) > tokens).to(device)

    def take(self, other: RowPart) -> None:
        """Become another part of the same shape, in the tensors that this one has."""
        for name, tensor in vars(self).items():
            if isinstance(tensor, Tensor) and name != "scaling":
                tensor.copy_(getattr(other, name), non_blocking=True)

    def see(self, queries: Tensor, keys: Tensor, values: Tensor) -> Seen:
        """What the queries attend to, all of them by token."""
        rows = self.fold(queries)
        own = self._suffixes(keys)
        scores = self.products(rows, keys, own, self._mask)
        if self._causal is not None:
            width = self._prefix + self._longest
            block = self._batch * self._rows * width
            opening = self.heads[1], *self._causal.shape
            scores.as_strided(opening, (block, width, 1)).masked_fill_(self._causal, -torch.inf)
        return Seen(rows, own, self._suffixes(values), scores.softmax(-1))

    def fold(self, tokens: Tensor, *, blank: bool = False) -> Tensor:
        """The rows of this part among (T * Hq, D), (Hkv * B, R, D).

        Padding repeats a token, or is blank.
        """
        rows = tokens.index_select(0, self._held)
        if blank and self._filled is not None:
            rows.mul_(self._filled)
        return rows.view(self.heads[1] * self._batch, self._rows, -1)

    def unfold(self, rows: Tensor) -> Tensor:
        """Rows as (T * Hq, D)."""
        return rows.view(-1, rows.shape[-1]).index_select(0, self._places)

    def products(
        self, rows: Tensor, states: Tensor, own: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The products of each row with the states of the prefix and of its suffix.

        Args:
            rows: (Hkv * B, R, D).
            states: ((P + S) * Hkv, D).
            own: (Hkv * B, L, D), the suffixes' of them.
            mask: added to the products with the suffix.
        """
        turned = own.transpose(1, 2)
        found = torch.bmm(rows, turned) if mask is None else torch.baddbmm(mask, rows, turned)
        if not self._prefix:
            return found
        prefix = states.as_strided(
            (self.heads[1], states.shape[1], self._prefix), self._strides(states, turned=True)
        )
        shared = torch.bmm(rows.view(self.heads[1], -1, rows.shape[2]), prefix)
        return torch.cat([shared.view(len(rows), self._rows, -1), found], dim=-1)

    def mixture(self, weights: Tensor, states: Tensor, own: Tensor) -> Tensor:
        """The sum of the prefix's and the suffix's states, weighted by each row."""
        if not self._prefix:
            return torch.bmm(weights, own)
        shape = self.heads[1], self._prefix, states.shape[1]
        prefix = states.as_strided(shape, self._strides(states))
        mixed = torch.bmm(self._of_prefix(weights), prefix).view(len(weights), self._rows, -1)
        return mixed.baddbmm_(self._of_suffix(weights), own)

    def given(self, weights: Tensor, rows: Tensor) -> tuple[Tensor | None, Tensor]:
        """What the rows give back to the states: (1, P, Hkv, D) or None, and (1, S, Hkv, D)."""
        suffixes = self._of_suffix(weights) if self._prefix else weights
        heads, width = self.heads[1], rows.shape[2]
        own = torch.bmm(suffixes.transpose(1, 2), rows).view(-1, width)
        own = own.index_select(0, self._own).view(1, -1, heads, width)
        if not self._prefix:
            return None, own
        turned = self._of_prefix(weights).transpose(1, 2)
        prefix = torch.bmm(turned, rows.view(heads, -1, width))
        strides = len(prefix) * self._prefix * width, width, self._prefix * width, 1
        return prefix.as_strided((1, self._prefix, heads, width), strides), own

    def _strides(self, states: Tensor, *, turned: bool = False) -> tuple[int, int, int]:
        """Strides of the prefix's states, (Hkv, P, D) or (Hkv, D, P), in ((P + S) * Hkv, D)."""
        width = states.shape[1]
        token = self.heads[1] * width
        return (width, 1, token) if turned else (width, token, 1)

    def _of_prefix(self, weights: Tensor) -> Tensor:
        """(Hkv, B * R, P) of (Hkv * B, R, P + L)."""
        width, rows = self._prefix + self._longest, self._batch * self._rows
        return weights.as_strided((self.heads[1], rows, self._prefix), (rows * width, width, 1))

    def _of_suffix(self, weights: Tensor) -> Tensor:
        """(Hkv * B, R, L) of (Hkv * B, R, P + L)."""
        width = self._prefix + self._longest
        shape = len(weights), self._rows, self._longest
        return weights.as_strided(shape, (self._rows * width, width, 1), self._prefix)

    def _suffixes(self, states: Tensor) -> Tensor:
        """((P + S) * Hkv, D) as (Hkv * B, L, D); a short suffix repeats its last token."""
        own = states.index_select(0, self._states)
        return own.view(-1, self._longest, states.shape[1])
