"""Fingerprints: what identifies a thing is its content, never its name."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from demur.records.codec import canonical

if TYPE_CHECKING:
    from torch import Tensor


def fingerprint(kind: str, **parts: Any) -> str:
    """SHA-256 (64 hex digits) of named parts.

    Args:
        kind: what is identified, so that equal parts of different things differ.
        **parts: plain JSON data.

    Example:
        >>> fingerprint("condition", text="Be kind.", system=None)[:8]
        'f9bbcc7f'
    """
    return hashlib.sha256(canonical([kind, parts])).hexdigest()


def tensor_fingerprint(tensor: Tensor) -> str:
    """SHA-256 (64 hex digits) of a tensor's dtype, shape and numbers."""
    import torch

    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype}{tuple(plain.shape)}".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
