"""Ctrl-C and its like at any moment of a command: one line, a status that says so, and what is kept is kept."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from actors.policy import Policy
from learner.commands.signals import SAME_SECONDS
from learner.keeping.metrics_log import read_metrics
from learner.run.config import read_config
from learner.run.presets import preset
from tests.actors.examples import policy_for
from tests.serve.served import wait_for

pytestmark = pytest.mark.slow

COMMANDS = (
    *("learner.train", "learner.evaluate", "tune_configs.compare_losses", "tune_configs.search"),
    *("serve.publish", "serve.pull", "serve.import_sb3", "serve.import_transformers"),
)
FOR_EVER = (
    *("learner.train", "--env", "tests.paced_environment:Paced-v0", "--n-envs", "8", "--n-steps", "8"),
    *("--actors", "1", "--total-timesteps", "500000000", "--no-video", "--evaluate-episodes", "10000"),
)
GROUNDED = (*FOR_EVER, "--actor-labels", "role", "moon")
"""It starts, and there is no update, however late it is interrupted."""


class Command:
    """A command as a terminal starts it, in a group of its own, with pipes for what it says."""

    def __init__(self, module: str, *arguments: object, env: dict[str, str] | None = None) -> None:
        self.module, self.started = module, list[psutil.Process]()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def heeds_signals(self) -> bool:
        """Whether it has told the system that it handles SIGTERM."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    def wait(self, condition: Any) -> None:
        def holds() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            return bool(condition())

        wait_for(holds, self.module, 120, every=0.1)  # some conditions look at every process there is

    def signal(self, number: int) -> None:
        """As a terminal does: also to what it has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.started += psutil.Process(self.process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def check(self, number: int, said: str = "") -> str:
        """That it has ended so, and said no more than it must; returns its output."""
        out, err = self.process.communicate(timeout=120)
        assert self.process.returncode == 128 + number, out + err
        assert "Traceback" not in out + err, out + err
        last = err.splitlines()[-1]
        assert last.startswith(f"python -m {self.module}: ended by {signal.Signals(number).name}"), err
        assert said in last
        assert err.count("ended by") == 1
        _, alive = psutil.wait_procs(self.started, timeout=120)
        assert not alive, "nothing is left running"
        return str(out)

    def end(self, number: int, said: str = "") -> str:
        self.signal(number)
        return self.check(number, said)


Start = Callable[..., Command]


@pytest.fixture(autouse=True)
def sighup_heeded() -> Iterator[None]:
    """Under nohup, commands would inherit that it is ignored; what is handled here is as usual in them."""
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def started() -> Iterator[Start]:
    """Starts commands; a test that fails leaves none behind."""
    commands: list[Command] = []

    def start(*words: object, env: dict[str, str] | None = None) -> Command:
        commands.append(Command(*map(str, words), env=env))
        return commands[-1]

    yield start
    for command in commands:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.process.pid, signal.SIGKILL)


@pytest.fixture
def cluster(ray_cluster: None) -> dict[str, str]:
    """Variables with which a command joins the tests' cluster, and need not start one."""
    return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}


def has_started(parent: psutil.Process, title: str) -> bool:
    """Whether there is a process of that name under another."""
    for process in parent.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if title in " ".join(process.cmdline()):
                return True
    return False


def test_while_it_imports(started: Start, tmp_path: Path) -> None:
    (tmp_path / "tyro.py").write_text("import time\ntime.sleep(600)\n")  # a library of them all, which takes long
    for module in COMMANDS:
        command = started(module, "--help", env={"PYTHONPATH": str(tmp_path)})
        command.wait(lambda command=command: command.heeds_signals)
        assert command.end(signal.SIGTERM if module == "serve.pull" else signal.SIGINT) == ""


@pytest.mark.parametrize(
    ("moment", "number", "said"),
    [
        ("it works", signal.SIGINT, "; the work so far is kept"),
        ("it works", signal.SIGHUP, "; the work so far is kept"),
        ("cleaning up fails", signal.SIGINT, ""),
        ("a library takes it for an error of its own", signal.SIGINT, "; the work so far is kept"),
        ("a thread fails on the way out", signal.SIGINT, ""),
        ("a thread fails after it has stopped", signal.SIGTERM, ""),
        ("a library writes as the process ends", signal.SIGINT, ""),
        ("it has done its work", signal.SIGTERM, ""),
        ("an object's end is under way", signal.SIGINT, ""),
    ],
)
def test_of_any_kind(started: Start, moment: str, number: signal.Signals, said: str) -> None:
    command = started("tests.learner.interruptible", moment)
    assert command.process.stdout
    assert command.process.stdout.readline() == "waiting\n"
    command.end(number, f"ended by {number.name}{said}")


def test_twice_at_once_is_once(started: Start) -> None:
    """A terminal that closes sends two signals; who says it again means now."""
    one_thread = {"OPENBLAS_NUM_THREADS": "1"}  # of two, each could take one of the signals
    command = started("tests.learner.interruptible", "it is asked to stop", env=one_thread)
    assert command.process.stdout
    assert command.process.stdout.readline() == "waiting\n"
    command.signal(signal.SIGSTOP)  # so that they come at once, however long it takes to send them
    command.wait(lambda: psutil.Process(command.process.pid).status() == psutil.STATUS_STOPPED)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
        command.signal(number)
    assert command.process.stdout.readline() in (f"heeded {number}\n" for number in (signal.SIGHUP, signal.SIGTERM))
    time.sleep(SAME_SECONDS + 0.1)
    assert command.end(signal.SIGINT) == ""


