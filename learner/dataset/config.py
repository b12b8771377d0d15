"""Which recorded episodes are learned from."""

from __future__ import annotations

import dataclasses
import shlex

from actors.environment_name import parse
from actors.environments import EnvironmentInfo
from actors.errors import UserError
from learner.dataset.dataset import Dataset, open_dataset


def recorded_environment(location: str) -> str:
    """The environment that a dataset was recorded on, to fly on where nobody named another.

    Raises:
        UserError: there is no dataset, or its environment would import a module, which no file decides.
    """
    env_id = open_dataset(location).env_id
    for module in parse(env_id).modules:
        raise UserError(
            f"{location} is of {env_id}, which would import {module}, and nobody named that: add --env "
            f"{shlex.quote(env_id)} if you trust it"
        )
    return env_id


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """The episodes that a run learns from which flies nothing."""

    dataset: str | None = None
    """A directory of recorded episodes to learn from: a path, s3://… or gs://…; see learner.record. Presets bc, cql
    and dt learn so; None: actors fly."""
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

    def open_for(self, environment: EnvironmentInfo) -> Dataset:
        """The episodes, for who learns to fly an environment.

        Raises:
            UserError: they cannot be read, or are of one with other observations or actions.
        """
        dataset = self.open()
        for name, recorded, needed in (
            ("observation", dataset.observation, environment.observation),
            ("action", dataset.action, environment.action),
        ):
            if recorded.form != needed.form:
                raise UserError(
                    f"{dataset.location} was recorded on {dataset.env_id}: its {name} is {recorded.in_words()}, and "
                    f"{environment.env_id} has {needed.in_words()}; leave --env out to take that of the dataset"
                )
        return dataset
