"""A flight that somebody watches: one environment, flown by a served policy or by the viewer. Knows nothing of HTTP."""

from __future__ import annotations

import logging
import os
import random
from typing import Any

import msgspec
import numpy as np
from gymnasium.envs.box2d.lunar_lander import FPS, LunarLander

from actors.doom import is_doom
from actors.environments import MAX_EPISODE_STEPS, describe, fitting, stacked
from actors.episode import Array, EpisodeBatch
from actors.errors import UserError
from actors.making import close, fault, make_gymnasium
from actors.pace import steps_a_second
from actors.spaces import Discrete
from actors.trees import Tree, leaves
from actors.trust import require_named
from serve.service.policies import Policies
from serve.watch.bars import bounds_of, numbers_of, shown_of
from serve.watch.lander import MAIN_FUEL, SIDE_FUEL, Lander, Moon, Point, engines, lander_of, moon_of
from serve.watch.pictures import Pictures
from serve.watch.recording import Tape
from serve.watch.seen import View, seen, views_of
from serve.watch.stick import CONTINUOUS_LANDER, LANDER_STICK, Stick, stick_of
from serve.watch.targets import Target, target_of

log = logging.getLogger("touchdown")

MOST_SEEDS = 2**31


class Scene(msgspec.Struct, tag_field="type", tag="scene"):
    """What is sent once an episode."""

    policy: str
    version: int
    env_id: str
    seed: int
    fps: float
    """Steps a second in real time."""
    actions: list[str]
    """What the policy decides on: discrete actions, options of several choices, components of a continuous one."""
    bounds: list[Point | None]
    """The bounds of each continuous component, null where infinite, and of what is discrete; empty: all is discrete."""
    sampled: bool
    target: Target | None
    """The return that the policy acts for; None: for none in particular."""
    stick: Stick | None
    """None: only the policy can fly this."""
    moon: Moon | None
    """None: not LunarLander; frames carry the observation instead."""
    pictures: bool
    """Whether frames carry pictures that the environment draws, too."""
    sees: list[View]
    """The pictures that the policy sees; where there are some, frames carry these and no numbers of the observation."""
    kept: int | None = None
    """Episodes flown by people that the service has kept; None: it keeps none."""


class Frame(msgspec.Struct, tag_field="type", tag="frame", omit_defaults=True):
    """One step. The first of an episode, with t = 0, shows where it starts."""

    t: int
    pilot: str
    """policy, or you."""
    version: int
    reward: float
    total: float
    """The return so far."""
    target: float | None = None
    """The return that is asked for."""
    action: int | list[float] | None = None
    chosen: list[int] = []
    """The places of what was chosen among the scene's actions; of a continuous action none."""
    shown: dict[str, list[float | None]] = {}
    """What the policy makes of it, whoever flies: probabilities or values of discrete actions, the mean of a continuous
    one; null for the actions of parts that it makes something else of."""
    lander: Lander | None = None
    observation: list[float] | None = None
    picture: str | None = None
    """JPEG in base64; None: there is none, or the last one is recent."""
    seen: list[str] = []
    """The pictures that the policy sees, each a PNG in base64; empty: there are none, or the last ones are recent."""


class Landing(msgspec.Struct, tag_field="type", tag="landed"):
    """How an episode ended."""

    seed: int
    total: float
    steps: int
    outcome: str
    """landed, crashed, flew away, out of time; or, where nothing lands, ended."""
    version: int
    pilot: str
    """policy, you, or both."""
    target: float | None = None
    """The return that was asked for last."""


