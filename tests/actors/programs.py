"""Programs that have a Python process to themselves."""

import subprocess
import sys


def run_python(*arguments: str) -> str:
    command = [sys.executable, "-c", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
