"""The figures of ``make bench`` as a page to read: what was measured, the ratio, the bar."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

NAMES = {
    "ours": "Touchdown, the course's recipe",
    "ours_preset": "Touchdown, its own preset",
    "rllib": "RLlib PPO",
    "sb3_no_render": "Stable-Baselines3 PPO, no render mode",
    "sb3_as_course": "Stable-Baselines3 PPO, as the course runs it",
    "ceiling": "environments alone (EnvPool), random actions",
    "ceiling_gymnasium": "environments alone (Gymnasium), random actions",
}
PRESET_BARS = {"cpg": 80, "aac": 100, "ppo": 200}


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = [list(header)]
    body = [[str(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [*lines, ["---"] * len(lines[0]), *body]) + "\n"


def solve_seconds(run: dict[str, Any]) -> float:
    """Seconds to solve; of a run that never did, the seconds it had: a lower bound."""
    return float((run["solved"] or run["stopped"])["seconds"])


def median_to_solve(runs: list[dict[str, Any]]) -> str:
    """The median in words, with ≥ where it is a bound."""
    bound = "" if sum(run["solved"] is not None for run in runs) * 2 > len(runs) else "≥ "
    return f"{bound}{statistics.median(map(solve_seconds, runs)):.1f}"


def markdown(figures: dict[str, Any], command: str) -> str:
    """The whole page."""
    rates = figures["steps_per_second"]
    solved = figures["to_solve"]
    ours_seconds = statistics.median(map(solve_seconds, solved["ours"]))
    precise, footprint, update = figures["precise"], figures["footprint"], figures["update"]
    versions = ", ".join(
        f"{name} {version}" for name, version in figures["versions"].items() if version != "not installed"
    )
    bars = {"ceiling": "0.3 ×", "rllib": "5 ×", "sb3_no_render": "6 ×", "sb3_as_course": "15 ×"}
    throughput = [
        (NAMES[name], f"{rate:,.0f}", "" if name == "ours" else f"{rates['ours'] / rate:.3g} ×", bars.get(name, ""))
        for name, rate in rates.items()
    ]
    to_solve = [
        (
            NAMES["ours_preset" if name == "ours" else name],
            median_to_solve(runs),
            ", ".join(f"{solve_seconds(run):.1f}{'' if run['solved'] else ' (not solved)'}" for run in runs),
            ", ".join(f"{run['solved']['steps']:,}" if run["solved"] else "–" for run in runs),
            "" if name == "ours" else f"{statistics.median(map(solve_seconds, runs)) / ours_seconds:.1f} ×",
        )
        for name, runs in solved.items()
    ]
    presets = [
        (name, ", ".join(f"{run['best_mean_return']:.1f}" for run in runs), PRESET_BARS.get(name, ""),
         f"{statistics.median(run['seconds'] for run in runs):.0f}")
        for name, runs in figures["presets"].items()
    ]  # fmt: skip
    updates = [
        (
            row["batch_size"],
            f"{row['samples_per_second']['recorded']:,.0f}",
            f"{row['samples_per_second']['not_recorded']:,.0f}",
            f"{row['samples_per_second']['eager_pytorch']:,.0f}",
            f"{row['times_eager']:.2f} ×",
            f"{row['share_of_floor']:.0%}",
        )
        for row in update["rows"]
    ]
    return f"""# Benchmark

`{command}` on {figures["machine"]}; {versions}.
Compare the ratios, not the absolute figures: they move from machine to machine.

## Training throughput, PPO on LunarLander-v3

Steps a second over the first {figures["throughput_steps"]:,} steps: same network, PPO settings and cores for all (16
environments × 1,024 steps, minibatches of 64, 4 epochs), but for Touchdown's own preset.

{table(("", "steps/s", "the recipe in Touchdown against it", "at least"), throughput)}
## Time to solve

Seconds from the start of collection to the first policy that averages 200 or more over 100 greedy Gymnasium episodes.
Every update's policy was kept and flown after the run, by the same rule for all; peers use the course's recipe.

{table(("", "median s", "each run, s", "steps", "ours is faster by"), to_solve)}
## Best score

`python -m learner.train --config tune_configs/best/LunarLander-v3.json`: {precise["steps"]:,} steps in
{precise["seconds"]:.0f} s; over 1,000 greedy Gymnasium episodes **{precise["mean_reward"]:.1f} ± {precise["std_reward"]:.1f}**
(mean − std {precise["mean_minus_std"]:.1f}, median {precise["median_reward"]:.1f}, worst {precise["worst_reward"]:.1f}).

## Every preset learns

Beresheet-v2, 6,000 episodes, best running mean over 100 training episodes.

{table(("preset", "best running mean", "at least", "seconds"), presets)}
## Footprint

First update {footprint["seconds_to_first_update"]:.1f} s after the command. In a run of {footprint["run_seconds"]:,.0f} s the largest
actor took {footprint["largest_mb"]["actor"]:.0f} MB, the learner {footprint["largest_mb"]["learner"]:.0f} MB, the driver
{footprint["largest_mb"]["driver"]:.0f} MB; from its first quarter to its end they grew by {footprint["growth_mb"]["actor"]:.1f},
{footprint["growth_mb"]["learner"]:.1f} and {footprint["growth_mb"]["driver"]:.1f} MB.

## The update alone ({update["device"]})

Samples a second through {update["epochs"]} epochs of a batch of {update["steps"]:,} steps. The floor is the matrix products alone on a
CPU, and as many empty kernels in a CUDA graph on a GPU.

{table(("minibatch", "recorded", "not recorded", "plain eager PyTorch", "recorded against eager", "of the floor"), updates)}"""
