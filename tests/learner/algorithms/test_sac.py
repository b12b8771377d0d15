"""Soft actor-critic: three losses that share no gradient, and what they come to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.environments import describe
from actors.episode import EpisodeBatch
from actors.errors import UserError
from actors.evaluation import fly_episodes
from actors.parts import Parts
from actors.policy import Policy
from actors.rollout import Rollout
from actors.spaces import Box, Discrete
from actors.vectors import GymnasiumEnvironments
from learner.algorithms.sac import SAC
from learner.networks.config import Critic
from learner.networks.soft_actor_critic import SoftActorCritic
from learner.optimisation.config import OptimisationConfig
from learner.run.initial import Initial
from learner.run.learner import Learner
from tests.learner import make_batch, make_spec

torch.set_num_threads(1)

SMALL: dict[str, Any] = {"batch_size": 16, "buffer_size": 1_000, "learning_starts": 1, "tau": 0.1}


def sac_learner(compile_: bool = True, learning_rate: float = 1e-2, **options: Any) -> Learner:
    algorithm = SAC(**{**SMALL, "target_update_interval": 1, **options})
    optimisation = OptimisationConfig(learning_rate=learning_rate, max_grad_norm=math.inf, compile=compile_)
    return Learner(make_spec("squashed_gaussian"), algorithm, optimisation, device="cpu")


def some_steps(network: SoftActorCritic, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "observations": torch.randn(16, 4, generator=generator),
        "actions": torch.rand(16, 2, generator=generator) * 2 - 1,
        "returns": torch.randn(16, generator=generator),
        "discounts": torch.rand(16, generator=generator),
        "next_observations": torch.randn(16, 4, generator=generator),
    }


def test_the_losses_by_the_papers_formulas() -> None:
    """J_q, J_π and J_α of Haarnoja et al. 2018, arXiv:1812.05905, eqs. 5, 7 and 18, with the same noise."""
    network, algorithm = SoftActorCritic(make_spec("squashed_gaussian"), Critic(), 0.7, True), SAC(**SMALL)
    steps = some_steps(network)
    torch.manual_seed(3)
    loss, metrics, errors = algorithm.loss(network, steps)
    torch.manual_seed(3)
    noise, next_noise = torch.randn(16, 2), torch.randn(16, 2)

    def policy(observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        means, log_stds = network.actor(observations).chunk(2, 1)
        u = means + log_stds.exp() * noise
        normal = torch.distributions.Normal(means, log_stds.exp()).log_prob(u)
        return u.tanh(), (normal - torch.log(1 - u.tanh().square())).sum(1)

    def critics(twins: Any, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        inputs = torch.cat([observations, actions], 1)
        return twins[0](inputs).squeeze(1), twins[1](inputs).squeeze(1)

    actions, log_probs = policy(steps["observations"], noise)
    actor_loss = (
        0.7 * log_probs - torch.minimum(*critics(network.critics.twins, steps["observations"], actions))
    ).mean()
    next_actions, next_log_probs = policy(steps["next_observations"], next_noise)
    soft = (
        torch.minimum(*critics(network.target.twins, steps["next_observations"], next_actions)) - 0.7 * next_log_probs
    )
    targets = steps["returns"] + steps["discounts"] * soft
    first, second = critics(network.critics.twins, steps["observations"], steps["actions"])
    critic_loss = 0.5 * ((first - targets).square() + (second - targets).square()).mean()
    actor_loss, critic_loss, log_probs, loss = (part.detach() for part in (actor_loss, critic_loss, log_probs, loss))
    assert metrics["actor_loss"].item() == pytest.approx(float(actor_loss), abs=1e-5)
    assert metrics["critic_loss"].item() == pytest.approx(float(critic_loss), abs=1e-5)
    ent_coef_loss = math.log(0.7) * float(-log_probs.mean() + 2)
    assert float(loss) == pytest.approx(float(actor_loss + critic_loss) + ent_coef_loss, abs=1e-5)
    expected = ((first - targets).abs() + (second - targets).abs()) / 2
    assert errors.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_each_loss_has_its_own_parameters() -> None:
    """What the policy climbs moves no critic, what critics regress no policy, and the temperature only itself."""
    network, algorithm = SoftActorCritic(make_spec("squashed_gaussian"), Critic(), 0.7, True), SAC(**SMALL)
    steps = some_steps(network)
    torch.manual_seed(3)
    _, metrics, _ = algorithm.loss(network, steps)
    parts = {"actor": network.actor, "critics": network.critics}
    for loss, part in (("actor_loss", "actor"), ("critic_loss", "critics")):
        for name, module in parts.items():
            gradients = torch.autograd.grad(
                metrics[loss], list(module.parameters()), retain_graph=True, allow_unused=True, materialize_grads=True
            )
            assert all((gradient != 0).any() for gradient in gradients) == (name == part)


def test_recorded_or_not_the_same_bits() -> None:
    states = []
    for compile_ in (True, False):
        learner = sac_learner(compile_)
        for seed in range(4):
            learner.update(make_batch(learner.policy(), [20, 11, 7], seed=seed))
        states.append(learner.state())
    for name in states[0]:
        assert np.array_equal(states[0][name], states[1][name]), name


def test_targets_follow_by_tau() -> None:
    learner = sac_learner(replay_ratio=1 / 38)
    network = learner.network
    before = [own.clone() for own in network.target.parameters()]
    learner.update(make_batch(learner.policy(), [20, 11, 7]))
    for old, target, own in zip(before, network.target.parameters(), network.critics.parameters(), strict=True):
        assert torch.allclose(target, old + 0.1 * (own - old), atol=1e-6)


def test_a_learner_goes_on_from_another_critics_targets_and_temperature() -> None:
    """The policy's parameters come first, whatever else is learned."""
    first = sac_learner()
    for seed in range(3):
        first.update(make_batch(first.policy(), [20, 11, 7], seed=seed))
    policy, parameters = first.policy(), first.state()["parameters"]
    assert np.array_equal(parameters[:32], first.network.actor[0].weight.detach().numpy().ravel())
    initial = Initial("runs/first", policy, parameters[policy.spec.num_learned :])
    second = Learner(first.spec, first.algorithm, first.optimisation, seed=9, device="cpu", initial=initial)
    assert np.array_equal(second.state()["parameters"], parameters)
    for target, own in zip(second.network.target.parameters(), first.network.critics.parameters(), strict=True):
        assert torch.equal(target, own)


