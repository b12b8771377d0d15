"""What ``python -m serve.app`` and Ray's own way refuse before anything starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.errors import UserError
from serve.app import build
from serve.service.app_command import main
from tests.actors.examples import policy_for
from tests.serve.served import save


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a bad command gets."""
    nobody_stops: Any = None  # nothing that should be refused may get so far as to ask
    with pytest.raises(SystemExit) as ended:
        main(nobody_stops, [str(argument) for argument in arguments])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no policy to serve"),
        (["no/such/run"], "no policy in no/such/run"),
        (["{run}", "--policy", "lander"], "--policy takes name=directory, not 'lander'"),
        (["{run}", "--policy", "run={run}"], "two policies have one name"),
        (["{run}", "--host", "0.0.0.0"], "it needs a token, by --token-file or TOUCHDOWN_TOKEN"),
        (["{run}", "--host", "0.0.0.0", "--token-file", "no/file"], "cannot read the token from no/file"),
        (["{run}", "--port", "99999"], "port must lie between 1 and 65535"),
        (["{run}", "--port", "{busy}"], "Address already in use by python, process {me}; choose another --port"),
        (["{run}", "--replicas", "0"], "replicas must be 1 or more"),
        (["{run}", "--max-body", "0"], "max_body must be positive"),
        (["{run}", "--body-seconds", "nan"], "body_seconds must be positive, not nan"),
        (["{run}", "--cpus-per-replica", "nan"], "cpus_per_replica must be zero or more, not nan"),
        (["{run}", "--folow"], "did you mean --follow?"),
        (["{run}", "--policy", "other={other}", "--record", "{run}/mine"], "keeps flights of one environment, not of"),
    ],
)
def test_a_bad_request_is_one_line_and_exit_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(policy_for("CartPole-v1"), tmp_path / "run")
    save(policy_for("LunarLander-v3"), tmp_path / "other")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        names = {"run": tmp_path / "run", "other": tmp_path / "other", "busy": busy.getsockname()[1]}
        expected = said.replace("python, process {me}", f"{psutil.Process().name()}, process {os.getpid()}")
        assert expected in refused(capsys, *(argument.format(**names) for argument in arguments))


def test_a_token_that_could_be_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(policy_for("CartPole-v1"), tmp_path / "run")
    monkeypatch.setenv("TOUCHDOWN_TOKEN", "hunter2")
    said = refused(capsys, tmp_path / "run")
    assert "must be 16 printable ASCII characters or more" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "policy: Field required"),
        ({"policy": "no/such"}, "no policy in"),
        ({"policy": "x", "folow": True}, "folow: Extra inputs are not permitted"),
        ({"policy": "x", "replica": {"replicas": 0}}, "replicas must be 1 or more"),
    ],
)
def test_wrong_arguments_of_rays_own_way(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build(arguments)
