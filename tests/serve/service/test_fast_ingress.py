"""The variables that Ray must start with for HAProxy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from serve.service.fast_ingress import VARIABLES, advice, missing
from tests.serve.served import PATIENCE


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_that_lacks_them_is_told_how_to_get_them() -> None:
    said = advice()
    assert said is not None
    assert f"was started without {', '.join(VARIABLES)} and answers slowly" in said
    assert 'eval "$(python -m serve.fast_ingress)"' in said


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("value", [None, "another"])
def test_one_that_is_missing_or_different_is_named(
    name: str, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each, right in VARIABLES.items():
        monkeypatch.setenv(each, right)
    assert missing() == []
    if value:
        monkeypatch.setenv(name, value)
    else:
        monkeypatch.delenv(name)
    assert missing() == [name]


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_that_has_them_needs_no_advice() -> None:
    def with_variables(variables: dict[str, str]) -> str | None:
        task: Any = ray.remote(advice).options(num_cpus=0, runtime_env={"env_vars": variables})
        said: str | None = ray.get(task.remote())
        return said

    assert with_variables(VARIABLES) is None
    said = with_variables(dict(list(VARIABLES.items())[1:]))
    assert said
    assert f"without {next(iter(VARIABLES))} and" in said


def test_a_shell_takes_them() -> None:
    script = f'eval "$({sys.executable} -m serve.fast_ingress)"; env'
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = ["bash", "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=clean, timeout=PATIENCE)
    assert {f"{name}={value}" for name, value in VARIABLES.items()} <= set(said.stdout.splitlines())
    places = [line for line in said.stdout.splitlines() if line.startswith("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC=")]
    assert places
    directory = Path(places[0].partition("=")[2]).parent
    assert directory.stat().st_mode & 0o777 == 0o700
