"""Policy gradients: losses by hand, gradients against the textbook's formulas, estimators against their definitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from actors.errors import UserError
from learner.algorithms.advantages import ESTIMATORS, Estimator, find_estimator
from learner.algorithms.policy_gradient import PolicyGradient, standardised
from learner.algorithms.ppo import PPO
from learner.algorithms.returns import Trajectories, discounted_returns, gae, lambda_returns, vtrace
from learner.networks.actor_critic import Outputs
from tests.learner import make_batch, make_spec
from tests.learner.learners import make_learner

Columns = dict[str, Tensor]
Metrics = dict[str, Tensor]


class Said(nn.Module):
    """Networks that say the same of every minibatch."""

    def __init__(self, outputs: Outputs, max_entropy: float = math.log(4)) -> None:
        super().__init__()
        self._outputs = outputs
        self.distribution = nn.Identity()
        self.distribution.max_entropy = max_entropy

    def forward(self, *_steps: Any) -> Outputs:
        return self._outputs


def columns(log_probs: Tensor, advantages: Tensor, returns: Tensor) -> Columns:
    nothing = torch.zeros(len(returns))
    known = {"log_probs": log_probs, "advantages": advantages, "returns": returns}
    return {"observations": nothing, "actions": nothing, **known}


def loss_of(algorithm: PolicyGradient, outputs: Outputs, steps: Columns) -> tuple[Tensor, Metrics]:
    """What it makes of networks that say this."""
    return algorithm.loss(Said(outputs), steps)


TWO_STEPS = columns(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, -1.0]), torch.tensor([0.0, 4.0]))


def two_outputs(ratios: tuple[float, float]) -> Outputs:
    """Networks whose π/π_behaviour on TWO_STEPS is ``ratios``; entropies 0.5 and 0.7, values 1 and 2."""
    return Outputs(
        log_probs=TWO_STEPS["log_probs"] + torch.tensor(ratios).log(),
        entropies=torch.tensor([0.5, 0.7]),
        values=torch.tensor([1.0, 2.0]),
    )


def numbers(metrics: Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def test_policy_gradient_by_hand() -> None:
    config = PolicyGradient(ent_coef=0.1, vf_coef=0.5, normalize_advantage=False)
    outputs = Outputs(torch.tensor([-0.5, -3.0]), torch.tensor([0.5, 0.7]), torch.tensor([1.0, 2.0]))
    loss, metrics = loss_of(config, outputs, TWO_STEPS)
    # −½ (1 · −0.5 + −1 · −3) = −1.25; value (1² + 2²)/2 = 2.5; entropy 0.6: −1.25 + 0.5 · 2.5 − 0.1 · 0.6
    kl = ((math.exp(0.5) - 1 - 0.5) + (math.exp(-1) - 1 + 1)) / 2
    assert float(loss) == pytest.approx(-0.06)
    assert numbers(metrics) == pytest.approx(
        {"policy_gradient_loss": -1.25, "value_loss": 2.5, "entropy_loss": -0.6, "approx_kl": kl}
    )


def test_ppo_by_hand() -> None:
    config = PPO(ent_coef=0.1, vf_coef=0.5, clip_range=0.2, normalize_advantage=False)
    loss, metrics = loss_of(config, two_outputs((1.5, 0.5)), TWO_STEPS)
    # min(1.5, 1.2) = 1.2 and min(−0.5, −0.8) = −0.8: −0.2; −0.2 + 0.5 · 2.5 − 0.1 · 0.6
    kl = ((1.5 - 1 - math.log(1.5)) + (0.5 - 1 - math.log(0.5))) / 2
    assert float(loss) == pytest.approx(0.99)
    assert numbers(metrics) == pytest.approx(
        {"policy_gradient_loss": -0.2, "value_loss": 2.5, "entropy_loss": -0.6, "approx_kl": kl, "clip_fraction": 1.0}
    )


def test_clip_fraction_counts_ratios_outside_the_range() -> None:
    _, metrics = loss_of(PPO(clip_range=0.2), two_outputs((1.1, 1.3)), TWO_STEPS)
    assert float(metrics["clip_fraction"]) == 0.5


@pytest.mark.parametrize(
    ("advantage", "ratio", "expected"),
    [
        pytest.param(2.0, 1.3, 0.0, id="good action, already likelier: no more"),
        pytest.param(2.0, 0.7, -1.4, id="good action, grown rarer: back"),
        pytest.param(2.0, 1.1, -2.2, id="good action, inside: likelier"),
        pytest.param(-2.0, 0.7, 0.0, id="bad action, already rarer: no more"),
        pytest.param(-2.0, 1.3, 2.6, id="bad action, grown likelier: back"),
        pytest.param(-2.0, 0.9, 1.8, id="bad action, inside: rarer"),
    ],
)
def test_ppo_stops_at_the_clip_and_only_there(advantage: float, ratio: float, expected: float) -> None:
    """d loss / d log π = −ρ A, or 0 where clipping holds."""
    log_probs = torch.tensor([math.log(ratio)], requires_grad=True)
    batch = columns(torch.zeros(1), torch.tensor([advantage]), torch.zeros(1))
    config = PPO(clip_range=0.2, normalize_advantage=False)
    loss, _ = loss_of(config, Outputs(log_probs, torch.zeros(1), torch.zeros(1)), batch)
    loss.backward()
    assert log_probs.grad is not None
    assert log_probs.grad.item() == pytest.approx(expected)


def test_advantages_are_standardised_in_each_minibatch() -> None:
    advantages = torch.tensor([[1.0, 3.0, 5.0], [0.0, -40.0, 40.0], [7.0, 7.0, 7.0]])
    standard = standardised({"advantages": advantages})["advantages"]
    expected = torch.tensor([[-1.0, 0.0, 1.0], [0.0, -1.0, 1.0], [0.0, 0.0, 0.0]]) * math.sqrt(1.5)
    torch.testing.assert_close(standard, expected)


def test_entropy_is_measured_in_that_of_the_uniform_policy() -> None:
    outputs = two_outputs((1.0, 1.0))._replace(entropies=torch.full((2,), math.log(4)))
    loss, metrics = loss_of(PolicyGradient(normalize_entropy=True, ent_coef=0.5, vf_coef=0), outputs, TWO_STEPS)
    assert float(metrics["entropy_loss"]) == pytest.approx(-1)
    assert float(loss - metrics["policy_gradient_loss"]) == pytest.approx(-0.5)


@pytest.mark.parametrize("advantage", ["reward_to_go", "baseline"])
@pytest.mark.parametrize("kind", [PolicyGradient, PPO])
def test_without_a_critic_its_values_do_not_matter(kind: type[PolicyGradient], advantage: str) -> None:
    config = kind(advantage=advantage, vf_coef=0.5)
    values = torch.tensor([5.0, -5.0], requires_grad=True)
    log_probs = torch.tensor([-1.0, -1.0], requires_grad=True)
    outputs = Outputs(log_probs, torch.zeros(2), values)
    loss, _ = loss_of(config, outputs, TWO_STEPS)
    other, _ = loss_of(config, outputs._replace(values=torch.zeros(2)), TWO_STEPS)
    assert loss.item() == other.item()
    _, gradient = torch.autograd.grad(loss, (log_probs, values), allow_unused=True)
    assert gradient is None


def random_step_data(seed: int, steps: int = 12, actions: int = 5) -> tuple[Tensor, Tensor, Tensor, Columns]:
    """Logits [B, A] and values [B] to differentiate by, the actions taken, and what was known of them before."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    logits, values = normal(steps, actions).requires_grad_(), normal(steps).requires_grad_()
    taken = torch.randint(actions, (steps,), generator=generator)
    behaviour = Categorical(logits=logits.detach() + 0.3 * normal(steps, actions)).log_prob(taken)
    return logits, values, taken, columns(behaviour, normal(steps), normal(steps))


