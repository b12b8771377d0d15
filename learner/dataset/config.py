"""Which recorded episodes are learned from."""

from __future__ import annotations

import dataclasses

from actors.errors import UserError
from learner.dataset.dataset import Dataset, open_dataset


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """The episodes that a run learns from which flies nothing."""

    dataset: str | None = None
    """A directory of recorded episodes to learn from: a path, s3://… or gs://…; see learner.record. Presets bc and dt
    learn so; None: actors fly."""
    best_share: float = 1.0
    """The share of its episodes that is learned from, those of the highest returns."""

    def __post_init__(self) -> None:
        if not 0 < self.best_share <= 1:
            raise UserError(f"best_share must lie above 0 and be at most 1, not {self.best_share}")

    def open(self) -> Dataset:
        """The episodes.

        Raises:
            UserError: they cannot be read.
        """
        assert self.dataset is not None
        return open_dataset(self.dataset).best(self.best_share)
