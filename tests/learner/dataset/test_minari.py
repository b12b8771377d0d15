"""Minari's datasets as ours and back, made and read by Minari itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from actors.errors import NonFiniteError, UserError
from actors.rollout import Rollout
from actors.vectors import make_environments
from learner.dataset.dataset import Dataset, open_dataset
from learner.dataset.flying import Recorded
from learner.dataset.minari import from_minari, main, to_minari
from learner.dataset.writer import DatasetWriter
from tests.actors.examples import policy_for

minari = pytest.importorskip("minari", reason="an extra")
pytest.importorskip("h5py", reason="an extra")
pytestmark = pytest.mark.filterwarnings("ignore")  # of an author that a small dataset does not have

spaces = gymnasium.spaces
BOXES = spaces.Dict(
    {
        "eye": spaces.Box(0, 255, (8, 6, 3), np.uint8),
        "pair": spaces.Tuple((spaces.Discrete(3, start=2), spaces.Box(-1, 1, (2,), np.float64))),
    }
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path


def make(name: str, observation: Any, action: Any, data_format: str, count: int = 3, **more: Any) -> list[Any]:
    """A dataset of Minari's of random episodes, and what it was made of."""
    from minari.data_collector import EpisodeBuffer

    observation.seed(0)
    action.seed(0)
    buffers = []
    for episode in range(count):
        steps = episode + 2
        seen = [observation.sample() for _ in range(steps + 1)]
        ended = [step == steps - 1 for step in range(steps)]
        buffers.append(
            EpisodeBuffer(
                observations=together(observation, seen),
                actions=together(action, [action.sample() for _ in range(steps)]),
                rewards=[float(step) - 0.5 for step in range(steps)],
                terminations=[end and episode == 0 for end in ended],
                truncations=[end and episode == 1 for end in ended],
            )
        )
    minari.create_dataset_from_buffers(
        name,
        buffers,
        observation_space=observation,
        action_space=action,
        data_format=data_format,
        jpeg_encoding=False,
        **more,
    )
    return buffers


def together(space: Any, values: list[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: together(part, [value[name] for value in values]) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(together(part, [value[i] for value in values]) for i, part in enumerate(space))
    return np.array(values)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2, 2, (2,), np.float32)),
        (spaces.Box(-1, 1, (2, 2), np.float64), spaces.Discrete(4)),
        (spaces.Discrete(5), spaces.MultiDiscrete([2, 3])),
        (BOXES, spaces.Discrete(2, start=1)),
    ],
    ids=["vectors", "matrices", "discrete", "parts"],
)
def test_any_of_minaris_is_read(home: Path, observation: Any, action: Any, data_format: str) -> None:
    made = make("some/thing-v0", observation, action, data_format)
    dataset = from_minari("some/thing-v0", home / "ours", "Some-v0")
    assert dataset.lengths.tolist() == [2, 3, 4]
    assert dataset.terminated.tolist() == [True, False, False]
    batch = dataset.part(0)
    assert batch.truncated.tolist() == [False, True, True]  # the third was left open
    np.testing.assert_array_equal(batch.actions, np.concatenate([episode.actions for episode in made]))
    np.testing.assert_array_equal(batch.rewards, np.concatenate([episode.rewards for episode in made]))
    seen, final = batch.observations, batch.final_observations
    theirs = [episode.observations for episode in made]
    if observation is BOXES:
        pairs: Any = seen["pair"]  # type: ignore[call-overload]
        np.testing.assert_array_equal(pairs["1"], np.concatenate([each["pair"][1][:-1] for each in theirs]))
        np.testing.assert_array_equal(pairs["0"], np.concatenate([each["pair"][0][:-1] for each in theirs]))
        np.testing.assert_array_equal(seen["eye"], np.concatenate([each["eye"][:-1] for each in theirs]))  # type: ignore[call-overload]
    else:
        np.testing.assert_array_equal(seen, np.concatenate([each[:-1] for each in theirs]))
        np.testing.assert_array_equal(final, np.array([each[-1] for each in theirs]))
    assert dataset.sources == [{"policy": "minari:some/thing-v0"}]


