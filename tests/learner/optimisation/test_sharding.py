"""Several learners that share minibatches make the steps of one."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from actors.episode import Array, EpisodeBatch
from actors.errors import LostContactError, UserError
from learner.algorithms.algorithm import Algorithm
from learner.algorithms.ppo import PPO
from learner.algorithms.pqn import PQN
from learner.optimisation.sharding import Shard
from learner.run.callback import Callback
from learner.run.config import TrainConfig
from learner.run.learner import Learner
from learner.run.placement import PlacementConfig
from learner.run.presets import preset
from learner.run.trainer import Trainer
from tests.learner import make_batch, make_spec
from tests.learner.algorithms.valued import small_dqn, value_learner, valued_spec
from tests.learner.learners import make_learner
from tests.learner.run.short_runs import Act, cartpole, check_consistent

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])  # torch is imported once, not by each of them
UPDATE = {"n_epochs": 3, "batch_size": 20, "learning_rate": 1e-3}


@contextlib.contextmanager
def meeting_place() -> Iterator[str]:
    """An address where the first of them can listen, and no other process of this machine is given it meanwhile."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for who asks for just this port, as torch does
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def learn(
    rank: int, count: int, address: str, algorithm: Algorithm, options: dict[str, Any], batches: list[EpisodeBatch]
) -> tuple[list[dict[str, float]], dict[str, Array]]:
    """The metrics of each update and the state after the last, of one of ``count`` learners."""
    learner = make_learner(make_spec(), algorithm, **options, seed=3, shard=Shard(rank, count, address))
    return [learner.update(batch)[1] for batch in batches], learner.state()


def remembering(algorithm: Algorithm, shard: Shard | None = None) -> Learner:
    return make_learner(make_spec(memory="gru"), algorithm, **UPDATE, seed=3, shard=shard)


def learn_to_remember(
    rank: int, count: int, address: str, algorithm: Algorithm, batches: list[EpisodeBatch]
) -> tuple[list[dict[str, float]], dict[str, Array]]:
    """The same of a policy with a memory."""
    learner = remembering(algorithm, Shard(rank, count, address))
    return [learner.update(batch)[1] for batch in batches], learner.state()


def learn_values(
    rank: int, count: int, address: str, algorithm: Algorithm, options: dict[str, Any], batches: list[EpisodeBatch]
) -> tuple[list[dict[str, float]], dict[str, Array]]:
    """The same of action values; the state has the memory, and its priorities."""
    shard = Shard(rank, count, address)
    learner = value_learner(valued_spec(), algorithm, **options, seed=3, shard=shard, keeps_memory=True)
    return [learner.update(batch)[1] for batch in batches], learner.state()


