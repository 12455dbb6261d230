"""What the benchmark scripts share: published data, what machine this is, results, errors."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import torch

from demur.errors import DemurError

REFERENCE = Path(
    os.environ.get("DEMUR_REFERENCE")
    or Path(__file__).resolve().parents[2] / "shared" / "reference"
)
"""Published data that is not part of the repository; see `SOURCES`."""
RESULTS = Path(__file__).resolve().parent / "results"
SOURCES = {
    "paper_results.csv": "write down the tables of arXiv 2401.18018 with the columns model, side, "
    "benchmark, method, basic_prompt and flagged_queries_of_100",
    "responses": "copy files of github.com/chujiezheng/LLM-Safeguard_data, "
    "for example eval_results/sampling/Llama-2-7b-chat-hf_advbench.csv",
    "refusal_labels": "compress model_completions/xstest_v2_completions_NAME.csv of "
    "github.com/paul-rottger/exaggerated-safety into NAME.csv.gz",
}
"""For each file or folder of the reference data, how to get it."""


def reference(name: str) -> Path:
    """A file or folder of the reference data.

    Args:
        name: its path in the reference data; the first part is a key of `SOURCES`.

    Returns:
        Where it is. Where it is missing the script ends with status 2, and says how to get it.
    """
    path = REFERENCE / name
    if not path.exists():
        stop(
            f"There is no {path}: {SOURCES[Path(name).parts[0]]}, and set DEMUR_REFERENCE to the "
            "folder."
        )
    return path


def stop(message: str) -> NoReturn:
    """End the script with one line and status 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def run(main: Callable[[], object]) -> None:
    """Run a script; a `DemurError` ends it with one line and status 2."""
    try:
        main()
    except DemurError as error:
        stop(str(error))


def run_in_folder(main: Callable[[Path], object], description: str | None) -> None:
    """Run a script whose one argument is the folder to work in; by default a temporary one.

    Args:
        main: the script.
        description: its docstring, whose first line its help shows.
    """
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="where to work, and what is kept")
    folder: Path | None = parser.parse_args().folder
    if folder is not None:
        run(lambda: main(folder))
        return
    with tempfile.TemporaryDirectory() as scratch:
        run(lambda: main(Path(scratch)))


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
