"""Signals and ends, with plain processes in place of Ray's."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serve.service import supervisor
from tests.serve.served import PATIENCE, wait_for

PROGRAM = textwrap.dedent("""
    import os, subprocess, sys, time
    from pathlib import Path
    from serve.service import supervisor

    supervisor.ROOT = Path(sys.argv[1])
    if "together" in sys.argv:
        supervisor.SAME_SECONDS = supervisor.PATIENCE = 600

    def work(stop):
        if "gently" in sys.argv:
            stop.gently()
        named = {**os.environ, "PLACE": str(stop.directory)}
        for detached in (False, True):  # one that goes with a group, one that only the supervisor can find
            subprocess.Popen(["sh", "-c", "sleep 600 & wait"], env=named, start_new_session=detached)
        Path(sys.argv[1], "running").write_text(f"{os.getpid()} {stop.directory}")
        if "fail" in sys.argv:
            sys.exit(3)
        stop.wait()
        Path(sys.argv[1], "asked").touch()
        if "stay" in sys.argv:
            time.sleep(600)

    supervisor.supervise(work)
""")


class Service:
    """A supervised program; with it, the child and all that it started."""

    def __init__(self, root: Path, *options: str, ignoring: tuple[signal.Signals, ...] = ()) -> None:
        def dispositions() -> None:
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN if number in ignoring else signal.SIG_DFL)

        self.root = root
        (root / "running").unlink(missing_ok=True)
        with (root / "said").open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(root), *options],
                start_new_session=True,
                preexec_fn=dispositions,  # noqa: PLW1509 - no threads here that hold locks
                stderr=said,
            )

    def running(self) -> Service:
        """Wait until it runs."""
        words = wait_for(lambda: (self.root / "running").exists() and (self.root / "running").read_text().split())
        self.child, self.directory = psutil.Process(int(words[0])), Path(words[1])
        wait_for(lambda: len(self.family()) == 5, "two shells, each with a sleep")
        return self

    def family(self) -> list[psutil.Process]:
        """The child and its descendants."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.child, *self.child.children(recursive=True)]
        return []

    def asked(self) -> bool:
        """Whether it ended of its own accord."""
        return (self.root / "asked").exists()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[list[Service]]:
    """To put services into: whatever of them is left at the end is ended."""
    started: list[Service] = []
    yield started
    for process in supervisor.naming(tmp_path):
        if process.pid != os.getpid():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them runs; one whose parent has not collected it does not."""

    def runs(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    return not any(map(runs, processes))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize("options", [(), ("gently",)])
def test_a_signal_ends_it_with_status_0(
    number: signal.Signals, send: object, options: tuple[str, ...], tmp_path: Path, services: list[Service]
) -> None:
    service = Service(tmp_path, *options).running()
    family = service.family()
    assert service.directory.stat().st_mode & 0o777 == 0o700
    send(service.process.pid, number)  # type: ignore[operator]
    assert service.process.wait(PATIENCE) == 0
    assert gone(family)
    assert not service.directory.exists()
    assert service.asked() or not options


def test_a_signal_before_anything_runs(tmp_path: Path, services: list[Service]) -> None:
    service = Service(tmp_path)
    wait_for(lambda: list(tmp_path.glob("tdserve-*")), "the supervisor is there")
    service.process.terminate()
    assert service.process.wait(PATIENCE) == 0
    assert not list(tmp_path.glob("tdserve-*"))


def test_signals_that_come_together_are_one(tmp_path: Path, services: list[Service]) -> None:
    service = Service(tmp_path, "gently", "stay", "together").running()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        service.process.send_signal(number)
    wait_for(service.asked)
    status = Path(f"/proc/{service.process.pid}/status")
    wait_for(lambda: re.search(r"^ShdPnd:\s+0+$", status.read_text(), re.MULTILINE), "all are taken")
    assert service.process.poll() is None


def test_a_second_signal_waits_for_nothing(tmp_path: Path, services: list[Service]) -> None:
    service = Service(tmp_path, "gently", "stay").running()
    family = service.family()
    service.process.send_signal(signal.SIGHUP)
    wait_for(service.asked)

    def told_again() -> bool:
        service.process.terminate()
        return service.process.poll() is not None

    wait_for(told_again)
    assert service.process.wait(PATIENCE) == 1
    assert "ended before all was answered" in (tmp_path / "said").read_text()
    assert gone(family)


def test_a_hang_up_that_is_ignored_stays_so(tmp_path: Path, services: list[Service]) -> None:
    service = Service(tmp_path, "gently", ignoring=(signal.SIGHUP, signal.SIGINT)).running()
    service.process.send_signal(signal.SIGHUP)
    service.process.send_signal(signal.SIGINT)  # which a shell ignores for what it runs in the background
    assert service.process.wait(PATIENCE) == 0
    assert service.asked()


def test_it_ends_as_its_work_does(tmp_path: Path, services: list[Service]) -> None:
    assert Service(tmp_path, "fail").process.wait(PATIENCE) == 3
    service = Service(tmp_path, "gently").running()
    family = service.family()
    service.child.kill()
    assert service.process.wait(PATIENCE) == 128 + signal.SIGKILL
    assert "the service was ended by SIGKILL" in (tmp_path / "said").read_text()
    assert gone(family)


@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize("options", [(), ("gently",)])
def test_a_killed_supervisor_is_followed_by_its_service(
    send: object, options: tuple[str, ...], tmp_path: Path, services: list[Service]
) -> None:
    service = Service(tmp_path, *options).running()
    send(service.process.pid, signal.SIGKILL)  # type: ignore[operator]
    wait_for(lambda: gone([service.child]))
    assert service.asked() is bool(options)
    assert not service.directory.exists()


def test_a_start_ends_what_a_killed_service_left(tmp_path: Path, services: list[Service]) -> None:
    (tmp_path / "tdserve-of-somebody").mkdir()  # no lock: none of ours
    living, killed = Service(tmp_path, "gently").running(), Service(tmp_path, "gently").running()
    left = killed.family()
    killed.child.suspend()  # it would put things in order as its supervisor goes
    for process in (killed.process.pid, killed.child.pid):
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: gone([killed.child]))
    assert not gone(left)
    Service(tmp_path, "gently").running()
    wait_for(lambda: gone(left))
    assert not killed.directory.exists()
    assert living.directory.exists()
    assert living.process.poll() is None
    assert (tmp_path / "tdserve-of-somebody").exists()