def together(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What a function of a rank, the count and an address gives in as many processes."""
    with meeting_place() as address, PROCESSES.Pool(count) as pool:
        return pool.starmap(function, [(rank, count, address, *arguments) for rank in range(count)], chunksize=1)


Learned = tuple[list[dict[str, float]], dict[str, Array]]


def assert_as_one_alone(shared: list[Learned], alone: list[dict[str, float]], state: dict[str, Array]) -> None:
    """That all of them have the metrics and the state of one, to float error; and among themselves to the bit."""
    for metrics, others in shared:
        for mine, one in zip(metrics, alone, strict=True):
            assert mine == pytest.approx(one, rel=1e-3, abs=1e-5)
        for key, array in others.items():
            np.testing.assert_allclose(array, state[key], rtol=1e-3, atol=1e-6, err_msg=key)
            np.testing.assert_array_equal(array, shared[0][1][key], err_msg=key)


WHOLE = [[20, 7, 33]] * 4


@pytest.mark.parametrize(
    ("name", "count", "changes", "lengths"),
    [
        ("ppo", 2, {}, WHOLE),
        ("ppo", 3, {"batch_size": 25, "optimizer": "rmsprop"}, WHOLE),  # shares of 9, 8 and 8 steps
        # recorded; then 8 steps, in shares of 3, 3 and 2; then 2, fewer than learners
        (
            "ppo",
            3,
            {"batch_size": 25, "optimizer": "sgd", "max_grad_norm": 9.0},
            [[20, 7, 33], [8], [20, 7], [2], [29]],
        ),
        ("impala", 2, {"batch_size": None, "max_grad_norm": 0.01, "compile": False}, WHOLE),
        ("ppo", 2, {"target_kl": 1e-4}, WHOLE),
    ],
    ids=["ppo", "uneven shares", "small batches between", "whole batch", "KL stop"],
)
def test_they_learn_what_one_learns(name: str, count: int, changes: dict[str, Any], lengths: list[list[int]]) -> None:
    algorithm, options = preset(name).algorithm, {**UPDATE, **changes}
    policy = make_learner(make_spec(), algorithm, **options, seed=3).policy()
    batches = [make_batch(policy, segments, seed=seed) for seed, segments in enumerate(lengths)]
    alone, state = learn(0, 1, "", algorithm, options, batches)
    shared = together(count, learn, algorithm, options, batches)
    assert_as_one_alone(shared, alone, state)


def test_windows_of_a_memory_stay_whole() -> None:
    algorithm = dataclasses.replace(preset("ppo").algorithm, sequence_length=5, target_kl=0.5)
    policy = remembering(algorithm).policy()
    batches = [make_batch(policy, [20, 7, 33], seed=seed) for seed in range(3)]
    learner = remembering(algorithm)
    alone = [learner.update(batch)[1] for batch in batches]
    shared = together(2, learn_to_remember, algorithm, batches)
    for metrics in (alone, *(mine for mine, _ in shared)):  # a ratio, of which learners average theirs
        for one in metrics:
            assert one.pop("train/memory_drift") > 0
    assert_as_one_alone(shared, alone, learner.state())


@pytest.mark.parametrize(
    ("algorithm", "count", "options", "lengths"),
    [
        (small_dqn(prioritized=True), 2, {}, WHOLE),
        # shares of 3, 3 and 2 of recorded steps; with a memory that goes round
        (small_dqn(prioritized=True, double=True, dueling=True, n_quantiles=3, buffer_size=100), 3, {}, WHOLE),
        # of batches of 33 the last minibatch is filled up; one of 5 steps is not recorded, nor one of 2, which all take
        (PQN(batch_size=20, n_epochs=2), 3, {"optimizer": "sgd"}, [[20, 13], [5], [20], [2], [33]]),
        (small_dqn(prioritized=True, batch_size=2), 3, {"optimizer": "sgd", "compile": False}, [[9, 7], [8]]),
    ],
    ids=["prioritised", "uneven shares", "pqn", "fewer steps than learners"],
)
def test_they_learn_the_values_that_one_learns(
    algorithm: Algorithm, count: int, options: dict[str, Any], lengths: list[list[int]]
) -> None:
    """What each tells of its steps comes together: all of them draw by the same priorities."""
    policy = value_learner(valued_spec(), algorithm, seed=3).policy()
    batches = [
        make_batch(policy, segments, seed=seed, terminated=[seed % 2 == 0] * len(segments))
        for seed, segments in enumerate(lengths)
    ]
    options = {"learning_rate": 1e-3, **options}
    alone, state = learn_values(0, 1, "", algorithm, options, batches)
    assert sum(metrics["train/gradient_steps"] for metrics in alone) >= 3
    assert_as_one_alone(together(count, learn_values, algorithm, options, batches), alone, state)


def gather(rank: int, count: int, address: str, counts: list[int]) -> list[list[float]]:
    """What comes together of shares of numbers that tell their places."""
    shard = Shard(rank, count, address)
    shares = [(shard.share({"x": torch.arange(steps) * 1.5})["x"], steps) for steps in counts]
    return [shard.gathered(share, steps).tolist() for share, steps in shares]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_each_has_of_its_share_comes_together_in_order(count: int) -> None:
    counts = [1, 2, 3, 4, 7, 9]  # some of them fewer than learners, which all of them have then
    expected = [[1.5 * step for step in range(steps)] for steps in counts]
    gathered = [gather(0, 1, "", counts)] if count == 1 else together(count, gather, counts)
    assert gathered == [expected] * count


def leave(rank: int, address: str) -> str:
    shard = Shard(rank, 2, address)
    learner = make_learner(make_spec(), **UPDATE, shard=shard)
    try:
        shard.agree(torch.zeros(1))  # who has heard the first one knows that it is there
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        learner.update(make_batch(learner.policy(), [20, 7], seed=0))
    except LostContactError as error:
        return str(error)
    return "went on alone"


def test_one_that_is_left_alone_says_so() -> None:
    with meeting_place() as address, PROCESSES.Pool(1) as pool:
        lost = PROCESSES.Process(target=leave, args=(1, address))
        lost.start()
        assert pool.apply(leave, (0, address)).startswith("learner 0 lost contact with the others: ")
        lost.join()


def test_impossible_numbers() -> None:
    with pytest.raises(UserError, match="learners must be 1 or more, not 0"):
        PlacementConfig(learners=0)
    with pytest.raises(UserError, match=r"several learners need a GPU each: gpu_share must be 1, not 0\.5"):
        PlacementConfig(learners=2, gpu_share=0.5)
    with pytest.raises(UserError, match="a minibatch of batch_size 2 cannot be shared by 3 learners"):
        TrainConfig(algorithm=PPO(batch_size=2), placement=PlacementConfig(learners=3))


class LossCurve(Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self.losses.append(metrics["train/loss"])


@pytest.mark.usefixtures("kept_processes")
def test_two_learners_on_ray_have_the_loss_curve_of_one(tmp_path: Path) -> None:
    curves = []
    for learners in (1, 2):
        curve = LossCurve()
        config = cartpole(
            fleet={"max_policy_lag": 0, "actors": 1},
            update={"learners": learners, "device": "cpu", "learning_rate": 3e-4},  # large steps blow float error up
            stop={"total_timesteps": 6_144},
        )
        Trainer(config, tmp_path / str(learners), callbacks=[curve]).run()
        curves.append(curve.losses)
    assert len(curves[0]) >= 6
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-3, atol=1e-5)


def kill_the_first_learner(trainer: Trainer) -> None:
    """This run's: by its name, one of the run before might be found, which is still ending."""
    first, _ = trainer.learners._learners
    os.kill(ray.get(first.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)


@pytest.mark.usefixtures("kept_processes")
def test_a_killed_one_of_two_brings_both_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = cartpole(
        update={"learners": 2, "device": "cpu"},
        checkpoint={"checkpoint_seconds": 0.1},
        stop={"total_timesteps": 12_000},
    )
    killing = Act(4, kill_the_first_learner)
    result = Trainer(config, tmp_path, callbacks=[killing]).run()
    assert killing.done
    assert "the learner died; going on from the checkpoint" in caplog.text
    check_consistent(tmp_path, result.counters)
