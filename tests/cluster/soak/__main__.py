"""A night of faults over a cluster that trains and serves; writes a page and JSON, and says what was wrong.

python -m tests.cluster.soak --minutes 60 --seed 0
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from actors.files import write_text
from tests.cluster.machines import lacking
from tests.cluster.soak.faults import FAULTS
from tests.cluster.soak.night import as_json, spend
from tests.cluster.soak.page import page
from tests.cluster.soak.site import Site

_RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def main() -> int:
    """The exit status is 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of faults; coming up and the target come on top")
    parser.add_argument("--seed", type=int, default=0, help="of the schedule")
    parser.add_argument("--only", nargs="+", choices=sorted(FAULTS), help="these faults alone")
    parser.add_argument("--out", type=Path, default=_RESULTS, help="directory for soak.html and soak.json")
    parser.add_argument("--keep", action="store_true", help="keep the machines' disks and logs")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("soak").setLevel(logging.INFO)
    logging.getLogger("stamina").setLevel(logging.ERROR)  # a client that tries again is no news here
    reason = lacking() or next((f"{it} is not installed" for it in ("redis-server",) if not shutil.which(it)), None)
    if reason:
        print(f"no machines here: {reason}", file=sys.stderr)
        return 2
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"machines' disks and logs: {directory}", flush=True)
    with Site(directory) as site:
        night = spend(site, arguments.seed, arguments.minutes, arguments.only)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out / "soak.html", page(night))
    write_text(arguments.out / "soak.json", json.dumps(as_json(night), indent=1) + "\n")
    print(f"{len(night.events)} strikes, {len(night.complaints)} complaints: {arguments.out / 'soak.html'}")
    for at, what in night.complaints:
        print(f"{at:.0f} s: {what}")
    if not arguments.keep:
        shutil.rmtree(directory, ignore_errors=True)
    return 1 if night.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
