"""The last batch, several times over: every step in every pass, in minibatches of one size."""

from __future__ import annotations

import torch

from learner.memory.latest import Latest
from learner.memory.memory import BEGINS, MEMORIES, Columns


def filled(size: int | None, steps: int, n_epochs: int = 2) -> Latest:
    memory = Latest(n_epochs, size, torch.Generator().manual_seed(0))
    memory.add({"step": torch.arange(steps), "twice": 2 * torch.arange(steps)})
    return memory


def test_every_pass_has_every_step_and_fills_its_last_minibatch_up() -> None:
    passes = [[minibatch["step"] for minibatch in minibatches] for minibatches in filled(4, 10).draw()]
    assert len(passes) == 2
    for minibatches in passes:
        assert [len(minibatch) for minibatch in minibatches] == [4, 4, 4]
        assert set(torch.cat(minibatches).tolist()) == set(range(10))
        assert minibatches[2][2:].tolist() == minibatches[0][:2].tolist()
    assert torch.cat(passes[0]).tolist() != torch.cat(passes[1]).tolist()


def test_columns_stay_together() -> None:
    for minibatches in filled(3, 8).draw():
        for minibatch in minibatches:
            assert (minibatch["twice"] == 2 * minibatch["step"]).all()


def test_a_batch_that_is_no_larger_is_one_minibatch_in_its_own_order() -> None:
    for size in (None, 10, 64):
        for minibatches in filled(size, 10).draw():
            assert [minibatch["step"].tolist() for minibatch in minibatches] == [list(range(10))]


def test_a_pass_that_is_left_out_draws_no_order() -> None:
    memory = filled(4, 10, n_epochs=5)
    passes = memory.draw()
    first = [minibatch["step"].tolist() for minibatch in next(passes)]
    next(passes)  # left out
    third = [minibatch["step"].tolist() for minibatch in next(passes)]
    again = filled(4, 10).draw()
    assert [[minibatch["step"].tolist() for minibatch in minibatches] for minibatches in again] == [first, third]


def test_what_is_remembered_is_drawn_in_windows() -> None:
    memory = Latest(2, 8, torch.Generator().manual_seed(0), length=4)
    begins = torch.zeros(22, dtype=torch.bool)
    begins[[0, 9]] = True
    memory.add({"step": torch.arange(22), BEGINS: begins, MEMORIES: torch.arange(22.0)[:, None]})
    for minibatches in memory.draw():
        drawn = [(minibatch["step"].view(-1, 4), minibatch) for minibatch in minibatches]
        assert [steps.shape for steps, _ in drawn] == [(2, 4)] * 3
        for steps, minibatch in drawn:
            assert (steps == steps[:, :1] + torch.arange(4)).all()
            assert (minibatch[MEMORIES].squeeze(1) == minibatch["step"]).all()
            inside = minibatch[BEGINS].view(-1, 4)
            assert inside[:, 0].all(), "a window begins from what was remembered then"
            assert (inside[:, 1:] == (steps == 9)[:, 1:]).all()
        assert set(torch.cat([steps[:, 0] for steps, _ in drawn]).tolist()) == {0, 4, 8, 12, 16, 18}
    assert begins.sum() == 2, "what was added stays as it was"


def test_a_pass_is_arranged_at_once() -> None:
    seen: list[list[int]] = []

    def arrange(columns: Columns) -> Columns:
        seen.append(list(columns["step"].shape))
        return {"step": -columns["step"]}

    memory = Latest(1, 4, torch.Generator(), arrange)
    memory.add({"step": torch.arange(8)})
    (minibatches,) = memory.draw()
    assert sorted(-int(step) for minibatch in minibatches for step in minibatch["step"]) == list(range(8))
    assert seen == [[2, 4]]
