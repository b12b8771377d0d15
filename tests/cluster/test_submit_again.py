"""The loop of docs/clusters.md that submits a run until it has ended: what it says is what a shell does."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.machines import REPOSITORY

RAY = """#!/bin/bash
echo "$*" >> "$SEEN"
[ "$(wc -l < "$SEEN")" -gt "$FAILURES" ]
"""


@pytest.mark.parametrize("failures", [0, 3])
def test_a_job_that_fails_is_submitted_again_until_it_ends(failures: int, tmp_path: Path) -> None:
    text = (REPOSITORY / "docs/clusters.md").read_text()
    (loop,) = re.findall(r"^until ray job submit .*$", text, re.MULTILINE)
    for name, script in (("ray", RAY), ("sleep", '#!/bin/bash\necho "$1" >> "$SLEPT"\n')):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    seen, slept = tmp_path / "seen", tmp_path / "slept"
    slept.touch()
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SEEN": seen, "SLEPT": slept, "FAILURES": str(failures)}
    subprocess.run(["bash", "-c", loop], env=variables, check=True, timeout=60)
    calls = seen.read_text().splitlines()
    assert len(calls) == failures + 1
    assert len(set(calls)) == 1, "each time the same command"
    assert {"--go-on", "--missed-status", "learner.train"} <= set(calls[0].split()), "which goes on, and then ends well"
    assert slept.read_text().split() == ["30"] * failures
