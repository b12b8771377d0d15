"""What learns from recordings, and flies nothing. Free of torch, for who only configures."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from actors.errors import UserError
from learner.algorithms.algorithm import Algorithm, require_count

if TYPE_CHECKING:
    import torch

    from actors.distribution import Distribution
    from actors.spec import PolicySpec
    from learner.dataset.dataset import Dataset
    from learner.dataset.windows import Reader
    from learner.memory.memory import Memory


@dataclasses.dataclass(frozen=True)
class Offline(Algorithm):
    """An algorithm whose source are recorded episodes: an update is a number of gradient steps on what it draws."""

    gradient_steps: int = dataclasses.field(default=100, kw_only=True)
    """Steps of the optimiser in an update, after which there is another policy, and a row of the log."""

    is_offline: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("gradient_steps", self.gradient_steps)
        if self.batch_size is None:
            raise UserError("batch_size must be a number: recordings are not learned from all at once")

    def window(self, spec: PolicySpec) -> int:  # noqa: ARG002
        """Steps of the windows that it learns from."""
        return 1

    def recorded(
        self,
        dataset: Dataset,
        spec: PolicySpec,
        distribution: Distribution,
        generator: torch.Generator,
        device: torch.device,
    ) -> Memory:
        """The memory of what is recorded.

        Args:
            dataset: the episodes.
            spec: of the policy that is learned.
            distribution: of that policy.
            generator: draws.
            device: where it is learned.
        """
        from learner.memory.recorded import Recorded

        reader = self.reader(dataset, spec, distribution)
        return Recorded(reader, dataset.lengths, self.windows(spec), self.gradient_steps, generator, device)

    def reader(self, dataset: Dataset, spec: PolicySpec, distribution: Distribution) -> Reader:
        """What makes minibatches of recorded steps; arguments as of ``recorded``."""
        from learner.dataset.windows import Windows

        return Windows(dataset, spec, distribution, self.window(spec))

    def windows(self, spec: PolicySpec) -> int:
        """Windows in a minibatch."""
        assert self.batch_size is not None
        return self.batch_size // self.window(spec)

    def require_fit(self, spec: PolicySpec) -> None:
        """Make sure that minibatches are of whole windows.

        Raises:
            UserError: they are not, or it cannot learn such a policy.
        """
        super().require_fit(spec)
        assert self.batch_size is not None
        if self.batch_size % self.window(spec):
            raise UserError(
                f"batch_size must be a multiple of memory_window {self.window(spec)}, the steps of a window, "
                f"not {self.batch_size}"
            )

    def make_memory(self, generator: torch.Generator) -> NoReturn:  # noqa: ARG002
        """None of what is flown.

        Raises:
            UserError: always.
        """
        raise UserError(f"{type(self).__name__} learns from recordings: give it a dataset")

    def prepare(self, network: Any, flown: Any) -> NoReturn:  # noqa: ARG002
        """Nothing of what is flown.

        Raises:
            UserError: always.
        """
        raise UserError(f"{type(self).__name__} learns from recordings: give it a dataset")
