"""LunarLander as a viewer sees it: the moon, the lander, its engines. World units are metres."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from gymnasium.envs.box2d.lunar_lander import SCALE, VIEWPORT_H, VIEWPORT_W

LANDER_ACTIONS = ("nothing", "left engine", "main engine", "right engine")
MAIN_FUEL, SIDE_FUEL = 0.3, 0.03
"""What a step with an engine at full power costs, in LunarLander's reward and in our fuel figure."""

Point = tuple[float, float]


class Moon(msgspec.Struct):
    """What stays where it is in LunarLander, and the shapes of what moves. World units are metres."""

    size: Point
    """Width and height of the world."""
    terrain: list[Point]
    """From left to right."""
    pad: tuple[float, float, float]
    """x of its ends, and y."""
    body: list[Point]
    """The lander's outline about its own position."""
    leg: list[Point]
    rest: float
    """y of the lander's position when it stands on the pad."""


class Lander(msgspec.Struct):
    """Where LunarLander's lander is: metres, metres a second, radians counter-clockwise."""

    x: float
    y: float
    angle: float
    vx: float
    vy: float
    legs: tuple[tuple[float, float, float], ...]
    """x, y and angle of each."""
    contacts: tuple[bool, bool]
    main: float
    """Power of the main engine in this step, 0 to 1."""
    side: float
    """Power of the side engines: negative tilts to the left, positive to the right."""
    fuel: float
    """Used so far, in points of return."""


def moon_of(env: Any) -> Moon:
    """The scene of a LunarLander that was reset."""
    terrain = [env.sky_polys[0][0], *(polygon[1] for polygon in env.sky_polys)]
    body, leg = ([_point(v) for v in part.fixtures[0].shape.vertices] for part in (env.lander, env.legs[0]))
    return Moon(
        (VIEWPORT_W / SCALE, round(VIEWPORT_H / SCALE, 3)),
        [_point(point) for point in terrain],
        (round(env.helipad_x1, 3), round(env.helipad_x2, 3), round(env.helipad_y, 3)),
        body,
        leg,
        round(env.helipad_y + 18 / SCALE, 3),  # 18: LunarLander's LEG_DOWN, and its state's zero
    )


def lander_of(env: Any, main: float, side: float, fuel: float) -> Lander:
    """The state of a LunarLander."""
    body, (left, right) = env.lander, env.legs
    position, velocity = body.position, body.linearVelocity
    return Lander(
        round(position.x, 3), round(position.y, 3), round(body.angle, 4),
        round(velocity.x, 3), round(velocity.y, 3),
        tuple((round(leg.position.x, 3), round(leg.position.y, 3), round(leg.angle, 3)) for leg in (left, right)),
        (left.ground_contact, right.ground_contact),
        round(main, 2), round(side, 2), round(fuel, 2),
    )  # fmt: skip


def engines(action: Any) -> tuple[float, float]:
    """Power of LunarLander's main engine, 0 to 1, and of its side engines, −1 to 1, for either kind of action."""
    if np.ndim(action) == 0:
        return float(action == 2), float(action - 2 if action in (1, 3) else 0)
    up, across = (min(max(float(a), -1.0), 1.0) for a in action)
    main = (up + 1) / 2 if up > 0 else 0.0
    return main, across if abs(across) > 0.5 else 0.0


def _point(point: Any) -> Point:
    return round(float(point[0]), 3), round(float(point[1]), 3)
