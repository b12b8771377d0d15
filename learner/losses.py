"""Losses, and the advantages that weigh them. A loss is one function; a preset is data (presets.py).

To add a loss, write one function of this form and register it by name::

    @register_loss("mine")
    def mine(outputs: Outputs, batch: Minibatch, config: LossConfig) -> tuple[Tensor, Metrics]:
        loss = -(batch.advantages * outputs.log_probs).mean()
        return loss, {"policy_gradient_loss": loss}

It is recorded once and replayed (compiled.py). One that branches on the value of a tensor, or keeps something from
minibatch to minibatch, is noticed and called for each minibatch instead, two to six times slower.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from actors.errors import UserError, unknown
from learner.hyperparameters import LossConfig
from learner.returns import Trajectories, discounted_returns, gae, vtrace

Metrics = dict[str, Tensor]


class Outputs(NamedTuple):
    """What the networks say of a minibatch of B steps; everything a loss may differentiate."""

    log_probs: Tensor
    """[B]: log π(a_t | o_t) of the actions taken."""
    entropies: Tensor
    """[B]: H(π(· | o_t)), in nats."""
    values: Tensor
    """[B]: v(o_t); zeros for presets without a critic."""


class Minibatch(NamedTuple):
    """What is known of the same B steps before the update; constants."""

    log_probs: Tensor
    """[B]: log π_old(a_t | o_t), which ratios are taken to: of the policy that flew the steps. With V-trace, whose
    advantages hold the ratio to that one, of the learner's at the update's start, so that no loss corrects twice: the
    decoupled objective of Hilton et al. 2022, arXiv:2110.00641."""
    advantages: Tensor
    """[B]: the weight on log π, as ``LossConfig.advantage`` estimates it; standardised if ``normalize_advantage``."""
    returns: Tensor
    """[B]: the critic's targets."""
    max_entropy: float
    """The entropy of the uniform policy, log(actions), in nats; 1 for continuous actions, which have no such bound."""


def reward_to_go(steps: Trajectories, config: LossConfig) -> tuple[Tensor, Tensor]:
    """q_t: REINFORCE (Williams 1992), causal."""
    q = discounted_returns(steps, config.gamma)
    return q, q


def baseline(steps: Trajectories, config: LossConfig) -> tuple[Tensor, Tensor]:
    """q_t − mean(q)."""
    q = discounted_returns(steps, config.gamma)
    return q - q.mean(), q


def critic(steps: Trajectories, config: LossConfig) -> tuple[Tensor, Tensor]:
    """q_t − v(o_t)."""
    q = discounted_returns(steps, config.gamma)
    return q - steps.values, q


def generalised(steps: Trajectories, config: LossConfig) -> tuple[Tensor, Tensor]:
    """GAE(λ), and λ-returns for the critic."""
    advantages = gae(steps, config.gamma, config.gae_lambda)
    return advantages, advantages + steps.values


def off_policy(steps: Trajectories, config: LossConfig) -> tuple[Tensor, Tensor]:
    """V-trace advantages and targets."""
    return vtrace(steps, config.gamma, config.gae_lambda)


ESTIMATORS: dict[str, Callable[[Trajectories, LossConfig], tuple[Tensor, Tensor]]] = {
    "reward_to_go": reward_to_go,
    "baseline": baseline,
    "critic": critic,
    "gae": generalised,
    "vtrace": off_policy,
}
"""Each gives (advantages [T], the critic's targets [T])."""


Loss = Callable[[Outputs, Minibatch, LossConfig], tuple[Tensor, Metrics]]
LOSSES: dict[str, Loss] = {}


def register_loss(name: str) -> Callable[[Loss], Loss]:
    """Make a loss known by ``name`` to configurations; used as a decorator."""

    def register(loss: Loss) -> Loss:
        LOSSES[name] = loss
        return loss

    return register


def find_loss(name: str) -> Loss:
    """The loss of that name, or the function at ``package.module:function``.

    Raises:
        UserError: there is none.
    """
    if name in LOSSES:
        return LOSSES[name]
    module, _, function = name.partition(":")
    if not (module and function):
        raise unknown("loss", name, LOSSES)
    try:
        loss: Loss = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"loss {name!r}: {error}") from error
    if not callable(loss):
        raise UserError(f"loss {name!r} is a {type(loss).__name__}, not a function")
    return loss