def as_outputs(logits: Tensor, values: Tensor, taken: Tensor) -> Outputs:
    log_probs = logits.log_softmax(1)
    return Outputs(log_probs[torch.arange(len(taken)), taken], -(log_probs.exp() * log_probs).sum(1), values)


def textbook_policy_gradient(logits: Tensor, values: Tensor, taken: Tensor, batch: Columns) -> Tensor:
    policy = Categorical(logits=logits)
    objective = (batch["advantages"] * policy.log_prob(taken)).sum() / len(taken)
    loss: Tensor = -objective + 0.7 * (values - batch["returns"]).pow(2).mean() - 0.03 * policy.entropy().mean()
    return loss


def textbook_ppo(logits: Tensor, values: Tensor, taken: Tensor, batch: Columns) -> Tensor:
    """In the form of Spinning Up: min(ρ A, g), g = (1 + ε) A for A ≥ 0 and (1 − ε) A otherwise, ε = 0.1."""
    policy = Categorical(logits=logits)
    ratios = policy.log_prob(taken).exp() / batch["log_probs"].exp()
    bound = torch.where(batch["advantages"] >= 0, 1.1 * batch["advantages"], 0.9 * batch["advantages"])
    objective = torch.where(ratios * batch["advantages"] < bound, ratios * batch["advantages"], bound).mean()
    loss: Tensor = -objective + 0.7 * (values - batch["returns"]).pow(2).mean() - 0.03 * policy.entropy().mean()
    return loss


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("config", "textbook"),
    [
        (PolicyGradient(ent_coef=0.03, vf_coef=0.7), textbook_policy_gradient),
        (PPO(ent_coef=0.03, vf_coef=0.7, clip_range=0.1), textbook_ppo),
    ],
    ids=["pg", "ppo"],
)
def test_gradients_are_the_textbooks(config: PolicyGradient, textbook: Callable[..., Tensor], seed: int) -> None:
    logits, values, taken, batch = random_step_data(seed)
    loss, _ = loss_of(config, as_outputs(logits, values, taken), batch)
    expected = textbook(logits, values, taken, batch)
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss, (logits, values)), torch.autograd.grad(expected, (logits, values)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_policy_gradient_in_closed_form() -> None:
    """d/d logits of −A log π(a) is A (π − onehot(a)); of v's squared error 2 (v − q); each over B."""
    logits, values, taken, batch = random_step_data(seed=7)
    config = PolicyGradient(vf_coef=0.5, normalize_advantage=False)
    loss, _ = loss_of(config, as_outputs(logits, values, taken), batch)
    d_logits, d_values = torch.autograd.grad(loss, (logits, values))
    onehot = torch.nn.functional.one_hot(taken, logits.shape[1])
    torch.testing.assert_close(
        d_logits, batch["advantages"][:, None] * (logits.softmax(1) - onehot).detach() / len(taken)
    )
    torch.testing.assert_close(d_values, (values - batch["returns"]).detach() / len(taken))


def test_gradients_with_respect_to_every_output() -> None:
    # −A/B for log π of the policy gradient, −c/B for H, 2 c (v − q)/B for v
    log_probs, entropies, values = (torch.tensor(x, requires_grad=True) for x in ([-1.0, -2.0], [0.5, 0.7], [1.0, 2.0]))
    config = PolicyGradient(ent_coef=0.1, vf_coef=0.5, normalize_advantage=False)
    loss, metrics = loss_of(config, Outputs(log_probs, entropies, values), TWO_STEPS)
    gradients = torch.autograd.grad(loss, (log_probs, entropies, values), retain_graph=True)
    expected = ([-0.5, 0.5], [-0.05, -0.05], [0.5, -1.0])
    for gradient, by_hand in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, torch.tensor(by_hand))
    assert not metrics["approx_kl"].requires_grad


