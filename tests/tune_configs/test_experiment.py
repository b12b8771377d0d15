"""Experiments: what they come to, and what is refused before anything starts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from actors.errors import UserError
from actors.seeds import derive
from learner.keeping.storage import Disk
from learner.run.config import TrainConfig, overlay
from tests.learner.dataset.tallies import TALLY, write_tallies
from tune_configs.compare_losses import main, read_command
from tune_configs.experiment import (
    Experiment,
    Planned,
    configs_of,
    load,
    open_experiment,
    plan,
    require_all,
    save,
    trials_of,
)
from tune_configs.ray_tune import gpu_share_of, room_for
from tune_configs.trainable import EVALUATION_SEED, placement, with_resources


def planned(experiment: Experiment) -> Planned:
    return Planned(experiment, configs_of(experiment), "python -m something")


def test_the_default_is_the_course_work(tmp_path: Path) -> None:
    experiment = Experiment()
    trials = trials_of(planned(experiment), Disk(tmp_path))
    losses = ("vpg", "bpg", "epg", "cpg", "aac", "a2c", "ppo", "impala")
    assert [trial.name for trial in trials] == [f"{loss}-{seed}" for loss in losses for seed in range(3)]
    for trial in trials:
        config = overlay(TrainConfig(), trial.config, "trial")
        assert (config.env, config.seed, config.stop.max_episodes) == ("Beresheet-v2", trial.seed, 6000)
        assert config.stop.total_timesteps is None
        assert config.stop.target_return is None


def test_steps_take_the_place_of_episodes(tmp_path: Path) -> None:
    experiment = Experiment(losses=("ppo",), steps=1000, max_policy_lag=0, actors=2)
    (config,) = configs_of(experiment).values()
    assert (config["stop"]["total_timesteps"], config["stop"]["max_episodes"]) == (1000, None)
    assert (config["fleet"]["max_policy_lag"], config["fleet"]["actors"]) == (0, 2)


def test_a_file_is_a_loss_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"algorithm": {"clip_range": 0.07}}))
    configs = configs_of(Experiment(losses=("ppo", str(path))))
    assert list(configs) == ["ppo", "mine"]
    assert configs["mine"]["algorithm"]["clip_range"] == 0.07


def test_recordings_that_are_compared_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a path that is the same for all processes, with bc and dt, and the environment that was recorded."""
    write_tallies(tmp_path / "data", 20)
    (tmp_path / "best.json").write_text(json.dumps({"algorithm": {"name": "bc"}, "dataset": {"best_share": 0.1}}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data is of tests.*would import tests\.actors.* add --env"):
        read_command(["--dataset", "data"])
    experiment = read_command(["--dataset", "data", "--env", TALLY]).experiment
    assert (experiment.losses, experiment.env) == (("bc", "dt"), TALLY)
    assert configs_of(experiment)["dt"]["stop"]["max_updates"] == 30
    given = read_command(
        ["--dataset", "data", "--env", TALLY, "--losses", "bc", "best.json", "--steps", "5000", "--best-share", "0.5"]
    )
    assert {name: config["dataset"] for name, config in configs_of(given.experiment).items()} == {
        name: {"dataset": str(tmp_path / "data"), "best_share": 0.5} for name in ("bc", "best")
    }
    both = dataclasses.replace(given.experiment, best_share=None, env=TALLY)
    made = plan(both, "python -m something")
    assert [config["dataset"]["best_share"] for config in made.configs.values()] == [1.0, 0.1]
    assert made.configs["bc"]["stop"] | {"window": 0} == {
        **{"total_timesteps": 5000, "max_updates": None, "max_episodes": None, "max_seconds": None},
        **{"target_return": None, "window": 0},
    }
    require_all(made)
    save(made, Disk(tmp_path / "x"))
    assert load(Disk(tmp_path / "x")) == made
    assert made.recorded is not None
    assert made.recorded["episodes"] == 20
    assert all(trial.is_recorded for trial in trials_of(made, Disk(tmp_path / "x")))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--losses", "bc", "ppo", "--dataset", "{}"],
            "bc from recordings, ppo from what is flown: compare what learns",
        ),
        (["--losses", "bc", "ppo"], "bc from recordings, ppo from what is flown: compare what learns"),
        (["--peers", "rllib", "--dataset", "{}"], "bc and dt from recordings, rllib from what is flown"),
        (["--losses", "dt"], "dt learns from recordings: give it --dataset DIRECTORY"),
        (["--losses", "ppo", "--dataset", "{}"], "ppo learns from what it flies, and a dataset is for bc, cql and dt"),
        (["--dataset", "{}/none"], "no dataset in {}/none"),
        (["--dataset", "{}", "--env", "CartPole-v1"], "bc cannot learn CartPole-v1: {} was recorded on"),
        (["--dataset", "{}", "--episodes", "5"], "flies no episodes: give updates or steps instead"),
        (["--dataset", "{}", "--best-share", "2"], "best_share must lie above 0 and be at most 1, not 2"),
        (["--losses", "ppo", "--best-share", "0.1"], "best_share is of a dataset: give --dataset DIRECTORY too"),
        (["--peers", "rllib", "--updates", "5"], "updates of peers are others than ours: give episodes or steps"),
    ],
)
def test_what_does_not_go_with_recordings_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_tallies(tmp_path / "data", 5)
    env = ["--env", TALLY] if "--dataset" in arguments and "--env" not in arguments else []
    with pytest.raises(SystemExit) as end:
        main([*(word.format(data) for word in arguments), *env, "--results", str(tmp_path / "results")])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert said.format(data) in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_an_experiment_comes_back_from_its_directory(tmp_path: Path) -> None:
    experiment = Experiment(losses=("cpg",), seeds=2, env="CartPole-v1", threshold=450.0)
    save(planned(experiment), Disk(tmp_path))
    assert load(Disk(tmp_path)) == planned(experiment)