LEARNERS_METRICS = frozenset(
    [
        "loss",
        "grad_norm",
        "learning_rate",
        "n_updates",
        "gradient_steps",
        "epochs",
        "mean_return_target",
        "behaviour_kl",
        "explained_variance",
    ]
)
"""Names in train/ that are not a loss's to give."""


def check_answer(name: str, answer: object) -> tuple[Tensor, Metrics]:
    """What a loss answered, if it is a loss to differentiate and metrics of one number each.

    Raises:
        UserError: it is not; one line that names the loss and the metric.
    """
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
        raise UserError(f"loss {name!r} must answer a loss and a dict of metrics, not {type(answer).__name__}")
    loss, metrics = answer
    for metric, value in {"its loss": loss, **metrics}.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"loss {name!r}: {metric} is a {type(value).__name__}; it must be a tensor of one number "
                "(leave .item() and float() out)"
            )
        if value.ndim:
            raise UserError(f"loss {name!r}: {metric} has shape {list(value.shape)}; give one number, its mean() say")
    if not loss.requires_grad:
        raise UserError(
            f"loss {name!r} does not depend on the networks' outputs, so that nothing can be learned from it"
        )
    if taken := LEARNERS_METRICS & metrics.keys():
        raise UserError(f"loss {name!r}: the learner itself logs a metric {min(taken)}; call yours by another name")
    return loss, metrics


def standardise(advantages: Tensor) -> Tensor:
    """Zero mean and unit standard deviation in each minibatch: [minibatches, B] -> [minibatches, B]."""
    centred = advantages - advantages.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True).sqrt() + 1e-8)


def entropy_and_value(outputs: Outputs, batch: Minibatch, config: LossConfig) -> tuple[Tensor, Metrics]:
    """The terms that every loss shares: vf_coef · mean (v − target)² − ent_coef · mean H."""
    value_loss = (outputs.values - batch.returns).square().mean()
    entropy_loss = -outputs.entropies.mean()
    if config.normalize_entropy:
        entropy_loss = entropy_loss / batch.max_entropy
    terms = config.ent_coef * entropy_loss
    if config.has_critic:
        terms = terms + config.vf_coef * value_loss
    return terms, {"value_loss": value_loss, "entropy_loss": entropy_loss}


@register_loss("policy_gradient")
def policy_gradient(outputs: Outputs, batch: Minibatch, config: LossConfig) -> tuple[Tensor, Metrics]:
    """−mean A_t log π(a_t | o_t): the policy gradient theorem's estimator (Sutton et al. 2000), A held constant."""
    policy_loss = -(batch.advantages * outputs.log_probs).mean()
    shared, metrics = entropy_and_value(outputs, batch, config)
    return policy_loss + shared, {
        "policy_gradient_loss": policy_loss,
        **metrics,
        "approx_kl": approx_kl(outputs.log_probs - batch.log_probs),
    }


@register_loss("ppo")
def ppo(outputs: Outputs, batch: Minibatch, config: LossConfig) -> tuple[Tensor, Metrics]:
    """−mean min(ρ A, clip(ρ, 1 ± ε) A), ρ = π/π_old (Schulman et al. 2017, arXiv:1707.06347, eq. 7)."""
    log_ratios = outputs.log_probs - batch.log_probs
    ratios = log_ratios.exp()
    clipped = ratios.clamp(1 - config.clip_range, 1 + config.clip_range)
    policy_loss = -torch.minimum(ratios * batch.advantages, clipped * batch.advantages).mean()
    shared, metrics = entropy_and_value(outputs, batch, config)
    return policy_loss + shared, {
        "policy_gradient_loss": policy_loss,
        **metrics,
        "approx_kl": approx_kl(log_ratios),
        "clip_fraction": (ratios.detach() != clipped.detach()).float().mean(),
    }


def approx_kl(log_ratios: Tensor) -> Tensor:
    """KL(π_old ‖ π), estimated by mean (ρ − 1 − log ρ): low variance, never negative (Schulman's k3, 2020)."""
    log_ratios = log_ratios.detach()
    return (log_ratios.exp() - 1 - log_ratios).mean()
