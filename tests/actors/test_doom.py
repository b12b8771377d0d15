"""Doom: found by its bare ids, the same episode for the same seed, and gone with whoever plays it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import psutil
import pytest

from actors import doom_keeper
from actors.actor import RolloutActor
from actors.environment_name import parse
from actors.errors import UserError
from actors.making import make_gymnasium
from actors.rollout import RolloutConfig
from tests.actors.examples import policy_for
from tests.serve.served import wait_for

pytest.importorskip("vizdoom")

BASIC = "VizdoomBasic-v1(frame_skip=4, screen_resolution='RES_160X120', screen_format='GRAY8')"
SCREEN = f"{BASIC} | Screen(height=30, width=45)"

PLAYER = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has what it runs in the background ignore
from actors import doom
from actors.making import make_gymnasium

print(doom._keeper(), flush=True)
envs = [make_gymnasium({SCREEN!r}) for _ in range(2)]
for env in envs:
    env.reset(seed=0)
print("plays", flush=True)
exec(sys.stdin.read())
"""


def games(directory: Path) -> list[psutil.Process]:
    """Living games of the process whose directory this is."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(directory / "doom.ini") in word for word in process.cmdline()):
                found.append(process)  # one that has ended has no command, though nobody has asked for its status yet
        except psutil.Error:
            pass
    return found


def shared(game: psutil.Process) -> list[Path]:
    """Files of the memory that it shares, if they have names."""
    command = game.cmdline()
    return [*doom_keeper.SHARED.glob(f"ViZDoom*{command[command.index('+viz_instance_id') + 1]}")]


@pytest.fixture
def player(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PLAYER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        yield process
        process.kill()


def last_words(player: subprocess.Popen[str], code: str) -> None:
    player.communicate(code, timeout=60)


ENDS: dict[str, Callable[[subprocess.Popen[str]], None]] = {
    "SIGKILL": lambda player: player.kill(),
    "SIGTERM": lambda player: player.terminate(),
    "Ctrl-C": lambda player: player.send_signal(signal.SIGINT),
    "end": lambda player: last_words(player, ""),
    "closed": lambda player: last_words(player, "for env in envs: env.close()"),
    "exception": lambda player: last_words(player, "1 / 0"),
    "exit": lambda player: last_words(player, "os._exit(0)"),
    "children killed first": lambda player: last_words(
        player, "import psutil\nfor child in psutil.Process().children(): child.kill()\nos._exit(1)"
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_games_end_with_whoever_plays_them(player: subprocess.Popen[str], tmp_path: Path, end: str) -> None:
    assert player.stdout is not None
    directory = Path(player.stdout.readline().strip())
    assert player.stdout.readline() == "plays\n"
    playing = games(directory)
    assert len(playing) == 2
    assert not any(map(shared, playing))  # nothing has a name that could stay
    ENDS[end](player)
    wait_for(lambda: not games(directory))
    wait_for(lambda: not directory.exists())
    assert not [*tmp_path.iterdir()]


def test_games_do_not_wait_for_a_fork_of_who_played_them(player: subprocess.Popen[str]) -> None:
    assert player.stdout is not None
    directory = Path(player.stdout.readline().strip())
    code = "import signal\nif fork := os.fork(): print(fork, flush=True); os._exit(0)\nos.close(1); signal.pause()"
    fork = int(player.communicate(code, timeout=60)[0].split()[-1])
    try:
        wait_for(lambda: not directory.exists())
        assert not games(directory)
    finally:
        os.kill(fork, signal.SIGKILL)


def test_a_game_that_is_being_started_ends_too(player: subprocess.Popen[str]) -> None:
    assert player.stdout is not None
    directory = Path(player.stdout.readline().strip())
    (game,) = wait_for(lambda: games(directory))
    player.send_signal(signal.SIGSTOP)  # it would take the name away as soon as it has found the game's memory
    command = game.cmdline()
    instance = command[command.index("+viz_instance_id") + 1]
    wait_for(lambda: [*doom_keeper.SHARED.glob(f"ViZDoom*{instance}")])
    player.kill()
    wait_for(lambda: not directory.exists())
    assert not games(directory)
    assert not [*doom_keeper.SHARED.glob(f"ViZDoom*{instance}")]


def test_memory_that_somebody_shares_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doom_keeper, "SHARED", tmp_path)
    names = ("ViZDoomOpen", "ViZDoomMapped", "ViZDoomLeft", "other")
    for name in names:
        (tmp_path / name).write_bytes(bytes(64))
    with (tmp_path / "ViZDoomOpen").open() as _:
        mapped = np.memmap(tmp_path / "ViZDoomMapped", mode="r")
        doom_keeper.free_shared_memory()
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted({*names} - {"ViZDoomLeft"})
    del mapped


class Late(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Cannot be put around anything, but finds out late."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.reset()
        raise ZeroDivisionError("late")


def test_a_game_is_closed_where_its_wrapper_cannot_be_made() -> None:
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(UserError, match="Late raised ZeroDivisionError: late") as caught:
        make_gymnasium(f"{SCREEN} | {__name__}:Late")
    assert {child.pid for child in psutil.Process().children()} <= before
    del caught


def test_what_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom.gymnasium_wrapper", None)
    with pytest.raises(UserError) as caught:
        make_gymnasium("VizdoomBasic-v1")
    assert str(caught.value) == "environment 'VizdoomBasic-v1' needs vizdoom: pip install 'touchdown[doom]'"


def test_code_that_makes_a_game_imports_what_registers_it() -> None:
    exec("\n".join(["import gymnasium", *parse(SCREEN).code()]), scope := {})
    assert scope["env"].observation_space.shape == (30, 45)


def test_an_unknown_game_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match="unknown environment 'VizdoomBasik-v1'; did you mean VizdoomBasic-v1"):
        make_gymnasium("VizdoomBasik-v1")


def played(env: gymnasium.Env[Any, Any], seed: int) -> tuple[list[Any], list[float]]:
    """Screens and rewards of an episode of random actions, or its beginning."""
    rng, screens, rewards, is_over = np.random.default_rng(seed), [env.reset(seed=seed)[0]], [], False
    while not is_over and len(screens) < 40:
        screen, reward, terminated, truncated, _ = env.step(int(rng.integers(4)))
        screens.append(screen)
        rewards.append(float(reward))
        is_over = terminated or truncated
    return screens, rewards


def test_a_seed_decides_an_episode_whatever_was_played_before() -> None:
    env, other = make_gymnasium(SCREEN), make_gymnasium(SCREEN)
    try:
        first, second = played(env, 5), played(other, 6)
        again = played(other, 5)
    finally:
        env.close()
        other.close()
    assert again[1] == first[1] != second[1]
    np.testing.assert_array_equal(again[0], first[0])
    assert np.ptp(first[0]) > 100


def test_frames_of_a_screen_are_stacked() -> None:
    env = make_gymnasium(f"{SCREEN} | FrameStackObservation(stack_size=4)")
    try:
        observation, _ = env.reset(seed=0)
    finally:
        env.close()
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (4, 30, 45), np.uint8)
    assert (observation.shape, observation.dtype) == ((4, 30, 45), np.uint8)


# ---- Actors and commands


def game_of(process: psutil.Process) -> tuple[psutil.Process, Path] | None:
    """A living game that a process plays, or one below it, and the directory of who plays it."""
    for child in process.children(recursive=True):
        try:
            command = child.cmdline()
        except psutil.Error:
            continue
        if "+viz_instance_id" in command:
            return child, Path(command[command.index("-config") + 1]).parent
    return None


def are_gone(directory: Path) -> bool:
    return not games(directory) and not directory.exists()


@pytest.fixture
def actor(ray_cluster: None) -> Iterator[Any]:
    import ray

    actor: Any = ray.remote(RolloutActor).options(num_cpus=0).remote()
    assert ray.get(actor.prepare.remote(SCREEN, RolloutConfig(n_envs=2, n_steps=4), 0)) == "gymnasium"
    batch, _ = ray.get(actor.collect.remote(policy_for(SCREEN)))
    assert batch.num_steps == 8
    yield actor
    ray.kill(actor)


@pytest.mark.parametrize("end", ["ray.kill", "SIGKILL", "another environment"])
def test_games_end_with_their_actor(actor: Any, end: str) -> None:
    import ray

    worker = psutil.Process(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())))
    game, directory = wait_for(lambda: game_of(worker))
    if end == "ray.kill":
        ray.kill(actor)
    elif end == "SIGKILL":
        worker.kill()
    else:
        ray.get(actor.prepare.remote("CartPole-v1", RolloutConfig(n_envs=2, n_steps=4), 0))
        assert not games(directory)
        return
    wait_for(lambda: are_gone(directory))
    assert not game.is_running() or game.status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "plays"), [(signal.SIGKILL, False), (signal.SIGKILL, True), (signal.SIGINT, True)], ids=str
)
def test_games_end_with_the_command_that_trains(tmp_path: Path, number: int, plays: bool) -> None:
    """Its own Ray ends with the driver, and the actors with that, whether they play or their first game is starting."""
    command = [sys.executable, "-m", "learner.train", "--env", SCREEN, "--total-timesteps", "1000000", "--actors", "1"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with subprocess.Popen(
        [*command, "--n-envs", "4", "--n-steps", "8", "--no-video", "--run-dir", str(tmp_path / "run")],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as driver:
        try:
            _, directory = wait_for(lambda: flown_by_an_actor(driver))
            wait_for(lambda: not plays or (tmp_path / "run" / "metrics.jsonl").exists())
            driver.send_signal(number)
            driver.wait(timeout=120)
            wait_for(lambda: are_gone(directory))
        finally:
            driver.kill()


def flown_by_an_actor(driver: subprocess.Popen[Any]) -> tuple[psutil.Process, Path] | None:
    """A game that the command does not play itself to try the environment out, and the directory of who plays it."""
    assert driver.poll() is None
    found = game_of(psutil.Process(driver.pid))
    with contextlib.suppress(psutil.NoSuchProcess):
        return found if found and found[0].ppid() != driver.pid else None
    return None
