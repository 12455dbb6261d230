"""Draw what `demur show RUN` prints, as an SVG for the README.

python benchmarks/picture.py RUN docs/images/result.svg
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from demur.cli.tables import print_run
from demur.optimization import Run


def main() -> None:
    """Draw one run."""
    run, target = sys.argv[1:]
    console = Console(record=True, width=84, file=io.StringIO())
    print_run(console, Run.load(run))
    picture = console.export_svg(title=f"demur show {run}")
    # The picture must not fetch a font when it is looked at.
    Path(target).write_text(re.sub(r"@font-face\s*{[^}]*}", "", picture), encoding="utf-8")


if __name__ == "__main__":
    main()
