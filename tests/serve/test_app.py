"""``python -m serve.app`` as a user runs it: real Ray Serve, HAProxy, processes that die."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import yaml
from websockets.sync.client import connect

from actors.errors import UserError
from serve.app import build, main
from serve.client import PolicyClient
from serve.fast_ingress import free_port
from tests.actors.examples import policy_for, stubborn_policy
from tests.serve.served import LANDER, save, wait_for

TOKEN = "a token of more than sixteen"


def heed_ctrl_c() -> None:
    """What a shell runs in the background ignores Ctrl-C, and so does what that starts, Ray's command among them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def launched(log: Path, *command: object, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, as a terminal starts it; stopped by Ctrl-C."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(env or {})},
            preexec_fn=heed_ctrl_c,  # noqa: PLW1509 - no threads here that hold locks
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def descendants(process: subprocess.Popen[bytes], name: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.cmdline() and child.cmdline()[0].startswith(name):
                found.append(child)
    return found


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def healthy(address: str) -> bool:
    return httpx2.get(f"{address}/healthz", timeout=30).is_success


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, subprocess.Popen[bytes], Path]]:
    """Address, directory of the policies, process, log: two replicas that follow."""
    policies = tmp_path_factory.mktemp("served")
    save(stubborn_policy("LunarLander-v3", 1), policies / "lander", version=1)
    save(policy_for("Pendulum-v1"), policies / "pendulum")
    port, log = free_port(), policies / "log"
    command = ["serve.app", policies / "lander", "--policy", f"pendulum={policies / 'pendulum'}"]
    options = ["--follow", "--port", port, "--replicas", 2, "--cpus-per-replica", 0.5]
    with launched(log, *command, *options) as process:
        wait_for(lambda: "Ctrl-C stops" in log.read_text() or process.poll() is not None, seconds=120)
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}", policies, process, log
    assert process.returncode == 0, log.read_text()
    assert not listening(port), "nothing is left"
    assert "Traceback" not in log.read_text()


Running = tuple[str, Path, subprocess.Popen[bytes], Path]


def test_it_says_where(service: Running) -> None:
    address, _, _, log = service
    text = log.read_text()
    assert "lander: version 1 for LunarLander-v3" in text
    assert f"watch it fly: {address}/" in text


def test_it_acts_and_flies(service: Running) -> None:
    address, *_ = service
    with PolicyClient(address) as client, PolicyClient(address, policy="pendulum") as pendulum:
        assert client.act(LANDER).action == 1
        assert pendulum.act([0.0, 1.0, 0.0]).mean is not None
    with connect(f"{address.replace('http', 'ws')}/watch") as watched:
        assert json.loads(watched.recv(timeout=30))
    assert "<html" in httpx2.get(f"{address}/").text


def test_replicas_are_small_and_closed(service: Running) -> None:
    _, _, process, _ = service
    replicas = descendants(process, "ray::ServeReplica")
    assert len(replicas) == 2
    for replica in replicas:
        assert not [mapped.path for mapped in replica.memory_maps() if "torch" in mapped.path], "torch is not imported"
    for one in [*replicas, *descendants(process, str(Path(sys.prefix) / "lib"))]:
        for connection in one.net_connections("tcp"):
            if connection.status == "LISTEN" and connection.laddr.port in (urlport(service), 30000, 30001):
                assert connection.laddr.ip == "127.0.0.1"


def urlport(service: Running) -> int:
    return int(service[0].rpartition(":")[2])


def test_metrics_and_access_log(service: Running) -> None:
    address, _, _, log = service
    with PolicyClient(address) as client:
        client.act(LANDER)
    metrics = re.search(r"metrics: (\S+)", log.read_text())
    assert metrics

    def counted() -> bool:
        text = httpx2.get(metrics[1], timeout=30).text
        names = ("act_requests", "act_seconds_bucket", "act_batch_bucket", "policy_version")
        return all(f"ray_touchdown_{name}" in text for name in names)

    wait_for(counted)
    logs = re.search(r"logs: (\S+)", log.read_text())
    assert logs
    lines = wait_for(lambda: [line for file in Path(logs[1]).glob("worker-*.out") for line in access_lines(file)])
    assert {"time", "path", "status", "ms", "policy", "version", "observations"} <= set(lines[0])


