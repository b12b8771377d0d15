"""Observations of several parts, pictures among them, as rows of bytes: a memory holds them as it holds pictures."""

from __future__ import annotations

import numpy as np

from actors import trees
from actors.parts import leaf_spaces
from actors.pictures import Picture, pictures_in, pooled
from actors.spaces import Space
from actors.trees import Array, Tree


def pooling(seen: Space) -> Picture | Packing | None:
    """What puts a batch's pictures together, each frame once; None: such observations have none."""
    if isinstance(seen, Picture):
        return seen
    return Packing(seen) if any(pictures_in(seen)) else None


def as_learned(seen: Space, observations: Tree) -> Array:
    """Observations as networks in torch take them: [n, inputs], of pictures and rows of bytes [n, …] uint8."""
    source = pooling(seen)
    return source.packed(observations) if isinstance(source, Packing) else seen.encode(observations)


class Packing:
    """What is seen at a step as R bytes: all numbers as floats of 32 bits, then the newest frame of each picture.

    Args:
        seen: a space of parts, of which some are pictures.
    """

    def __init__(self, seen: Space) -> None:
        leaves = [*leaf_spaces(seen)]
        self.frames = max(leaf.frames for _, leaf in leaves if isinstance(leaf, Picture))
        """k: as many rows as a step sees, of the frames that the picture with the most of them holds."""
        self.number_bytes = sum(4 * leaf.inputs for _, leaf in leaves if not isinstance(leaf, Picture))
        self.parts: list[tuple[str, Space, slice]] = []
        """Each leaf, by its place: a picture's bytes of a row, or which of a row's floats are another's numbers."""
        number, byte = 0, self.number_bytes
        for name, leaf in leaves:
            if isinstance(leaf, Picture):
                size = leaf.inputs // leaf.frames
                self.parts.append((name, leaf, slice(byte, byte + size)))
                byte += size
            else:
                self.parts.append((name, leaf, slice(number, number + leaf.inputs)))
                number += leaf.inputs
        self._row_bytes = byte

    def packed(self, observations: Tree) -> Array:
        """Whole observations: [n, k, R] uint8."""
        rows = self._zeros(trees.length(observations), self.frames)
        self._put(rows, observations)
        return rows

    def pooled(self, newest: Tree, final: Tree, earlier: Tree, lengths: Array) -> tuple[Array, Array, Array]:
        """All rows of a batch, each once, [P, 1, R] uint8; and places in them, [T] and [E]: see ``pictures.pooled``."""
        steps, after = (self._zeros(trees.length(part), 1) for part in (newest, final))
        for rows, part in ((steps, newest), (after, final)):
            self._put(rows, part)
        before = self._zeros(len(lengths), self.frames - 1)
        self._put_pictures(before, dict(trees.leaves(earlier)))
        return pooled(steps, after, before[:, :, None], lengths)

    def _zeros(self, *shape: int) -> Array:
        return np.zeros((*shape, self._row_bytes), np.uint8)

    def _put(self, rows: Array, observations: Tree) -> None:
        """Write observations to rows [n, k, R], numbers to the last of each."""
        found = dict(trees.leaves(observations))
        numbers = [leaf.numbers(found[name]) for name, leaf, _ in self.parts if not isinstance(leaf, Picture)]
        if numbers:
            floats = np.concatenate(numbers, axis=1, dtype=np.float32)
            rows[:, -1, : self.number_bytes] = floats.view(np.uint8)
        self._put_pictures(rows, found)

    def _put_pictures(self, rows: Array, found: dict[str, Array]) -> None:
        """Write the frames of those pictures that were found to the last of rows [n, k, R]."""
        for name, leaf, place in self.parts:
            if isinstance(leaf, Picture) and name in found:
                planes = leaf.frame_planes(found[name])
                rows[:, rows.shape[1] - planes.shape[1] :, place] = planes
