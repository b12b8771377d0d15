"""Learning from recordings: what is asked for is flown, the best is imitated, and a run goes on bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.environments import describe
from actors.errors import UserError
from actors.evaluation import fly_episodes
from actors.spaces import Box
from actors.spec import PolicySpec
from learner.algorithms import conservative
from learner.algorithms.cloning import BehaviourCloning, DecisionTransformer
from learner.algorithms.offline import Offline
from learner.algorithms.ppo import PPO
from learner.dataset.dataset import Dataset, open_dataset
from learner.optimisation.config import OptimisationConfig
from learner.run.learner import Learner
from tests.learner import make_spec
from tests.learner.dataset.tallies import STEPS, TALLY, write_tallies

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings
DT = DecisionTransformer(batch_size=64 * STEPS, gradient_steps=50)
BC = BehaviourCloning(batch_size=256, gradient_steps=50)
CQL = conservative.CQL(gamma=0.9, batch_size=256, gradient_steps=50, n_step=2, conservatism=0.1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five hundred episodes of the environment in which each step earns its action."""
    return open_dataset(write_tallies(tmp_path_factory.mktemp("recorded") / "tallies", 500))


def spec_for(dataset: Dataset, algorithm: Offline) -> PolicySpec:
    network: dict[str, Any] = {"hidden_sizes": (16,), "normalize_observations": True}
    if not isinstance(algorithm, DecisionTransformer):
        info = describe(TALLY)
        return info.policy_spec(**network, distribution=algorithm.distribution(info.action))
    network |= {"memory": "transformer", "memory_size": 16, "memory_heads": 2, "memory_window": STEPS}
    return describe(TALLY).policy_spec(**network, target_return=dataset.asked)


def learner_of(dataset: Dataset, algorithm: Offline, seed: int = 0) -> Learner:
    optimisation = OptimisationConfig(learning_rate=5e-3)
    return Learner(spec_for(dataset, algorithm), algorithm, optimisation, seed=seed, device="cpu", dataset=dataset)


def test_what_is_asked_for_is_flown(dataset: Dataset) -> None:
    learner = learner_of(dataset, DT)
    for _ in range(6):
        policy, _ = learner.update()
    for target in (1, 4, 7):
        returns, _, _ = fly_episodes(policy.asked_for(target), range(200), deterministic=False)
        assert returns.mean() == pytest.approx(target, abs=1), target
    assert policy.spec.target_return == dataset.asked == 8


def test_the_best_episodes_are_better_to_imitate_than_all(dataset: Dataset) -> None:
    means = []
    for share in (0.1, 1.0):
        learner = learner_of(dataset.best(share), BC)
        for _ in range(2):
            policy, metrics = learner.update()
        means.append(fly_episodes(policy, range(200), deterministic=False)[0].mean())
        expected = dataset.best(share).returns.mean()
        assert means[-1] == pytest.approx(expected, abs=0.3)
        assert metrics["train/gradient_steps"] == 50
    assert means[0] > means[1] + 2


def test_values_find_what_no_episode_shows(tmp_path: Path) -> None:
    """Of recordings in which no episode is of ones alone."""
    poor = open_dataset(write_tallies(tmp_path / "poor", 500, most=0.4))
    assert poor.returns.max() < STEPS
    learner = learner_of(poor, CQL)
    for _ in range(4):
        policy, metrics = learner.update()
    assert fly_episodes(policy, range(5))[0].mean() == STEPS
    assert metrics["train/conservative_gap"] > 0
    assert policy.weights["epsilon"] == 0


def test_conservatism_by_hand(dataset: Dataset) -> None:
    learner = learner_of(dataset, CQL)
    columns = next(iter(next(iter(learner._memory.draw()))))
    with torch.no_grad():
        values = learner.network.q_values(learner.network.standardised(columns["observations"])).numpy()
        losses = [
            float(dataclasses.replace(CQL, conservatism=weight).loss(learner.network, columns)[0]) for weight in (0, 2)
        ]
    taken = values[np.arange(len(values)), columns["actions"].numpy()]
    surprise = np.log(np.exp(values.astype(np.float64)).sum(1)) - taken
    assert losses[1] - losses[0] == pytest.approx(2 * surprise.mean(), rel=1e-5)


@pytest.mark.parametrize("algorithm", [BC, DT, CQL], ids=["bc", "dt", "cql"])
def test_a_learner_goes_on_from_its_state_bit_for_bit(dataset: Dataset, algorithm: Offline) -> None:
    short = dataclasses.replace(algorithm, gradient_steps=5)
    one = learner_of(dataset, short, seed=1)
    one.update()
    other = learner_of(dataset, short, seed=2)
    other.load_state(one.state())
    (mine, metrics), (theirs, again) = one.update(), other.update()
    assert metrics == again
    for name, array in mine.weights.items():
        np.testing.assert_array_equal(array, theirs.weights[name], err_msg=name)


def test_two_halves_of_the_windows_weigh_as_the_whole(dataset: Dataset) -> None:
    """So that learners that share them make the steps of one; the windows' ends are filled up unevenly."""
    learner = learner_of(dataset, DT)
    columns = next(iter(next(iter(learner._memory.draw()))))
    with torch.no_grad():
        whole, _ = DT.loss(learner.network, columns)
        halves = [DT.loss(learner.network, {name: part[i::2] for name, part in columns.items()})[0] for i in (0, 1)]
    assert float(sum(halves)) / 2 == pytest.approx(float(whole), rel=1e-5)


def test_statistics_are_those_of_the_recordings(dataset: Dataset) -> None:
    policy = learner_of(dataset, DT).policy()
    np.testing.assert_allclose(policy.weights["observation_mean"], [3.5], rtol=1e-6)
    np.testing.assert_allclose(policy.weights["core_return_mean"], dataset.returns.mean(), rtol=1e-6)
    np.testing.assert_allclose(policy.weights["core_return_std"], dataset.returns.std(), rtol=1e-6)


def test_what_learns_from_recordings_says_what_it_needs() -> None:
    with pytest.raises(UserError, match=r"learns from recordings: give it a dataset"):
        Learner(make_spec(), BehaviourCloning(), OptimisationConfig(), device="cpu")
    with pytest.raises(UserError, match=r"batch_size must be a number"):
        BehaviourCloning(batch_size=None)
    with pytest.raises(UserError, match=r"gradient_steps must be 1 or more"):
        DecisionTransformer(gradient_steps=0)
    with pytest.raises(UserError, match=r"conservatism must be zero or more"):
        conservative.CQL(conservatism=-1)
    with pytest.raises(UserError, match=r"each of a number of actions gets a value.*presets bc and dt"):
        conservative.CQL().distribution(Box((2,)))
    with pytest.raises(UserError, match=r"memory none is for policy gradients.*must be transformer"):
        DecisionTransformer().require_fit(make_spec())
    transformer = describe(TALLY).policy_spec(hidden_sizes=(16,), memory="transformer", target_return=1.0)
    with pytest.raises(UserError, match=r"batch_size must be a multiple of memory_window 30, .* not 512"):
        DecisionTransformer().require_fit(transformer)
    with pytest.raises(UserError, match=r"memory transformer is for dt, and PPO learns without"):
        PPO().require_fit(transformer)
