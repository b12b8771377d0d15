"""The variables that Ray must start with for HAProxy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serve.fast_ingress import VARIABLES, advice


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_that_lacks_them_is_told_how_to_get_them() -> None:
    said = advice()
    assert said is not None
    assert "RAY_SERVE_ENABLE_HA_PROXY" in said
    assert 'eval "$(python -m serve.fast_ingress)"' in said


def test_a_shell_takes_them() -> None:
    script = f'eval "$({sys.executable} -m serve.fast_ingress)"; env'
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=clean, timeout=60)
    assert {f"{name}={value}" for name, value in VARIABLES.items()} <= set(said.stdout.splitlines())
