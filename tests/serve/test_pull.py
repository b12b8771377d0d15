"""Packages of strangers: what is in them is checked, and never printed, imported or nested for ever."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from actors.policy import Policy
from serve.pull import main
from tests.actors.examples import policy_for
from tests.serve.hub_server import Hub

REPO = "stranger/policy"
POLICY = policy_for("CartPole-v1")

Pull = Callable[..., tuple[int, str]]


@pytest.fixture
def pull(hub: Hub, capfd: pytest.CaptureFixture[str]) -> Pull:
    """Serve a package with a policy of this spec, and these other files, and pull it: exit status, all that is said."""

    def pulled(files: dict[str, bytes] | None = None, **spec: Any) -> tuple[int, str]:
        data = json.dumps(dataclasses.asdict(POLICY.spec) | spec)
        weights = safetensors.numpy.save(POLICY.weights, {"spec": data})
        hub.add(REPO, {"policy.safetensors": weights, **(files or {})})
        code = 0
        try:
            main([REPO, "--to", "theirs"])
        except SystemExit as end:
            code = int(str(end.code))
        said = capfd.readouterr()
        return code, said.out + said.err

    return pulled


def assert_printable(said: str) -> None:
    assert all(line.isprintable() for line in said.splitlines()), said


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"policy_sha256":' * 50_000, b"\xff", b"[]", b"null"])
def test_results_that_are_none_are_one_line_and_leave_nothing(text: bytes, pull: Pull, tmp_path: Path) -> None:
    code, said = pull({"results.json": text})
    assert code == 2
    assert "results.json is damaged" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize(
    "env_id", ["[/bold]-v0", "\x1b]0;owned\x07-v0", "Cart\nPole-v0", "\u202eeloPtraC-v0", "a:b:c-v0"]
)
def test_a_name_that_is_none_is_refused_in_one_printable_line(env_id: str, pull: Pull, tmp_path: Path) -> None:
    code, said = pull(env_id=env_id)
    assert code == 2
    assert "policy.safetensors is damaged: env_id: " in said
    assert len(said.splitlines()) == 1
    assert_printable(said)
    assert not (tmp_path / "theirs").exists()


def test_what_is_said_of_its_training_reaches_no_terminal(pull: Pull, tmp_path: Path) -> None:
    code, said = pull(trained={"preset": "\x1b[2J[/bold]"})
    assert code == 0, said
    assert_printable(said)
    assert Policy.load(tmp_path / "theirs" / "policy").spec.trained == {"preset": "\x1b[2J[/bold]"}


def test_a_module_that_it_names_is_not_imported(pull: Pull) -> None:
    code, said = pull(env_id="antigravity:CartPole-v1")  # which opens a browser
    assert code == 0, said
    assert "once you trust it, fly it with --module antigravity" in said


def test_a_text_of_megabytes_is_not_fetched(pull: Pull, hub: Hub) -> None:
    code, said = pull({"results.json": b" " * 11_000_000})
    assert code == 2
    assert "has a results.json of 11 MB" in said
    assert not hub.seen("GET", "results.json")
