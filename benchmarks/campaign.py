"""Kills, bad inputs, damaged files and odd replies: how many end as they should.

    python benchmarks/campaign.py --kills 200 --inputs 300 --damaged 200 --replies 60

Needs neither a network nor a model: a tiny one is made. Every case follows from the seed and its
number. Work that was killed or damaged must come to the same files as undisturbed work, at once or
after what one clear line advises; what cannot be done must end in one line with status 2, and a
server's reply must count as what it is. Each command is a process of its own, whose time and memory
are measured. Exits with status 1 where something ended otherwise.

With `--log FILE` each case is kept as it ends, and a case that is in the file is not done again. So
the campaign can be stopped, and be done in parts. The counts are kept in
`benchmarks/results/campaign.json`, beside those of kinds that were not asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from campaign_damage import damaged
from campaign_inputs import refused
from campaign_kills import killed
from campaign_replies import replied
from campaign_setup import make_inputs
from campaign_work import Case, Outcome, Tally, load_everything, restored, stay_offline
from common import RESULTS, write_results

MOST_MB, MOST_SECONDS = 1024.0, 10.0
KINDS: dict[str, Callable[[Path, int, int], Iterator[Case]]] = {
    "kills": killed,
    "inputs": refused,
    "damaged": damaged,
    "replies": replied,
}
Rows = dict[tuple[str, int], Outcome]


def main() -> int:
    """Run the kinds that are asked for, and keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="file with every case, which goes on from it")
    parser.add_argument("--dry", action="store_true", help="keep no results")
    chosen = parser.parse_args()
    load_everything()
    rows = _read(chosen.log, chosen.seed)
    tallies, bad = _kept(), False
    with TemporaryDirectory() as place:
        stay_offline(Path(place) / "datasets")
        for kind in KINDS:
            count = getattr(chosen, kind)
            if count:
                _do(kind, count, chosen.seed, Path(place) / kind, rows, chosen.log)
                tally = Tally()
                for number in range(count):
                    tally.add(rows[kind, number])
                bad |= bool(tally.odd) or tally.peak_mb > MOST_MB or tally.longest_s > MOST_SECONDS
                tallies[kind] = asdict(tally)
                print(kind, tallies[kind], flush=True)
                if not chosen.dry:
                    order = {kind: tallies[kind] for kind in KINDS if kind in tallies}
                    write_results("campaign", {"seed": chosen.seed, **order})
    return int(bad)


def _do(kind: str, count: int, seed: int, inputs: Path, rows: Rows, log: Path | None) -> None:
    """Do the cases of one kind that are not done yet."""
    left = [number for number in range(count) if (kind, number) not in rows]
    if not left:
        return
    make_inputs(inputs)
    os.environ["DEMUR_CACHE"] = str(inputs / "cache")
    cases = KINDS[kind](inputs, count, seed)
    for number, case in enumerate(cases):
        if number not in left:
            continue
        with restored(inputs):
            outcome = case(random.Random(f"{seed} {kind} {number}"))
        rows[kind, number] = outcome
        if not outcome.allowed:
            print(f"odd: {outcome.case}: {outcome.way}", file=sys.stderr, flush=True)
        if log is not None:
            row = {"seed": seed, "kind": kind, "number": number, **asdict(outcome)}
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"{json.dumps(row)}\n")


def _read(log: Path | None, seed: int) -> Rows:
    """The cases in a log; a last line that was not finished does not count."""
    rows: Rows = {}
    if log is None or not log.exists():
        return rows
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    log.write_text("".join(whole), encoding="utf-8")
    for line in whole:
        row = json.loads(line)
        found, kind, number = row.pop("seed"), row.pop("kind"), row.pop("number")
        if found == seed:
            rows[kind, number] = Outcome(**row)
    return rows


def _kept() -> dict[str, dict[str, object]]:
    """The counts that earlier parts of the campaign kept."""
    file = RESULTS / "campaign.json"
    if not file.exists():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    return {kind: found[kind] for kind in KINDS if kind in found}


if __name__ == "__main__":
    sys.exit(main())
