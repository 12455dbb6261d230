"""Which device to compute on, in which dtype, and how much memory there is."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from demur import processes
from demur.chat.allocator import kept_memory
from demur.errors import DemurError

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
# Names of processor features that multiply bfloat16 matrices natively, as torch and as the
# operating system spell them.
_BFLOAT16_FEATURES = {"avx512_bf16", "amx_bf16", "bf16", "sve_bf16", "svebf16"}


def choose_device(requested: str | None = None) -> torch.device:
    """The device to compute on: CUDA before MPS before the processor, unless one is requested.

    Args:
        requested: a torch device name such as `cuda`, `cuda:1`, `mps` or `cpu`.

    Raises:
        DemurError: the requested device does not exist.
    """
    if requested is None:
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(requested)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cuda", "mps", "cpu"):
        raise DemurError(f"Unknown device {requested!r}: use cuda, cuda:N, mps, cpu or auto.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index if device.index is not None else 0
        if index >= count:
            found = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
            raise DemurError(f"No device {requested!r}: torch sees {found}; use another or cpu.")
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DemurError("No device 'mps': torch sees no Apple GPU; use cpu.")
    return torch.device(device.type)


def choose_dtype(requested: str | None, device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype to compute in and, in a few words, why.

    bfloat16 where the device multiplies it natively, float32 elsewhere: emulated bfloat16 is
    slower than float32 and less exact.

    Args:
        requested: float32, bfloat16, float16 (or fp32, bf16, fp16), or None or `auto` to choose.
        device: where the model will run.

    Raises:
        DemurError: `requested` is no such name.
    """
    if requested is not None and requested != "auto":
        name = requested.removeprefix("torch.")
        if name not in _DTYPES:
            raise DemurError(
                f"Unknown dtype {requested!r}: use float32, bfloat16, float16 or auto."
            )
        return _DTYPES[name], "as requested"
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        owner = "this GPU"
    else:
        native = device.type == "cpu" and _cpu_multiplies_bfloat16()
        owner = "this processor" if device.type == "cpu" else "this device"
    if native:
        return torch.bfloat16, f"{owner} multiplies bfloat16 natively"
    return torch.float32, f"{owner} does not multiply bfloat16 natively"


def available_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device without swapping.

    On the processor: what the operating system calls available, or what is left of the control
    group's limit (containers) where that is less; and what this process keeps for itself. On a GPU
    too, what torch keeps counts. Processes that share a model on this machine share its memory.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    if device.type == "mps":
        limit = torch.mps.recommended_max_memory()
        return max(0, int(limit - torch.mps.driver_allocated_memory()))
    candidates = [_system_memory(), *_control_group_memory()]
    return max(0, min(candidates)) // processes.count_here() + kept_memory()


def _cpu_multiplies_bfloat16() -> bool:
    get_capabilities = getattr(torch.cpu, "get_capabilities", None)  # newer torch only
    if get_capabilities is not None:
        capabilities = get_capabilities()
        return any(capabilities.get(feature) is True for feature in _BFLOAT16_FEATURES)
    if platform.system() != "Linux":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    for line in text.splitlines():
        label, _, value = line.partition(":")
        if label.strip() in ("flags", "Features"):
            return not _BFLOAT16_FEATURES.isdisjoint(value.split())
    return False


def _system_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 << 30  # no way to ask (Windows): a common machine


def _control_group_memory() -> list[int]:
    """What is left of the memory limits of this process's control groups, if it has any."""
    left = []
    for group, limit_file, usage_file, cache in _control_groups():
        try:
            limit = int((group / limit_file).read_text(encoding="ascii"))
            usage = int((group / usage_file).read_text(encoding="ascii"))
            statistics = (group / "memory.stat").read_text(encoding="ascii").split()
            reclaimable = int(statistics[statistics.index(cache) + 1])
        except (OSError, ValueError, IndexError):  # no such file, or the limit is "max"
            continue
        left.append(limit - usage + reclaimable)
    return left


def _control_groups() -> list[tuple[Path, str, str, str]]:
    """Folders of the groups with the names of their files and of the page cache's entry.

    Inside a container the mounted root is the container's own group; outside, the groups of this
    process are nested below it. Version 1 keeps memory in a tree of its own.
    """
    root = Path("/sys/fs/cgroup")
    version_2 = ("memory.max", "memory.current", "inactive_file")
    version_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    groups = [(root, *version_2), (root / "memory", *version_1)]
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return groups
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, names = (root / "memory", version_1) if controllers else (root, version_2)
        for name in path.strip("/").split("/"):
            if name in ("", ".", ".."):
                continue
            folder = folder / name
            groups.append((folder, *names))
    return groups
