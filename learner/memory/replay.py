"""Replay: the last steps, drawn again and again, uniformly or by how wrong they were."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from actors.errors import UserError
from actors.trees import Array
from learner.memory.frames import FrameRing, Frames
from learner.memory.free import free_bytes
from learner.memory.memory import Columns
from learner.memory.sum_tree import SumTree

_DRAWN_AT_ONCE = 16
"""Uniform minibatches that are gathered in one call: a minibatch's bookkeeping costs as much as its copying."""
_SPARE_FRAMES = 1.1
"""Frames for which there is room, for each that the first batch had: of shorter segments more are needed."""
_MOST_OF_MEMORY = 0.8
"""Share of what is free that a replay may take."""


@dataclasses.dataclass(frozen=True)
class Priorities:
    """Prioritised replay (Schaul et al. 2016, arXiv:1511.05952): steps are drawn by how wrong they were.

    A step is drawn with probability p^α / Σ p^α, where p is its last error and a new one's the largest so far, and its
    loss weighed by (N · probability)^−β, over the largest weight of the minibatch (section 3.4).
    """

    alpha: float
    """α: 0 draws uniformly."""
    beta: float
    """β at first: 1 corrects for the drawing in full."""
    beta_steps: int
    """Steps taken in over which β rises to 1."""
    floor: float = 1e-6
    """Added to errors, so that every step can be drawn."""


