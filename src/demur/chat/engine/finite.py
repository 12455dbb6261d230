"""Numbers that are not finite are found where they are read, before anything is made of them."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from demur.errors import DemurError

_NOT_NUMBERS = "that are not numbers (NaN or infinity)"
_ZEROS = "that are all zero, as where numbers are too large for their squares"


class NotFiniteError(DemurError):
    """A model computes values that nothing can be made of.

    Args:
        name: name of the model.
        which: which values, as the end of "computes values ...".
        dtype: number format of the computation.
        condition: name of the condition under which it does, or None where that is not known.
    """

    def __init__(self, name: str, which: str, dtype: str, condition: str | None = None) -> None:
        self._parts = name, which, dtype
        under = "" if condition is None else f" under {condition}"
        fix = "" if dtype == "float32" else "load it with the dtype float32, or "
        super().__init__(
            f"{name} computes values{under} {which}, in {dtype}: {fix}get its weights again."
        )

    def under(self, condition: str) -> NotFiniteError:
        """The same with the name of the condition."""
        return NotFiniteError(*self._parts, condition)


class FiniteNumbers:
    """Checks what a model computes.

    Args:
        model: a causal language model.
        name: name of the model in messages.
    """

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        self._model = model
        self._name = name

    def check_any(self, hidden: Tensor) -> None:
        """Check hidden states (..., d) of any tokens, which may be padding.

        Raises:
            NotFiniteError: one holds NaN or infinity.
        """
        if not bool(hidden.isfinite().all()):
            raise self._error(_NOT_NUMBERS)

    def check_hidden(self, hidden: Tensor) -> None:
        """Check hidden states (..., d) of conversations.

        Raises:
            NotFiniteError: one holds NaN or infinity, or zeros alone, which is what a norm makes of
                numbers whose squares are infinite.
        """
        self.check_any(hidden)
        if not bool(hidden.any(dim=-1).all()):
            raise self._error(_ZEROS)

    def check_logits(self, logits: Tensor) -> None:
        """Check logits (..., V); a token that cannot be said may have minus infinity.

        Raises:
            NotFiniteError: one is NaN or infinity, or no token can be said.
        """
        if not bool(logits.amax(dim=-1).isfinite().all()):
            raise self._error(_NOT_NUMBERS)

    def _error(self, which: str) -> NotFiniteError:
        return NotFiniteError(self._name, which, str(self._model.dtype).removeprefix("torch."))
