"""Action distributions by name, in numpy: of discrete actions, of continuous ones, and of actions of several parts.

Each samples by a deterministic function of (parameters, noise), so that a rollout draws the noise of many steps in one
call, and computes log-probabilities for all its steps at once when it ends. ``learner/networks/distributions.py`` is
their form in torch, where they are learned.
"""

from __future__ import annotations

from actors.discrete import Bernoulli, Categorical, EpsilonGreedy, MultiCategorical
from actors.distribution import Distribution
from actors.gaussians import Gaussian, SquashedGaussian, StateDependentGaussian
from actors.joint import Joint
from actors.spaces import Space

DISTRIBUTIONS: dict[str, type[Distribution]] = {
    "categorical": Categorical,
    "epsilon_greedy": EpsilonGreedy,
    "multi_categorical": MultiCategorical,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "state_dependent_gaussian": StateDependentGaussian,
    "squashed_gaussian": SquashedGaussian,
    "joint": Joint,
}
"""Families of action distributions by name, the names of a policy's spec; of a space's the first is what it gets."""


def distribution_for(space: Space) -> str:
    """The name of the distribution over such actions."""
    return next(name for name, distribution in DISTRIBUTIONS.items() if isinstance(space, distribution.space))
