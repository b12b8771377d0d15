"""The learner's hyper-parameters: objective, update, networks. Free of torch, so that a driver starts in a moment."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from actors.errors import UserError, unknown
from actors.spec import ACTIVATIONS

ADVANTAGES = ("reward_to_go", "baseline", "critic", "gae", "vtrace")
OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The objective."""

    loss: str = "ppo"
    """policy_gradient, ppo, a name given to register_loss, or your own function as package.module:function."""
    advantage: str = "gae"
    """The weight on log π: reward_to_go, baseline (that less its mean), critic (that less v), gae or vtrace."""
    gamma: float = 0.999
    """Discount a step."""
    gae_lambda: float = 0.95
    """λ of GAE and V-trace: 0 trusts the critic, 1 the returns."""
    clip_range: float = 0.2
    """PPO: the ratio π/π_old may earn nothing beyond 1 ± this."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    normalize_entropy: bool = False
    """Divide the entropy by that of the uniform policy, so that it lies between 0 and 1."""
    vf_coef: float = 0.5
    """Weight of the critic's squared error."""
    normalize_advantage: bool = True
    """Standardise the advantages of each minibatch."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this before anything is learned from them; logs show them unscaled."""

    def __post_init__(self) -> None:
        if self.advantage not in ADVANTAGES:
            raise unknown("advantage", self.advantage, ADVANTAGES)
        for name, low, high in (("gamma", 0, 1), ("gae_lambda", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name} must lie between {low} and {high}, not {getattr(self, name)}")
        for name in ("clip_range", "reward_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("ent_coef", "vf_coef"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be zero or more, not {getattr(self, name)}")

    @property
    def has_critic(self) -> bool:
        """Whether a critic is learned: advantages that need none go without."""
        return self.advantage not in ("reward_to_go", "baseline")


@dataclasses.dataclass(frozen=True)
class UpdateConfig:
    """How a batch becomes gradient steps."""

    n_epochs: int = 8
    """Passes over each batch."""
    batch_size: int | None = 512
    """Steps in a minibatch; None: the whole batch at once."""
    learning_rate: float = 3e-3
    """Step size at the start."""
    schedule: Literal["constant", "linear"] = "constant"
    """Whether the learning rate stays, or falls to zero at the end of the budget. A resume with another budget lets it
    fall from where it was to the new end."""
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    """torch.optim's."""
    optimizer_eps: float = 1e-8
    """ε of adam, adamw and rmsprop. PPO's is customarily 1e-5; with rewards × 0.01 the root mean square of an actor's
    gradients is 3e-5 to 4e-4, and that would shorten steps by up to a quarter: torch's 1e-8 does not."""
    max_grad_norm: float = 0.5
    """Gradients longer than this are shortened to it; inf: never."""
    target_kl: float | None = None
    """No further epoch after one that takes the KL divergence from the policy that flew (with vtrace: from that before
    the update), over the whole batch, past 1.5 times this."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the learner computes; auto: on a GPU where it is given one."""
    gpu_share: float = 1.0
    """GPUs that Ray sets aside for the learner where the cluster has them; less than 1 shares one between runs."""
    learners: int = 1
    """Learners that share every minibatch, on a GPU each where the cluster has as many; they make the steps of one."""
    learner_labels: dict[str, str] = dataclasses.field(default_factory=dict)
    """Ray node labels that a learner's node must have."""
    threads: int = 1
    """CPU threads of the learner; more help only large networks."""
    compile: bool = True
    """Record the minibatch step once and replay it; the results are the same."""

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in ("constant", "linear"):
            raise unknown("schedule", self.schedule, ("constant", "linear"))
        if self.device not in ("auto", "cpu", "cuda"):
            raise unknown("device", self.device, ("auto", "cpu", "cuda"))
        if self.n_epochs < 1:
            raise UserError(f"n_epochs must be 1 or more, not {self.n_epochs}")
        if not 0 < self.gpu_share <= 1:
            raise UserError(f"gpu_share must lie above 0 and be at most 1, not {self.gpu_share}")
        if self.learners < 1:
            raise UserError(f"learners must be 1 or more, not {self.learners}")
        if self.learners > 1 and self.gpu_share < 1:
            raise UserError(f"several learners need a GPU each: gpu_share must be 1, not {self.gpu_share}")
        if self.batch_size is not None and self.batch_size < self.learners:
            raise UserError(f"a minibatch of batch_size {self.batch_size} cannot be shared by {self.learners} learners")
        if self.threads < 1:
            raise UserError(f"threads must be 1 or more, not {self.threads}")
        if self.batch_size is not None and self.batch_size < 2:
            raise UserError(f"batch_size must be 2 or more, or None for the whole batch, not {self.batch_size}")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate must be positive, not {self.learning_rate}")
        if not 0 < self.optimizer_eps < math.inf:
            raise UserError(f"optimizer_eps must be positive, not {self.optimizer_eps}")
        if not self.max_grad_norm > 0:
            raise UserError(f"max_grad_norm must be positive, not {self.max_grad_norm}")
        if self.target_kl is not None and not self.target_kl > 0:
            raise UserError(f"target_kl must be positive, not {self.target_kl}")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The policy's network and the critic's."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer of the policy."""
    critic_sizes: tuple[int, ...] | None = None
    """Units of each hidden layer of the critic; None: as the policy's."""
    activation: str = "tanh"
    """tanh, relu or elu."""
    normalize_observations: bool = False
    """Standardise observations with running statistics, which travel with the policy."""

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if any(size < 1 for size in (*self.hidden_sizes, *(self.critic_sizes or ()))):
            raise UserError(
                f"hidden_sizes and critic_sizes must be positive, not {self.hidden_sizes}, {self.critic_sizes}"
            )
