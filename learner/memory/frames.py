"""Pictures that a memory holds once each, however many steps saw them; or rows of bytes that hold some: ``packing``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from actors.trees import Array


class Frames:
    """What T steps saw, [T, k · C, H, W] when it is read, of frames that follow one another and are held once.

    It is read with the channels last in memory, as CPUs convolve it fastest: bytes are put in order more cheaply than
    the numbers that they become, and once for all passes over a batch.

    Args:
        pool: [P, C, H, W] uint8: all frames, those of a step's past right before its own; packed ones are [P, 1, R].
        places: [T] int64: where in the pool each step's last frame is.
        window: k, the frames that a step sees.
    """

    def __init__(self, pool: Tensor, places: Tensor, window: int) -> None:
        self.pool, self.places, self.window = pool, places, window

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """What some of the steps saw: [B, k · C, H, W]."""
        return seen(self.pool, self.places[rows], self.window)

    def at(self, places: Tensor) -> Frames:
        """What steps at other places of the pool saw."""
        return Frames(self.pool, places, self.window)


def seen(pool: Tensor, places: Tensor, window: int) -> Tensor:
    """The frames up to each place, [B, window · C, H, W]; a pool that is a ring goes on from its end at its start."""
    around = (places[:, None] + torch.arange(1 - window, 1, device=places.device)) % len(pool)
    stacked = pool.index_select(0, around.flatten()).view(len(places), -1, *pool.shape[2:])
    # Of one channel both layouts are the same in memory, and oneDNN's kernels for the other name are faster.
    is_deep = stacked.ndim == 4 and stacked.shape[1] > 1
    return stacked.contiguous(memory_format=torch.channels_last) if is_deep else stacked


def select(steps: Tensor, rows: Tensor) -> Tensor:
    """Some of T steps, [B, …], in the layout that they have. Indexing is ten times slower where steps are pictures."""
    if steps.ndim == 4 and not steps.is_contiguous():
        return steps.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return steps.index_select(0, rows)


def join(steps: Tensor | Frames, after: Tensor | Frames, rows: Tensor) -> Tensor | Frames:
    """Rows of what T steps saw and what came after E segments, laid end to end."""
    if isinstance(steps, Frames) and isinstance(after, Frames):
        return steps.at(torch.cat([steps.places, after.places])[rows])
    assert isinstance(steps, Tensor)
    assert isinstance(after, Tensor)
    return torch.cat([steps, after])[rows]


class FrameRing:
    """The last ``size`` frames of all that were added, numbered from the first; allocated once, as ``like`` is.

    Args:
        like: [_, C, H, W] of such frames.
        size: frames that it holds.
        window: frames that a step sees.
    """

    def __init__(self, like: Tensor, size: int, window: int) -> None:
        self.window, self.added = window, 0
        self._ring = like.new_empty((size, *like.shape[1:]))

    @property
    def oldest(self) -> int:
        """The number of the oldest frame that is held."""
        return max(0, self.added - len(self._ring))

    def add(self, frames: Tensor) -> int:
        """Take in [P, C, H, W], over the oldest; answers the number of the first."""
        first = self.added
        self._ring = self._ring.to(frames.device)  # where a checkpoint was read it was elsewhere
        places = (first + torch.arange(len(frames), device=frames.device)) % len(self._ring)
        kept = frames[-len(self._ring) :]
        self._ring[places[len(frames) - len(kept) :]] = kept
        self.added += len(frames)
        return first

    def seen(self, numbers: Tensor) -> Tensor:
        """What steps saw whose last frames these are, [B, window · C, H, W]."""
        return seen(self._ring, numbers, self.window)

    def state(self) -> dict[str, Array]:
        """What it holds."""
        held = self._ring[: min(self.added, len(self._ring))].cpu().numpy().copy()
        return {"frames": held, "frame_counts": np.array([self.added, len(self._ring), self.window])}

    @staticmethod
    def from_state(state: dict[str, Array]) -> FrameRing | None:
        """One that holds what another held; None: there was none."""
        if "frames" not in state:
            return None
        added, size, window = (int(count) for count in state["frame_counts"])
        held = torch.from_numpy(state["frames"].copy())
        ring = FrameRing(held, size, window)
        ring._ring[: len(held)], ring.added = held, added
        return ring
