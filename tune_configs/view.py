"""Which columns of a log tell how a run did: training returns, or evaluations where nothing is flown to learn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tune_configs.experiment import Trial


@dataclasses.dataclass(frozen=True)
class View:
    """What is shown of runs, as columns of their logs and words."""

    mean: str
    """The column of the mean return."""
    best: str
    """The column of the best mean return so far."""
    title: str
    words: str
    """Of that mean."""
    costs: dict[str, tuple[str, str]]
    """What returns are shown against, by name, the first by itself: a column and words."""
    counted: str
    """The one of those that is told of a threshold."""
    losses: str
    """The name of the figure of losses."""
    panels: tuple[tuple[str, str], ...]
    """Of that figure: titles and columns."""
    panel_cost: tuple[str, str]
    """What they are shown against."""


FLOWN = View(
    mean="rollout/ep_rew_mean",
    best="rollout/best_ep_rew_mean",
    title="Return in training",
    words="mean return of the last 100 training episodes",
    costs={
        "steps": ("time/total_timesteps", "environment steps"),
        "episodes": ("time/episodes", "episodes"),
        "seconds": ("time/time_elapsed", "seconds"),
    },
    counted="episodes",
    losses="four_panels",
    panels=(
        ("policy loss", "train/policy_gradient_loss"),
        ("baseline: mean of the returns to go", "train/mean_return_target"),
        ("entropy loss", "train/entropy_loss"),
        ("mean reward of the last 100 episodes", "rollout/ep_rew_mean"),
    ),
    panel_cost=("time/episodes", "episodes"),
)

RECORDED = View(
    mean="eval/mean_reward",
    best="eval/best_mean_reward",
    title="Return of evaluations beside training",
    words="mean return of evaluations beside training",
    costs={"updates": ("eval/policy_version", "updates"), "seconds": ("time/time_elapsed", "seconds")},
    counted="updates",
    losses="losses",
    panels=(
        ("loss: surprise at recorded actions, in nats", "train/loss"),
        ("entropy loss", "train/entropy_loss"),
    ),
    panel_cost=("train/n_updates", "updates"),
)


def view_of(trials: Sequence[Trial]) -> View:
    """The view of an experiment's trials."""
    return RECORDED if any(trial.is_recorded for trial in trials) else FLOWN
