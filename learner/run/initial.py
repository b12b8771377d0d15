"""What a run starts from, if not from random weights: a policy that was trained before, and the critic beside it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from actors.environments import EnvironmentInfo
from actors.episode import Array
from actors.errors import UserError
from actors.policy import Policy
from learner.algorithms.registry import name_of
from learner.keeping.checkpoint import has_checkpoint, load_checkpoint
from learner.keeping.policies import find_policy
from learner.run.config import TrainConfig
from learner.run.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Initial:
    """What is taken over."""

    origin: str
    """Where it was, as the user wrote it."""
    policy: Policy
    critic: Array | None = None
    """[weights of the critic] float32, in a learner's order; None: there is none."""
    statistics: dict[str, Array] | None = None
    """Statistics of observations, as a Normalizer keeps them; None: those in the policy are all there is."""
    reward_scale: float | None = None
    """What rewards were multiplied with where its values were learned; None: nobody knows."""

    def record(self) -> dict[str, Any]:
        """What the new policy's record of how it was trained says of it."""
        return {"origin": self.origin, "env_id": self.policy.spec.env_id, "version": self.policy.spec.version}

    def require_fit(self, config: TrainConfig, environment: EnvironmentInfo) -> None:
        """Make sure that a run of that configuration can start from it.

        Raises:
            UserError: the environment's spaces are others, or the network is.
        """
        try:
            self.policy.spec.require_spaces(environment.env_id, environment.observation, environment.action)
        except UserError as error:
            raise UserError(f"the policy in {self.origin} does not fit: {error}") from error
        own, usual = self.policy.spec.distribution, config.algorithm.distribution(environment.action)
        if own != usual:
            raise UserError(
                f"the policy in {self.origin} has {own} actions, and a run of {name_of(config.algorithm)} has {usual}: "
                "such a one can be flown and served, or trained on by a preset of its kind"
            )
        if config.network.of_policy(environment.observation) != dataclasses.asdict(self.policy.spec.network):
            raise UserError(f"a run that starts from {self.origin} has its network, {self.policy.spec.network}")


def with_network_of(policy: Policy, config: TrainConfig) -> TrainConfig:
    """The configuration with a policy's own network; the critic's sizes stay."""
    network = config.network.with_policys(dataclasses.asdict(policy.spec.network))
    return dataclasses.replace(config, network=network)


def read_initial(location: str) -> Initial:
    """What is kept in a run's directory, or in one that holds just a policy: a package, or an imported one.

    Raises:
        UserError: there is no policy, or it is damaged.
    """
    policy, directory = find_policy(location), RunDirectory(location)
    scale = _reward_scale(directory.options()) if directory.exists() else None
    if not (directory.exists() and has_checkpoint(directory.checkpoints)):
        return Initial(location, policy, reward_scale=scale)
    state, _ = load_checkpoint(directory.checkpoints)
    critic = state["parameters"][policy.spec.num_learned :]  # the policy's come first
    statistics = {
        name.removeprefix("normalizer."): array for name, array in state.items() if name.startswith("normalizer.")
    }
    return Initial(location, policy, critic if critic.size else None, statistics or None, scale)


def _reward_scale(options: dict[str, Any]) -> float | None:
    """What a configuration, maybe somebody else's, says that rewards were multiplied with; None: nothing sensible."""
    algorithm = options.get("algorithm")
    scale = algorithm.get("reward_scale") if isinstance(algorithm, dict) else None
    return float(scale) if isinstance(scale, int | float) and 0 < scale < math.inf else None
