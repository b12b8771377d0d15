"""The policy gradient: REINFORCE, actor-critic, A2C and IMPALA, which differ in their advantage. Free of torch, too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.errors import UserError
from learner.algorithms.advantages import Estimator, find_estimator
from learner.algorithms.algorithm import Algorithm, Experience, require_between, require_count, require_weight
from learner.algorithms.returns import Trajectories
from learner.memory.memory import BEGINS, MEMORIES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actors.spec import PolicySpec
    from learner.algorithms.algorithm import Metrics
    from learner.memory.latest import Latest
    from learner.memory.memory import Columns
    from learner.networks.actor_critic import ActorCritic, Outputs
    from learner.networks.config import Critic


@dataclasses.dataclass(frozen=True)
class PolicyGradient(Algorithm):
    """Ascends E[A_t log π(a_t | o_t)], with an entropy bonus, and regresses a critic where the advantage has one."""

    advantage: str = "gae"
    """The weight on log π: reward_to_go, baseline (that less its mean), critic (that less v), gae, vtrace, or your own
    function as package.module:function."""
    gae_lambda: float = 0.95
    """λ of GAE and V-trace: 0 trusts the critic, 1 the returns."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    normalize_entropy: bool = False
    """Divide the entropy by that of the uniform policy, so that it lies between 0 and 1."""
    vf_coef: float = 0.5
    """Weight of the critic's squared error."""
    normalize_advantage: bool = True
    """Standardise the advantages of each minibatch."""
    n_epochs: int = 8
    """Passes over each batch."""
    target_kl: float | None = None
    """No further epoch after one that takes the KL divergence from the policy that flew (with vtrace: from that before
    the update), over the whole batch, past 1.5 times this."""

    sequence_length: int = 32
    """Steps that gradients go back where the policy has a memory; minibatches are made of windows of so many."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("sequence_length", self.sequence_length)
        find_estimator(self.advantage)
        require_between("gae_lambda", self.gae_lambda, 0, 1)
        require_weight("ent_coef", self.ent_coef)
        require_weight("vf_coef", self.vf_coef)
        if self.n_epochs < 1:
            raise UserError(f"n_epochs must be 1 or more, not {self.n_epochs}")
        if self.target_kl is not None and not self.target_kl > 0:
            raise UserError(f"target_kl must be positive, not {self.target_kl}")

    @property
    def estimator(self) -> Estimator:
        """What ``advantage`` names."""
        return find_estimator(self.advantage)

    @property
    def most_lag(self) -> int | None:
        """Any number where the estimator corrects for it, else 1."""
        return None if self.estimator.corrects_lag else 1

    @property
    def whole_episodes(self) -> str | None:
        """A fragment's rest is judged by a critic."""
        if self.estimator.has_critic:
            return None
        return f"advantage {self.advantage!r} has no critic to judge the rest of an episode"

    @property
    def idle_options(self) -> frozenset[str]:
        """The critic's without one, λ's without it, and that of minibatches for a batch that is learned at once."""
        is_ours = ":" not in self.advantage  # what a user's function makes of λ nobody knows
        idle = {"vf_coef": not self.estimator.has_critic, "gae_lambda": is_ours and not self.estimator.has_lambda}
        idle |= {"batch_size": self.batch_size is None}
        return frozenset(name for name, is_idle in idle.items() if is_idle)

    @property
    def learned_memories(self) -> frozenset[str]:
        """Recurrent ones, through windows of steps."""
        return frozenset({"none", "gru", "lstm"})

    def require_fit(self, spec: PolicySpec) -> None:
        """Make sure that minibatches are of whole windows.

        Raises:
            UserError: they are not, or it has a memory that policy gradients do not learn.
        """
        super().require_fit(spec)
        if spec.network.memory != "none" and (self.batch_size or 0) % self.sequence_length:
            raise UserError(
                f"with a memory batch_size must be a multiple of sequence_length {self.sequence_length}, "
                f"not {self.batch_size}"
            )

    def make_network(self, spec: PolicySpec, critic: Critic) -> ActorCritic:
        """A policy, and a critic where the advantage has one."""
        from learner.networks.actor_critic import ActorCritic
        from learner.networks.recurrent import RecurrentActorCritic

        if spec.network.memory != "none":
            return RecurrentActorCritic(spec, self.estimator.has_critic, critic, self.sequence_length)
        return ActorCritic(spec, self.estimator.has_critic, critic)

    def make_memory(self, generator: torch.Generator) -> Latest:
        """The last batch, ``n_epochs`` times over."""
        from learner.memory.latest import Latest

        arrange = standardised if self.normalize_advantage else None
        return Latest(self.n_epochs, self.batch_size, generator, arrange, self.sequence_length)

    def prepare(self, network: ActorCritic, flown: Experience) -> tuple[Columns, dict[str, float]]:
        """Advantages and the critic's targets, and the log-probabilities that ratios are taken to.

        These are of the policy that flew. Where advantages hold the ratio to that one (V-trace), they are of the
        learner's at the update's start, so that no loss corrects twice: the decoupled objective of Hilton et al. 2022,
        arXiv:2110.00641.
        """
        estimator, behaviour = self.estimator, flown.notes["log_prob"]
        values, final_values, remembered = network.judged(
            flown.observations, flown.final_observations, flown.ends, flown.memory
        )
        log_probs, log_ratios = behaviour, behaviour.new_zeros(len(behaviour))
        if estimator.corrects_lag:
            log_probs = network(flown.observations, flown.actions, flown.allows, **remembered).log_probs
            log_ratios = log_probs - behaviour
        steps = Trajectories(
            flown.rewards, flown.ends, flown.terminated, flown.longest, values, final_values, log_ratios
        )
        advantages, returns = estimator(steps, self)
        metrics = {"mean_return_target": float(returns.mean())}
        if estimator.corrects_lag:
            metrics["behaviour_kl"] = float(approx_kl(log_ratios))
        if estimator.has_critic:
            variance = returns.var(correction=0)
            metrics["explained_variance"] = float(1 - (returns - values).var(correction=0) / (variance + 1e-8))
        columns = {
            "observations": flown.observations,
            "actions": flown.actions,
            "log_probs": log_probs,
            "advantages": advantages,
            "returns": returns,
            **remembered,
        }
        return columns if flown.allows is None else columns | {"allows": flown.allows}, metrics

    def outputs(self, network: ActorCritic, steps: Columns) -> Outputs:
        """What the networks say of steps, [B] each."""
        remembered = {name: steps[name] for name in (MEMORIES, BEGINS) if name in steps}
        outputs: Outputs = network(steps["observations"], steps["actions"], steps.get("allows"), **remembered)
        return outputs

    def loss(self, network: ActorCritic, steps: Columns) -> tuple[Tensor, Metrics]:
        """The policy's loss + vf_coef · mean (v − target)² − ent_coef · mean H."""
        outputs = self.outputs(network, steps)
        policy_loss, metrics = self.policy_loss(outputs.log_probs, steps)
        value_loss = (outputs.values - steps["returns"]).square().mean()
        entropy_loss = -outputs.entropies.mean()
        if self.normalize_entropy:
            entropy_loss = entropy_loss / network.distribution.max_entropy
        terms = self.ent_coef * entropy_loss
        if self.estimator.has_critic:
            terms = terms + self.vf_coef * value_loss
        return policy_loss + terms, {
            "policy_gradient_loss": policy_loss,
            "value_loss": value_loss,
            "entropy_loss": entropy_loss,
            "approx_kl": approx_kl(outputs.log_probs - steps["log_probs"]),
            **({} if outputs.memory_drift is None else {"memory_drift": outputs.memory_drift}),
            **metrics,
        }

    def policy_loss(self, log_probs: Tensor, steps: Columns) -> tuple[Tensor, Metrics]:
        """−mean A_t log π(a_t | o_t): the policy gradient theorem's estimator (Sutton et al. 2000), A held constant.

        Args:
            log_probs: [B]: log π(a_t | o_t) of the actions taken, to differentiate.
            steps: what was known before the update, [B] each: log_probs, advantages, returns, and what else
                ``prepare`` gave.

        Returns:
            One number to descend, and more numbers for the log.
        """
        return -(steps["advantages"] * log_probs).mean(), {}

    def is_enough(self, network: ActorCritic, steps: Columns, mean: Callable[[Tensor, int], Tensor]) -> bool:
        """Whether the policy is past ``target_kl``, by the whole batch."""
        if self.target_kl is None:
            return False
        kl = approx_kl(self.outputs(network, steps).log_probs - steps["log_probs"])
        return float(mean(kl[None], len(steps["log_probs"]))) > 1.5 * self.target_kl


def standardised(minibatches: Columns) -> Columns:
    """Advantages with zero mean and unit standard deviation in each of [minibatches, B]."""
    advantages = minibatches["advantages"]
    centred = advantages - advantages.mean(1, keepdim=True)
    return minibatches | {"advantages": centred / (centred.square().mean(1, keepdim=True).sqrt() + 1e-8)}


def approx_kl(log_ratios: Tensor) -> Tensor:
    """KL(π_old ‖ π), estimated by mean (ρ − 1 − log ρ): low variance, never negative (Schulman's k3, 2020)."""
    log_ratios = log_ratios.detach()
    return (log_ratios.exp() - 1 - log_ratios).mean()
