"""Frames that a memory holds once: what is drawn of a replay is what steps saw, whatever was overwritten."""

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.memory.frames import FrameRing, Frames, join, seen, select
from learner.memory.replay import Priorities, Replay

WINDOW = 3


def segments(rng: np.random.Generator, lengths: list[int]) -> tuple[dict[str, Frames | Tensor], Tensor, Tensor]:
    """Columns of a batch, and what its steps saw and saw next as whole stacks."""
    pools, places, after, start = [], [], [], 0
    for length in lengths:
        frames = torch.from_numpy(rng.integers(0, 256, (WINDOW - 1 + length + 1, 1, 2, 2), np.uint8))
        pools.append(frames)
        places += range(start + WINDOW - 1, start + WINDOW - 1 + length)
        start += len(frames)
        after.append(start - 1)
    steps = Frames(torch.cat(pools), torch.tensor(places), WINDOW)
    following = torch.tensor(places) + 1
    columns = {"observations": steps, "next_observations": steps.at(following), "numbers": torch.arange(len(steps))}
    return columns, steps[:], steps.at(following)[:]


def add(replay: Replay, rng: np.random.Generator, lengths: list[int], stacks: dict[int, tuple[Tensor, Tensor]]) -> None:
    """Add a batch whose steps are numbered on from those before, and note what they saw and saw next."""
    columns, whole, following = segments(rng, lengths)
    first = len(stacks)
    columns["numbers"] = torch.arange(first, first + len(whole))
    stacks |= {first + i: (whole[i], following[i]) for i in range(len(whole))}
    replay.add(columns)


def make_replay(capacity: int, priorities: Priorities | None = None) -> Replay:
    return Replay(capacity, 64, 4.0, 1, torch.Generator().manual_seed(0), priorities)


def assert_drawn_as_seen(replay: Replay, stacks: dict[int, tuple[Tensor, Tensor]]) -> set[int]:
    """That each step drawn is one that was added, as it saw; answers their numbers."""
    numbers = set()
    for minibatches in replay.draw():
        for drawn in minibatches:
            for number, now, following in zip(
                drawn["numbers"].tolist(), drawn["observations"], drawn["next_observations"], strict=True
            ):
                torch.testing.assert_close(now, stacks[number][0], rtol=0, atol=0)
                torch.testing.assert_close(following, stacks[number][1], rtol=0, atol=0)
                numbers.add(number)
    return numbers


@pytest.mark.parametrize("window", [1, 4])
def test_steps_are_selected_in_the_layout_that_they_have(window: int) -> None:
    pool = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 1, 6, 5), np.uint8))
    steps = seen(pool, torch.arange(10, 40), window)
    assert steps.is_contiguous(memory_format=torch.channels_last)
    rows = torch.tensor([7, 0, 7, 29])
    selected = select(steps, rows)
    torch.testing.assert_close(selected, steps[rows], rtol=0, atol=0)
    assert selected.stride() == steps.stride()
    torch.testing.assert_close(select(rows, torch.tensor([3, 1])), torch.tensor([29, 0]), rtol=0, atol=0)


def test_frames_are_read_as_stacks() -> None:
    columns, whole, _ = segments(np.random.default_rng(0), [2, 3])
    frames = columns["observations"]
    assert isinstance(frames, Frames)
    assert whole.shape == (5, WINDOW, 2, 2)
    torch.testing.assert_close(whole[0], frames.pool[:3, 0])
    torch.testing.assert_close(whole[2], frames.pool[5:8, 0])
    torch.testing.assert_close(frames[torch.tensor([4, 0])], whole[[4, 0]])
    joined = join(frames, frames.at(torch.tensor([4, 10])), torch.tensor([1, 5]))
    torch.testing.assert_close(joined[:], torch.stack([whole[1], frames.pool[2:5, 0]]))


def test_a_ring_goes_on_from_its_end_at_its_start() -> None:
    ring = FrameRing(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), 5, 2)
    frames = torch.arange(12, dtype=torch.uint8)[:, None, None, None]
    assert ring.add(frames[:4]) == 0
    assert ring.add(frames[4:7]) == 4
    assert ring.oldest == 2
    assert ring.seen(torch.tensor([6, 3])).flatten().tolist() == [5, 6, 2, 3]
    assert ring.add(frames) == 7
    assert ring.seen(torch.tensor([18])).flatten().tolist() == [10, 11]
    assert seen(frames, torch.tensor([1]), 2).flatten().tolist() == [0, 1]


@pytest.mark.parametrize("priorities", [None, Priorities(0.6, 0.4, 100)], ids=["uniform", "prioritised"])
def test_what_is_drawn_is_what_was_seen(priorities: Priorities | None) -> None:
    rng, replay, stacks = np.random.default_rng(1), make_replay(40, priorities), {}
    for lengths in ([10, 6], [5, 5, 6], [16], [4, 12], [8, 8]):
        add(replay, rng, lengths, stacks)
        drawn = assert_drawn_as_seen(replay, stacks)
        assert drawn == set(range(max(0, len(stacks) - 40), len(stacks)))


@pytest.mark.parametrize("priorities", [None, Priorities(0.6, 0.4, 100)], ids=["uniform", "prioritised"])
def test_steps_whose_frames_are_gone_are_not_drawn(priorities: Priorities | None) -> None:
    rng, replay, stacks = np.random.default_rng(2), make_replay(64, priorities), {}
    for lengths in ([16], [16], [16], [1] * 16, [1] * 16, [1] * 16, [1] * 16):
        add(replay, rng, lengths, stacks)
        drawn = assert_drawn_as_seen(replay, stacks)
        assert drawn <= set(range(len(stacks) - len(replay), len(stacks)))
        assert len(drawn) > 0.8 * len(replay)
    assert len(replay) < 64
    assert replay.figures()["memory_size"] == len(replay)
    assert any("give way to newer ones" in note for note in replay.notes())


def test_a_replay_of_frames_goes_on_from_its_state() -> None:
    rng, replay = np.random.default_rng(3), make_replay(24)
    replay.add(segments(rng, [20])[0])
    replay.add(segments(rng, [3, 7])[0])
    again = make_replay(24)
    again.load_state(replay.state())
    again._generator.set_state(replay._generator.get_state())
    more = segments(rng, [9])[0]
    for one in (replay, again):
        one.add(more)
    for mine, theirs in zip(replay.draw(), again.draw(), strict=True):
        for left, right in zip(mine, theirs, strict=True):
            for name in left:
                torch.testing.assert_close(left[name], right[name], rtol=0, atol=0)


def test_what_frames_take_counts_before_they_are_held() -> None:
    replay = make_replay(10**12)
    with pytest.raises(Exception, match="buffer_size is too large for the learner's machine"):
        replay.add(segments(np.random.default_rng(0), [20])[0])
