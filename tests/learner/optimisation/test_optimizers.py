"""Our optimisers on a flat vector take the steps of torch.optim's."""

from __future__ import annotations

import pytest
import torch

from learner.optimisation.config import OPTIMIZERS as NAMES
from learner.optimisation.optimizers import OPTIMIZERS, memory_for

REFERENCES = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


def test_every_name_has_an_optimiser() -> None:
    assert set(OPTIMIZERS) == set(NAMES) == set(REFERENCES)


@pytest.mark.parametrize("eps", [1e-8, 1e-2])
@pytest.mark.parametrize("name", NAMES)
def test_the_steps_are_torchs(name: str, eps: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(50, generator=generator)
    theirs = torch.nn.Parameter(start.clone())
    options = {} if name == "sgd" else {"eps": eps}
    reference = REFERENCES[name]([theirs], lr=1e-2, **options)
    ours, memory = start.clone(), memory_for(start)
    for step in range(20):
        learning_rate = 1e-2 / (1 + step)
        gradient = 0.01 * torch.randn(50, generator=generator)
        reference.param_groups[0]["lr"] = learning_rate
        theirs.grad = gradient.clone()
        reference.step()
        OPTIMIZERS[name](ours, gradient, torch.tensor(learning_rate), memory, eps)
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(ours, start, atol=1e-4)
