"""A script of a user's that registers an environment of its own, and trains, evaluates and films it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

from actors.evaluation import record_video
from learner.run.config import TrainConfig, overlay
from learner.run.evaluation import evaluate
from learner.run.trainer import Trainer


class Heavy(CartPoleEnv):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, 3.0, *rest


gymnasium.register("Heavy-v0", entry_point=Heavy, max_episode_steps=20)
if __name__ == "__main__":
    changes = {"env": "Heavy-v0", "rollout": {"n_envs": 4, "n_steps": 32}, "stop": {"total_timesteps": 300}}
    changes["fleet"] = {"actors": 1}
    policy = Trainer(overlay(TrainConfig(), changes, "script"), sys.argv[1]).run().policy
    print(evaluate(policy, 60, seed=1)["best_reward"], record_video(policy, sys.argv[1] + "/film.mp4", 1, episodes=1))
"""


PYTHON_PAGE = Path(__file__).parents[3] / "docs" / "python.md"


@pytest.mark.usefixtures("joined")
def test_the_page_on_python_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PYTHON_PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 8
    (tmp_path / "page.py").write_text("\n".join(blocks))
    said = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert said.returncode == 0, said.stderr
    assert "Heavy-v0(mass=3.0) | TimeAwareObservation" in said.stdout


@pytest.mark.usefixtures("joined")
def test_an_environment_of_a_script_is_trained_evaluated_and_filmed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "mine.py"), str(tmp_path / "run")]
    said = subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert said.returncode == 0, said.stderr
    best, filmed = said.stdout.split()
    assert 3 * 8 <= float(best) <= 3 * 20
    assert float(filmed.strip("[]")) % 3 == 0
    assert (tmp_path / "run" / "film.mp4").exists()
