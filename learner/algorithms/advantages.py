"""Estimators of the advantage: what weighs log π in a policy gradient. Free of torch, for who only configures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from learner.algorithms.naming import find
from learner.algorithms.returns import Trajectories, discounted_returns, gae, vtrace

if TYPE_CHECKING:
    from torch import Tensor

    from learner.algorithms.policy_gradient import PolicyGradient

Estimate = Callable[[Trajectories, "PolicyGradient"], "tuple[Tensor, Tensor]"]
"""(a batch, the algorithm's options) -> (advantages [T], the critic's targets [T])."""


@dataclasses.dataclass(frozen=True)
class Estimator:
    """An estimator, and what it needs."""

    estimate: Estimate
    has_critic: bool = True
    """Whether it judges with a critic, which then is learned."""
    has_lambda: bool = False
    """Whether ``gae_lambda`` is its option."""
    corrects_lag: bool = False
    """Whether it weighs steps by π/π_behaviour, so that older policies may have flown them."""

    def __call__(self, steps: Trajectories, options: PolicyGradient) -> tuple[Tensor, Tensor]:
        """Advantages [T] and the critic's targets [T]."""
        return self.estimate(steps, options)


def reward_to_go(steps: Trajectories, options: PolicyGradient) -> tuple[Tensor, Tensor]:
    """q_t: REINFORCE (Williams 1992), causal."""
    q = discounted_returns(steps, options.gamma)
    return q, q


def baseline(steps: Trajectories, options: PolicyGradient) -> tuple[Tensor, Tensor]:
    """q_t − mean(q)."""
    q = discounted_returns(steps, options.gamma)
    return q - q.mean(), q


def critic(steps: Trajectories, options: PolicyGradient) -> tuple[Tensor, Tensor]:
    """q_t − v(o_t)."""
    q = discounted_returns(steps, options.gamma)
    return q - steps.values, q


def generalised(steps: Trajectories, options: PolicyGradient) -> tuple[Tensor, Tensor]:
    """GAE(λ), and λ-returns for the critic."""
    advantages = gae(steps, options.gamma, options.gae_lambda)
    return advantages, advantages + steps.values


def off_policy(steps: Trajectories, options: PolicyGradient) -> tuple[Tensor, Tensor]:
    """V-trace advantages and targets."""
    return vtrace(steps, options.gamma, options.gae_lambda)


ESTIMATORS = {
    "reward_to_go": Estimator(reward_to_go, has_critic=False),
    "baseline": Estimator(baseline, has_critic=False),
    "critic": Estimator(critic),
    "gae": Estimator(generalised, has_lambda=True),
    "vtrace": Estimator(off_policy, has_lambda=True, corrects_lag=True),
}


def find_estimator(name: str) -> Estimator:
    """The estimator of that name, or one's own: an ``Estimator``, or a plain function, at ``package.module:name``.

    Raises:
        UserError: there is none.
    """
    found: Any = find("advantage", name, ESTIMATORS)
    return found if isinstance(found, Estimator) else Estimator(found)