def test_estimators_are_the_presets_weights() -> None:
    config = PolicyGradient(gamma=0.9, gae_lambda=0.8)
    steps = Trajectories(
        rewards=torch.tensor([1.0, 2, 3]),
        ends=torch.tensor([1, 2]),
        terminated=torch.tensor([1.0, 0]),
        longest=2,
        values=torch.tensor([0.5, 1, 1.5]),
        final_values=torch.tensor([3.0, 2]),
        log_ratios=torch.tensor([0.1, -0.5, 0.3]),
    )
    q = discounted_returns(steps, 0.9)
    returns = lambda_returns(steps, 0.9, 0.8)
    expected = {
        "reward_to_go": (q, q),
        "baseline": (q - q.mean(), q),
        "critic": (q - steps.values, q),
        "gae": (gae(steps, 0.9, 0.8), returns),
        "vtrace": vtrace(steps, 0.9, 0.8),
    }
    assert set(ESTIMATORS) == set(expected)
    for name, (advantages, targets) in expected.items():
        found = ESTIMATORS[name](steps, config)
        torch.testing.assert_close(found[0], advantages, msg=name)
        torch.testing.assert_close(found[1], targets, msg=name)


def halves(steps: Trajectories, options: PolicyGradient) -> tuple[Tensor, Tensor]:
    """A user's own estimator."""
    return steps.rewards / 2, steps.rewards


CRITICLESS = Estimator(halves, has_critic=False)


def test_an_estimator_of_ones_own() -> None:
    assert PPO(advantage=f"{__name__}:halves").estimator == Estimator(halves)
    assert find_estimator(f"{__name__}:CRITICLESS") is CRITICLESS
    learner = make_learner(make_spec(), advantage=f"{__name__}:CRITICLESS")
    assert learner.network.critic is None
    _, metrics = learner.update(make_batch(learner.policy(), [3], rewards=[1, 2, 6]))
    assert metrics["train/mean_return_target"] == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gea", r"unknown advantage 'gea'; did you mean gae\?"),
        ("no_such_module:mine", "advantage 'no_such_module:mine': No module named 'no_such_module'"),
        ("learner.algorithms.advantages:ESTIMATORS", "is a dict, not a function or class"),
        ("learner.algorithms.advantages:no_such", "no_such"),
        (":gae", "unknown advantage ':gae'"),
    ],
)
def test_an_estimator_that_is_not_there(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        PPO(advantage=name)
    assert "\n" not in str(error.value)
