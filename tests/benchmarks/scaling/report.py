"""The figures of ``make bench-scaling`` as a page to read."""

from __future__ import annotations

import statistics
from typing import Any

from tests.benchmarks.report import table

ROLES = {
    "driver": "driver",
    "store": "object stores of all nodes, the most they ever held",
    "raylets": "raylets of all nodes, less that",
    "gcs": "GCS, which remembers the last 100,000 tasks",
}


def times_one_node(rounds: list[dict[str, float]]) -> float:
    """What two nodes collect against one: the median of the rounds."""
    return statistics.median(found["nodes_2"] / found["nodes_1"] for found in rounds)


def unchanged(figures: dict[str, Any]) -> float:
    """Rollouts of each of the other actors beside a slow one, as a share of those of as many on their own."""
    rates = [figures[name]["rollouts_per_second_of_another"] for name in ("one slow", "without it")]
    return float(rates[0] / rates[1])


def growth(figures: dict[str, Any], role: str) -> float:
    """Megabytes from the first quarter of a run to its end."""
    memory = figures["memory"]
    return float(memory[-1][role] - memory[len(memory) // 4][role])


def markdown(figures: dict[str, Any], command: str) -> str:
    """The whole page."""
    options, runs, rounds = figures["options"], figures["simulated"], figures["real"]
    everyone, large = runs["all"], runs["large policy"]
    series = {name: found for name, found in runs.items() if name.endswith(" actors")}
    costs = [found["driver_ms_per_batch"] for found in series.values()]
    rows = [
        (
            name,
            f"{found['rollouts_per_update']}",
            f"{found['steps_per_second']:,.0f}",
            f"{found['driver_ms_per_batch']:.2f}",
            f"{found['loop_ms_per_batch']:.2f}",
            f"{found['turnaround_ms']['median']:.0f}, {found['turnaround_ms']['p99']:.0f}",
            f"{min(map(int, found['lags']))} to {max(map(int, found['lags']))} ({found['max_policy_lag']})",
            f"{found['dropped']:,.0f}",
        )
        for name, found in runs.items()
    ]
    memory, spread = everyone["memory"], everyone["broadcast"]
    bars = [
        ("steps/s that reach the learner, all actors", f"{everyone['steps_per_second']:,.0f}", "500,000"),
        ("driver's cost of a batch, most actors against fewest", f"{costs[-1] / costs[0]:.2f} ×", "1 ×"),
        ("… rollouts begun with an older policy after a new one was made", f"{spread['old_starts']} at most", "1"),
        (
            "rollouts of the others beside one actor that is ten times slower, against theirs without it",
            f"{unchanged(runs):.2f} ×",
            "1 ×",
        ),
        ("two real nodes of one core against one", f"{times_one_node(rounds):.2f} ×", "1.8 ×"),
    ]
    held = [
        (words, f"{memory[0][role]:.0f}", f"{memory[-1][role]:.0f}", f"{growth(everyone, role):+.1f}")
        for role, words in ROLES.items()
    ]
    reals = "; ".join(f"{found['nodes_1']:,.0f} and {found['nodes_2']:,.0f}" for found in rounds)
    installed = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    return f"""# Scaling

    {command}

on {figures["machine"]}; {installed}. All processes share the cores.

{table(("", "measured", "asked"), bars)}
{options["actors"]} simulated actors over {options["nodes"]} Ray nodes, a learner that only reads what comes, and the real driver between them. Together
the actors would bring {options["batches_per_second"]:g} batches of {figures["steps_per_batch"]:,} steps a second ({options["batches_per_second"] * figures["steps_per_batch"]:,.0f} steps/s) if nothing held them up.

{table(("", "rollouts per update", "steps/s", "driver's CPU, ms a batch", "of it its loop", "between rollouts, ms: median, p99", "lag (bound)", "dropped"), rows)}
- A step takes {figures["bytes_per_step"]:.1f} bytes, a batch {figures["bytes_per_step"] * figures["steps_per_batch"] / 1e3:,.0f} kB. The learner read a batch in {everyone["learner_ms_per_batch"]:.2f} ms.
- A policy was in use {spread["median"]:.2f} rollouts after it was made (median over actors and updates), everywhere after {spread["most"]:.2f};
  a policy of {figures["large_policy_bytes"] / 1e6:.1f} MB after {large["broadcast"]["median"]:.2f} and {large["broadcast"]["most"]:.2f}. An actor that had just set out needs one.
- An actor takes {everyone["actor_megabytes"]:.0f} MB of its own.
- LunarLander on EnvPool, steps/s of one node of one core and of two: {reals}.

{table((f"memory over {everyone['seconds']:.0f} s, MB", "at first", "at the end", "grown after the first quarter"), held)}"""
