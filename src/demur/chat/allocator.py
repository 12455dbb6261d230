"""Freed memory on processors: glibc is told to keep it, and how much it keeps is found out.

A forward pass frees and asks for the same large tensors in every layer, and a training step for
those of all layers. glibc returns each to the system, which must clear its pages when they are
asked for again: up to a quarter of the time of a forward pass on two cores. The allocator of a GPU
keeps what it has for the same reason.
"""

from __future__ import annotations

import ctypes
import os
import platform

# Options of `mallopt` by their numbers, and the value that means never.
_MOST_BLOCKS_FROM_THE_SYSTEM, _FREE_BYTES_KEPT, _NEVER_TRIM = -4, -1, -1


class _MemoryInfo(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def keep_freed_memory() -> None:
    """Let this process use memory that it freed again instead of handing it back to the system.

    Its use of memory stays at its peak. Does nothing with another C library, or where the user has
    set glibc's allocator up.
    """
    if platform.libc_ver()[0] != "glibc" or any(
        name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ
    ):
        return
    change = ctypes.CDLL(None).mallopt
    change(_MOST_BLOCKS_FROM_THE_SYSTEM, 0)
    change(_FREE_BYTES_KEPT, _NEVER_TRIM)


def kept_memory() -> int:
    """Bytes that this process holds and does not use, as glibc counts them; 0 where it cannot."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None) if os.name == "posix" else None
    if ask is None:
        return 0
    ask.restype = _MemoryInfo
    return int(ask().fordblks)
