"""What the benchmark scripts share: where reference data lies, what machine this is, results."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
RESULTS = Path(__file__).resolve().parent / "results"


def reference(name: str) -> Path:
    """A file of the reference data; ends the script with a clear message where it is absent."""
    path = REFERENCE / name
    if not path.exists():
        sys.exit(f"The reference data is not here (no ../shared/reference/{name}): nothing to do.")
    return path


def machine() -> dict[str, Any]:
    """Figures that a timing depends on."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_results(name: str, results: dict[str, Any]) -> None:
    """Keep results beside the scripts."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), **results}, indent=2, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
