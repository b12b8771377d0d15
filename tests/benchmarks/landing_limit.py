"""How much LunarLander-v3 can give: what its shaping leaves to be won, and the fuel of an ideal landing.

python -m tests.benchmarks.landing_limit

Rewards are differences of a potential Φ (Gymnasium's shaping), less fuel, and 100 for a landing; Φ is 20 at rest on
both legs. So a landing returns 120 − Φ(first observation) − fuel: what the first observation decides, no policy does.
Fuel is least in a fall straight down that is stopped at the last moment by the main engine; any way sideways, any
tilt and any caution cost more.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import gymnasium
import numpy as np
import tyro
from gymnasium.envs.box2d import lunar_lander
from rich.console import Console

FIRST_SEED = 3_000_000
_NOTHING, _MAIN_ENGINE = 0, 2
_FUEL = 0.3
"""Points that a step of the main engine costs."""


@dataclasses.dataclass(frozen=True)
class LandingLimit:
    """Print what a perfect lander would score."""

    landings: int = 1000
    """Episodes."""


def potential(observation: Any) -> float:
    """Φ of an observation, as gymnasium.envs.box2d.lunar_lander computes it."""
    x, y, vx, vy, angle, _, left, right = observation
    return float(-100 * np.hypot(x, y) - 100 * np.hypot(vx, vy) - 100 * abs(angle) + 10 * left + 10 * right)


def accelerations(env: Any) -> tuple[float, float]:
    """Downward in free fall, and upward of the main engine alone, in the world's units a step."""
    falls, thrusts = [], []
    for seed in range(100):
        env.reset(seed=seed)
        speeds = []
        for action in (_NOTHING, _NOTHING, _MAIN_ENGINE):
            env.step(action)
            speeds.append(env.unwrapped.lander.linearVelocity.y)
        falls.append(speeds[0] - speeds[1])
        thrusts.append(speeds[2] - speeds[1])
    gravity = statistics.fmean(falls)
    return gravity, statistics.fmean(thrusts) + gravity


def least_fuel(height: float, speed: float, gravity: float, thrust: float) -> float:
    """Points of fuel that stop a fall at the ground: burning begins where the speed it stops is reached."""
    peak = np.sqrt((height + speed**2 / (2 * gravity)) / (1 / (2 * gravity) + 1 / (2 * (thrust - gravity))))
    return float(_FUEL * peak / (thrust - gravity))


def main() -> None:
    """The command line."""
    command = tyro.cli(LandingLimit)
    env: Any = gymnasium.make("LunarLander-v3")
    gravity, thrust = accelerations(env)
    steps = lunar_lander.FPS
    legs = lunar_lander.LEG_DOWN / lunar_lander.SCALE
    unspent, burnt = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + command.landings):
        observation, _ = env.reset(seed=seed)
        lander = env.unwrapped.lander
        height = lander.position.y - env.unwrapped.helipad_y - legs
        unspent.append(120 - potential(observation))
        burnt.append(least_fuel(height * steps, lander.linearVelocity.y, gravity, thrust))  # in units and steps alone
    ideal = np.array(unspent) - burnt
    console = Console(highlight=False)
    console.print(f"{command.landings} first observations, seeds from {FIRST_SEED}")
    console.print(f"without fuel      {np.mean(unspent):.1f} ± {np.std(unspent):.1f}")
    console.print(
        f"ideal landing     {ideal.mean():.1f} ± {ideal.std():.1f}: mean − std {ideal.mean() - ideal.std():.1f}"
    )
    console.print(f"its fuel          {np.mean(burnt):.1f}")


if __name__ == "__main__":
    main()