def bandit(policy: Policy, seed: int, steps: int = 100) -> EpisodeBatch:
    """Episodes of one step; the closer to (0.5, −0.5), the better."""
    batch = make_batch(policy, [1] * steps, seed=seed)
    distances = np.square(batch.actions - np.array([0.5, -0.5], np.float32)).sum(1)
    return EpisodeBatch(**{**vars(batch), "rewards": -distances.astype(np.float32)})


def test_it_learns_from_pictures() -> None:
    """Its critics have convolutions of their own; a guess that sees nothing costs a third."""
    name = "tests.actors.fake_environments:Glow-v0"
    spec = describe(name).policy_spec(trunk="4x3/2", hidden_sizes=(32,), distribution="squashed_gaussian")
    algorithm = SAC(batch_size=64, buffer_size=2_000, learning_starts=64, replay_ratio=0.25, target_entropy=-3.0)
    learner = Learner(spec, algorithm, OptimisationConfig(learning_rate=3e-3), device="cpu")
    assert learner.network.critics.encoder is not learner.network.encoder
    policy, rollout = learner.policy(), Rollout(GymnasiumEnvironments(name, 8, seed=0), seed=0)
    for _ in range(60):
        policy, _ = learner.update(rollout.fragments(policy, 16))
    returns, *_ = fly_episodes(policy, range(100))
    assert returns.mean() > -0.05
    assert returns.min() > -0.5


def test_it_learns_where_to_go_and_keeps_its_entropy() -> None:
    """The temperature finds the entropy that is wanted: that of a Gaussian of σ = 0.1 or so."""
    learner = sac_learner(replay_ratio=0.4, target_entropy=-2.0)
    policy = learner.policy()
    for seed in range(25):
        policy, metrics = learner.update(bandit(policy, seed))
    mean = np.tanh(policy.forward(np.zeros((1, 4), np.float32))[0, :2])
    assert mean == pytest.approx([0.5, -0.5], abs=0.15)
    assert metrics["train/entropy"] == pytest.approx(-2.0, abs=0.7)
    assert 0 < metrics["train/ent_coef"] < 0.5


def test_a_fixed_temperature_is_not_learned() -> None:
    learner = sac_learner(ent_coef=0.3)
    _, metrics = learner.update(make_batch(learner.policy(), [20, 11, 7]))
    assert metrics["train/ent_coef"] == pytest.approx(0.3)
    assert "target_entropy" in learner.algorithm.idle_options
    assert "target_entropy" not in SAC().idle_options


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (Discrete(3), "sac learns continuous actions, and these are .* 0 to 2: presets dqn, pqn and ppo learn such"),
        (
            Parts({"a": Box((1,), low=(0.0,), high=(1.0,))}),
            r"these are an object of \(a: 1 number\): preset ppo learns such",
        ),
        (Box((1,), low=(-1.0,), high=(math.inf,)), "a component of these lacks one: take preset ppo"),
    ],
)
def test_actions_that_it_cannot_learn(action: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SAC().distribution(action)


def test_temperatures_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"ent_coef must be positive, not 0"):
        SAC(ent_coef=0.0)
    with pytest.raises(UserError, match=r"target_entropy must be a number, or None, not nan"):
        SAC(target_entropy=math.nan)
