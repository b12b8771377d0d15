"""Ray joined or started, and one line where it cannot be."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from actors.errors import UserError
from learner.run import ray_session
from learner.run.ray_session import metric_tag, ray_address, start_ray


@pytest.mark.parametrize(("value", "address"), [(None, None), ("", None), (" ", None), ("local", None), ("a:1", "a:1")])
def test_an_empty_address_is_none(monkeypatch: pytest.MonkeyPatch, value: str | None, address: str | None) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if value is not None:
        monkeypatch.setenv("RAY_ADDRESS", value)
    assert ray_address() == address


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a service that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("listens", [True, False])
def test_a_cluster_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, silent: str, listens: bool
) -> None:
    address = silent if listens else "127.0.0.1:1"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray_session, "_JOIN_SECONDS", 0.5)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # another test may have started one
    with pytest.raises(UserError, match=f"RAY_ADDRESS names, {address}: it did not answer within 0.5 s") as error:
        start_ray()
    assert "\n" not in str(error.value)


def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match="RAY_ADDRESS names, nonsense: ") as error:
        start_ray()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("failures", [1, 3])
def test_a_start_that_times_out_is_tried_again(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    tries = []

    def init(*arguments: object, **options: object) -> None:
        tries.append(arguments)
        if len(tries) <= failures:
            raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    if failures == 1:
        start_ray()
        assert len(tries) == 2
    else:
        with pytest.raises(UserError, match="Ray did not start, tried 3 times: The current node timed out"):
            start_ray()


def test_too_long_a_directory_for_sockets_names_the_remedy(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100)
    directory.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", "from learner.run.ray_session import start_ray; start_ray()"],
        env={**os.environ, "TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "UserError: the directory of temporary files has too long a path" in result.stderr.splitlines()[-1]
    assert "set TMPDIR" in result.stderr.splitlines()[-1]


def test_tags_are_ascii_and_stay_apart() -> None:
    assert metric_tag("first") == "first"
    tags = [metric_tag(name) for name in ("é", "è", "月", "\udcff")]
    assert all(tag.isascii() for tag in tags)
    assert len(set(tags)) == 4
