"""The course's other scenarios of Doom, learned from the screen with the doom preset, beside SB3's PPO.

python -m tests.benchmarks.scenarios --seeds 1

Both get the same steps, network and settings, those that ``learner.train`` takes for the scenario but for the reward
scale, which is ours. Every so many steps the mean return of the last 100 episodes of training is noted; the last
policies then fly 100 episodes on Gymnasium, greedily or, where the settings say so, sampled.
Writes tests/benchmarks/results/scenarios.json and the figure docs/course/doom.png.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from actors.trunks import TRUNKS
from learner.run.callback import Callback
from learner.run.config import TrainConfig, overlay
from learner.run.presets import preset
from learner.run.spares import Spares
from learner.run.trainer import Trainer
from learner.run.tuned import tuned_for, with_tuned
from tests.benchmarks.by_value import FIRST_RUN
from tests.benchmarks.measures import measure
from tests.benchmarks.pixels import peer
from tests.benchmarks.solving import fly

RESULTS = Path(__file__).parent / "results" / "scenarios.json"
FIGURE = Path(__file__).parents[2] / "docs" / "course" / "doom.png"
SCENARIOS = {"defend the center": "VizdoomDefendCenter-v1", "health gathering": "VizdoomHealthGathering-v1"}
SCREEN = (
    "(frame_skip=4, screen_resolution='RES_160X120', screen_format='GRAY8') | Screen(height=30, width=45) "
    "| FrameStackObservation(stack_size=4)"
)
STEPS, SPACING, EPISODES = 400_000, 20_000, 100


@dataclasses.dataclass(frozen=True)
class Scenarios:
    """Learn Doom's scenarios, and SB3's PPO beside."""

    parts: list[Literal["defend the center", "health gathering"]] = dataclasses.field(
        default_factory=lambda: ["defend the center", "health gathering"]
    )
    """What is learned anew; of the other the results stay."""
    seeds: int = 1
    """Runs of each; one of a scenario takes both ten minutes."""


class Curve(Callback):
    """Notes the mean return of the last 100 episodes as steps go by."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """See Callback."""
        steps = trainer.counters.total_timesteps
        if steps >= SPACING * (len(self.points) + 1) and "rollout/ep_rew_mean" in metrics:
            self.points.append((steps, metrics["rollout/ep_rew_mean"]))


def ours(config: TrainConfig, folder: Path, spares: Spares) -> dict[str, Any]:
    """A run of ours: its curve, its seconds, and what its last policy scores."""
    curve = Curve()
    result = Trainer(config, folder / "run", "doom", spares=spares, callbacks=[curve]).run()
    return {"curve": curve.points, "seconds": result.counters.seconds, **_told(fly(result.policy, EPISODES))}


def theirs(config: TrainConfig) -> dict[str, Any]:
    """The same of SB3's."""
    from stable_baselines3.common.evaluation import evaluate_policy

    model = peer(config, TRUNKS["small"])
    points, begun = [], time.perf_counter()
    for _ in range(STEPS // SPACING):
        model.learn(SPACING, reset_num_timesteps=False)
        returns = [episode["r"] for episode in model.ep_info_buffer]
        if returns:
            points.append((model.num_timesteps, float(np.mean(returns))))
    seconds = time.perf_counter() - begun
    is_greedy = not config.evaluation.sampled
    returns, _ = evaluate_policy(model, model.env, EPISODES, deterministic=is_greedy, return_episode_rewards=True)
    model.env.close()
    return {"curve": points, "seconds": seconds, **_told(np.array(returns))}


def _told(returns: Any) -> dict[str, float]:
    return {"mean": float(returns.mean()), "std": float(returns.std())}


def learned(env: str, seed: int, spares: Spares) -> dict[str, Any]:
    """Both on one scenario."""
    name = f"{env}{SCREEN}"
    tuned = tuned_for("doom", name)
    assert tuned
    changes = {"seed": seed, "stop": {"total_timesteps": STEPS}, "evaluation": {"eval_every": None}}
    config = overlay(with_tuned(preset("doom"), tuned, name), changes, "scenarios")
    with tempfile.TemporaryDirectory() as folder:
        return {"touchdown": ours(config, Path(folder), spares), "sb3": theirs(config)}


def draw() -> None:
    """The figure: a panel for each scenario, a line for each run."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    measured = json.loads(RESULTS.read_text())
    figure, axes = plt.subplots(1, len(SCENARIOS), figsize=(10, 3.6), layout="constrained")
    for axis, name in zip(axes, SCENARIOS, strict=True):
        for who, colour in (("touchdown", "#3b50c6"), ("sb3", "#c4622d")):
            for run in measured[name].values():
                steps, returns = np.array(run[who]["curve"]).T
                label = f"{who}, {run[who]['seconds']:.0f} s; then {run[who]['mean']:.1f} ± {run[who]['std']:.1f}"
                axis.plot(steps / 1000, returns, color=colour, label=label)
        axis.set(title=name, xlabel="thousand steps", ylabel="mean return of 100 episodes")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper left")
        axis.set_ylim(top=1.25 * axis.get_ylim()[1])
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    """Command line."""
    options = tyro.cli(Scenarios, prog="python -m tests.benchmarks.scenarios", description=__doc__)
    measures = {name: functools.partial(learned, env) for name, env in SCENARIOS.items()}
    measure(RESULTS, measures, options.parts, range(FIRST_RUN, FIRST_RUN + options.seeds))
    draw()


if __name__ == "__main__":
    main()
