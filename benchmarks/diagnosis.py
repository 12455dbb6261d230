"""Keep the numbers and figures of a diagnosis.

demur optimize && demur diagnose --run demur-runs/qwen2.5-coder-0.5b-long-standard
python benchmarks/diagnosis.py demur-diagnoses/qwen2.5-coder-0.5b-long-standard
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from common import RESULTS, run, write_results
from demur import Diagnosis
from demur.cli.diagnosis import print_diagnosis
from demur.cli.screen import console
from demur.records import to_plain

KEPT = (".svg", ".csv")


def main() -> None:
    """Keep one diagnosis."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="of a finished diagnosis")
    diagnosis = Diagnosis.load(parser.parse_args().folder)
    name = f"diagnosis-{Path(diagnosis.settings.model.name).name}"
    write_results(
        name,
        {
            "settings": to_plain(diagnosis.settings),
            "verdict": list(diagnosis.verdict),
            "sheet": to_plain(diagnosis.sheet),
            "versions": to_plain(diagnosis.versions),
        },
    )
    (RESULTS / name).mkdir(exist_ok=True)
    for figure in sorted((diagnosis.path / "figures").iterdir()):
        if figure.suffix in KEPT:
            shutil.copyfile(figure, RESULTS / name / figure.name)
    print_diagnosis(console, diagnosis)


if __name__ == "__main__":
    run(main)