def access_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines() if line.startswith('{"time"')]


def test_reloads_refusals_and_a_killed_replica_under_load(service: Running) -> None:
    """Every request of four clients is answered, whatever happens behind."""
    address, policies, process, _ = service
    stop = threading.Event()
    versions: set[int] = set()
    errors: list[BaseException] = []
    answered = [0] * 4

    def ask(i: int) -> None:
        try:
            with PolicyClient(address) as client:
                while not stop.is_set():
                    versions.add(client.act(LANDER).version)
                    answered[i] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        for version in (2, 3):
            save(stubborn_policy("LunarLander-v3", version), policies / "lander", version=version)
            wait_for(lambda version=version: version in versions)  # type: ignore[misc]
        (policies / "lander" / "policy.safetensors").write_bytes(b"broken")
        wait_for(lambda: httpx2.get(f"{address}/policies", timeout=30).json()["policies"][0]["refused"])
        save(stubborn_policy("LunarLander-v3", 0), policies / "lander", version=4)
        wait_for(lambda: 4 in versions)
        before = {replica.pid for replica in descendants(process, "ray::ServeReplica")}
        descendants(process, "ray::ServeReplica")[0].kill()
        done = sum(answered)
        wait_for(lambda: sum(answered) > done + 500)
        wait_for(lambda: len({replica.pid for replica in descendants(process, "ray::ServeReplica")} - before) == 1)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not errors, errors
    assert {2, 3, 4} <= versions


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a bad command gets."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
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
        (["{run}", "--port", "{busy}"], "Address already in use; choose another --port"),
        (["{run}", "--replicas", "0"], "replicas must be 1 or more"),
        (["{run}", "--max-body", "0"], "max_body must be positive"),
        (["{run}", "--body-seconds", "nan"], "body_seconds must be positive, not nan"),
        (["{run}", "--cpus-per-replica", "nan"], "cpus_per_replica must be zero or more, not nan"),
        (["{run}", "--folow"], "did you mean --follow?"),
    ],
)
def test_a_bad_request_is_one_line_and_exit_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(policy_for("CartPole-v1"), tmp_path / "run")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        names = {"run": tmp_path / "run", "busy": busy.getsockname()[1]}
        assert said in refused(capsys, *(argument.format(**names) for argument in arguments))


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


def test_rays_own_way_with_the_config_file(tmp_path: Path) -> None:
    """``serve run`` with the repository's config file, its policy and port changed; a token; no HAProxy."""
    save(policy_for("LunarLander-v3"), tmp_path / "lander", version=5)
    (tmp_path / "token").write_text(TOKEN + "\n")
    config = yaml.safe_load(Path("serve/config.yaml").read_text())
    port = config["http_options"]["port"] = free_port()
    arguments = config["applications"][0]["args"]
    arguments |= {"policy": {"lander": str(tmp_path / "lander")}, "token_file": str(tmp_path / "token")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    log = tmp_path / "log"
    env = {"RAY_ADDRESS": "local", "PYTHONPATH": str(Path.cwd())}
    with launched(log, "ray.serve.scripts", "run", tmp_path / "config.yaml", env=env) as process:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: process.poll() is not None or (listening(port) and healthy(address)), seconds=120)
        assert process.poll() is None, log.read_text()
        with PolicyClient(address, token=TOKEN) as client:
            assert client.act(LANDER).version == 5
        assert httpx2.post(f"{address}/act", json={"observation": LANDER}, timeout=30).status_code == 401
        assert TOKEN not in log.read_text()
