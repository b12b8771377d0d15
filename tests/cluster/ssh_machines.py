"""Machines that one reaches by SSH, as a cloud or a rack gives them: a user, sshd, Python and this project's packages.

What a machine cannot have here is the internet. So that ``pip install`` finds all it wants without, the packages of the
Python that runs the tests are on ``PYTHONPATH``; pip is forbidden to look anywhere else. Everything else that set-up
commands do is real: the virtual environment, the editable install of the code that was copied there, ``ray start``.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.machines import Machine, Network
from tests.serve.served import wait_for

_SSHD_CONFIG = """
HostKey {host_key}
AuthorizedKeysFile .ssh/authorized_keys
PidFile none
UsePAM no
StrictModes no
MaxStartups 100
MaxSessions 100
"""


def key_pair(path: Path) -> str:
    """Make a private key; returns the public one."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.with_suffix(".pub").read_text()


def add_ssh_machine(
    network: Network,
    name: str,
    *addresses: str,
    key: str,
    user: str = "ubuntu",
    variables: Mapping[str, str] | None = None,
    programs: Mapping[str, str] | None = None,
    hosts: Path | None = None,
) -> Machine:
    """Switch on a machine that a user with this public key can log in to.

    Args:
        variables: in the user's environment.
        programs: scripts on its PATH, {name: text}.
        hosts: its /etc/hosts; None: that of the network.
    """
    disk = network.directory / name
    for directory in ("run/sshd", f"home/{user}/.ssh", f"home/{user}/bin"):
        (disk / directory).mkdir(parents=True)
    home = disk / "home" / user
    passwd = disk / "passwd"
    # The user is root by another name, so that it can read the Python that the tests run with, wherever that is.
    passwd.write_text(f"{user}:*:0:0::/home/{user}:/bin/bash\n" + Path("/etc/passwd").read_text())
    host_key = disk / "host_key"
    key_pair(host_key)
    (disk / "sshd_config").write_text(_SSHD_CONFIG.format(host_key=host_key))
    (home / ".ssh/authorized_keys").write_text(key)
    environment = {
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # sic: no isolation, setuptools comes from PYTHONPATH too
        "PIP_NO_DEPS": "1",  # that they fit together is known from here, and takes pip ten seconds to find again
        "RAY_USAGE_STATS_ENABLED": "0",
        **(variables or {}),
    }
    # Unless it is set: Debian's bash reads .bashrc for what Ray starts too, when that descends from SSH.
    exports = "".join(f"export {name}=${{{name}:-{shlex.quote(value)}}}\n" for name, value in environment.items())
    base = Path(sys.base_prefix) / "bin"
    (home / ".bashrc").write_text(f"export PATH=$HOME/bin:{base}:$PATH\n{exports}")
    # pip would have put this into the virtual environment, had it installed Ray there.
    ray = "#!/usr/bin/env python\nfrom ray.scripts.scripts import main\nmain()\n"
    for program, text in {"ray": ray, **(programs or {})}.items():
        (home / "bin" / program).write_text(text)
        (home / "bin" / program).chmod(0o755)
    mounts = {"/etc/passwd": passwd, "/run": disk / "run", **({"/etc/hosts": hosts} if hosts else {})}
    machine = network.add(name, *addresses, mounts=mounts)
    log = disk / "sshd.log"
    log.touch()
    machine.start(["/usr/sbin/sshd", "-D", "-E", log, "-f", disk / "sshd_config"])
    wait_for(lambda: "Server listening" in log.read_text(), f"sshd on {name}", 180)
    return machine
