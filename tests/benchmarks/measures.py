"""Measures of several parts and seeds, written down after each, so that what was measured outlasts an interruption."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.files import write_text
from learner.run.run_directory import versions
from learner.run.spares import Spares

Measure = Callable[[int, Spares], dict[str, Any]]
"""What a run of a seed came to, with idle processes to use."""


def measure(results: Path, measures: Mapping[str, Measure], parts: Sequence[str], seeds: Sequence[int]) -> None:
    """Take these parts of the measures anew for each seed; the other parts of the file of results stay."""
    logging.getLogger("touchdown").setLevel(logging.ERROR)
    measured = json.loads(results.read_text()) if results.exists() else {}
    measured["versions"] = versions()
    spares = Spares()
    for part in parts:
        measured[part] = {}
        for seed in seeds:
            measured[part][seed] = measures[part](seed, spares)
            print(part, seed, json.dumps(measured[part][seed]), flush=True)
            write_text(results, json.dumps(measured, indent=1) + "\n")
