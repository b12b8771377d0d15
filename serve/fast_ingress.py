"""``eval "$(python -m serve.fast_ingress)"``, on every node before ``ray start``: HAProxy for Ray Serve, which is fast.

Which variables that takes, and why, is in service/fast_ingress.py; here they are printed for a shell.
"""

from __future__ import annotations

import os
import shlex
import sys

from serve.service.fast_ingress import VARIABLES, places
from serve.service.supervisor import ROOT


def main() -> None:
    """Print the variables for a shell."""
    directory = ROOT / f"touchdown-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid():
        sys.exit(f"{directory} is another user's: have it removed")
    for name, value in (VARIABLES | places(directory)).items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