def test_a_directory_holds_one_experiment(tmp_path: Path) -> None:
    first = Experiment(losses=("cpg",))
    save(planned(first), Disk(tmp_path))
    with pytest.raises(UserError, match=r"already holds this experiment: go on with --resume"):
        save(planned(first), Disk(tmp_path))
    other = Experiment(losses=("vpg",))
    with pytest.raises(UserError, match=r"already holds another experiment: choose another --name"):
        save(planned(other), Disk(tmp_path))


@pytest.mark.usefixtures("s3")
def test_an_experiment_in_an_object_store() -> None:
    experiment = Experiment(losses=("cpg",), seeds=1)
    directory = open_experiment("s3://bucket/experiments").within("x")
    with pytest.raises(UserError, match=r"no experiment in s3://bucket/experiments/x: experiment\.json is missing"):
        load(directory)
    save(planned(experiment), directory)
    assert load(directory) == planned(experiment)
    assert trials_of(planned(experiment), directory)[0].run_dir == "s3://bucket/experiments/x/runs/cpg-0"
    with pytest.raises(
        UserError, match=r"already holds this experiment: go on with --resume s3://bucket/experiments/x"
    ):
        save(planned(experiment), directory)
    with pytest.raises(UserError, match=r"cannot write to s3://no-such-bucket/x: .*bucket"):
        save(planned(experiment), open_experiment("s3://no-such-bucket/x"))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"experiment": {"seeds": "x"}, "configs": {}}', '{"experiment": 3}']
)
def test_a_damaged_experiment_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text(content)
    with pytest.raises(UserError, match=r"experiment\.json is damaged"):
        load(Disk(tmp_path))


