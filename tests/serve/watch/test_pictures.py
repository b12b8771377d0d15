"""Pictures that environments draw of themselves, as they are sent."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors.errors import EnvironmentFault, UserError
from actors.making import make_gymnasium
from serve.watch.flight import Flight
from serve.watch.pictures import Pictures, encoded
from tests.actors import fake_environments
from tests.actors.examples import policy_for
from tests.serve.watching import saved


def picture(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_a_picture_is_small_and_like_what_was_drawn() -> None:
    pixels = np.zeros((300, 1200, 3), np.uint8)
    pixels[:, 600:] = (200, 100, 50)
    found = picture(encoded(pixels))
    assert (found.format, found.size) == ("JPEG", (800, 200))
    assert np.abs(np.asarray(found)[100, 700] - np.array([200.0, 100, 50])).max() < 6
    assert picture(encoded(pixels[:, :500])).size == (500, 300)


def test_flights_carry_pictures_thirty_times_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("serve.watch.pictures.time.monotonic", lambda: now[0])
    flight = Flight(saved(tmp_path, {"cart": policy_for("CartPole-v1")}), "cart", seed=1)
    assert flight.scene.pictures
    assert picture(flight.first_frame().picture).size == (600, 400)
    drawn = 0
    for _ in range(50):
        now[0] += 0.01
        if flight.over:
            flight.begin(1)
        flight.step()
        drawn += flight.draw()[0] is not None and not flight.over  # at an episode's end it is drawn in any case
    assert 9 <= drawn <= 16
    flight.close()


@pytest.mark.parametrize("parts", [False, True])
def test_what_a_policy_sees_is_sent_beside_what_is_drawn(parts: bool, tmp_path: Path) -> None:
    name = f"Painted-v0(parts={parts})"
    flight = Flight(saved(tmp_path, {"one": policy_for(name, hidden_sizes=())}), "one", seed=1)
    assert flight.scene.actions == ["noop", "move left", "up right fire"]
    assert flight.fps == 20
    (view,) = flight.scene.sees
    assert (view.name, view.width, view.height, view.frames) == ("eye" if parts else "", 12, 12, 1)
    flight.take(1)
    frame = flight.first_frame()
    for place in (6, 5, 4):
        assert frame.observation is None
        assert picture(frame.picture).size == (24, 24)
        (sent,) = frame.seen
        assert np.argwhere(np.asarray(picture(sent))[2, :, 0]).tolist() == [[place]]
        frame = flight.step()
        frame.picture, frame.seen = flight.draw()
        while frame.picture is None:  # the last one is recent, and so is what was seen
            assert frame.seen == []
            frame.picture, frame.seen = flight.draw()
    flight.close()


def test_what_a_policy_sees_is_sent_where_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_environments.Painted, "metadata", {"render_modes": []})
    flight = Flight(saved(tmp_path, {"one": policy_for("Painted-v0", hidden_sizes=())}), "one", seed=1)
    assert not flight.scene.pictures
    flight.step()
    drawn, (sent,) = flight.draw()
    assert drawn is None
    assert picture(sent).size == (12, 12)
    flight.close()


def test_a_game_of_doom_that_is_over_stays_in_sight(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    name = "VizdoomBasic-v1(frame_skip=30) | Screen(height=30, width=45)"
    flight = Flight(saved(tmp_path, {"doom": policy_for(name, hidden_sizes=())}), "doom", seed=1)
    assert flight.fps == pytest.approx(35 / 30)
    while not flight.over:
        drawn, seen = flight.draw()
        assert drawn is None or np.asarray(picture(drawn)).any()
        assert len(seen) == (drawn is not None)
        flight.step()
    assert flight.draw() == (None, [])
    flight.close()


def test_a_lander_is_drawn_by_the_page(tmp_path: Path) -> None:
    flight = Flight(saved(tmp_path, {"lander": policy_for("LunarLander-v3")}), "lander", seed=1)
    assert not flight.scene.pictures
    assert flight.first_frame().picture is None
    flight.close()


@pytest.mark.parametrize("drawn", [None, 3, np.zeros(4), OSError("no screen")])
def test_what_cannot_be_drawn_is_said_once(
    drawn: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    env = make_gymnasium("CartPole-v1", render_mode="rgb_array")

    def render() -> Any:
        if isinstance(drawn, Exception):
            raise drawn
        return drawn

    monkeypatch.setattr(env, "render", render)
    pictures = Pictures(env)
    with caplog.at_level(logging.WARNING, logger="touchdown"):
        assert pictures.newest(at_once=True) is None
        assert pictures.newest(at_once=True) is None
    assert not pictures.works
    assert len(caplog.messages) == 1
    assert "draws no pictures" in caplog.messages[0]


def test_an_environment_that_cannot_be_drawn_here_is_shown_as_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def make(env_id: str, **options: Any) -> Any:
        if "render_mode" in options:
            raise UserError("no screen")
        return make_gymnasium(env_id, **options)

    monkeypatch.setattr("serve.watch.flight.make_gymnasium", make)
    with caplog.at_level(logging.WARNING, logger="touchdown"):
        flight = Flight(saved(tmp_path, {"cart": policy_for("CartPole-v1")}), "cart", seed=1)
    assert not flight.scene.pictures
    assert flight.step().observation
    assert "CartPole-v1 is shown as lines: no screen" in caplog.messages


def test_an_environment_that_raises_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flight = Flight(saved(tmp_path, {"cart": policy_for("CartPole-v1")}), "cart", seed=1)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("on fire")

    monkeypatch.setattr(flight._env, "step", broken)
    with pytest.raises(EnvironmentFault, match="CartPole-v1: step raised RuntimeError: on fire"):
        flight.step()
    monkeypatch.setattr(flight._env, "reset", broken)
    with pytest.raises(EnvironmentFault, match="CartPole-v1: reset raised RuntimeError: on fire"):
        flight.begin(2)