def test_several_of_minaris_are_added_to_one_of_ours_each_once(home: Path) -> None:
    observation, action = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4)
    for name in ("some/medium-v0", "some/expert-v0"):
        make(name, observation, action, "hdf5")
        dataset = from_minari(name, home / "ours", "Some-v0")
    assert dataset.num_episodes == 6
    assert sorted(source["policy"] for source in dataset.sources) == ["minari:some/expert-v0", "minari:some/medium-v0"]
    with pytest.raises(UserError, match="has episodes of a writer 'minari-some-expert-v0' already"):
        from_minari("some/expert-v0", home / "ours", "Some-v0")


def recorded(home: Path, env_id: str) -> Dataset:
    policy = policy_for(env_id)
    spec = policy.spec
    writer = DatasetWriter(home / "flown", spec.env_id, spec.observation, spec.action, "w")
    for seed in range(2):
        environments = make_environments(env_id, 3, seed, max_episode_steps=30)
        writer.add(Rollout(environments, seed).episodes(Recorded(policy, 0.5, False, seed), 2), {"policy": "some"})
        writer.flush()
    return open_dataset(home / "flown")


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Blackjack-v1"])
def test_ours_goes_to_minari_and_comes_back(home: Path, env_id: str, data_format: Any) -> None:
    dataset = recorded(home, env_id)
    theirs = to_minari(dataset, "ours/flown-v0", data_format)
    loaded = minari.load_dataset("ours/flown-v0")
    assert loaded.total_episodes == dataset.num_episodes == 12
    assert loaded.total_steps == dataset.num_steps
    env = loaded.recover_environment()
    assert env.spec is not None
    assert env.spec.id == env_id
    assert env.observation_space == loaded.observation_space
    episode = next(iter(theirs.iterate_episodes()))
    assert env.action_space.contains(episode.actions[0])
    back = from_minari("ours/flown-v0", home / "back")
    np.testing.assert_array_equal(back.lengths, dataset.lengths)
    np.testing.assert_allclose(back.returns, dataset.returns, rtol=1e-6)
    first = dataset.part(0)
    for name in ("actions", "rewards", "segment_lengths", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(back.part(0), name)[: len(getattr(first, name))], getattr(first, name))
    assert back.form.observation.form == dataset.form.observation.form


def test_the_commands(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(home, "CartPole-v1")
    main(["out", str(home / "flown"), "--to", "ours/flown-v0"])
    main(["in", str(home / "minari" / "ours" / "flown-v0"), "--to", str(home / "back")])
    assert open_dataset(home / "back").num_episodes == 12
    assert "12 whole episodes" in (home / "back" / "README.md").read_text()
    said = capsys.readouterr().out
    assert "ours/flown-v0: 12 episodes, " in said
    for words, message in (
        (["in", "not/there-v0", "--to", str(home / "x")], "no dataset of Minari's named not/there-v0"),
        (["out", str(home / "flown"), "--to", "no name"], "Minari does not make 'no name'"),
        (["out", str(home / "nothing"), "--to", "a-v0"], "no dataset in"),
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2
        assert message in capsys.readouterr().err


def test_what_cannot_be_converted(home: Path) -> None:
    box, action = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4)
    make("aa/nameless-v0", box, action, "hdf5")
    with pytest.raises(UserError, match="aa/nameless-v0 does not say its environment: give --env"):
        from_minari("aa/nameless-v0", home / "a")
    make("aa/text-v0", box, action, "hdf5")
    metadata = home / "minari" / "aa" / "text-v0" / "data" / "metadata.json"
    text = json.dumps({"type": "Text", "max_length": 5, "min_length": 5, "charset": "abc"})
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"action_space": text}))
    with pytest.raises(UserError, match=r"its actions are Text.*: no policy of Touchdown's has such"):
        from_minari("aa/text-v0", home / "b", "Some-v0")
    metadata.write_text("{")
    with pytest.raises(UserError, match="no dataset of Minari's named aa/text-v0, or it is damaged: "):
        from_minari("aa/text-v0", home / "b", "Some-v0")
    from minari.data_collector import EpisodeBuffer

    buffer = EpisodeBuffer(
        observations=np.full((3, 3), np.nan, np.float32),
        actions=np.zeros(2, int),
        rewards=[0, 0],
        terminations=[0, 1],
        truncations=[0, 0],
    )
    minari.create_dataset_from_buffers("aa/nan-v0", [buffer], observation_space=box, action_space=action)
    with pytest.raises(NonFiniteError, match="aa/nan-v0, episode 0: observations holds a NaN"):
        from_minari("aa/nan-v0", home / "c", "Some-v0")
