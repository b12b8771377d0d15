"""Machines without a cloud: namespaces of network, processes, mounts and host name, joined by a switch.

Each has its own addresses, host name, process table, shared memory, ``/tmp`` (so also ``/tmp/ray``) and ``/home``; the
rest of the file system is everyone's. They see one another and nothing else: the switch lies in a namespace too, so
addresses are free to choose, and tests that run at the same time do not meet. When the network closes, or the test's
process dies, however, everything ends: processes, interfaces and mounts go with their namespaces.

    with Network(tmp_path) as network:
        head = network.add("head", "10.0.0.1")
        head.start(["ray", "start", "--head", "--block"])
        network.add("worker", "10.0.0.2").run(["ping", "-c", "1", "head"])
        head.kill()
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from tests.serve.served import wait_for

REPOSITORY = Path(__file__).parents[2]
_PRIVATE = ("/tmp", "/home")
_INIT = "while :; do sleep infinity & wait; done"
"""What bash runs as a machine's first process: bash, because it reaps orphans. ``kill -KILL -1`` spares it alone."""
_PATIENCE = 180.0
_CLONE_NEWNET = 0x40000000
_UNSHARE = ("unshare", "--net", "--pid", "--mount", "--uts", "--fork", "--kill-child", "--mount-proc")