class Flight:
    """Episode after episode of one policy's environment, with seeds that count up.

    Args:
        policies: where the policy is looked up, anew at each step: it may have been swapped for a newer one.
        name: which of them.
        seed: of the first episode; None: a random one.
        sampled: the policy's actions are sampled; False: the most likely ones; None: as the policy does of itself.
        recorded: what the viewer flies is noted.

    Raises:
        UserError: no such policy, or its environment is not installed here or of an unsupported kind.
    """

    def __init__(
        self,
        policies: Policies,
        name: str | None,
        seed: int | None = None,
        sampled: bool | None = None,
        recorded: bool = False,
    ) -> None:
        served = policies.find(name)
        self._policies, self._recorded = policies, recorded
        self.name, self._spec = served.name, served.policy.spec
        self.sampled = self._spec.is_sampled if sampled is None else sampled
        self._asked: float | None = None
        require_named(self._spec.env_id, policies.modules)
        describe(self._spec.env_id)  # says in one line what is amiss
        # No render mode: with one, LunarLander adds particles to the world.
        self._env = make_gymnasium(self._spec.env_id, disable_env_checker=True)
        bare: Any = self._env.unwrapped
        self._lander: Any = bare if isinstance(bare, LunarLander) else None
        self.may_be_slow = not self._lander
        """Whether what it does may take long, as to draw does; a lander's step takes a twentieth of a millisecond."""
        self._views = views_of(self._spec.observation)
        self._pictures: Pictures | None = None
        if not self._lander and "rgb_array" in (self._env.metadata.get("render_modes") or ()):
            self._draw()
        self.fps = steps_a_second(self._env, otherwise=FPS)
        self._stick, self._sticks = self._hand_controls()
        self.stick: int | None = None
        self.scene = self.begin(seed)

    def _draw(self) -> None:
        """Have the environment draw itself, if it can here."""
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # pygame draws; it needs neither screen nor sound
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        try:
            drawing = make_gymnasium(self._spec.env_id, disable_env_checker=True, render_mode="rgb_array")
        except UserError as error:
            log.warning("%s is shown as lines: %s", self._spec.env_id, error)
            return
        close(self._env, self._spec.env_id)
        self._env, self._pictures = drawing, Pictures(drawing)

    def begin(self, seed: int | None = None) -> Scene:
        """Start an episode; ``seed`` None: a random one.

        Raises:
            EnvironmentFault: the environment raised.
        """
        self.seed = random.randrange(1_000_000) if seed is None else seed
        self._rng = np.random.default_rng(self.seed)
        try:
            self._observation, _ = self._env.reset(seed=self.seed)
        except Exception as error:
            raise fault(self._spec.env_id, "reset", error) from error
        self._pilots: set[str] = set()
        self.t, self.total, self._fuel, self.over = 0, 0.0, 0.0, False
        self._first_picture, self._first_seen = self.draw()
        served, spec = self._policies[self.name], self._spec
        target = target_of(served.policy.spec)
        if target and self._asked is not None:
            target.asked = self._asked
        self._memory = served.policy.start(1, np.array([target.asked]) if target else None)
        self._tape = Tape(spec.observation) if self._recorded else None
        names = [*self._stick.labels] if self._stick else served.policy.distribution.labels
        if self._lander and self._lander.continuous:
            names = ["main engine", "side engines"]
        moon = moon_of(self._lander) if self._lander else None
        self.scene = Scene(
            policy=self.name,
            version=served.version,
            env_id=spec.env_id,
            seed=self.seed,
            fps=self.fps,
            actions=names,
            bounds=bounds_of(spec.action),
            sampled=self.sampled,
            target=target,
            stick=self._stick,
            moon=moon,
            pictures=bool(self._pictures and self._pictures.works),
            sees=self._views,
        )
        return self.scene

    def _hand_controls(self) -> tuple[Stick | None, list[Any]]:
        """What the viewer may choose from, and the environment's actions for it."""
        if self._lander:
            return LANDER_STICK, CONTINUOUS_LANDER if self._lander.continuous else [*range(4)]
        stick, space = stick_of(self._env), self._spec.action
        return stick, [*range(space.start, space.start + space.n)] if isinstance(space, Discrete) else []

    def take(self, stick: int | None) -> None:
        """The viewer flies this from the next step on; None: the policy does.

        Raises:
            UserError: there is no such choice.
        """
        if stick is not None and not 0 <= stick < len(self._sticks):
            takes = f"0 to {len(self._sticks) - 1}" if self._sticks else "none: only the policy can fly it"
            raise UserError(f"{self._spec.env_id} takes {takes}; not {stick}")
        self.stick = stick

    def ask(self, target: float | None) -> None:
        """The policy acts for this return from the next step on; None: for its own.

        Raises:
            UserError: it acts for none in particular.
        """
        policy, mine = self._policies[self.name].policy, self.scene.target
        own = policy.spec.target_return
        if own is None or not mine:
            raise UserError(f"{self.name} acts for no return in particular: ask it for none")
        self._asked = target
        target = own if target is None else target
        self._memory = policy.rewarded(self._memory, np.array([mine.asked - target], np.float32))  # less is to come
        mine.asked = target

    def first_frame(self) -> Frame:
        """Where the episode starts."""
        frame = self._frame(self._policies[self.name].version, 0.0)
        frame.picture, frame.seen = self._first_picture, self._first_seen
        return frame

    def draw(self) -> tuple[str | None, list[str]]:
        """What the environment draws of itself now, see ``Pictures.newest``, and with it what the policy sees.

        At an episode's ends however recent the last picture is; but a game of Doom that is over is black.
        """
        if self.over and is_doom(self._env):
            return None, []
        picture = self._pictures.newest(at_once=self.over or not self.t) if self._pictures else None
        is_recent = picture is None and self._pictures is not None and self._pictures.works
        return picture, [] if is_recent or not self._views else seen(self._spec.observation, self._seen())

    def step(self) -> Frame:
        """One step of the environment. ``over`` says whether it was the episode's last.

        Raises:
            EnvironmentFault: the environment raised.
        """
        served = self._policies[self.name]
        policy = served.policy
        observation = self._seen()
        policy.require_actions(observation)
        sampled = self.sampled and self.stick is None
        noise = policy.distribution.noise(self._rng, (1,)) if sampled else None
        step = policy.step(observation, self._memory, noise)
        flown = fitting(step.actions, self._env.action_space)[0]
        action = flown if self.stick is None else self._sticks[self.stick]
        chosen = policy.distribution.chosen(step.sampled[0]) if self.stick is None else [self.stick]
        try:
            self._observation, given, self._terminated, truncated, _ = self._env.step(action)
            reward = float(given)
        except Exception as error:
            raise fault(self._spec.env_id, "step", error) from error
        memory = step.memory if self.stick is None else policy.acted(step.memory, np.asarray(action)[None])
        self._memory = policy.rewarded(memory, np.array([reward], np.float32))
        if self._tape and self.stick is not None and self.t < MAX_EPISODE_STEPS:
            self._tape.add(observation, action, reward)
        else:
            self._tape = None  # somebody else has flown a part of it, or it has no end
        self.t += 1
        self.total += reward
        self.over = bool(self._terminated or truncated)
        self._pilots.add("policy" if self.stick is None else "you")
        frame = self._frame(served.version, reward, action)
        frame.chosen = chosen
        frame.shown = shown_of(self._spec.action, step.shown)
        return frame

    def _seen(self) -> Tree:
        return stacked(self._spec.observation, [self._observation], self._spec.env_id, "reset or step")

    def _frame(self, version: int, reward: float, action: Any = None) -> Frame:
        pilot = "policy" if self.stick is None else "you"
        target = self.scene.target.asked if self.scene.target else None
        frame = Frame(self.t, pilot, version, round(reward, 2), round(self.total, 2), target)
        if action is not None:
            is_one = isinstance(self._spec.action, Discrete)
            numbers = [x for part in numbers_of(action) for x in _rounded(np.ravel(part), 3)]
            frame.action = int(action) if is_one else numbers
        if self._lander:
            main, side = engines(action) if action is not None else (0.0, 0.0)
            self._fuel += MAIN_FUEL * main + SIDE_FUEL * abs(side)
            frame.lander = lander_of(self._lander, main, side, self._fuel)
        elif not self._views:
            parts = leaves(self._seen())
            frame.observation = [x for _, part in parts for x in _rounded(part.ravel(), 4)]
        return frame

    def landed(self) -> Landing:
        """How the episode that is over ended."""
        pilot = "both" if len(self._pilots) > 1 else next(iter(self._pilots))
        version = self._policies[self.name].version
        target = self.scene.target.asked if self.scene.target else None
        return Landing(self.seed, round(self.total, 2), self.t, self._outcome(), version, pilot, target)

    def flown_by_hand(self) -> EpisodeBatch | None:
        """The episode that is over, if it is recorded and the viewer has flown all of it.

        Raises:
            NonFiniteError: it holds a NaN or an infinity.
        """
        return self._tape.episode(self._seen(), self._terminated) if self._tape else None

    def _outcome(self) -> str:
        if not self._terminated:
            return "out of time"
        if not self._lander:
            return "ended"
        if not self._lander.lander.awake:  # asked first, as the environment does: it then rewards the landing
            return "landed"
        return "crashed" if self._lander.game_over else "flew away"

    def close(self) -> None:
        """Free what the environment holds."""
        close(self._env, self._spec.env_id)


def _rounded(array: Array, digits: int) -> list[float]:
    return [round(x, digits) for x in array.tolist()]
