"""Returns and advantages, all of them one recurrence: x_t = δ_t + c_t · x_{t+1}.

Everything is a flat [T] tensor of segments laid end to end, on CPU or GPU; nothing is padded and
nothing loops over steps. Free of torch by name, so that a driver that only names an estimator starts in a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


def reverse_scan(deltas: Tensor, decays: Tensor, longest: int | None = None) -> Tensor:
    """Solve x_t = deltas_t + decays_t · x_{t+1}, with x_T = 0, in log₂(longest) vectorised passes.

    Each pass doubles the number of terms that every x_t has summed (Hillis and Steele 1986).

    Args:
        deltas: [T].
        decays: [T], 0 at the last step of a segment, so that nothing crosses to the next.
        longest: steps in the longest segment; None: T.

    Returns:
        x: [T].
    """
    x, c = deltas.clone(), decays.clone()
    reach = 1
    while reach < (len(x) if longest is None else longest):
        x[:-reach] += c[:-reach] * x[reach:]
        c[:-reach] *= c[reach:].clone()
        c[-reach:] = 0
        reach *= 2
    return x


class Trajectories(NamedTuple):
    """A batch as the return estimators see it: T steps in E segments."""

    rewards: Tensor
    """[T]: r_{t+1}, scaled."""
    ends: Tensor
    """[E] int64: the last step of each segment."""
    terminated: Tensor
    """[E] float: 1 where the segment ended in a terminal state."""
    longest: int
    """Steps in the longest segment."""
    values: Tensor
    """[T]: v(o_t); zeros without a critic."""
    final_values: Tensor
    """[E]: v of the observation after the segment's last step; zeros without a critic."""
    log_ratios: Tensor
    """[T]: log π(a_t | o_t) − log π_behaviour(a_t | o_t)."""

    def decays(self, decay: float) -> Tensor:
        """[T]: ``decay``, and 0 where a segment ends."""
        decays = self.rewards.new_full(self.rewards.shape, decay)
        decays[self.ends] = 0
        return decays

    def next_values(self) -> Tensor:
        """[T]: v(o_{t+1}): 0 after a termination, the value of the last observation after a truncation or a cut."""
        following = self.values.roll(-1)
        following[self.ends] = (1 - self.terminated) * self.final_values
        return following


def discounted_returns(steps: Trajectories, gamma: float) -> Tensor:
    """q_t = Σ_k γ^k r_{t+1+k} over the rest of the segment, [T], then γ^n · v where it did not terminate."""
    rewards = steps.rewards.clone()
    rewards[steps.ends] += gamma * (1 - steps.terminated) * steps.final_values
    return reverse_scan(rewards, steps.decays(gamma), steps.longest)


def gae(steps: Trajectories, gamma: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimates A_t, [T] (Schulman et al. 2016, arXiv:1506.02438, eq. 16)."""
    deltas = steps.rewards + gamma * steps.next_values() - steps.values
    return reverse_scan(deltas, steps.decays(gamma * gae_lambda), steps.longest)


def lambda_returns(steps: Trajectories, gamma: float, gae_lambda: float) -> Tensor:
    """TD(λ) returns G_t^λ = A_t + v(o_t), [T] (Sutton and Barto 2018, section 12.1)."""
    return gae(steps, gamma, gae_lambda) + steps.values


def vtrace(steps: Trajectories, gamma: float, gae_lambda: float = 1.0, clip_rho: float = 1.0) -> tuple[Tensor, Tensor]:
    """V-trace targets and advantages for steps flown by an older policy (Espeholt et al. 2018, arXiv:1802.01561).

    Returns:
        advantages: [T], ρ_t (r_{t+1} + γ v_{t+1} − v(o_t)), where v_{t+1} is the next step's target (section 4.2).
        targets: [T], v_t of eq. 1, with ρ̄ = ``clip_rho`` and c_t = λ min(1, ratio) (remark 2).
    """
    ratios = steps.log_ratios.exp()
    rhos, next_values = ratios.clamp(max=clip_rho), steps.next_values()
    deltas = rhos * (steps.rewards + gamma * next_values - steps.values)
    targets = steps.values + reverse_scan(
        deltas, steps.decays(gamma * gae_lambda) * ratios.clamp(max=1.0), steps.longest
    )
    next_targets = targets.roll(-1)
    next_targets[steps.ends] = next_values[steps.ends]
    return rhos * (steps.rewards + gamma * next_targets - steps.values), targets


class NStep(NamedTuple):
    """What n steps bring, and where they lead, for each of T steps."""

    returns: Tensor
    """[T]: Σ_{k<h} γ^k r_{t+1+k}; h is n, or what is left of the segment."""
    discounts: Tensor
    """[T]: γ^h, and 0 where these h steps end in a terminal state."""
    rows: Tensor
    """[T] int64: the row of o_{t+h} among the T observations with the E final ones after them."""


def n_step(rewards: Tensor, ends: Tensor, terminated: Tensor, longest: int, gamma: float, n: int) -> NStep:
    """n-step returns without the value at their end (Sutton and Barto 2018, eq. 7.1), for T steps of E segments.

    A segment's last steps have fewer: they lead to the observation after it, whether a time limit or a rollout's end
    cut it. As γ^n is drawn from a sum of all that follows, nothing loops over n.

    Args:
        rewards: [T].
        ends: [E] int64: the last step of each segment.
        terminated: [E] float: 1 where it ended in a terminal state.
        longest: steps in the longest segment.
        gamma: γ.
        n: steps.
    """
    import torch

    steps = torch.arange(len(rewards), device=rewards.device)
    segments = torch.searchsorted(ends, steps)
    last = ends[segments]
    after = torch.minimum(steps + n, last + 1)
    leaves = after > last
    decays = torch.full_like(rewards, gamma, dtype=torch.float64)  # what is small is left of a difference of large sums
    decays[ends] = 0
    rest = reverse_scan(rewards.double(), decays, longest)
    later = torch.where(leaves, 0.0, rest[after.clamp(max=len(rewards) - 1)])
    discounts = gamma ** (after - steps).double()
    return NStep(
        returns=(rest - discounts * later).to(rewards.dtype),
        discounts=(torch.where(leaves, 1 - terminated[segments], 1.0) * discounts).to(rewards.dtype),
        rows=torch.where(leaves, len(rewards) + segments, after),
    )
