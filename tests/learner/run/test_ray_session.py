"""Ray joined or started, and one line where it cannot be."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray._private import parameter
from ray._private.services import GCS_SERVER_EXECUTABLE, get_node_ip_address

from actors.errors import UserError
from learner.run import ray_session
from learner.run.ray_session import Unhurried, metric_tag, ray_address, start_ray
from serve.service.fast_ingress import free_port


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


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Addresses of the heads of two clusters, without nodes: one asks for the token ``right``, one for none."""
    addresses, processes = {}, []
    for name, mode in (("guarded", "token"), ("open", "disabled")):
        directory, host, port = tmp_path_factory.mktemp(name), get_node_ip_address(), free_port()
        arguments = [f"--log_dir={directory}", f"--gcs_server_port={port}", f"--node-ip-address={host}"]
        arguments += [f"--session-dir={directory}", f"--session-name={name}", "--config_list=e30="]
        env = {**os.environ, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": "right"}
        with (directory / "log").open("w") as log:
            processes.append(subprocess.Popen([GCS_SERVER_EXECUTABLE, *arguments], env=env, stdout=log, stderr=log))
        addresses[name] = f"{host}:{port}"
    yield addresses
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("head", "mode", "token", "said"),
    [
        ("guarded", None, "right", "joined with token"),
        ("guarded", "disabled", "right", "joined with token"),
        ("guarded", None, "", "it asks for a token, and there is none here; copy the token of its head"),
        ("guarded", "token", "wrong", "it asks for another token than the one here (~/.ray/auth_token, or"),
        ("open", "token", "right", "joined with disabled"),
    ],
)
def test_the_cluster_says_whether_a_token_is_shown(
    heads: dict[str, str], tmp_path: Path, head: str, mode: str | None, token: str, said: str
) -> None:
    """In processes of their own: what Ray knows of tokens it keeps."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    env |= {"HOME": str(tmp_path), "RAY_ADDRESS": heads[head]} | ({"RAY_AUTH_MODE": mode} if mode else {})
    if token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray/auth_token").write_text(token)
    program = """
import os, ray
from actors.errors import UserError
from learner.run.ray_session import start_ray
ray.init = lambda *_, **__: print("joined with", os.environ["RAY_AUTH_MODE"])
try:
    start_ray()
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert said in line


@pytest.mark.parametrize("failures", [1, 3])
def test_a_start_that_times_out_is_tried_again(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    tries = []

    def init(*arguments: object, **options: object) -> None:
        tries.append(arguments)
        assert parameter.RayParams().no_monitor, "see small_head"
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


def test_a_small_head_is_without_what_nobody_asks(ray_cluster: None) -> None:
    """The tests' own was started as a run starts one, and it works."""
    commands = [" ".join(one.cmdline()) for one in psutil.Process().children()]
    assert any("gcs_server" in command for command in commands)
    assert not [command for command in commands if "monitor.py" in command or "dashboard.py" in command]
    log = Path(ray._private.worker._global_node.get_session_dir_path(), "logs/dashboard_agent.log")
    assert "Get dashboard http address failed" not in log.read_text(), "or it would be told each second"


def test_a_subscriber_that_has_nothing_to_say_is_not_asked_all_the_time() -> None:
    class Lost:
        asked = 0

        def poll(self, timeout: float | None = None) -> tuple[Any, Any]:
            self.asked += 1
            return (b"", {"error_message": "lost"}) if self.asked == 1 else (None, None)

    lost = Unhurried(Lost())
    begun = time.monotonic()
    assert lost.poll()[1] == {"error_message": "lost"}
    assert time.monotonic() < begun + 0.5, "what there is is brought at once"
    assert lost.poll() == (None, None)
    assert time.monotonic() >= begun + 1
    assert lost.asked == 2


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
