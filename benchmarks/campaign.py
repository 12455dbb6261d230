"""Kills, bad inputs, damaged files and odd replies: how many end as they should.

    python benchmarks/campaign.py --kills 200 --inputs 300 --damaged 200 --replies 60

Needs neither a network nor a model: a tiny one is made. The seed chooses the moments, the inputs
and the damages. Work that was killed or damaged must come to the same files as undisturbed work, at
once or after what one clear line advises; what cannot be done must end in one line with status 2.
Exits with status 1 where something ended otherwise; the results are kept in
`benchmarks/results/campaign.json`.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from campaign_damage import damaged
from campaign_inputs import refused
from campaign_kills import killed
from campaign_replies import replied
from campaign_work import Tally, load_everything, make_inputs
from common import write_results

MOST_MB, MOST_SECONDS = 1024.0, 10.0
KINDS: dict[str, Callable[[Path, int, random.Random, Tally], None]] = {
    "kills": killed,
    "inputs": refused,
    "damaged": damaged,
    "replies": replied,
}


def main() -> int:
    """Run the kinds that are asked for, and keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="keep no results")
    chosen = parser.parse_args()
    load_everything()
    results: dict[str, Tally] = {}
    with TemporaryDirectory() as place:
        os.environ["DEMUR_CACHE"] = str(Path(place) / "cache")
        os.environ["HF_HUB_OFFLINE"] = "1"
        for kind, campaign in KINDS.items():
            count = getattr(chosen, kind)
            if count:
                inputs = Path(place) / kind
                make_inputs(inputs)
                results[kind] = Tally()
                campaign(inputs, count, random.Random(chosen.seed), results[kind])
                print(kind, asdict(results[kind]), flush=True)
    if not chosen.dry:
        counts = {kind: asdict(tally) for kind, tally in results.items()}
        write_results("campaign", {"seed": chosen.seed, **counts})
    bad = any(
        one.odd or one.peak_mb > MOST_MB or one.longest_s > MOST_SECONDS for one in results.values()
    )
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