class Replay:
    """The last ``capacity`` steps, as columns that are allocated once, on the device of what comes first.

    Args:
        capacity: steps that it holds.
        batch_size: steps in a minibatch.
        replay_ratio: minibatches drawn for each step that comes in.
        learning_starts: steps that it must hold before any is drawn.
        generator: draws; the same on all learners.
        priorities: None: every step is drawn as often as any other.
    """

    def __init__(
        self,
        capacity: int,
        batch_size: int,
        replay_ratio: float,
        learning_starts: int,
        generator: torch.Generator,
        priorities: Priorities | None = None,
    ) -> None:
        self._capacity, self._batch_size = capacity, batch_size
        self._ratio, self._learning_starts = replay_ratio, learning_starts
        self._generator = generator
        self._columns: Columns = {}
        self._inserted = self._drawn = 0
        self._owed = 0.0
        """Minibatches for steps that came in, and were not drawn yet: less than one between updates."""
        self._priorities = priorities
        self._tree: SumTree | None = None
        self._largest = 0.0
        """The largest p^α so far; 0: nothing was told yet."""
        self._places: Array = np.zeros(0, np.int64)
        """[B]: where the steps of the last minibatch are."""
        self._notes: list[str] = []
        self._frames: FrameRing | None = None
        self._pictures: set[str] = set()
        """Columns that hold places in the ring of frames."""
        self._lost = 0
        """How many of the steps that are held, the oldest, have frames that are no longer."""

    def __len__(self) -> int:
        """Steps that it holds."""
        return self._held - self._lost

    @property
    def _held(self) -> int:
        return min(self._inserted, self._capacity)

    def add(self, columns: Columns) -> None:
        """Take in steps, over the oldest.

        Raises:
            UserError: so many steps do not fit into this machine's memory.
        """
        if not self._columns:
            self._allocate(columns)
        columns = self._with_places(columns)
        count = len(next(iter(columns.values())))
        self._owed += self._ratio * count
        kept = min(count, self._capacity)
        places = (torch.arange(kept) + self._inserted + count - kept) % self._capacity
        for name, column in columns.items():
            self._columns[name] = self._columns[name].to(column.device)  # where a checkpoint was read it was elsewhere
            self._columns[name][places.to(column.device)] = column[count - kept :]
        if self._tree:
            self._tree.set(places.numpy(), np.full(kept, self._largest or 1.0))
        self._inserted += count
        if self._frames:
            self._lose()

    def _with_places(self, columns: Columns) -> Columns:
        """Columns whose pictures are in the ring of frames, in place of these where they are there."""
        pictures = {name: column for name, column in columns.items() if isinstance(column, Frames)}
        if not pictures:
            return columns
        assert self._frames is not None
        first = self._frames.add(next(iter(pictures.values())).pool)  # the same of all
        return {**columns, **{name: column.places + first for name, column in pictures.items()}}

    def _lose(self) -> None:
        """Count the steps whose first frames were overwritten: segments got so short that frames outnumber steps."""
        assert self._frames is not None
        places = self._columns["observations"][: self._held]
        before = self._lost
        self._lost = int((places - (self._frames.window - 1) < self._frames.oldest).sum())
        if self._tree and self._lost > 0:
            oldest = (self._inserted - self._held + np.arange(self._lost)) % self._capacity
            self._tree.set(oldest, np.zeros(len(oldest)))
        if self._lost > before == 0:
            self._notes.append("segments are shorter than at first: the oldest steps' frames give way to newer ones")

    def _allocate(self, columns: Columns) -> None:
        """Make room for ``capacity`` steps with such columns, and their priorities."""
        pictures = {name: column for name, column in columns.items() if isinstance(column, Frames)}
        columns = {**columns, **{name: column.places for name, column in pictures.items()}}
        sizes = {name: column.element_size() * math.prod(column.shape[1:]) for name, column in columns.items()}
        step, device = sum(sizes.values()), next(iter(columns.values())).device
        some, frames = next(iter(pictures.values()), None), 0
        if some is not None:
            share = _SPARE_FRAMES * len(some.pool) / len(some)
            frames = int(share * self._capacity) + len(some.pool)
            step += round(share * some.pool[0].numel())
        total = step * self._capacity
        needs = total + (SumTree.bytes_for(self._capacity) if self._priorities else 0)
        free = free_bytes(device)
        words = f"{self._capacity:,} steps of {step:,} bytes: {total / 1e6:,.0f} MB"
        if needs > _MOST_OF_MEMORY * free:
            raise UserError(
                f"buffer_size is too large for the learner's machine: {words}, and {free / 1e6:,.0f} MB are free; "
                f"{int(_MOST_OF_MEMORY * free / (needs / self._capacity)):,} would fit"
            )
        self._notes.append(f"replay memory of {words}")
        if some is not None:
            self._frames = FrameRing(some.pool, frames, some.window)
            self._pictures = set(pictures)
        self._tree = SumTree(self._capacity) if self._priorities else None
        self._columns = {
            name: column.new_empty((self._capacity, *column.shape[1:])) for name, column in columns.items()
        }

    def draw(self) -> Iterator[Iterable[Columns]]:
        """One pass, of as many minibatches as the steps that came in since are worth; none before it holds enough."""
        if len(self) < max(self._learning_starts, 1):
            self._owed = 0.0
            return
        count = int(self._owed + 1e-9)
        self._owed -= count
        self._drawn += count * self._batch_size
        if count:
            yield self._by_priority(count) if self._tree else self._uniformly(count)

    def _uniformly(self, count: int) -> Iterator[Columns]:
        size = self._batch_size
        for first in range(0, count, _DRAWN_AT_ONCE):
            some = min(_DRAWN_AT_ONCE, count - first)
            places = torch.randint(len(self), (some * size,), generator=self._generator)
            if self._lost:
                places = (places + self._inserted - len(self)) % self._capacity
            drawn = self._at(places)
            for i in range(some):
                yield {name: column[i * size : (i + 1) * size] for name, column in drawn.items()}

    def _by_priority(self, count: int) -> Iterator[Columns]:
        assert self._tree is not None
        assert self._priorities is not None
        for _ in range(count):
            # One from each of B equal parts of the sum, as the paper has it.
            parts = torch.rand(self._batch_size, generator=self._generator, dtype=torch.float64).numpy()
            self._places, shares = self._tree.find((np.arange(self._batch_size) + parts) / self._batch_size)
            weights = (len(self) * shares) ** -self._beta
            weights /= weights.max()
            drawn = self._at(torch.from_numpy(self._places))
            some = next(iter(drawn.values()))
            yield {**drawn, "weights": torch.from_numpy(weights.astype(np.float32)).to(some.device)}

    @property
    def _beta(self) -> float:
        assert self._priorities is not None
        risen = min(1.0, self._inserted / self._priorities.beta_steps)
        return self._priorities.beta + (1 - self._priorities.beta) * risen

    def _at(self, places: Tensor) -> Columns:
        drawn = {name: column.index_select(0, places.to(column.device)) for name, column in self._columns.items()}
        for name in self._pictures:
            assert self._frames is not None
            drawn[name] = self._frames.seen(drawn[name])
        return drawn

    @property
    def heeds_errors(self) -> bool:
        """Whether steps are drawn by them."""
        return self._priorities is not None

    def told(self, errors: Tensor) -> None:
        """Steps of the last minibatch are drawn by these errors from now on, [B]; uniform drawing heeds none."""
        if not self._tree:
            return
        assert self._priorities is not None
        priorities = (errors.cpu().numpy().astype(np.float64) + self._priorities.floor) ** self._priorities.alpha
        self._largest = max(self._largest, float(priorities.max()))
        self._tree.set(self._places, priorities)

    def figures(self) -> dict[str, float]:
        """Steps that it holds, and how often a step that came in was drawn so far, on average."""
        return {"memory_size": len(self), "samples_per_insert": self._drawn / max(1, self._inserted)}

    def notes(self) -> list[str]:
        """How much memory it takes, once."""
        notes, self._notes = self._notes, []
        return notes

    def state(self) -> dict[str, Array]:
        """What it holds: as many bytes as it takes."""
        counts = np.array([self._capacity, self._inserted, self._drawn, self._owed, self._largest])
        held = {
            f"{'frame_of' if name in self._pictures else 'column'}.{name}": column[: self._held].cpu().numpy().copy()
            for name, column in self._columns.items()
        }
        priorities = {"priorities": self._tree.get(np.arange(self._held))} if self._tree else {}
        frames = self._frames.state() if self._frames else {}
        return {"counts": counts, **held, **priorities, **frames}

    def load_state(self, state: dict[str, Array]) -> None:
        """Hold what another of the same options held; of a state that is empty nothing.

        Raises:
            UserError: it was of another size, or its steps had no priorities.
        """
        if not state:
            self._notes.append("the checkpoint holds no replay memory: it is filled anew before anything is learned")
            return
        capacity, inserted, drawn, owed, largest = (float(count) for count in state["counts"])
        named = {kind: _under(f"{kind}.", state) for kind in ("column", "frame_of")}
        arrays = {**named["column"], **named["frame_of"]}
        held = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        if capacity != self._capacity:
            raise UserError(f"the checkpoint's memory is of buffer_size {int(capacity)}, not {self._capacity}")
        if self._priorities and held and "priorities" not in state:
            raise UserError("the checkpoint's memory has no priorities: it was drawn from uniformly")
        self._inserted, self._drawn, self._owed, self._largest = int(inserted), int(drawn), owed, largest
        self._columns, self._tree = {}, None
        self._frames = FrameRing.from_state(state)
        self._pictures = {*named["frame_of"]}
        if held:
            self._allocate(held)
        for name, column in held.items():
            self._columns[name][: len(column)] = column
        if self._tree:
            self._tree.set(np.arange(len(state["priorities"])), state["priorities"])
        if self._frames:
            self._lose()


def _under(prefix: str, state: dict[str, Array]) -> dict[str, Array]:
    """What of a state has names with a prefix, by the names without it."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
