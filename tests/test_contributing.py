"""The examples of CONTRIBUTING.md are short, and do what they say."""

from __future__ import annotations

import math
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors import distributions as acting
from learner.networks import distributions as learning
from learner.run.config import TrainConfig, overlay
from learner.run.presets import preset
from tests.learner import make_batch, make_spec
from tests.learner.learners import make_learner

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
BLOCKS = re.findall(r"```python\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)


def block_with(word: str) -> str:
    """The one example that has it."""
    (found,) = [block for block in BLOCKS if word in block]
    return found


@pytest.fixture
def run_block(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs an example as a module of the user's, and forgets it."""
    before = dict(acting.DISTRIBUTIONS), dict(learning.DISTRIBUTIONS)

    def run(word: str) -> types.ModuleType:
        module = types.ModuleType("contributed")
        monkeypatch.setitem(sys.modules, "contributed", module)
        exec(compile(block_with(word), str(CONTRIBUTING), "exec"), vars(module))
        return module

    yield run
    for known, names in zip((acting.DISTRIBUTIONS, learning.DISTRIBUTIONS), before, strict=True):
        for name in known.keys() - names.keys():
            del known[name]  # type: ignore[attr-defined]


def test_examples_are_short() -> None:
    assert len(BLOCKS) == 3
    assert all(len(block.splitlines()) < 40 for block in BLOCKS)


def test_an_algorithm_with_an_option_of_its_own(run_block: Any) -> None:
    spo = run_block("class SPO").SPO
    config = overlay(preset("ppo"), {"algorithm": {"name": "contributed:SPO", "penalty": 2.0}}, "spo.json")
    assert config.algorithm == spo(**{**vars(preset("ppo").algorithm), "penalty": 2.0})
    assert overlay(TrainConfig(), config.to_dict(), "config.json") == config
    learner = make_learner(make_spec(), spo, penalty=0.5)
    policy, metrics = learner.update(make_batch(learner.policy(), [20, 11, 7]))
    assert metrics["train/penalty"] > 0
    assert not learner.notes()  # it is recorded
    assert policy.spec.version == 1


def test_targets_of_ones_own(run_block: Any) -> None:
    munchausen = run_block("class Munchausen").Munchausen
    config = overlay(preset("nature_dqn"), {"algorithm": {"name": "contributed:Munchausen", "share": 0.5}}, "mine.json")
    assert (config.algorithm.share, config.algorithm.buffer_size) == (0.5, preset("nature_dqn").algorithm.buffer_size)
    kind = munchausen(batch_size=16, learning_starts=1, replay_ratio=0.5, temperature=0.5)
    learner = make_learner(make_spec("epsilon_greedy"), kind)
    _, metrics = learner.update(make_batch(learner.policy(), [20, 11, 7]))
    assert metrics["train/gradient_steps"] == 19
    assert not [note for _, note in learner.notes() if "unrecorded" in note]
    steps = {"observations": torch.eye(3, 4), "next_observations": torch.eye(3, 4), "actions": torch.tensor([0, 1, 2])}
    steps |= {"returns": torch.ones(3), "discounts": torch.full((3,), 0.9)}
    q_values = learner.network.q_values(torch.eye(3, 4), of_target=True).double()
    soft = 0.5 * torch.logsumexp(q_values / 0.5, 1)  # Σ π (q − τ log π)
    sure = (q_values.diagonal() - soft).clamp(min=-1)  # τ log π
    expected = 1 + 0.9 * sure + 0.9 * soft
    assert kind.targets(learner.network, steps).squeeze(1).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_distribution(run_block: Any) -> None:
    run_block("class Laplace")
    learner = make_learner(make_spec(action=make_spec("gaussian").action, distribution="laplace"), learning_rate=0.01)
    policy = learner.policy()
    rng = np.random.default_rng(0)
    observations = policy.spec.observation.sample(rng, 200)
    parameters = policy.forward(observations)
    actions = policy.distribution.sample(parameters, policy.distribution.noise(rng, (200,)))
    log_probs, entropies = learner.network.distribution.evaluate(torch.tensor(parameters), torch.tensor(actions))
    np.testing.assert_allclose(policy.distribution.log_prob(parameters, actions), log_probs.detach(), rtol=1e-4)
    assert entropies[0].item() == pytest.approx(2 * (math.log(2) + 1))
    batch = make_batch(policy, [20, 11])
    for _ in range(3):
        policy, metrics = learner.update(batch)
    assert metrics["train/approx_kl"] > 0
    assert (policy.weights["log_std"] != 0).all()
