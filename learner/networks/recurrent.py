"""A policy that remembers, and a critic that reads the same memory."""

from __future__ import annotations

from torch import Tensor

from actors.spec import PolicySpec
from learner.memory.memory import BEGINS, MEMORIES, Columns
from learner.networks.actor_critic import ActorCritic, Outputs
from learner.networks.config import Critic
from learner.networks.cores import TorchCore


class RecurrentActorCritic(ActorCritic):
    """π(a | o, memory) and v(memory after o): the critic reads what the policy's output layer does, gradients included.

    Args:
        spec: of the policy, which has a memory.
        has_critic: whether there is one.
        critic: its layers, on what the memory gives.
        length: steps that gradients go back through at most.
    """

    def __init__(self, spec: PolicySpec, has_critic: bool, critic: Critic | None, length: int) -> None:
        super().__init__(spec, has_critic, critic)
        self._length = length

    def judged(
        self, observations: Tensor, final_observations: Tensor, ends: Tensor, memory: Tensor | None
    ) -> tuple[Tensor, Tensor, Columns]:
        """As of an actor-critic; the columns are the memory before each step, made of the stored ones."""
        assert isinstance(self.core, TorchCore)
        assert memory is not None
        before, after = self.core.segments(self.hidden(observations), memory, ends)
        begins = ends.new_zeros(len(observations)).bool()
        begins[0], begins[ends[:-1] + 1] = True, True
        last = self.core.windows(self.hidden(final_observations), after[ends], begins.new_ones(len(ends)), 1)
        values, final_values = (self.value_after(part[:, : self.core.units]) for part in (after, last))
        return values, final_values, {MEMORIES: before, BEGINS: begins}

    def forward(
        self,
        observations: Tensor,
        actions: Tensor,
        allows: Tensor | None = None,
        memories: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> Outputs:
        """Evaluate B consecutive steps, or windows of such.

        Args:
            observations: [B, inputs].
            actions: [B] or [B, A].
            allows: [B, A] bool: masks.
            memories: [B, M]: before each step, as ``judged`` gave them.
            begins: [B] bool: where a stored memory takes the place of what the step before left.
        """
        assert isinstance(self.core, TorchCore)
        assert memories is not None
        assert begins is not None
        after = self.core.windows(self.hidden(observations), memories, begins, self._length)
        features = after[:, : self.core.units]
        log_probs, entropies = self.distribution.evaluate(self.parameters_after(features, allows), actions)
        return Outputs(log_probs, entropies, self.value_after(features), drift(after, memories, begins))


def drift(after: Tensor, memories: Tensor, begins: Tensor) -> Tensor:
    """How far memories are from those that were stored for the next step, relative to these: root mean squares."""
    goes_on = (~begins[1:, None]).to(after.dtype)
    distance = ((after.detach()[:-1] - memories[1:]) * goes_on).square().sum()
    return (distance / ((memories[1:] * goes_on).square().sum() + 1e-8)).sqrt()
