"""Several processes that share one model, each with a part of every layer.

`torchrun` and `accelerate launch` start such processes, and tell each its number in environment
variables. All of them run the same command on the same files, step by step together. The first one
alone writes results and talks to the user; the others work in copies of its folders.
"""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from demur.errors import DemurError

_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
_copies: list[Path] = []


def count() -> int:
    """Number of processes that share the model; 1 where this one works alone.

    Raises:
        DemurError: the variables of the environment are no numbers.
    """
    return _number("WORLD_SIZE", 1) if all(name in os.environ for name in _ADDRESS) else 1


def place() -> int:
    """Place of this process among them, from 0 on.

    Raises:
        DemurError: as for `count`.
    """
    return _number("RANK", 0) if count() > 1 else 0


def is_first() -> bool:
    """Whether this process writes the results and talks to the user."""
    return place() == 0


def place_here() -> int:
    """Place of this process among those of this machine, from 0 on."""
    return _number("LOCAL_RANK", 0) if count() > 1 else 0


def count_here() -> int:
    """Number of the processes that run on this machine."""
    return max(1, _number("LOCAL_WORLD_SIZE", count())) if count() > 1 else 1


def require_connected() -> None:
    """Make sure that several processes have loaded a model together.

    Raises:
        DemurError: there are several processes, and they have not.
    """
    if count() > 1 and not _torch().is_initialized():
        raise DemurError(
            "Several processes were started, and this work shares no model among them: run it "
            "once, without torchrun or accelerate launch."
        )


def smallest(amount: int) -> int:
    """The smallest of the amounts that all processes give.

    All must ask at the same moment of their work, once the model is loaded.
    """
    if count() == 1:
        return amount
    import torch

    distributed = _torch()
    on_gpu = distributed.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    found = torch.tensor([amount], dtype=torch.int64, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MIN)
    return int(found.item())


def own_folder(path: Path) -> Path:
    """The folder in which this process works: `path` itself in the first one, a copy in others.

    All must ask at the same moment of their work, while the first one alone writes to `path`. The
    copies are removed when their processes end.

    Args:
        path: an existing folder on a disk that all processes see.

    Raises:
        DemurError: this process does not see the folder.
    """
    if count() == 1:
        return path
    smallest(0)  # until the first process is here, so that nobody writes any more
    own = path if is_first() else _copy_of(path)
    smallest(0)  # until all have their copies
    return own


@atexit.register
def remove_copies() -> None:
    """Remove the copies of folders that this process made."""
    if not _copies:
        return
    import shutil

    while _copies:
        shutil.rmtree(_copies.pop(), ignore_errors=True)


def is_lost(error: RuntimeError) -> bool:
    """Whether an error means that another process has ended in the middle of the work."""
    text = str(error)
    return count() > 1 and ("gloo" in text or "NCCL" in text or "Connection" in text)


def leave() -> None:
    """Take leave of the other processes, at the end of the work."""
    if count() > 1:
        with suppress(Exception):  # another one may be gone already
            if _torch().is_initialized():
                _torch().destroy_process_group()


def _copy_of(path: Path) -> Path:
    import shutil  # these take a tenth of the time that `demur --help` takes
    import tempfile

    from demur.temporary import is_temporary

    if not path.is_dir():
        raise DemurError(
            f"Process {place() + 1} of {count()} does not see the folder {path}: run all "
            "processes in one folder of a disk that every machine has."
        )
    place_of_copies = Path(tempfile.mkdtemp(prefix="demur-"))
    _copies.append(place_of_copies)

    def left_out(_folder: str, names: list[str]) -> list[str]:
        return [name for name in names if is_temporary(name)]

    return Path(shutil.copytree(path, place_of_copies / path.name, ignore=left_out))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise DemurError(
            f"The environment variable {name} is {text!r:.40}, which is no number: start demur "
            "with torchrun or accelerate launch, or unset it."
        )
    return int(text)


def _torch() -> Any:
    import torch.distributed

    return torch.distributed