def test_while_ray_starts(started: Start, tmp_path: Path) -> None:
    """The directory is not left, for the same command to be refused by it."""
    command = started(*GROUNDED, "--run-dir", tmp_path / "run")
    command.wait(lambda: has_started(psutil.Process(command.process.pid), "gcs_server"))
    assert (tmp_path / "run").exists()
    command.end(signal.SIGINT, "there was no update yet, and nothing is left")
    assert not list(tmp_path.iterdir())


def test_while_the_learner_starts(started: Start, cluster: dict[str, str], tmp_path: Path) -> None:
    command = started(*GROUNDED, "--run-dir", tmp_path / "run", env=cluster)
    command.wait((tmp_path / "run" / "made_by.json").exists)
    command.end(signal.SIGTERM, "there was no update yet, and nothing is left")
    assert not list(tmp_path.iterdir())


def updates(run_dir: Path) -> int:
    return len(read_metrics(run_dir / "metrics.jsonl"))


def test_in_training(started: Start, tmp_path: Path) -> None:
    """The run is kept whole, and no hundred episodes are flown first."""
    run_dir = tmp_path / "a run"
    command = started(*FOR_EVER, "--run-dir", run_dir)
    command.wait(lambda: updates(run_dir) >= 3)
    said = command.end(signal.SIGINT, f"go on with --resume '{run_dir}'")
    assert "SIGINT received" in said
    assert Policy.load(run_dir / "policy").spec.version == updates(run_dir)


def test_a_second_time(started: Start, cluster: dict[str, str], tmp_path: Path) -> None:
    """In an update that takes for ever; a first time had it wait for the end of that."""
    run_dir = tmp_path / "run"
    command = started(*FOR_EVER, "--run-dir", run_dir, "--n-epochs", 10**7, env=cluster)
    command.wait((run_dir / "policy" / "policy.safetensors").exists)  # all that is written before an update
    command.wait(lambda: has_started(psutil.Process(), "ray::LearnerActor.update"))
    command.signal(signal.SIGINT)
    for patience in (3, 60, 60):  # the second comes too soon where it takes long to hear the first
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.process.wait(patience)
            break
        command.signal(signal.SIGINT)
    command.check(signal.SIGINT, "there was no update yet, and nothing is left")
    assert not list(tmp_path.iterdir())


def test_in_the_final_evaluation(started: Start, cluster: dict[str, str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = started(*FOR_EVER, "--run-dir", run_dir, "--total-timesteps", 64, env=cluster)
    command.wait((run_dir / "result.json").exists)
    command.wait(lambda: has_started(psutil.Process(), "ray::_fly"))
    command.end(signal.SIGINT, f"the run is done, and its policy in {run_dir}/policy")
    assert not (run_dir / "evaluation.json").exists()


def test_while_it_films(started: Start, cluster: dict[str, str], tmp_path: Path) -> None:
    policy_for("tests.paced_environment:SlowlyDrawn-v0").save(tmp_path)
    files = {*tmp_path.iterdir(), tmp_path / "evaluation.json"}
    words = ("learner.evaluate", tmp_path, "--module", "tests.paced_environment", "--episodes", 1)
    command = started(*words, "--video", tmp_path / "flight.mp4", env=cluster)
    command.wait(lambda: list(tmp_path.glob(".flight-*.mp4")))
    command.end(signal.SIGINT)
    assert set(tmp_path.iterdir()) == files


def test_in_a_search(started: Start, cluster: dict[str, str], tmp_path: Path) -> None:
    """What was best so far is written."""
    words = ("tune_configs.search", "--env", "CartPole-v1", "--trials", 100, "--steps", 1_000_000, "--concurrent", 1)
    command = started(*words, "--results", tmp_path, "--name", "x", env=cluster)
    runs = tmp_path / "x" / "runs"
    # The first update is reported, and no second one comes before Tune has heard of it. Tune ends a trial when it
    # reports, which is twenty times in its steps; the other trials are there for the search to last.
    command.wait(lambda: any(updates(run) >= 2 for run in (runs.iterdir() if runs.is_dir() else ())))
    command.end(signal.SIGINT, f"the best so far is in {tmp_path}/x/best.json")
    assert read_config(tmp_path / "x" / "best.json", preset("ppo")).env == "CartPole-v1"


def test_while_the_hub_does_not_answer(started: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hub:
        hub.settimeout(120)
        address = f"http://127.0.0.1:{hub.getsockname()[1]}"
        command = started("serve.pull", "somebody/policy", "--to", tmp_path / "theirs", env={"HF_ENDPOINT": address})
        connection, _ = hub.accept()
        with connection:
            command.end(signal.SIGTERM)
    assert not list(tmp_path.iterdir())


def test_a_terminal_that_closes(tmp_path: Path) -> None:
    """The run is kept whole, though nothing can be said any more: what Ray runs does not go with the terminal."""
    run_dir = tmp_path / "run"
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-m", *FOR_EVER, "--run-dir", str(run_dir)])
    os.set_blocking(terminal, False)

    def has_learned() -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 2**20)  # a terminal that nobody reads blocks
        assert not os.waitpid(child, os.WNOHANG)[0]
        return updates(run_dir) >= 3

    wait_for(has_learned, "it learns", 120)
    os.close(terminal)
    ended = wait_for(lambda: [status for pid, status in [os.waitpid(child, os.WNOHANG)] if pid], "it ends", 120)
    assert os.waitstatus_to_exitcode(ended[0]) == 129
    assert Policy.load(run_dir / "policy").spec.version == updates(run_dir)
