"""What a command does first: it speaks before it imports, and nothing that reads its output can end it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from actors.policy import Policy

pytestmark = pytest.mark.slow

SHORT = ["--env", "tests.learner.broken_environment:Blind-v0", "--n-envs", "8", "--n-steps", "64"]
SHORT += ["--evaluate-episodes", "5", "--total-timesteps", "1e3", "--actors", "1"]


def on_a_terminal(*command: str) -> str:
    """What a program writes to a terminal."""
    leader, follower = pty.openpty()
    with subprocess.Popen([sys.executable, *command], stdin=follower, stdout=follower, stderr=follower):
        os.close(follower)
        said = b""
        while part := _read(leader):
            said += part
    os.close(leader)
    return said.decode()


def _read(file: int) -> bytes:
    try:
        return os.read(file, 65536)
    except OSError:  # so a terminal says that nobody writes to it any more
        return b""


def test_a_line_comes_before_the_imports_that_take_seconds() -> None:
    said = on_a_terminal("-X", "importtime", "-m", "learner.train", "--nonsense").splitlines()
    assert [line.split(" |")[-1].strip() for line in said].index("python -m learner.train: starting") < min(
        i for i, line in enumerate(said) if line.split("|")[-1].strip() in ("numpy", "ray", "rich", "torch", "tyro")
    )
    assert "error: Unrecognized options: --nonsense" in said[-1]
    assert "\x1b" not in said[-1]


@pytest.mark.parametrize(
    "module",
    [
        *("learner.train", "learner.evaluate", "tune_configs.compare_losses", "tune_configs.search"),
        *("serve.app", "serve.publish", "serve.pull", "serve.import_sb3", "serve.import_transformers"),
    ],
)
def test_version(module: str) -> None:
    result = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == "touchdown 0.1.0\n"
    assert result.stderr == ""


@pytest.mark.parametrize("output", ["latin-1", "C", "reader gone", "closed", "full"])
def test_any_output_takes_any_text(output: str) -> None:
    program = (
        "from learner.commands.entry import begin; begin('x'); import sys; from rich.console import Console;"
        "Console().print('\\xe9 \\u2013 \\u2212 \\u2026 \\udcff'); [print(i) for i in range(20000)];"
        "print('\\u2013 \\udcff', file=sys.stderr)"
    )
    variables = {"latin-1": {"PYTHONIOENCODING": "latin-1"}, "C": {"LC_ALL": "C", "PYTHONUTF8": "0"}}.get(output, {})
    redirected = {"reader gone": "| true", "closed": ">&- 2>&-", "full": ">/dev/full"}.get(output, "")
    result = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {redirected}', sys.executable, program],
        capture_output=True,
        env={**os.environ, **variables},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    if output == "latin-1":
        assert result.stdout.startswith(b"\xe9 - - ... \\udcff\n")
    elif output == "C":
        assert result.stdout.startswith(b"\\xe9 - - ... \\udcff\n")
    if not redirected or output == "full":
        assert result.stderr.endswith(b"\\udcff\n")


def test_a_run_survives_its_terminal_its_name_and_what_is_optional(tmp_path: Path) -> None:
    """A terminal without dashes, a directory that is not ASCII, and an environment that cannot be drawn."""
    run_dir = tmp_path / "Mondlandung-überall-月"
    result = subprocess.run(
        [sys.executable, "-m", "learner.train", *SHORT, "--run-dir", str(run_dir)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1", "RAY_ADDRESS": ""},
        check=False,
    )
    said = result.stdout.decode("latin-1")
    assert result.returncode == 0, result.stderr
    assert "no video: " in said
    assert "the lamp is broken" in said
    assert "+/-" in said or "±" in said
    assert said.splitlines()[-1].startswith("policy: ")
    assert Policy.load(run_dir / "policy").spec.version > 0


@pytest.mark.usefixtures("joined")
def test_a_run_goes_on_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "learner.train", *SHORT, "--no-video", "--run-dir", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert (tmp_path / "run" / "evaluation.json").is_file()
