"""Runs that learn from recordings, on real Ray processes: no actors, an end by updates, and going on bit for bit."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.errors import UserError
from learner.dataset.dataset import open_dataset
from learner.keeping.metrics_log import read_metrics
from learner.keeping.policies import find_policy
from learner.run.callback import Callback
from learner.run.config import TrainConfig, overlay
from learner.run.presets import preset
from learner.run.run_directory import RunDirectory
from learner.run.trainer import Trainer
from learner.train import read_command
from tests.learner.dataset.recordings import LANDER, episodes, write
from tests.learner.dataset.tallies import TALLY, tallies, write_tallies

pytestmark = pytest.mark.usefixtures("kept_processes")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tallies(tmp_path_factory.mktemp("recorded") / "tallies", 200)


def config_of(recorded: Path, **changes: Any) -> TrainConfig:
    base: dict[str, Any] = {
        "env": TALLY,
        "network": {"hidden_sizes": [16], "memory_size": 16, "memory_window": 8},
        "algorithm": {"batch_size": 128, "gradient_steps": 3},
        "placement": {"threads": 1},
        "dataset": {"dataset": str(recorded)},
        "stop": {"max_updates": 6},
        "evaluation": {"eval_every": None},
        "fleet": {"cpus_per_actor": 0.0},
    }
    return overlay(overlay(preset("dt"), base, "test"), changes, "test")


class StopAfter(Callback):
    """Ends a run after so many updates."""

    def __init__(self, updates: int) -> None:
        self._updates = updates

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if metrics["train/n_updates"] == self._updates:
            trainer.stop("the test said so")


def test_a_run_that_was_stopped_ends_as_one_that_was_not(recorded: Path, tmp_path: Path) -> None:
    whole = Trainer(config_of(recorded), tmp_path / "whole")
    result = whole.run()
    assert result.reason == "budget used up"
    assert result.policy.spec.version == 6
    assert whole.fleet is not None
    assert whole.fleet.size == 0  # nobody flew
    stopped = Trainer(config_of(recorded), tmp_path / "parts", callbacks=[StopAfter(2)]).run()
    assert stopped.policy.spec.version == 2
    assert not stopped.has_ended
    Trainer(config_of(recorded), tmp_path / "parts", resume=True).run()
    one, other = (find_policy(tmp_path / name) for name in ("whole", "parts"))
    assert one.spec.target_return == open_dataset(recorded).asked
    assert one.spec.trained["returns"] == {"least": 0, "mean": tallies(200).episode_returns.mean(), "most": 8}
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[name], err_msg=name)
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    assert [row["train/n_updates"] for row in rows[0]] == [1, 2, 3, 4, 5, 6]
    for name in ("train/loss", "time/total_timesteps", "train/learning_rate"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]], name
    assert rows[0][-1]["time/total_timesteps"] == 6 * 3 * 128
    assert json.loads((tmp_path / "whole" / "result.json").read_text())["has_ended"]


def resumed(run: Path, *more: str) -> Trainer:
    return Trainer(read_command(["--resume", str(run), "--max-updates", "8", *more]).options, run, resume=True)


def test_it_goes_on_with_what_it_began_with_wherever_that_is(recorded: Path, tmp_path: Path) -> None:
    here, there, others, run = (tmp_path / name for name in ("here", "there", "others", "run"))
    shutil.copytree(recorded, here)
    Trainer(config_of(here), run).run()
    config = (run / "config.json").read_bytes()
    here.rename(there)
    with pytest.raises(UserError, match=r"no dataset in .*/here"):
        resumed(run)
    write(others, open_dataset(recorded).form, tallies(200, seed=1))  # as many, and as long
    for arguments in (["--dataset", str(others)], ["--dataset", str(there), "--best-share", "0.5"]):
        with pytest.raises(UserError, match=r"goes on only with what it began with|not dataset"):
            resumed(run, *arguments)
    assert (run / "config.json").read_bytes() == config
    trainer = resumed(run, "--dataset", str(there))
    assert trainer.run().policy.spec.version == 8
    assert RunDirectory(run).config().dataset.dataset == str(there)


def test_its_policies_are_evaluated_on_actors(recorded: Path, tmp_path: Path) -> None:
    changes = {"evaluation": {"eval_every": 1, "eval_episodes": 12}, "algorithm": {"gradient_steps": 30}}
    trainer = Trainer(config_of(recorded, **changes), tmp_path / "run")
    trainer.run()
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "eval/mean_reward" in row]
    assert rows
    assert rows[-1]["eval/episodes"] == 12
    assert trainer.counters.best_evaluation == max(row["eval/mean_reward"] for row in rows)
    assert (tmp_path / "run" / "best" / "policy.safetensors").is_file()


def test_an_environment_of_other_spaces_is_refused_before_anything_starts(recorded: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(config_of(recorded), env="CartPole-v1")
    with pytest.raises(UserError, match=r"was recorded on .*Tally-v0: its observation is .* and CartPole-v1 has"):
        Trainer(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_takes_the_environment_from_the_recordings(tmp_path: Path) -> None:
    write(tmp_path / "lander", LANDER, episodes(LANDER, [5] * 20))
    command = read_command(["--preset", "bc", "--dataset", str(tmp_path / "lander"), "--best-share", "0.1"])
    assert command.options.env == "LunarLander-v3"
    assert command.options.dataset.best_share == 0.1
    assert command.options.dataset.open().num_episodes == 2


def test_no_module_is_imported_because_recordings_name_it(recorded: Path) -> None:
    arguments = ["--preset", "bc", "--dataset", str(recorded)]
    with pytest.raises(UserError, match=r"would import tests\.actors.*add --env tests.* if you trust it") as error:
        read_command(arguments)
    assert "\n" not in str(error.value)
    assert read_command([*arguments, "--env", TALLY]).options.env == TALLY


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "bc"], r"bc learns from recordings: give it --dataset DIRECTORY"),
        (["--preset", "ppo", "--dataset", "{}"], r"ppo learns from what it flies, and a dataset is for bc, cql and dt"),
        (["--preset", "dt", "--dataset", "{}/none"], r"none"),
        (["--preset", "dt", "--dataset", "{}", "--best-share", "0"], r"best_share must lie above 0"),
        (
            ["--preset", "dt", "--dataset", "{}", "--batch-size", "100"],
            r"batch_size must be a multiple of memory_window",
        ),
        (["--preset", "bc", "--dataset", "{}", "--max-updates", "0"], r"max_updates must be positive"),
        (
            [
                *("--preset", "bc", "--dataset", "{}", "--target-return", "5"),
                *("--max-updates", "None", "--eval-every", "None", "--schedule", "constant"),
            ],
            r"reaches its target_return in evaluations alone, and there are none: set eval_every",
        ),
    ],
)
def test_what_cannot_be_is_one_line(recorded: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    filled = ["--env", TALLY, *(word.format(recorded) for word in arguments)]
    with pytest.raises(UserError, match=words) as error:
        Trainer(read_command(filled).options, tmp_path / "run")
    assert "\n" not in str(error.value)