def lacking() -> str | None:
    """Why there can be no machines here; None: there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "machines are namespaces, which need root on Linux"
    if missing := [name for name in ("ip", "unshare", "nsenter", "setpriv") if not shutil.which(name)]:
        return f"machines need {', '.join(missing)} (Debian packages iproute2 and util-linux)"
    attempt = subprocess.run(
        [*_UNSHARE, "ip", "link", "add", "switch", "type", "bridge"], check=False, capture_output=True, text=True
    )
    return f"this system forbids namespaces: {attempt.stderr.strip()}" if attempt.returncode else None


def needs_machines(*programs: str) -> pytest.MarkDecorator:
    """Skip where there can be no machines, or one of these programs is not installed."""
    reason = lacking() or ", ".join(f"{name} is not installed" for name in programs if not shutil.which(name))
    return pytest.mark.skipif(bool(reason), reason=reason or "")


class Machine:
    """A machine that is on. Made by ``Network.add``.

    Attributes:
        name: host name; other machines find its first address under it.
        addresses: IPv4.
        disk: directory that holds what only this machine sees: its /tmp is ``disk/tmp``.
        environment: of every process that is started.
        pid: of its first process, as seen from outside.
    """

    def __init__(self, name: str, addresses: Sequence[str], disk: Path, unshare: Sequence[str]) -> None:
        self.name, self.addresses, self.disk = name, tuple(addresses), disk
        # Not what Ray has left in this process: whether it asks for a token, say.
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment["RAY_USAGE_STATS_ENABLED"] = "0"
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *unshare, "bash", "-c", _INIT],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = wait_for(self._first_process, f"{name} starts", _PATIENCE)

    def _first_process(self) -> int | None:
        """The process that holds the namespaces: the last of unshare's descendants to come, bash itself."""
        pid = self._holder.pid
        with contextlib.suppress(OSError, ValueError):
            while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                pid = int(children[0])
                bash = Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"bash\0-c\0" + _INIT.encode())
                # Not its child, which is called the same until it becomes a sleep.
                if bash and re.search(r"^NSpid:.*\t1$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
                    return pid
        assert self._holder.poll() is None, f"{self.name} did not start"
        return None

    @property
    def alive(self) -> bool:
        """Whether the machine is on."""
        return self._holder.poll() is None

    def processes(self, *words: str) -> list[psutil.Process]:
        """Those in the machine whose command line, or title, has one of these words; none: all of them."""
        inside = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if os.readlink(f"/proc/{process.pid}/ns/pid") == inside and process.pid != self.pid:
                    said = " ".join(process.cmdline())
                    if not words or any(word in said for word in words):
                        found.append(process)
        return found

    def join_network(self) -> None:
        """Have this thread, and those that it will start, see the machine's network in place of its own."""
        with Path(f"/proc/{self.pid}/ns/net").open() as there:
            if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot join the network of {self.name}")

    @property
    def enter(self) -> list[str]:
        """The command that leads in. A process dies (SIGTERM) with the one that led it in."""
        enter = ["nsenter", "--target", str(self.pid), "--net", "--pid", "--mount", "--uts", "--wdns=" + os.getcwd()]
        return [*enter, "setpriv", "--pdeathsig", "TERM", "--"]

    def start(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None, **options: Any) -> Any:
        """Start a command in the machine: a Popen with these options. Text, in the same directory as outside."""
        environment = self.environment | dict(env or {})
        return subprocess.Popen([*self.enter, *map(str, command)], env=environment, text=True, **options)

    def run(
        self,
        command: Sequence[str | Path],
        timeout: float = _PATIENCE,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine to its end; its output is one text. Fails if the command does and ``check``."""
        process = self.start(command, env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            output, _ = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        assert process.returncode == 0 or not check, f"{self.name}: {command} failed:\n{output}"
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def kill(self) -> None:
        """Pull the plug: every process dies at once, and the addresses are gone."""
        if not self.alive:  # its numbers may be other processes' by now
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._holder.kill()
        self._holder.wait(_PATIENCE)

    def end_all(self) -> None:
        """Kill every process, but leave the machine on."""
        self.run(["bash", "-c", "kill -KILL -1"], check=False)  # which fails where there is none


def _port(machine: Machine) -> str:
    """Its port of the switch."""
    return f"port{machine.pid}"


class Network:
    """A switch and the machines on it.

    Args:
        directory: where machines' disks go.
        shared: directories under /tmp or /home that all machines see nonetheless; the repository and ``directory``
            are among them anyway.
    """

    def __init__(self, directory: Path, shared: Sequence[Path] = ()) -> None:
        self.directory = directory.resolve()
        self._shared = [path.resolve() for path in (REPOSITORY, self.directory, *shared)]
        self.machines: dict[str, Machine] = {}
        self._switch: Machine
        self._hosts = self.directory / "hosts"

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._hosts.write_text("127.0.0.1 localhost\n")
        self._switch = Machine("switch", (), self.directory, _UNSHARE)
        self._in_switch("mount --make-rprivate /; ip link add switch type bridge; ip link set switch up")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, name: str, *addresses: str, mounts: Mapping[str, Path] | None = None) -> Machine:
        """Switch a machine on; it goes off with the thread that did, if that ends first.

        Args:
            name: its host name.
            addresses: of its interface, eth0; any, there is no router. Other machines find the first by the name.
            mounts: files and directories to see in other places: {where: what}. The places must exist.
        """
        if before := self.machines.get(name):
            assert not before.alive, f"there is a machine {name} already"
            # Where much goes on the kernel keeps a dead machine's network for a while, which answers for its addresses.
            self._in_switch(f"! ip link show {_port(before)} &> /dev/null || ip link delete {_port(before)}")
        disk = self.directory / name
        machine = Machine(name, addresses, disk, [*self._switch.enter, *_UNSHARE])
        self.machines[name] = machine
        for place in _PRIVATE:
            (disk / place.strip("/")).mkdir(parents=True, exist_ok=True)
        (disk / "tmp").chmod(0o1777)
        with self._hosts.open("a") as hosts:
            hosts.write(f"{addresses[0]} {name}\n" if addresses else "")
        steps = ["mount --make-rprivate /", f"hostname {name}", "mount -t tmpfs shm /dev/shm"]
        for path in self._shared:
            if path.is_relative_to("/tmp") or path.is_relative_to("/home"):
                inside = disk / str(path).lstrip("/")
                inside.mkdir(parents=True, exist_ok=True)
                steps.append(f"mount --bind {path} {inside}")
        steps += [f"mount --rbind {disk}{place} {place}" for place in _PRIVATE]
        steps += [
            f"mount --bind {what} {where}" for where, what in {"/etc/hosts": self._hosts, **(mounts or {})}.items()
        ]
        interface = _port(machine)
        self._in_switch(
            f"ip link add {interface} type veth peer name eth0 netns {self._in_switch_pid(machine)};"
            f"ip link set {interface} master switch up"
        )
        steps += ["ip link set lo up", "ip link set eth0 up"]
        steps += [f"ip address add {address}/32 dev eth0" for address in addresses]
        steps += ["ip route add default dev eth0" + (f" src {addresses[0]}" if addresses else "")]
        machine.run(["bash", "-ec", "\n".join(steps)])
        return machine

    def cut(self, machine: Machine) -> None:
        """Pull a machine's cable: it goes on alone, and nobody is told."""
        self._in_switch(f"ip link set {_port(machine)} down")

    def mend(self, machine: Machine) -> None:
        """Put it back."""
        self._in_switch(f"ip link set {_port(machine)} up")

    def _in_switch(self, script: str) -> None:
        self._switch.run(["bash", "-ec", script])

    def _in_switch_pid(self, machine: Machine) -> str:
        """The number of a machine's first process in the switch's process table."""
        status = Path(f"/proc/{machine.pid}/status").read_text().splitlines()
        numbers = next(line for line in status if line.startswith("NSpid:")).split()
        return numbers[-2]

    def close(self) -> None:
        """Switch everything off."""
        for machine in self.machines.values():
            machine.kill()
        self._switch.kill()
