"""docs/course.md: every command of it, shortened, and every picture."""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from learner.run.run_directory import RunDirectory
from tune_configs.compare_losses import compare, read_command

PAGE = Path(__file__).parents[2] / "docs" / "course.md"
COMMANDS = [
    shlex.split(line.strip())
    for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
SHORTER = {
    "learner.train": [
        *("--total-timesteps", "1500", "--target-return", "None", "--no-video", "--evaluate-episodes", "0"),
        *("--n-envs", "4", "--actors", "1", "--cpus-per-actor", "0"),
    ],
    "learner.evaluate": ["--episodes", "2"],
    "tune_configs.compare_losses": ["--losses", "vpg", "--seeds", "1", "--episodes", "4", "--evaluation-episodes", "2"],
    "serve.publish": ["--episodes", "2"],
}
"""Options after which a command is done in a moment; the last one of a name counts."""


@pytest.mark.usefixtures("joined", "kept_processes")
def test_every_command_of_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parents[1]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("touchdown"), "handlers", [])
    trained = set()
    for python, option, module, *words in COMMANDS:
        assert (python, option) == ("python", "-m")
        arguments = [*words, *SHORTER.get(module, [])]
        if module == "tune_configs.compare_losses":  # whose main would leave the shared cluster
            assert compare(read_command(arguments), Console()) == 0
            continue
        with contextlib.suppress(SystemExit):  # what it should have left is looked for
            importlib.import_module(module).main(arguments)
        if module == "learner.train":
            directory = arguments[arguments.index("--run-dir") + 1]
            assert RunDirectory(directory).result() is not None
            trained.add(directory)
    assert len(trained) >= 12
    assert Path("runs/course/lander.png").exists()
    assert any(Path("runs/course").glob("*/index.html"))
    assert Path("runs/course/package/README.md").exists()


def test_every_picture_is_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE.read_text())
    assert len(pictures) == 8
    for picture in pictures:
        assert (PAGE.parent / picture).stat().st_size > 5_000
