"""A model for packages that read many continuations of one opening, and keep its states as pairs.

Before transformers had caches of its own, a model took and returned the keys and values of each
layer as a pair, and packages that were written then expand these pairs to a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from demur.chat.engine.architecture import cached
from demur.chat.engine.prefix import PrefixStates, compute_prefix, states_of


@dataclass(frozen=True)
class OpeningOutput:
    """What a model returns for an opening.

    Attributes:
        past_key_values: keys and values of each layer, (1, H, P, D) each; empty for a layer that
            uses another layer's.
    """

    past_key_values: tuple[tuple[Tensor, ...], ...]


class SharedOpening:
    """A model that takes and returns the states of an opening as pairs.

    Args:
        model: a model whose opening can be shared, see `Engine.shares_prefix`.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._states: PrefixStates | None = None

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self._model.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the model."""
        return self._model.dtype

    def get_input_embeddings(self) -> nn.Module:
        """The model's table of embeddings."""
        return self._model.get_input_embeddings()

    def __call__(
        self,
        inputs_embeds: Tensor,
        past_key_values: Sequence[Sequence[Tensor]] | None = None,
        use_cache: bool = True,
    ) -> Any:
        """Read an opening, or what follows it.

        Args:
            inputs_embeds: (1, P, d), the opening; or (B, T, d), what follows it.
            past_key_values: what was returned for the opening, expanded to B; None for the opening.
            use_cache: True.

        Returns:
            An `OpeningOutput` for the opening; what the model itself returns for what follows.
        """
        if past_key_values is None:
            with torch.no_grad():
                self._states = compute_prefix(self._model, inputs_embeds)
            return OpeningOutput(tuple(states_of(layer) for layer in self._states.layers))
        assert self._states is not None
        cache = cached(self._model, self._states.with_states(past_key_values).cache())
        return self._model(inputs_embeds=inputs_embeds, use_cache=True, **cache)
