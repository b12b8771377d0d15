"""What a model card says, and that its code flies as it does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from huggingface_hub import ModelCard

from actors.environments import describe
from actors.evaluation import fly_episodes
from actors.policy import Policy
from learner.run.evaluation import summarise
from serve.hub.model_card import write_card
from serve.hub.package import is_package, write_package
from serve.hub.source import read_source
from tests.actors.examples import policy_for, random_policy

SCORE = summarise(np.array([9.0, 10.0]), None) | {
    "n_eval_episodes": 2,
    "first_seed": 0,
    "is_deterministic": True,
    "env_id": "CartPole-v1",
}
Flown = Callable[[Policy], tuple[str, list[float]]]


@pytest.fixture
def flown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Flown:
    """Packages a policy, and runs its card's code: the card, and what the code says that it scored by ours and ONNX."""

    def fly(policy: Policy) -> tuple[str, list[float]]:
        write_package(read_source(tmp_path, policy), SCORE, None, None, tmp_path)
        card = (tmp_path / "README.md").read_text()
        monkeypatch.chdir(tmp_path)
        for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
            exec(code, {})
        return card, [float(total) for total in capsys.readouterr().out.split()]

    return fly


def test_the_card_says_what_a_policy_gives_and_how_its_network_is_made(tmp_path: Path) -> None:
    shape = {"hidden_sizes": (8,), "layer_norm": True}
    spec = describe("Pendulum-v1").policy_spec(distribution="squashed_gaussian", **shape)
    write_card(read_source(tmp_path, random_policy(spec)), SCORE, None, None, tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "3 × 8 × 2 units with `tanh`\n(squashed_gaussian actions, hidden layers normalised)." in card


def test_the_card_says_what_a_game_needs_and_its_code_flies_it(tmp_path: Path, flown: Flown) -> None:
    pytest.importorskip("vizdoom")
    options = "frame_skip=4, screen_resolution='RES_160X120', screen_format='GRAY8'"
    policy = policy_for(f"VizdoomBasic-v1({options}) | Screen(height=30, width=45)", trunk="16x8/4 32x4/2")
    card, (ours, onnx) = flown(policy)
    assert "a network of convolutions `16x8/4 32x4/2` and " in card
    assert "`pip install onnxruntime gymnasium vizdoom` and Touchdown for its Screen:" in card
    assert imageio_ffmpeg.count_frames_and_secs(tmp_path / "replay.mp4")[0] > 3
    assert next(imageio_ffmpeg.read_frames(tmp_path / "replay.mp4"))["fps"] == 8.75
    assert ours == onnx


def test_the_cards_code_remembers(flown: Flown) -> None:
    policy = policy_for("CartPole-v1", memory="lstm", memory_size=8)
    card, totals = flown(policy)
    assert "a LSTM of 8 units stands before its output layer" in card
    returns, _, _ = fly_episodes(policy, [SCORE["first_seed"]])
    assert totals == [*returns, *returns]


def test_the_cards_code_acts_for_a_return(flown: Flown) -> None:
    network: dict[str, Any] = {"memory": "transformer", "memory_size": 8, "memory_window": 5}
    policy = policy_for("CartPole-v1", target_return=40.0, **network)
    card, (ours, onnx) = flown(policy)
    assert "It acts for a return that it is asked for, 40 unless it is another: a Decision Transformer" in card
    assert "attends to its last 5 steps. Its actions are sampled" in card
    (expected,), _, _ = fly_episodes(policy, [SCORE["first_seed"]], deterministic=False)
    assert (ours, onnx > 0) == (expected, True), "their noise is drawn otherwise"


@pytest.mark.parametrize(
    ("env_id", "shape"),
    [
        ("CartPole-v1", {}),
        ("CartPole-v1", {"memory": "gru"}),
        ("CartPole-v1", {"distribution": "epsilon_greedy"}),
        ("Pendulum-v1", {"distribution": "squashed_gaussian"}),
        ("tests.actors.fake_environments:Orders-v0", {}),
    ],
    ids=["as it is", "remembers", "by value", "squashed", "parts"],
)
def test_the_cards_code_samples_if_the_policy_is_made_for_that(
    env_id: str, shape: dict[str, Any], flown: Flown
) -> None:
    policy = policy_for(env_id, sampled=True, **shape)
    _, (ours, onnx) = flown(policy)
    if policy.spec.distribution in ("categorical", "squashed_gaussian"):  # others draw two numbers for a step
        (expected,), _, _ = fly_episodes(policy, [SCORE["first_seed"]], deterministic=False)
        assert ours == pytest.approx(expected, abs=1e-4)
    assert ours != 0
    assert onnx != 0, "its noise is drawn otherwise"


class Blind(gymnasium.Env[np.ndarray, int]):
    """One step, and nothing to see."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return np.zeros(2, self.observation_space.dtype), {}

    def step(self, action: int) -> Any:
        return np.zeros(2, self.observation_space.dtype), 1.0, True, False, {}


def test_an_environment_without_pictures_is_published_without_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gymnasium.registry, "Blind-v0", EnvSpec("Blind-v0", Blind))
    spec = describe("Blind-v0").policy_spec(hidden_sizes=(), trained={"preset": "vpg"})
    policy = Policy(spec, {"w0": np.zeros((2, 2), np.float32), "b0": np.zeros(2, np.float32)})
    returns, *_ = fly_episodes(policy, [1, 2])
    score = {"n_eval_episodes": 2, "first_seed": 1, "is_deterministic": True, **summarise(returns, None)}
    notes = write_package(read_source(tmp_path, policy), score, "user/somebody", None, tmp_path)
    assert any("no replay: Blind-v0 renders no pictures" in note for note in notes)
    assert not (tmp_path / "replay.mp4").exists()
    card = ModelCard((tmp_path / "README.md").read_text())
    assert "1.00 +/- 0.00" in card.text
    assert "replay.mp4" not in card.text
    assert is_package(tmp_path)


def test_the_card_of_a_policy_of_float64_gives_it_float64(monkeypatch: pytest.MonkeyPatch, flown: Flown) -> None:
    exact = type("Exact", (Blind,), {"observation_space": gymnasium.spaces.Box(-1, 1, (2,), np.float64)})
    monkeypatch.setitem(gymnasium.registry, "Exact-v0", EnvSpec("Exact-v0", exact))
    spec = describe("Exact-v0").policy_spec(hidden_sizes=(), normalize_observations=True)
    weights = {name: np.ones(shape, np.float32) for name, shape in spec.weight_shapes().items()}
    statistics = {name: np.ones(2) for name in ("observation_mean", "observation_std")}
    policy = Policy(spec, weights | statistics)
    card, totals = flown(policy)
    assert totals == [1.0, 1.0]
    assert "policy.act(" in card
    assert "np.asarray(observation, np.float64)" in card


@pytest.mark.parametrize("memory", ["none", "gru"])
@pytest.mark.parametrize("name", ["Parts", "Orders"])
def test_the_cards_code_flies_where_observations_and_actions_have_parts(name: str, memory: str, flown: Flown) -> None:
    card, (ours, onnx) = flown(policy_for(f"tests.actors.fake_environments:{name}-v0", memory=memory))
    assert ours == pytest.approx(onnx, abs=1e-6)
    part = {"Parts": "observation['there'][1]", "Orders": "observation['arms'][0]"}[name]
    assert f"np.asarray({part}, np.float32)" in card