def test_a_module_that_is_not_here_is_no_damage(tmp_path: Path) -> None:
    directory = Disk(tmp_path)
    save(planned(Experiment(losses=("cpg",))), directory)
    text = (tmp_path / "experiment.json").read_text()
    (tmp_path / "experiment.json").write_text(text.replace('"policy_gradient"', '"elsewhere.losses:Mine"'))
    with pytest.raises(UserError, match=r"experiment\.json: .*elsewhere") as error:
        load(directory)
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--losses", "cgp"], "unknown loss 'cgp'; did you mean cpg"),
        (["--losses", "no/such.json"], "cannot read no/such.json"),
        (["--losses", "ppo", "ppo"], "ppo is named twice"),
        (["--losses"], "nothing to compare"),
        (["--peers", "rlib"], "unknown peer 'rlib'; did you mean rllib or"),
        (["--env", "Beresheet-v3"], "unknown environment 'Beresheet-v3'"),
        (
            ["--env", "LunarLanderContinuous-v3", "--peers", "rllib"],
            "peer 'rllib' learns only discrete actions that count from 0, and those of LunarLanderContinuous-v3 are 2",
        ),
        (["--losses", "ppo", "--peers", "sb3-sac"], "peer 'sb3-sac' learns only continuous actions between bounds"),
        (["--losses", "ppo", "--peers", "sb3-dqn", "--env", "Taxi-v3"], "peers see only vectors of numbers, and"),
        (
            ["--losses", "ppo", "dqn", "--env", "Pendulum-v1"],
            "dqn cannot learn Pendulum-v1: each of a number of actions gets a value",
        ),
        (["--losses", "sac", "--env", "CartPole-v1"], "sac cannot learn CartPole-v1: sac learns continuous actions"),
        (["--losses", "q_learning", "--env", "LunarLander-v3"], "q_learning cannot learn LunarLander-v3: a table"),
        (["--episodes", "0"], "episodes must be 1 or more, not 0"),
        (["--steps", "-5"], "steps must be 1 or more, not -5"),
        (["--seeds", "0"], "seeds must be 1 or more, not 0"),
        (["--concurrent", "0"], "concurrent must be 1 or more, not 0"),
        (["--gpu-share", "2"], "gpu_share must lie between 0 and 1, not 2"),
        (["--max-policy-lag", "3"], "V-trace (preset impala) corrects for any"),
        (["--resume", "no/such"], "no experiment in no/such"),
        (["--resume", "gopher://hole/x"], "cannot use gopher://hole/x"),
        (["--resume", "s3://bucket/x?region=eu-west-1"], "give endpoint and region in AWS_ENDPOINT_URL"),
        (["--loses", "ppo"], "did you mean --losses"),
    ],
)
def test_a_bad_request_is_one_line_and_exit_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*arguments, *([] if "--resume" in arguments else ["--results", str(tmp_path)])])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_file_with_an_unknown_loss_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"algorithm": {"name": "pppo"}}))
    with pytest.raises(SystemExit) as end:
        main(["--losses", str(tmp_path / "mine.json"), "--results", str(tmp_path / "results")])
    assert end.value.code == 2
    assert "unknown algorithm 'pppo'; did you mean ppo?" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_file_whose_network_its_algorithm_cannot_learn_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"algorithm": {"name": "tabular"}}))
    with pytest.raises(SystemExit) as end:
        main(["--losses", str(tmp_path / "mine.json"), "--env", "Taxi-v3", "--results", str(tmp_path / "results")])
    assert end.value.code == 2
    assert "mine cannot learn Taxi-v3: a table has no layers: hidden_sizes must be empty" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_training_flies_no_seed_of_the_evaluation() -> None:
    assert min(derive(7, 100_000)) > EVALUATION_SEED + 100_000


@pytest.mark.parametrize(
    ("cpus", "gpus", "trials", "share"),
    [(16, 0, 24, 0.0), (2, 1, 24, 0.5), (3, 2, 24, 0.5), (64, 8, 12, 0.5), (64, 8, 8, 1.0), (1000, 1, 24, 0.04)],
)
def test_the_gpu_share_that_lets_all_trials_run(
    cpus: int, gpus: int, trials: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus})
    assert gpu_share_of(None, 1, trials) == share
    assert room_for(placement(1, 0)) == cpus
    assert gpu_share_of(0.25, 1, trials) == 0.25


def test_without_a_gpu_for_it_a_learner_takes_none() -> None:
    assert with_resources(TrainConfig(), 0.0).placement.device == "cpu"
    shared = with_resources(TrainConfig(), 0.25).placement
    assert (shared.device, shared.gpu_share) == ("auto", 0.25)


def test_resume_keeps_the_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = Experiment(losses=("cpg",))
    save(planned(experiment), Disk(tmp_path))
    with pytest.raises(SystemExit):
        main(["--resume", str(tmp_path), "--seeds", "7"])
    assert "--resume keeps the experiment" in capsys.readouterr().err


def test_a_logger_that_is_not_installed_says_how_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SystemExit):
        main(["--results", str(tmp_path), "--mlflow", "file:./mlruns"])
    assert "pip install mlflow" in capsys.readouterr().err
